"""Every public asynchronous operation of the kernel, cancelled at every point where Trio could.

After each point nothing was wrong at any step (`simulation.watched`), and every slot can be acquired again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from respool import LeaseRevoked, OpenFailed, Options, Pool, PoolTimeout, open_keyed_pool, open_pool
from respool.abc import Verdict
from respool.testing import CancelReport, FakeResource, GatedAdapter, GatedError, cancel_everywhere

from .simulation import borrow_all, watched


@contextlib.asynccontextmanager
async def watched_pool(adapter: GatedAdapter, options: Options) -> AsyncIterator[Pool[FakeResource]]:
    with contextlib.ExitStack() as watching:
        async with open_pool(adapter, **options) as pool:
            watching.enter_context(watched(pool, adapter))
            yield pool


async def cancel_acquire(
    adapter: GatedAdapter, options: Options, *, busy: float = 0, dirty: bool = False
) -> CancelReport:
    """Cancel one lease everywhere, with all slots held by others for the first `busy` seconds."""

    async def hold(task_status: trio.TaskStatus[None]) -> None:
        async with pool.acquire() as resource:
            task_status.started()
            resource.dirty = dirty
            await trio.sleep(busy)

    async def prepare() -> None:
        for _ in range(pool.limits.max_size if busy else 0):
            await others.start(hold)

    async def operation(_: None) -> None:
        async with pool.acquire() as resource:
            with adapter.lease(resource):
                assert await adapter.exchange(resource, "ping") == "ping"

    async def check(_: None) -> None:
        with trio.fail_after(60):
            await borrow_all(pool, adapter)
        await trio.sleep(options.get("validate_after", 0))
        statistics = pool.statistics()
        assert statistics.lent == statistics.waiting == 0

    async with watched_pool(adapter, options) as pool, trio.open_nursery() as others:
        return await cancel_everywhere(operation, prepare=prepare, check=check)
    raise AssertionError("not reached")


async def test_an_uncontended_acquire(autojump_clock: MockClock) -> None:
    """An idle resource is taken at once; cancellation comes before it, or in the block."""
    report = await cancel_acquire(GatedAdapter(), {"max_size": 2, "min_size": 2})
    assert report.points >= 5


async def test_an_acquire_that_waits_its_turn(autojump_clock: MockClock) -> None:
    """Cancelled in the queue, and just after it was handed a resource."""
    report = await cancel_acquire(GatedAdapter(), {"max_size": 2}, busy=1)
    assert report.points >= 5


async def test_an_acquire_that_waits_for_open(autojump_clock: MockClock) -> None:
    """The resource that is being opened is not lost, nor the slot."""
    adapter = GatedAdapter(open="slow")
    report = await cancel_acquire(adapter, {"max_size": 2, "max_uses": 1})
    assert report.points >= 5


async def test_an_acquire_that_waits_for_validation(autojump_clock: MockClock) -> None:
    """P6: what is being validated goes on, and serves the next."""
    adapter = GatedAdapter("ok", "slow")
    report = await cancel_acquire(adapter, {"max_size": 1, "min_size": 1, "validate_after": 0.5})
    assert report.points >= 5
    assert "validate 1" in adapter.calls


async def test_an_acquire_that_waits_for_reset(autojump_clock: MockClock) -> None:
    """The same for what the last borrower left dirty."""
    adapter = GatedAdapter(reset="slow")
    report = await cancel_acquire(adapter, {"max_size": 1}, busy=1, dirty=True)
    assert report.points >= 5
    assert "reset 1" in adapter.calls


async def test_a_cancelled_exchange_is_recovered_not_remade(autojump_clock: MockClock) -> None:
    """P5, P6: one resource lives through it all."""
    adapter = GatedAdapter(exchange="slow")
    await cancel_acquire(adapter, {"max_size": 1})
    assert adapter.opened == 1
    assert "reset 1" in adapter.calls


async def test_an_acquire_that_times_out(autojump_clock: MockClock) -> None:
    """Its own time-out and its caller's cancellation do not meet in a bad place."""
    adapter = GatedAdapter(open="never")

    async def operation() -> None:
        with contextlib.suppress(PoolTimeout):
            async with pool.acquire(timeout=1):
                raise AssertionError("nothing can be acquired")

    def check() -> None:
        assert pool.statistics().waiting == 0

    async with watched_pool(adapter, {"max_size": 1}) as pool:
        report = await cancel_everywhere(operation, check=check)
        adapter.always("open", "ok")
        await borrow_all(pool, adapter)
    assert report.points >= 3
    assert pool.statistics().timeouts + pool.statistics().cancelled <= report.points + 1


async def test_an_acquire_that_cannot_succeed(autojump_clock: MockClock) -> None:
    """A permanent failure tells the waiter, cancelled or not."""
    adapter = GatedAdapter()

    async def prepare() -> None:
        adapter.script("open", GatedError("no such database", Verdict.PERMANENT))

    async def operation(_: None) -> None:
        with contextlib.suppress(OpenFailed):
            async with pool.acquire():
                pass

    async def check(_: None) -> None:
        with contextlib.suppress(OpenFailed):
            async with pool.acquire():  # meets what is scripted, if the cancelled one did not
                pass
        await trio.sleep(10)
        await borrow_all(pool, adapter)

    async with watched_pool(adapter, {"max_size": 1, "max_uses": 1}) as pool:
        assert (await cancel_everywhere(operation, prepare=prepare, check=check)).points >= 3


@pytest.mark.parametrize("ending", ["returns", "raises"])
async def test_a_pools_whole_life(ending: str, autojump_clock: MockClock) -> None:
    """P9: opened, used by three tasks at a time, and closed, with every step of all of them a point."""
    adapters: list[GatedAdapter] = []

    async def borrow(pool: Pool[FakeResource], adapter: GatedAdapter) -> None:
        async with pool.acquire() as resource:
            with adapter.lease(resource):
                assert await adapter.exchange(resource, "ping") == "ping"

    async def operation() -> None:
        adapter = GatedAdapter()
        adapter.script("open", "ok", "error", "slow")
        adapters.append(adapter)
        try:
            async with watched_pool(adapter, {"max_size": 2, "min_size": 1}) as pool:
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(borrow, pool, adapter)
                if ending == "raises":
                    raise LookupError
        except LookupError:
            # The block's own error is worth more than a cancellation that comes after it, which is not lost either.
            await trio.lowlevel.checkpoint_if_cancelled()

    def check() -> None:
        assert adapters.pop().present == 0

    report = await cancel_everywhere(operation, check=check)
    assert report.points > 40


async def test_closing_with_leases_out(autojump_clock: MockClock) -> None:
    """P9: the end of the block waits for a lease, takes it back at last, and may be cancelled anywhere in between."""

    async def hold(
        pool: Pool[FakeResource], seconds: float, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with pool.acquire():
            task_status.started()
            await trio.sleep(seconds)

    async def operation() -> None:
        options: Options = {"max_size": 3, "drain_timeout": 2}
        async with trio.open_nursery() as borrowers, watched_pool(adapter, options) as pool:
            await borrowers.start(hold, pool, 1)
            await borrowers.start(hold, pool, 3)
            await borrowers.start(hold, pool, 3)

    def check() -> None:
        assert adapter.present == 0
        assert adapter.faults == []

    adapter = GatedAdapter(close="slow")
    report = await cancel_everywhere(operation, check=check)
    assert report.points > 30
    assert adapter.closed_forcefully > 0


@pytest.mark.parametrize("change", ["drain", "quiesce"])
async def test_changes_that_wait(change: str, autojump_clock: MockClock) -> None:
    """Cancelled anywhere, they leave a pool that goes on, once it is resumed."""
    adapter = GatedAdapter(close="slow")

    async def hold() -> None:
        async with pool.acquire():
            await trio.sleep(1)

    async def prepare() -> None:
        await borrow_all(pool, adapter)
        others.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()

    async def operation(_: None) -> None:
        await (pool.drain() if change == "drain" else pool.quiesce())

    async def check(_: None) -> None:
        pool.resume()
        await borrow_all(pool, adapter)

    async with watched_pool(adapter, {"max_size": 3}) as pool, trio.open_nursery() as others:
        report = await cancel_everywhere(operation, prepare=prepare, check=check)
    assert report.points >= 3


async def test_a_lease_with_max_hold(autojump_clock: MockClock) -> None:
    """Its own cancel scope and the caller's do not get into each other's way."""
    adapter = GatedAdapter()

    async def operation() -> None:
        with contextlib.suppress(LeaseRevoked):
            async with pool.acquire() as resource:
                with adapter.lease(resource):
                    await trio.sleep_forever()

    async def check() -> None:
        await borrow_all(pool, adapter)

    async with watched_pool(adapter, {"max_size": 2, "max_hold": 1}) as pool:
        report = await cancel_everywhere(operation, check=check)
    assert report.points >= 4


async def test_a_keyed_pools_whole_life(autojump_clock: MockClock) -> None:
    """P9: three keys under one limit, which make room for each other, and nothing is left wherever it is cancelled."""
    adapters: dict[str, GatedAdapter] = {}

    def adapter_for_key(key: str) -> GatedAdapter:
        return adapters.setdefault(key, GatedAdapter())

    async def operation() -> None:
        adapters.clear()
        async with open_keyed_pool(adapter_for_key, max_size=2) as pool:
            for key in "abca":
                async with pool.acquire(key) as resource:
                    adapter = adapters[key]
                    with adapter.lease(resource):
                        assert await adapter.exchange(resource, key) == key

    def check() -> None:
        for adapter in adapters.values():
            assert adapter.faults == []
            assert adapter.present == 0

    report = await cancel_everywhere(operation, check=check)
    assert report.points > 30


async def test_a_revocable_acquire(autojump_clock: MockClock) -> None:
    """P12: the cancel scope that ``max_hold`` needs is left in whatever way the block is."""
    report = await cancel_acquire(GatedAdapter(), {"max_size": 2, "max_hold": 30}, busy=1)
    assert report.points >= 5


async def test_an_acquire_by_key(autojump_clock: MockClock) -> None:
    """With the limit of all keys reached: nothing is left of the key, and every key can be had again."""
    adapters = {key: GatedAdapter(open="slow", close="slow") for key in "abc"}

    async def hold(key: str, seconds: float) -> None:
        async with pool.acquire(key) as resource:
            with adapters[key].lease(resource):
                await trio.sleep(seconds)

    async def prepare() -> None:
        for key in "ab":
            others.start_soon(hold, key, 2)
        await trio.testing.wait_all_tasks_blocked()

    async def operation(_: None) -> None:
        await hold("c", 1)

    async def check(_: None) -> None:
        with trio.fail_after(60):
            for key in "abc":
                await hold(key, 0)
        assert pool.statistics().waiting == 0
        assert pool.statistics().size <= 2

    async with open_keyed_pool(adapters.__getitem__, max_size=2) as pool, trio.open_nursery() as others:
        report = await cancel_everywhere(operation, prepare=prepare, check=check)
    assert report.points >= 5
    assert sum(adapter.present for adapter in adapters.values()) == 0
    assert [adapter.faults for adapter in adapters.values()] == [[], [], []]
