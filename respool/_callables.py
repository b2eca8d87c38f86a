"""An adapter from bare functions, for one-off pools."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs

from ._misuse import awaitable, refuse_async
from .abc import Adapter, Verdict

__all__ = ["adapter"]

T = TypeVar("T")


@attrs.frozen(kw_only=True, repr=False)
class _CallablesAdapter(Adapter[T]):
    """The hooks that were given; `Adapter`'s own defaults for the rest."""

    _name: str
    _open: Callable[[], Awaitable[T]]
    _close: Callable[[T], Awaitable[None]]
    _validate: Callable[[T], Awaitable[None]] | None
    _reset: Callable[[T], Awaitable[None]] | None
    _verdict: Callable[[BaseException], Verdict] | None

    def __repr__(self) -> str:
        return f"<respool.adapter {self._name}>"

    @property
    def name(self) -> str:
        return self._name

    async def open(self) -> T:
        return await awaitable(self._open(), "open")

    async def close(self, resource: T) -> None:
        await awaitable(self._close(resource), "close")

    async def validate(self, resource: T) -> None:
        if self._validate is not None:
            await awaitable(self._validate(resource), "validate")

    async def reset(self, resource: T) -> None:
        if self._reset is not None:
            await awaitable(self._reset(resource), "reset")

    def verdict(self, error: BaseException) -> Verdict:
        return Verdict.DISCARD if self._verdict is None else self._verdict(error)


@attrs.frozen(kw_only=True, repr=False)
class _InspectingAdapter(_CallablesAdapter[T]):
    """A class of its own, because a pool does not ask an adapter that has nothing but the default `is_clean`."""

    _is_clean: Callable[[T], bool]

    def is_clean(self, resource: T) -> bool:
        return self._is_clean(resource)


def adapter(
    *,
    open: Callable[[], Awaitable[T]],  # noqa: A002  # the hook's name, as in `Adapter`
    close: Callable[[T], Awaitable[None]],
    validate: Callable[[T], Awaitable[None]] | None = None,
    reset: Callable[[T], Awaitable[None]] | None = None,
    is_clean: Callable[[T], bool] | None = None,
    verdict: Callable[[BaseException], Verdict] | None = None,
    name: str = "",
) -> Adapter[T]:
    """Make an adapter from functions, for a pool that is not worth a class.

    Each function has the contract of the `Adapter` method of its name. `name` is what the pool is called; without
    one it is called after `open`.

    Raises:
      TypeError: one of them cannot be called, or is async where it must not be.
    """
    hooks = {"open": open, "close": close, "validate": validate, "reset": reset, "is_clean": is_clean}
    for hook, function in {**hooks, "verdict": verdict}.items():
        if not callable(function) and (function is not None or hook in ("open", "close")):
            raise TypeError(f"{hook} must be callable, not {type(function).__name__}")
    refuse_async(is_clean, "is_clean")
    refuse_async(verdict, "verdict")
    make: Callable[..., Adapter[T]] = _CallablesAdapter
    if is_clean is not None:
        make = functools.partial(_InspectingAdapter, is_clean=is_clean)
    return make(
        name=name or getattr(open, "__name__", type(open).__name__),
        open=open,
        close=close,
        validate=validate,
        reset=reset,
        verdict=verdict,
    )
