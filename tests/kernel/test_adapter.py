"""`respool.adapter`: a pool from bare functions; and what `Adapter`'s own hooks do if they are not overridden."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import respool
from respool import Adapter, Verdict


class Recorder:
    """Functions for every hook, which write down that they were called."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.opened = 0

    async def open(self) -> int:
        self.opened += 1
        self.calls.append(f"open {self.opened}")
        return self.opened

    async def close(self, number: int) -> None:
        self.calls.append(f"close {number}")

    async def validate(self, number: int) -> None:
        self.calls.append(f"validate {number}")

    async def reset(self, number: int) -> None:
        self.calls.append(f"reset {number}")

    def is_clean(self, number: int) -> bool:
        # Not clean after its first use, until it has been reset.
        return f"reset {number}" in self.calls

    def verdict(self, error: BaseException) -> Verdict:
        self.calls.append(f"verdict {error!r}")
        return Verdict.KEEP


async def borrow(pool: respool.Pool[int], error: Exception | None = None) -> int:
    async with pool.acquire() as number:
        if error is not None:
            raise error
        return number


async def test_open_and_close_are_enough(autojump_clock: MockClock) -> None:
    """Whatever is idle is lent again, an error discards, and all is closed in the end."""
    recorder = Recorder()
    adapter = respool.adapter(open=recorder.open, close=recorder.close)
    async with respool.open_pool(adapter, validate_after=10) as pool:
        assert await borrow(pool) == await borrow(pool) == 1
        await trio.sleep(20)
        assert await borrow(pool) == 1
        with pytest.raises(KeyError):
            await borrow(pool, KeyError())
        await trio.sleep(1)
        assert await borrow(pool) == 2
    assert recorder.calls == ["open 1", "close 1", "open 2", "close 2"]


async def test_every_hook_is_called(autojump_clock: MockClock) -> None:
    """Under the contract of the method of its name."""
    recorder = Recorder()
    adapter = respool.adapter(
        open=recorder.open,
        close=recorder.close,
        validate=recorder.validate,
        reset=recorder.reset,
        is_clean=recorder.is_clean,
        verdict=recorder.verdict,
        name="numbers",
    )
    async with respool.open_pool(adapter, validate_after=10) as pool:
        assert pool.name == "numbers"
        assert await borrow(pool) == 1
        await trio.sleep(1)
        with pytest.raises(KeyError):
            await borrow(pool, KeyError("mine"))
        await trio.sleep(20)
        assert await borrow(pool) == 1
    assert recorder.calls == ["open 1", "reset 1", "verdict KeyError('mine')", "validate 1", "close 1"]


def test_the_name_is_that_of_the_function_that_opens() -> None:
    """Unless one is given; a function without a name goes by its type's."""
    recorder = Recorder()
    make = functools.partial(respool.adapter, close=recorder.close)
    assert make(open=recorder.open).name == "open"
    assert make(open=functools.partial(recorder.open)).name == "partial"
    assert make(open=recorder.open, name="numbers").name == "numbers"
    assert repr(make(open=recorder.open)) == "<respool.adapter open>"


@pytest.mark.parametrize("hook", ["open", "close", "validate", "reset", "is_clean", "verdict"])
@pytest.mark.parametrize("value", [5, "close", None])
def test_what_cannot_be_called_is_refused(hook: str, value: object) -> None:
    """At once, by name; `None` means that there is none, where there need not be one."""
    recorder = Recorder()
    hooks: Any = {"open": recorder.open, "close": recorder.close} | {hook: value}
    if value is None and hook not in ("open", "close"):
        respool.adapter(**hooks)
        return
    with pytest.raises(TypeError) as raised:
        respool.adapter(**hooks)
    assert str(raised.value) == f"{hook} must be callable, not {value!r}"


class Bare(Adapter[object]):
    """The two hooks that every adapter must have."""

    async def open(self) -> object:
        return object()

    async def close(self, resource: object) -> None:
        pass


async def test_the_defaults_of_an_adapter() -> None:
    """Believe in the resource, have nothing to undo, and trust nothing that an error came from."""
    adapter = Bare()
    resource = await adapter.open()
    await adapter.validate(resource)
    await adapter.reset(resource)
    assert adapter.is_clean(resource)
    assert adapter.verdict(KeyError()) is Verdict.DISCARD
    assert adapter.name == "Bare"


def test_an_adapter_must_open_and_close() -> None:
    """Leaving one out is noticed when the adapter is made, not when the first resource is closed."""
    incomplete: Any = type("Incomplete", (Adapter,), {"open": Bare.open})
    with pytest.raises(TypeError, match="close"):
        incomplete()


def test_verdicts_combine() -> None:
    """KEEP is the empty one."""
    assert Verdict.KEEP | Verdict.RETIRE is Verdict.RETIRE
    assert not Verdict.KEEP
    assert Verdict.DISCARD in Verdict.DISCARD | Verdict.PERMANENT
    assert Verdict.RETIRE not in Verdict.DISCARD | Verdict.PERMANENT
