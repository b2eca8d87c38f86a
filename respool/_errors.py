"""What can go wrong between a borrower and its pool, named by who has to act.

Errors of the resource itself (a query that fails) are never wrapped: they pass through the borrower's block untouched.
"""

from __future__ import annotations

import trio

__all__ = ["LeaseRevoked", "OpenFailed", "PoolClosed", "PoolDeadlock", "PoolError", "PoolOverloaded", "PoolTimeout"]


class PoolError(Exception):
    """Base of every error a pool raises on its own account. The text tells the pool's state in numbers."""


class PoolTimeout(PoolError, trio.TooSlowError):
    """No resource came free within the acquire's own timeout.

    Either leases are held too long (the text names the holders), or the pool is too small, or resources cannot be
    opened (then the text ends with the last error of `Adapter.open`, which is the ``__cause__``). Catching
    `trio.TooSlowError` catches it too.
    """


class PoolOverloaded(PoolError):
    """The pool refused, rather than let one more task wait for nothing.

    ``max_waiting`` tasks are waiting already, or the caller's deadline no longer leaves the time that a use takes. The
    server needs less work, or the caller more patience.
    """


class PoolClosed(PoolError):
    """`open_pool`'s block has ended, or is ending: your code used the pool outside it."""


class OpenFailed(PoolError):
    """No resource can be opened; the text ends with the error of `Adapter.open`, which is the ``__cause__``.

    Either the adapter says that trying again will not help, or the pool was opened with ``fail_fast``.
    """


class PoolDeadlock(PoolError):
    """Every resource is held by a task that itself waits for this pool, or for child tasks that do.

    Acquires with a ``timeout`` of their own end in `PoolTimeout` instead, and nothing is concluded while a lease is out
    that was acquired as ``transferable``.

    Your code acquires while it holds a lease. Acquire once and pass the resource on, or acquire from another pool.
    """


class LeaseRevoked(PoolError):
    """The lease lasted longer than ``max_hold``, so the pool cancelled its block."""
