"""`respool.PoolStatistics`: each field says what is so, and the counts add up."""

from __future__ import annotations

import functools
import math

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import respool
from respool import HistogramSnapshot
from respool._statistics import BOUNDS, Histogram
from respool.testing import FakeResource, GatedAdapter, GatedError

FakePool = respool.Pool[FakeResource]


async def use(pool: FakePool, seconds: float, *, dirty: bool = False) -> None:
    async with pool.acquire() as resource:
        await trio.sleep(seconds)
        resource.dirty = dirty


async def fail(pool: FakePool) -> None:
    with pytest.raises(GatedError):
        async with pool.acquire():
            raise GatedError("broken")


async def time_out(pool: FakePool, timeout: float) -> None:
    with pytest.raises(respool.PoolTimeout):
        await pool.acquire(timeout=timeout).__aenter__()


async def test_a_pool_that_did_nothing(autojump_clock: MockClock) -> None:
    """All numbers are 0; the options are told."""
    async with respool.open_pool(GatedAdapter(), name="shop", max_size=5, min_size=0) as pool:
        now = pool.statistics()
    assert (now.name, now.min_size, now.max_size) == ("shop", 0, 5)
    assert (now.size, now.idle, now.lent, now.opening, now.checking, now.resetting, now.closing) == (0,) * 7
    assert (now.waiting, now.oldest_wait, now.holders) == (0, 0.0, ())
    assert (now.acquired, now.timeouts, now.refused, now.cancelled, now.opened, now.open_failures) == (0,) * 6
    assert set(now.discards.values()) == {0}
    assert now.wait_time == now.use_time == now.open_time
    assert (now.use_time.count, now.use_time.sum, now.use_time.quantile(0.5)) == (0, 0.0, 0.0)


async def test_one_resource_in_each_state(autojump_clock: MockClock) -> None:
    """Each is counted once, and the sum is the size."""
    adapter = GatedAdapter(validate="slow", reset="slow", close="slow")
    options: respool.Options = {"max_size": 6, "validate_after": 5, "name": "shop"}
    async with respool.open_pool(adapter, **options) as pool, trio.open_nursery() as nursery:
        # One has been idle for long, and four are lent.
        for seconds in (1, 10, 10, 10, 20):
            nursery.start_soon(functools.partial(use, pool, seconds, dirty=seconds == 10))
        await trio.sleep(9)
        adapter.always("open", "never")
        nursery.start_soon(use, pool, 1)  # for which the first is validated
        await trio.sleep(0.5)
        nursery.start_soon(use, pool, 1)  # for which one is being opened
        await trio.sleep(0.25)
        now = pool.statistics()
        assert (now.idle, now.lent, now.opening, now.checking) == (0, 4, 1, 1)
        assert (now.size, now.waiting, now.oldest_wait) == (6, 2, 0.75)
        assert repr(pool) == "<respool.Pool 'shop': 4 of 6 lent, 0 idle, 1 opening, 1 checking, 2 waiting>"
        # The waiting are served; three come back unclean, and one of those cannot be reset.
        adapter.script("reset", "error")
        await trio.sleep(1)
        now = pool.statistics()
        assert (now.lent, now.resetting, now.closing, now.opening) == (2, 2, 1, 1)
        assert (now.size, now.waiting) == (6, 1)
        assert repr(pool) == "<respool.Pool 'shop': 2 of 6 lent, 0 idle, 1 opening, 2 resetting, 1 closing, 1 waiting>"
        nursery.cancel_scope.cancel()
    assert pool.statistics().size == 0
    assert repr(pool) == "<respool.Pool 'shop': closed>"


async def test_holders_longest_first(autojump_clock: MockClock) -> None:
    """Task, seconds, and no stack unless asked for."""
    async with respool.open_pool(GatedAdapter()) as pool, trio.open_nursery() as nursery:
        for name in ("first", "second", "third"):
            nursery.start_soon(functools.partial(use, pool), 10, name=name)
            await trio.sleep(1)
        holders = pool.statistics().holders
        assert [(holder.task, holder.seconds, holder.stack) for holder in holders] == [
            ("first", 3.0, None),
            ("second", 2.0, None),
            ("third", 1.0, None),
        ]
        assert str(holders[0]) == "first for 3 s"
        assert repr(pool) == "<respool.Pool 'GatedAdapter': 3 of 10 lent, 0 idle, 0 waiting>"


async def test_totals(autojump_clock: MockClock) -> None:
    """Every acquire ends in one of the counts; durations are those of the clock."""
    adapter = GatedAdapter(open="slow", slow=0.25)
    async with respool.open_pool(adapter, max_size=1, max_waiting=3) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool, 4)
            await trio.sleep(0.5)
            nursery.start_soon(use, pool, 2)
            await wait_all_tasks_blocked()
            nursery.start_soon(time_out, pool, 1)
            with trio.move_on_after(0.5):
                await use(pool, 1)
            nursery.start_soon(use, pool, 1)
            await wait_all_tasks_blocked()
            with pytest.raises(respool.PoolOverloaded):
                await use(pool, 1)
        await fail(pool)
        adapter.script("open", "error")
        await use(pool, 0.5)
        now = pool.statistics()
    assert (now.acquired, now.timeouts, now.refused, now.cancelled) == (5, 1, 1, 1)
    assert now.use_time.count == 5
    assert now.use_time.sum == pytest.approx(4 + 2 + 1 + 0 + 0.5)
    assert (now.opened, now.open_failures) == (2, 1)
    assert now.open_time.count == 2
    assert now.open_time.sum == pytest.approx(2 * 0.25)
    assert now.wait_time.count == 4
    assert {reason: count for reason, count in now.discards.items() if count} == {"broken": 1}
    assert pool.statistics().discards["closed"] == 1


async def test_a_snapshot_is_frozen(autojump_clock: MockClock) -> None:
    """It neither changes with the pool, nor can be changed."""
    async with respool.open_pool(GatedAdapter()) as pool:
        before = pool.statistics()
        await use(pool, 1)
        assert (before.acquired, before.use_time.count) == (0, 0)
        assert (pool.statistics().acquired, pool.statistics().use_time.count) == (1, 1)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            before.acquired = 5  # type: ignore[misc]
        with pytest.raises(TypeError):
            before.discards["broken"] = 5  # type: ignore[index]


def histogram(*seconds: float) -> HistogramSnapshot:
    histogram = Histogram()
    for duration in seconds:
        histogram.add(duration)
    return histogram.snapshot()


def test_histogram_buckets() -> None:
    """Bounds are inclusive, two an octave from 10 µs, and what is longer than the last has a bucket of its own."""
    assert BOUNDS[0] == 1e-5
    assert BOUNDS[2] == pytest.approx(2e-5)
    assert BOUNDS[-1] > 160
    snapshot = histogram(0.0, 1e-5, BOUNDS[3], BOUNDS[3] * 1.0001, 1000.0)
    assert snapshot.count == sum(snapshot.counts) == 5
    assert snapshot.sum == pytest.approx(1000 + 1e-5 + BOUNDS[3] * 2.0001)
    assert {number: count for number, count in enumerate(snapshot.counts) if count} == {0: 2, 3: 1, 4: 1, 49: 1}
    assert len(snapshot.counts) == len(snapshot.bounds) + 1


@pytest.mark.parametrize("fraction", [0.01, 0.5, 0.9, 0.99, 1.0])
def test_histogram_quantiles(fraction: float) -> None:
    """Never too low, and at most half an octave too high."""
    durations = [number / 1000 for number in range(1, 1001)]
    exact = durations[math.ceil(fraction * len(durations)) - 1]
    assert exact <= histogram(*durations).quantile(fraction) <= exact * math.sqrt(2) * 1.001


def test_histogram_quantiles_at_the_edges() -> None:
    """With nothing seen, with one, and beyond the last bound."""
    assert histogram().quantile(0.99) == 0.0
    assert histogram(0.5).quantile(0.0) == histogram(0.5).quantile(1.0) >= 0.5
    assert histogram(1e-5, 1e-5, 1000).quantile(0.5) == 1e-5
    assert histogram(1000.0).quantile(0.5) == math.inf
