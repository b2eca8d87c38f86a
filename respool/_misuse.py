"""Mistakes in what a pool is given, told at once and by name; not as if a server failed, and not later."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .abc import Adapter, Instrument

__all__ = ["NotAwaitable", "OnlyEntered", "awaitable", "instruments_from", "refuse_async", "refuse_async_hooks"]

R = TypeVar("R")

_NOT_ENTERED = "acquire() lends for the length of a block: use 'async with pool.acquire(...) as resource:'"


class NotAwaitable(TypeError):
    """A hook that is to be awaited is not an async function. No retry mends that."""


class OnlyEntered:
    """What `acquire` returns: good for ``async with`` and nothing else, as whoever uses it otherwise is told."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        # So that Python says "'acquire() without async with' object has no attribute 'execute'". A __getattr__ could
        # say more, but slows each wait down by a twentieth.
        cls.__name__ = "acquire() without async with"

    if not TYPE_CHECKING:  # type checkers know these mistakes themselves

        def __await__(self) -> NoReturn:
            raise TypeError(_NOT_ENTERED)

        def __enter__(self) -> NoReturn:
            raise TypeError(_NOT_ENTERED)

        def __exit__(self, *_: object) -> NoReturn:
            raise AssertionError("unreachable: __enter__ raises")


def awaitable(returned: Awaitable[R], hook: str) -> Awaitable[R]:
    """What `hook` has returned, if it can be awaited. Only the call tells: not every function that is fit is async."""
    if not inspect.isawaitable(returned):
        raise NotAwaitable(f"{hook} must be an async function; it returned {type(returned).__name__}, not an awaitable")
    return returned


def refuse_async(function: Callable[..., object] | None, hook: str) -> None:
    """Raise TypeError for a coroutine function: what it returns is always true, and never the answer."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{hook} must not be an async function: the pool cannot await its answer")


def refuse_async_hooks(adapter: Adapter[Any]) -> None:
    """Raise TypeError if one of the adapter's synchronous hooks is not."""
    for hook in ("is_clean", "verdict"):
        refuse_async(getattr(adapter, hook), f"{type(adapter).__name__}.{hook}")


def instruments_from(given: Iterable[Instrument]) -> list[Instrument]:
    """The instruments, if that is what they are; TypeError otherwise."""
    if not isinstance(given, Iterable):
        raise TypeError(f"instruments must be a sequence of Instrument objects, not {given!r}")
    instruments = list(given)
    for instrument in instruments:
        if not isinstance(instrument, Instrument):
            raise TypeError(f"instruments must be Instrument objects, not {instrument!r}")
    return instruments
