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
    assert str(raised.value) == f"{hook} must be callable, not {type(value).__name__}"


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


class Unfit(Recorder):
    """Functions that are async where they should not be, and not where they should."""

    def open_at_once(self) -> int:
        return 1

    async def is_clean_some_day(self, number: int) -> bool:
        return True

    async def verdict_some_day(self, error: BaseException) -> Verdict:
        return Verdict.KEEP


async def test_an_open_that_is_not_async_is_told_at_once(autojump_clock: MockClock) -> None:
    """As the mistake that it is: nobody waits for it to work the next time."""
    recorder = Unfit()
    slip: Any = recorder.open_at_once
    methods = {"open": lambda _: 1, "close": Bare.close}
    for adapter, name in (
        (respool.adapter(open=slip, close=recorder.close), "open"),
        (type("Hasty", (Adapter,), methods)(), "Hasty.open"),
    ):
        async with respool.open_pool(adapter) as pool:
            with pytest.raises(respool.OpenFailed, match="trying again will not help") as raised:
                await borrow(pool)
            assert trio.current_time() == 0
        assert str(raised.value.__cause__) == f"{name} must be an async function; it returned int, not an awaitable"


async def test_an_acquire_that_is_not_entered_as_a_block_is_told_how() -> None:
    """Other pools' ``acquire`` is awaited, or returns the resource."""
    recorder = Recorder()
    adapter = respool.adapter(open=recorder.open, close=recorder.close)
    async with (
        respool.open_pool(adapter) as pool,
        respool.open_pool(adapter, max_hold=10) as revoking,
        respool.open_keyed_pool({"key": adapter}.__getitem__) as keyed,
    ):
        leases: list[Any] = [pool.acquire(), revoking.acquire(), keyed.acquire("key")]
        for number, lease in enumerate(leases, 1):
            with pytest.raises(TypeError, match=r"use 'async with pool\.acquire"):
                await lease
            with pytest.raises(TypeError, match=r"use 'async with pool\.acquire"), lease:
                pass
            with pytest.raises(
                AttributeError, match=r"'acquire\(\) without async with' object has no attribute 'execute'"
            ):
                lease.execute()
            async with lease as resource:
                assert resource == number


async def test_other_hooks_that_are_not_async_are_told_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """By name; and the resource is not lent again."""
    recorder = Recorder()
    slip: Any = lambda _: None  # noqa: E731
    adapter = respool.adapter(open=recorder.open, close=slip, reset=slip, is_clean=lambda number: number != 1)
    async with respool.open_pool(adapter) as pool:
        assert await borrow(pool) == 1
        await trio.sleep(1)
        assert await borrow(pool) == 2
    assert [message.partition("NotAwaitable: ")[2] for message in caplog.messages] == [
        f"{hook} must be an async function; it returned NoneType, not an awaitable"
        for hook in ("reset", "close", "close")
    ]


class Suspicious(Bare):
    """Believes in no resource, whatever is done to it."""

    def is_clean(self, resource: object) -> bool:
        return False


async def test_an_adapter_that_always_says_no_is_told_of_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise each lease opens a resource of its own, and nobody learns why."""
    for _ in range(2):
        async with respool.open_pool(Suspicious(), name="shop") as pool:
            for _ in range(3):
                async with pool.acquire():
                    pass
                await trio.sleep(1)
            assert pool.statistics().discards["broken"] == 3
    warning = (
        "shop: is_clean of Suspicious said no of a resource that had just been opened, and says no although reset has "
        "returned, so that every lease costs a resource: mend is_clean, or what reset leaves undone. Told once."
    )
    assert caplog.messages == [warning] * 2


async def test_resources_that_serve_once_are_nobodys_mistake(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Some are used up by a lease, as an HTTP connection that its server does not keep alive."""
    recorder = Recorder()
    used: list[int] = []
    adapter = respool.adapter(open=recorder.open, close=recorder.close, is_clean=lambda number: number not in used)
    async with respool.open_pool(adapter) as pool:
        for _ in range(3):
            async with pool.acquire() as number:
                used.append(number)
            await trio.sleep(1)
    assert recorder.opened == 3
    assert caplog.messages == []


async def test_a_function_that_returns_an_awaitable_will_do(autojump_clock: MockClock) -> None:
    """Not every function that is fit is a coroutine function."""
    recorder = Recorder()
    adapter = respool.adapter(open=lambda: recorder.open(), close=functools.partial(recorder.close))
    async with respool.open_pool(adapter) as pool:
        assert await borrow(pool) == 1


@pytest.mark.parametrize("hook", ["is_clean", "verdict"])
async def test_a_synchronous_hook_that_is_async_is_refused(hook: str) -> None:
    """Its answer, a coroutine, would always count as a yes."""
    recorder = Unfit()
    slip: Any = {hook: getattr(recorder, f"{hook}_some_day")}
    with pytest.raises(TypeError, match=f"^{hook} must not be an async function"):
        respool.adapter(open=recorder.open, close=recorder.close, **slip)
    adapter: Adapter[object] = type("Slow", (Bare,), slip)()
    with pytest.raises(TypeError, match=f"^Slow.{hook} must not be an async function"):
        respool.open_pool(adapter)
    async with respool.open_keyed_pool({"key": adapter}.__getitem__) as pool:
        with pytest.raises(TypeError, match=f"^Slow.{hook} must not be an async function"):
            await pool.acquire("key").__aenter__()


async def test_what_is_no_instrument_is_refused() -> None:
    """At once, and not when it is first to be told something."""
    for wrong, told in (
        ([respool.Instrument(), "me"], "instruments must be Instrument objects, not 'me'"),
        ([respool.Instrument], "instruments must be Instrument objects, not <class 'respool.abc.Instrument'>"),
        (5, "instruments must be a sequence of Instrument objects, not 5"),
    ):
        instruments: Any = wrong
        with pytest.raises(TypeError) as raised:
            respool.open_pool(Bare(), instruments=instruments)
        assert str(raised.value) == told
        with pytest.raises(TypeError) as raised:
            respool.open_keyed_pool(lambda _: Bare(), instruments=instruments)
        assert str(raised.value) == told


async def test_what_is_no_budget_is_refused() -> None:
    """At once."""
    budget: Any = 5
    with pytest.raises(TypeError, match="budget must be a Budget, not 5"):
        respool.open_pool(Bare(), budget=budget)


async def test_what_is_no_adapter_for_a_key_is_refused() -> None:
    """By the acquire for that key."""
    adapter_for_key: Any = {"a": Bare(), "b": 5}.get
    async with respool.open_keyed_pool(adapter_for_key) as pool, pool.acquire("a"):
        with pytest.raises(TypeError, match="adapter_for_key must return an Adapter, not 5"):
            await pool.acquire("b").__aenter__()
