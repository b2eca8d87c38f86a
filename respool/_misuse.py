"""Mistakes in what a pool is given, told at once and by name; not as if a server failed, and not later."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from .abc import Adapter, Instrument

__all__ = ["NotAwaitable", "awaitable", "instruments_from", "refuse_async", "refuse_async_hooks"]

R = TypeVar("R")


class NotAwaitable(TypeError):
    """A hook that is to be awaited is not an async function. No retry mends that."""


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
