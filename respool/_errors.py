"""What can go wrong between a borrower and its pool, named by who has to act.

Errors of the resource itself (a query that fails) are never wrapped: they pass through the borrower's block untouched.
"""

from __future__ import annotations

import trio

__all__ = ["OpenFailed", "PoolClosed", "PoolError", "PoolOverloaded", "PoolTimeout"]


class PoolError(Exception):
    """Base of every error a pool raises on its own account. The text tells the pool's state in numbers."""


class PoolTimeout(PoolError, trio.TooSlowError):
    """No resource came free within the acquire's own timeout.

    Either leases are held too long (the text names the holders), or the pool is too small, or resources cannot be
    opened (then the last error of `Adapter.open` is the ``__cause__``). Catching `trio.TooSlowError` catches it too.
    """


class PoolOverloaded(PoolError):
    """The pool refused at once, rather than let one more task wait for nothing. The server needs less work."""


class PoolClosed(PoolError):
    """`open_pool`'s block has ended, or is ending: your code used the pool outside it."""


class OpenFailed(PoolError):
    """Resources cannot be opened and trying again will not help, says the adapter; its error is the ``__cause__``."""
