"""Pools that are changed while they run, and clocks that jump."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from respool import Pool, PoolTimeout, open_keyed_pool, open_pool
from respool._clocks import ClockWatch
from respool.testing import FakeResource, GatedAdapter, cancel_everywhere

from .simulation import borrow_all, watched

FakePool = Pool[FakeResource]


async def use(pool: FakePool, seconds: float = 0, record: list[int] | None = None) -> None:
    assert isinstance(pool.adapter, GatedAdapter)
    async with pool.acquire(timeout=math.inf) as resource:
        with pool.adapter.lease(resource):
            if record is not None:
                record.append(resource.number)
            await trio.sleep(seconds)


async def warm(pool: FakePool, count: int) -> None:
    """Have so many resources idle."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(use, pool, 1)
    assert pool.statistics().idle == count


# Resize.


async def test_resize_up_serves_those_who_wait(autojump_clock: MockClock) -> None:
    """At once."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, pool, 10)
        await trio.sleep(1)
        assert (pool.statistics().lent, pool.statistics().waiting) == (1, 2)
        pool.resize(max_size=3)
        assert pool.statistics().opening == 2
        await wait_all_tasks_blocked()
        assert (pool.statistics().lent, pool.statistics().waiting) == (3, 0)
        assert pool.limits.max_size == pool.statistics().max_size == 3


async def test_resize_opens_what_min_size_asks_for(autojump_clock: MockClock) -> None:
    """And keeps it."""
    async with open_pool(GatedAdapter(), max_idle=10) as pool:
        pool.resize(min_size=2)
        await trio.sleep(100)
        assert pool.statistics().idle == 2
        pool.resize(min_size=0)
        await trio.sleep(100)
        assert pool.statistics().size == 0


async def test_resize_down_closes_the_coldest_now_and_lent_ones_at_check_in(autojump_clock: MockClock) -> None:
    """No lease is disturbed, and nobody is lent what is too much."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=5, max_opening=5) as pool, trio.open_nursery() as nursery:
        await warm(pool, 5)
        for _ in range(3):
            nursery.start_soon(use, pool, 10)
        await wait_all_tasks_blocked()
        coldest = pool._ledger.idle[0].resource.number
        pool.resize(max_size=4)
        await wait_all_tasks_blocked()
        assert adapter.calls[-1] == f"close {coldest}"
        pool.resize(max_size=2)
        await wait_all_tasks_blocked()
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().closing) == (0, 3, 0)
        for _ in range(4):
            nursery.start_soon(use, pool, 1)
        await wait_all_tasks_blocked()
        assert pool.statistics().waiting == 4
        await trio.sleep(10.5)
        assert pool.statistics().size == 2
        assert pool.statistics().discards["resized"] == 3
    assert adapter.faults == []
    assert pool.statistics().acquired == 12


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"max_size": 1}, ValueError, "reserved must be < max_size"),
        ({"min_size": 4}, ValueError, "min_size must be <= max_size"),
        ({"max_size": 0}, ValueError, "max_size must be an int >= 1"),
        ({"min_size": 2.5}, TypeError, "min_size must be an int"),
    ],
)
async def test_a_resize_that_cannot_be_leaves_everything_as_it_is(
    autojump_clock: MockClock, change: dict[str, int], error: type[Exception], message: str
) -> None:
    """The limits, and the resources."""
    async with open_pool(GatedAdapter(), min_size=1, max_size=3, reserved=1) as pool:
        await trio.sleep(1)
        limits, statistics = pool.limits, pool.statistics()
        with pytest.raises(error, match=message):
            pool.resize(**change)
        assert (pool.limits, pool.statistics()) == (limits, statistics)
        assert pool._ledger.limits is limits


# Pause and resume.


async def test_pause_and_resume(autojump_clock: MockClock) -> None:
    """Nothing is lent or opened meanwhile, leases go on, and whoever waits is served in turn afterwards."""
    adapter = GatedAdapter()
    record: list[int] = []
    async with open_pool(adapter, max_size=3) as pool, trio.open_nursery() as nursery:
        await warm(pool, 1)
        nursery.start_soon(use, pool, 5)
        await wait_all_tasks_blocked()
        pool.pause()
        for _ in range(4):
            nursery.start_soon(use, pool, 1, record)
        await trio.sleep(10)
        assert adapter.opened == 1
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().waiting) == (1, 0, 4)
        assert "paused" in repr(pool)
        with pytest.raises(PoolTimeout, match="paused"):
            await pool.acquire(timeout=5).__aenter__()
        pool.resume()
        pool.resume()
        await wait_all_tasks_blocked()
        assert (pool.statistics().lent, pool.statistics().waiting) == (3, 1)
        assert "paused" not in repr(pool)
        await trio.sleep(2)
        assert len(record) == 4
    assert adapter.faults == []


async def test_resume_checks_what_has_been_idle_for_long(autojump_clock: MockClock) -> None:
    """Or is not clean any more."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=2, validate_after=30) as pool, trio.open_nursery() as nursery:
        await warm(pool, 2)
        pool.pause()
        nursery.start_soon(use, pool)
        await trio.sleep(20)
        next(iter(adapter.resources)).dirty = True
        await trio.sleep(20)
        pool.resume()
        await trio.sleep(1)
        assert any(call.startswith("validate") for call in adapter.calls)
        await use(pool)
    assert adapter.faults == []


async def test_a_paused_pool_closes(autojump_clock: MockClock) -> None:
    """As any other."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=2) as pool:
        await warm(pool, 2)
        pool.pause()
    assert adapter.present == 0


# A new generation.


async def test_retire_all(autojump_clock: MockClock) -> None:
    """Idle ones are closed now, lent ones when they come back, one that is being opened as soon as it is open."""
    adapter = GatedAdapter(slow=5)
    adapter.script("open", "ok", "ok", "slow")
    record: list[int] = []
    async with open_pool(adapter, max_size=5) as pool, trio.open_nursery() as nursery:
        await warm(pool, 2)
        for seconds in (10, 1, 1):  # the last of them opens the third
            nursery.start_soon(use, pool, seconds)
            await wait_all_tasks_blocked()
        await trio.sleep(2.5)
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().opening) == (1, 1, 1)
        pool.retire_all()
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().opening) == (0, 1, 1)
        await use(pool, 0, record)
        assert record == [4]
        await trio.sleep(20)
        assert pool.statistics().discards["retired"] == 3
        assert {resource.number for resource in adapter.resources} == {4}
    assert adapter.faults == []


async def test_retire_all_does_not_dip_below_min_size(autojump_clock: MockClock) -> None:
    """Where max_size leaves room, the replacements begin to open in the same step."""
    adapter = GatedAdapter(close="slow")
    async with open_pool(adapter, min_size=3, max_size=6, max_opening=3) as pool:
        await trio.sleep(1)
        pool.retire_all()
        assert (pool.statistics().closing, pool.statistics().opening) == (3, 3)
        await trio.sleep(0.5)
        assert (pool.statistics().closing, pool.statistics().idle) == (3, 3)
        # Those that are lent are replaced before they come back.
        adapter.always("close", "ok")
        await trio.sleep(1)
        async with pool.acquire(), pool.acquire():
            pool.retire_all()
            await wait_all_tasks_blocked()
            assert (pool.statistics().lent, pool.statistics().idle) == (2, 3)
        await wait_all_tasks_blocked()
        assert (pool.statistics().size, pool.statistics().idle) == (3, 3)
    assert adapter.most_present <= 6


async def test_retire_all_with_no_room_to_spare(autojump_clock: MockClock) -> None:
    """Each is replaced as soon as it is closed."""
    adapter = GatedAdapter()
    async with open_pool(adapter, min_size=2, max_size=2) as pool, trio.open_nursery() as nursery:
        await trio.sleep(1)
        nursery.start_soon(use, pool, 5)
        await wait_all_tasks_blocked()
        pool.retire_all()
        await trio.sleep(1)
        assert (pool.statistics().lent, pool.statistics().idle) == (1, 1)
        await trio.sleep(5)
        assert {resource.number for resource in adapter.resources} == {3, 4}
    assert adapter.most_present == 2


async def test_retire_all_keys(autojump_clock: MockClock) -> None:
    """A keyed pool retires what any key has."""
    adapters = {key: GatedAdapter() for key in "ab"}
    async with open_keyed_pool(adapters.__getitem__) as pool:
        for key in "ab":
            async with pool.acquire(key):
                pass
        async with pool.acquire("a"):
            pool.retire_all()
            await wait_all_tasks_blocked()
            assert (adapters["a"].present, adapters["b"].present) == (1, 0)
        await wait_all_tasks_blocked()
        assert dict(pool.statistics().keys) == {}


# Drain and quiesce.


async def test_drain(autojump_clock: MockClock) -> None:
    """Lends nothing more, waits for every lease, and returns when all is closed; resume opens again for who waits."""
    adapter = GatedAdapter(close="slow")
    async with open_pool(adapter, max_size=3, min_size=1) as pool, trio.open_nursery() as nursery:
        await warm(pool, 2)
        nursery.start_soon(use, pool, 10)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        nursery.start_soon(pool.drain)
        await wait_all_tasks_blocked()
        nursery.start_soon(use, pool)
        await pool.drain()
        assert trio.current_time() - started == 11
        assert (pool.statistics().size, pool.statistics().waiting, adapter.present) == (0, 1, 0)
        await trio.sleep(100)
        assert pool.statistics().size == 0
        pool.resume()
        await wait_all_tasks_blocked()
        assert (pool.statistics().waiting, pool.statistics().idle) == (0, 1)
        assert pool.statistics().discards["quiesced"] == 2
    assert adapter.faults == []


async def test_a_drain_that_is_cancelled_leaves_the_pool_paused(autojump_clock: MockClock) -> None:
    """Until resume."""
    async with open_pool(GatedAdapter()) as pool, pool.acquire():
        with trio.move_on_after(5) as scope:
            await pool.drain()
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        with pytest.raises(PoolTimeout, match="paused"):
            await pool.acquire(timeout=1).__aenter__()
        pool.resume()
        await use(pool)


async def test_quiesce(autojump_clock: MockClock) -> None:
    """Returns when what is idle is closed; leases go on, and their resources stay."""
    adapter = GatedAdapter(close="slow")
    async with open_pool(adapter, max_size=4) as pool, trio.open_nursery() as nursery:
        await warm(pool, 3)
        nursery.start_soon(use, pool, 10)
        await wait_all_tasks_blocked()
        started = trio.current_time()
        await pool.quiesce()
        assert trio.current_time() - started == 1
        assert (pool.statistics().size, pool.statistics().lent) == (1, 1)
        assert pool.statistics().discards["quiesced"] == 2
        await use(pool)
        await trio.sleep(20)
        assert pool.statistics().idle == 2
    assert adapter.faults == []


async def test_drain_and_quiesce_are_checkpoints(autojump_clock: MockClock) -> None:
    """Even with nothing to wait for."""
    async with open_pool(GatedAdapter()) as pool:
        with assert_checkpoints():
            await pool.quiesce()
        with assert_checkpoints():
            await pool.drain()


# Clocks that jump.


async def test_a_clock_that_jumped_makes_every_idle_resource_suspect(autojump_clock: MockClock) -> None:
    """Each is validated before its next lease, once; what is opened later is trusted."""
    ahead = [0.0, 0.0]  # wall clock and boot time, against the monotonic clock
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=4, validate_after=math.inf) as pool:
        pool._ledger.clock_jumped = ClockWatch(lambda: tuple(ahead)).jumped
        await warm(pool, 3)
        await use(pool)
        await trio.sleep(1)
        assert adapter.calls == ["open"] * 3
        ahead[1] += 3600  # suspended for an hour
        adapter.script("validate", "ok", "error")
        await warm(pool, 3)
        calls = adapter.calls[3:]
        assert sum(call.startswith("validate") for call in calls) == 3
        assert pool.statistics().discards["invalid"] == 1
        seen = len(adapter.calls)
        await trio.sleep(1)
        await warm(pool, 3)
        assert adapter.calls[seen:] == []
        ahead[0] -= 60  # the wall clock was set back
        await trio.sleep(1)
        await use(pool)
        assert adapter.calls[seen:][0].startswith("validate")
    assert adapter.faults == []


@pytest.mark.parametrize(("steps", "jumped"), [((0.4, 0.4, 0.4), False), ((1.5,), True), ((-1.5,), True)])
def test_clock_watch(steps: tuple[float, ...], jumped: bool) -> None:
    """Clocks that are slewed apart slowly are not taken for a jump; and a jump is told once."""
    ahead = [0.0]
    watch = ClockWatch(lambda: (ahead[0],))
    answers = []
    for step in steps:
        ahead[0] += step
        answers.append(watch.jumped())
    assert any(answers) is jumped
    assert not watch.jumped()


# Cancelled everywhere.


async def drain_and_resume(pool: FakePool) -> None:
    await pool.drain()
    pool.resume()


async def wait_for_resume(pool: FakePool) -> None:
    pool.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        await trio.sleep(1)
        pool.resume()


async def wait_for_a_larger_pool(pool: FakePool) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, pool, 2)
        await trio.sleep(1)
        pool.resize(max_size=3)
    pool.resize(max_size=2)


async def wait_while_all_is_retired(pool: FakePool) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, pool, 1)
        await trio.sleep(0.5)
        pool.retire_all()


async def wait_while_a_clock_jumps(pool: FakePool) -> None:
    pool._ledger.clock_jumped = iter([True, False, False, False, False]).__next__
    await use(pool, 1)
    await use(pool, 1)


@pytest.mark.parametrize(
    "operation",
    [
        Pool.quiesce,
        drain_and_resume,
        wait_for_resume,
        wait_for_a_larger_pool,
        wait_while_all_is_retired,
        wait_while_a_clock_jumps,
    ],
)
async def test_cancelled_everywhere(
    autojump_clock: MockClock, operation: Callable[[FakePool], Awaitable[None]]
) -> None:
    """Nothing goes wrong at any step, and afterwards every slot can be acquired again."""
    adapter = GatedAdapter(open="slow", close="slow", validate="slow")

    async def prepare() -> None:
        await warm(pool, 2)
        nursery.start_soon(use, pool, 0.5)
        await wait_all_tasks_blocked()

    async def check(_: None) -> None:
        pool._ledger.clock_jumped = bool
        pool.resume()
        pool.resize(max_size=2)
        with trio.fail_after(60):
            await borrow_all(pool, adapter)
            await trio.sleep(5)
        assert pool.statistics().lent == pool.statistics().waiting == 0

    async def change(_: None) -> None:
        await operation(pool)

    async with open_pool(adapter, max_size=2) as pool, trio.open_nursery() as nursery:
        watching = watched(pool, adapter)
        watching.__enter__()
        report = await cancel_everywhere(change, prepare=prepare, check=check)
    watching.__exit__(None, None, None)
    assert report.points >= 3
