"""What instruments are told, and what a pool says of itself."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from respool import (
    Budget,
    Instrument,
    LeaseRevoked,
    OpenFailed,
    Pool,
    PoolClosed,
    PoolDeadlock,
    PoolOverloaded,
    PoolTimeout,
    open_keyed_pool,
    open_pool,
)
from respool._entry import Discard
from respool.abc import Verdict
from respool.testing import FakeResource, GatedAdapter, GatedError

FakePool = Pool[FakeResource]

EVENTS = ("acquired", "returned", "refused", "cancelled", "opened", "open_failed", "discarded", "closed", "recovered")
HOOKS = ("started", *EVENTS, "ended")


class Recorder(Instrument):
    """Writes down what it is told: the hook, and what comes with it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.pools: set[FakePool] = set()

    def take(self) -> list[tuple[Any, ...]]:
        """What it was told since the last time."""
        told, self.told = self.told, []
        return told


def _hook(name: str) -> Any:
    def hook(self: Recorder, pool: FakePool, *details: object) -> None:
        self.pools.add(pool)
        if name in EVENTS:
            self.told.append((name, *details))

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _hook(_name))


async def use(pool: FakePool, seconds: float = 0, error: Exception | None = None) -> None:
    async with pool.acquire():
        await trio.sleep(seconds)
        if error is not None:
            raise error


def test_the_hooks_are_all_there_are() -> None:
    """A hook that is added must be added to these tests."""
    assert {name for name in vars(Instrument) if not name.startswith("_")} == set(HOOKS)


async def test_a_lease_that_goes_well(autojump_clock: MockClock) -> None:
    """Opened, acquired after a wait or at once, returned."""
    recorder = Recorder()
    async with open_pool(GatedAdapter(open="slow"), instruments=[recorder]) as pool:
        await use(pool, 2)
        assert recorder.take() == [("opened", 1.0), ("acquired", 1.0), ("returned", 2.0, None)]
        await use(pool, 3)
        assert recorder.take() == [("acquired", 0.0), ("returned", 3.0, None)]
    assert recorder.take() == [("discarded", "closed"), ("closed", "closed", 5.0)]
    assert recorder.pools == {pool}


async def test_a_lease_that_ends_in_an_error(autojump_clock: MockClock) -> None:
    """`returned` has the error itself; and then what becomes of the resource."""
    recorder = Recorder()
    async with open_pool(GatedAdapter(), instruments=[recorder]) as pool:
        error: Exception = KeyError("mine")
        with pytest.raises(KeyError):
            await use(pool, 1, error)
        assert recorder.take()[2:] == [("returned", 1.0, error)]
        error = GatedError("broken")
        with pytest.raises(GatedError):
            await use(pool, 1, error)
        assert sorted(recorder.take()[1:], key=str) == [("discarded", "broken"), ("returned", 1.0, error)]
        await trio.sleep(1)
        assert recorder.take() == [("closed", "broken", 2.0)]
        with trio.move_on_after(5):
            await use(pool, math.inf)
        (*_, (hook, used, cancelled)) = recorder.take()
        assert (hook, used, type(cancelled)) == ("returned", 5.0, trio.Cancelled)


async def test_a_revoked_lease_is_returned_once(autojump_clock: MockClock) -> None:
    """After max_hold."""
    recorder = Recorder()
    async with open_pool(GatedAdapter(), max_hold=10, instruments=[recorder]) as pool:
        with pytest.raises(LeaseRevoked):
            await use(pool, 20)
        returned = [told for told in recorder.take() if told[0] == "returned"]
        assert [used for _, used, _ in returned] == [10.0]


async def test_a_recovered_resource(autojump_clock: MockClock) -> None:
    """One that was reset, or validated; not one that could not be."""
    recorder = Recorder()
    adapter = GatedAdapter()
    async with open_pool(adapter, validate_after=30, instruments=[recorder]) as pool:
        async with pool.acquire() as resource:
            resource.dirty = True
        await wait_all_tasks_blocked()
        assert recorder.take()[3:] == [("recovered",)]
        await trio.sleep(40)
        await use(pool)
        assert recorder.take() == [("recovered",), ("acquired", 0.0), ("returned", 0.0, None)]
        await trio.sleep(40)
        adapter.script("validate", "error")
        await use(pool)
        assert sorted(recorder.take()[:3]) == [("closed", "invalid", 80.0), ("discarded", "invalid"), ("opened", 0.0)]
        async with pool.acquire() as resource:
            resource.dirty = True
            adapter.script("reset", "error")
        await wait_all_tasks_blocked()
        assert recorder.take()[-2:] == [("discarded", "broken"), ("closed", "broken", 0.0)]


async def test_a_resource_is_closed_for_a_reason_at_an_age(autojump_clock: MockClock) -> None:
    """When its closing is over, however it ends; its age counts from when it was open."""
    recorder = Recorder()
    adapter = GatedAdapter(open="slow", close="slow")
    adapter.script("close", "slow", "error", "never")
    async with open_pool(adapter, max_uses=1, close_timeout=5, instruments=[recorder]) as pool:
        for closing in (1, 0, 5):
            await use(pool, 3)
            assert recorder.take()[2:] == [("discarded", "used up"), ("returned", 3.0, None)]
            await trio.sleep(closing)
            await wait_all_tasks_blocked()
            assert recorder.take() == [("closed", "used up", 3.0 + closing)]


async def test_an_open_that_fails(autojump_clock: MockClock) -> None:
    """Each attempt."""
    recorder = Recorder()
    adapter = GatedAdapter()
    errors = [OSError("refused"), OSError("again")]
    adapter.script("open", *errors)
    async with open_pool(adapter, instruments=[recorder]) as pool:
        await use(pool)
        assert [told for told in recorder.take() if told[0] in ("open_failed", "opened")] == [
            ("open_failed", errors[0]),
            ("open_failed", errors[1]),
            ("opened", 0.0),
        ]


async def test_refusals(autojump_clock: MockClock) -> None:
    """Every acquire that ends in an error of the pool's is told, with the error that is raised, once."""
    recorder = Recorder()
    adapter = GatedAdapter()
    raised: list[BaseException] = []

    async def expect(kind: type[Exception], timeout: float | None = None) -> None:
        with pytest.raises(kind) as caught:
            await pool.acquire(timeout=timeout).__aenter__()
        raised.append(caught.value)

    async with open_pool(adapter, max_size=1, max_waiting=1, instruments=[recorder]) as pool:
        adapter.script("open", GatedError("no such database", Verdict.PERMANENT))
        await expect(OpenFailed)
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool, 10)
            await wait_all_tasks_blocked()
            nursery.start_soon(expect, PoolTimeout, 2)
            await wait_all_tasks_blocked()
            await expect(PoolOverloaded)
        async with pool.acquire():
            await expect(PoolDeadlock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool, 10)
            await wait_all_tasks_blocked()
            nursery.start_soon(expect, PoolClosed)
            await wait_all_tasks_blocked()
            pool._ledger.close()
            for lease in list(pool._ledger.queue):  # as the end of the block does
                pool._ledger.dismiss(lease, pool._closed_error())
    kinds = [type(error) for error in raised]
    assert kinds == [OpenFailed, PoolOverloaded, PoolTimeout, PoolDeadlock, PoolClosed]
    assert [told for told in recorder.take() if told[0] == "refused"] == [("refused", error) for error in raised]


async def test_a_refusal_for_want_of_time(autojump_clock: MockClock) -> None:
    """It is told as it is raised."""
    recorder = Recorder()
    async with open_pool(GatedAdapter(), max_size=1, instruments=[recorder]) as pool, trio.open_nursery() as nursery:
        for _ in range(10):
            await use(pool, 1)
        pool._ledger.take_stock()
        nursery.start_soon(use, pool, 30)
        nursery.start_soon(use, pool, 30)
        await wait_all_tasks_blocked()
        recorder.take()
        with pytest.raises(PoolOverloaded) as raised:
            with trio.move_on_after(5):
                await use(pool)
        assert recorder.take() == [("refused", raised.value)]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait(autojump_clock: MockClock) -> None:
    """With how long it was."""
    recorder = Recorder()
    async with open_pool(GatedAdapter(open="never"), instruments=[recorder]) as pool:
        with trio.move_on_after(3):
            await use(pool)
        assert recorder.take() == [("cancelled", 3.0)]


async def test_every_reason_to_discard_is_told(autojump_clock: MockClock) -> None:
    """By the word that the statistics count it under."""
    told: set[str] = set()
    for reason in Discard:
        recorder = Recorder()
        async with provoke(reason, recorder) as pool:
            pass
        reasons = [details[0] for hook, *details in recorder.take() if hook == "discarded"]
        assert reason.value in reasons
        assert {word: reasons.count(word) for word in reasons} == {
            word: count for word, count in pool.statistics().discards.items() if count
        }
        told |= set(reasons)
    assert told == {reason.value for reason in Discard}


class provoke:  # noqa: N801 # a function, to whoever uses it
    """A pool, in the course of whose life a resource is discarded for the given reason."""

    def __init__(self, reason: Discard, recorder: Recorder) -> None:
        self.reason = reason
        self.budget = Budget(1)
        self.adapter = GatedAdapter()
        self.cm = open_pool(
            self.adapter,
            budget=self.budget,
            instruments=[recorder],
            max_uses=2 if reason is Discard.USED_UP else math.inf,
            max_lifetime=5 if reason is Discard.EXPIRED else 1000,
            max_idle=5 if reason is Discard.UNUSED else 1000,
            validate_after=5 if reason is Discard.INVALID else 1000,
            min_size=0,
        )

    async def __aenter__(self) -> FakePool:
        pool = await self.cm.__aenter__()
        await use(pool)
        await trio.sleep(10)
        match self.reason:
            case Discard.BROKEN:
                with pytest.raises(GatedError):
                    await use(pool, 0, GatedError("broken"))
            case Discard.INVALID:
                self.adapter.script("validate", "error")
                await use(pool)
            case Discard.RETIRED:
                pool.retire_all()
            case Discard.QUIESCED:
                await pool.quiesce()
            case Discard.RESIZED:
                pool._ledger.budget = None  # a budget of one cannot be too large
                async with open_pool(self.adapter, max_size=2, instruments=pool._instruments) as larger:
                    async with larger.acquire(), larger.acquire():
                        pass
                    larger.resize(max_size=1)
                    await wait_all_tasks_blocked()
                    pool._ledger.discards.update(larger._ledger.discards)
                pool._ledger.discards[Discard.CLOSED] += 1
            case Discard.MADE_ROOM:
                async with open_pool(self.adapter, budget=self.budget) as other:
                    await use(other)
            case _:
                await use(pool)
        return pool

    async def __aexit__(self, *exc_info: object) -> None:
        await self.cm.__aexit__(*exc_info)  # type: ignore[arg-type]


async def soil(pool: FakePool) -> None:
    async with pool.acquire() as resource:
        resource.dirty = True
        await trio.sleep(10)


async def test_an_instrument_that_raises(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and detached; no borrower feels it, and the others are told as before."""
    for hook in HOOKS:
        caplog.clear()
        faulty, before, after = Recorder(), Recorder(), Recorder()
        calls = 0

        def fail(pool: FakePool, *details: object) -> None:
            nonlocal calls
            calls += 1
            raise LookupError("faulty")

        setattr(faulty, hook, fail)
        adapter = GatedAdapter()
        adapter.script("open", "error")
        async with open_pool(adapter, max_size=1, instruments=[before, faulty, after]) as pool:
            for _ in range(2):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(soil, pool)
                    await trio.sleep(0.5)
                    with pytest.raises(PoolTimeout):
                        await pool.acquire(timeout=1).__aenter__()
                    with trio.move_on_after(1):
                        await use(pool)
        assert before.told == after.told
        assert {told[0] for told in before.told} == set(EVENTS)
        assert calls == 1
        told = [message for message in caplog.messages if "is detached" in message]
        assert [message.partition(" failed ")[2] for message in told] == [f"in {hook}() and is detached"]
        if hook in EVENTS:
            assert len(faulty.told) == [name for name, *_ in before.told].index(hook)


async def test_instruments_of_a_keyed_pool(autojump_clock: MockClock) -> None:
    """Are told of every key's pool."""
    recorder = Recorder()
    adapters = {key: GatedAdapter() for key in "ab"}
    async with open_keyed_pool(adapters.__getitem__, instruments=[recorder]) as pool:
        for key in "ab":
            async with pool.acquire(key):
                pass
    told = [event for event, *_ in recorder.take()]
    assert told == [*["opened", "acquired", "returned"] * 2, *["discarded"] * 2, *["closed"] * 2]
    assert {pool.adapter for pool in recorder.pools} == set(adapters.values())


async def test_free_when_absent(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease in a pool without instruments makes no call for them."""
    async with open_pool(GatedAdapter()) as pool:
        await use(pool)

        def told(*_: object) -> None:
            raise AssertionError("called for nothing")

        monkeypatch.setattr(Pool, "_tell", told)
        await use(pool)
        monkeypatch.undo()


async def test_repr(autojump_clock: MockClock) -> None:
    """A pool's state in a line."""
    adapter = GatedAdapter()
    async with open_pool(adapter, name="shop", max_size=4) as pool, trio.open_nursery() as nursery:
        assert repr(pool) == "<respool.Pool 'shop': 0 of 4 lent, 0 idle, 0 waiting>"
        adapter.script("open", "ok", "ok", "ok", "slow")
        adapter.always("reset", "slow")
        async with pool.acquire(), pool.acquire(), pool.acquire() as resource:
            resource.dirty = True
        nursery.start_soon(use, pool, 5)
        nursery.start_soon(use, pool, 5)
        nursery.start_soon(use, pool, 5)
        await wait_all_tasks_blocked()
        assert repr(pool) == "<respool.Pool 'shop': 2 of 4 lent, 0 idle, 1 opening, 1 resetting, 1 waiting>"
        pool.pause()
        assert repr(pool).endswith("1 waiting, paused>")
        pool.resume()
        await trio.sleep(10)
        assert repr(pool) == "<respool.Pool 'shop': 0 of 4 lent, 4 idle, 0 waiting>"
    assert repr(pool) == "<respool.Pool 'shop': closed>"
