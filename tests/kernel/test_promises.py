"""The pool's promises: one story each, then the clauses that a story would be too crowded with.

Everything runs on pytest-trio's mock clock, with `respool.testing.GatedAdapter` for a server.
"""

from __future__ import annotations

import functools
import math

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import respool
from respool.testing import FakeResource, GatedAdapter


async def warm(pool: respool.Pool[FakeResource], count: int = 1) -> list[FakeResource]:
    """Have `count` resources opened and left idle."""
    resources: list[FakeResource] = []

    async def borrow() -> None:
        async with pool.acquire() as resource:
            resources.append(resource)
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(borrow)
    assert pool.statistics().idle == count
    return resources


# P4, no lost wake-ups: the clauses.


async def test_whoever_may_not_wait_still_has_an_unclean_resource_reset(autojump_clock: MockClock) -> None:
    """A resource found unclean by an acquire that ends in an error is reset for the next one."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=1, max_waiting=0) as pool:
        (resource,) = await warm(pool)
        resource.dirty = True
        with pytest.raises(respool.PoolOverloaded):
            await pool.acquire().__aenter__()
        await wait_all_tasks_blocked()
        assert adapter.calls == ["open", "reset 1"]
        async with pool.acquire(timeout=0) as again:
            assert again is resource


async def test_whoever_may_not_wait_still_has_a_resource_opened_or_validated(autojump_clock: MockClock) -> None:
    """Polling with timeout=0 gets somewhere: what one acquire could not wait for is there for a later one."""
    adapter = GatedAdapter(validate="slow", open="slow")
    async with respool.open_pool(adapter, validate_after=30) as pool:
        for expected in ["open", "validate 1"]:
            with pytest.raises(respool.PoolTimeout, match=r"waited 0 s"):
                await pool.acquire(timeout=0).__aenter__()
            await trio.sleep(2)
            assert adapter.calls[-1] == expected
            async with pool.acquire(timeout=0):
                pass
            await trio.sleep(60)


async def test_a_waiter_is_provided_for_when_the_resource_validated_for_it_is_retired(
    autojump_clock: MockClock,
) -> None:
    """A resource that has become too old while it was validated makes room in the queue of what is coming."""
    adapter = GatedAdapter(validate="slow", close="slow")
    async with respool.open_pool(adapter, max_size=2, validate_after=0, max_lifetime=100, reset_timeout=60) as pool:
        await warm(pool)
        await trio.sleep(50)
        started = trio.current_time()
        adapter.slow = 55
        async with pool.acquire(timeout=math.inf) as resource:
            assert resource.number == 2
            assert trio.current_time() - started == 55


# P5, no stranger's data: the clauses.


async def test_is_clean_is_asked_after_validation_too(autojump_clock: MockClock) -> None:
    """Bytes that arrived while a resource was idle for long are noticed even if validation does not."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, validate_after=30) as pool:
        (resource,) = await warm(pool)
        await trio.sleep(60)
        resource.unread.append("a stranger's answer")
        async with pool.acquire() as other:
            assert other is not resource
            assert resource.closed
        assert pool.statistics().discards["invalid"] == 1


# P9, closing is complete: the clauses.


async def test_cancelled_leaves_the_pools_block_as_it_is(autojump_clock: MockClock) -> None:
    """Not wrapped in a group, as an open nursery of the pool's would."""

    async def cancel_in_block() -> None:
        async with respool.open_pool(GatedAdapter()) as pool:
            await warm(pool)
            scope.cancel()
            await trio.lowlevel.checkpoint()

    with trio.CancelScope() as scope, pytest.raises(trio.Cancelled) as raised:
        await cancel_in_block()
    assert raised.type is trio.Cancelled  # a group would have passed both contexts


async def test_an_error_of_the_block_outlives_a_cancellation_while_closing(autojump_clock: MockClock) -> None:
    """The cancellation is still there at the next checkpoint; the error would be gone for good."""
    adapter = GatedAdapter()

    async def fail_in_block() -> None:
        async with respool.open_pool(adapter) as pool:
            await warm(pool)
            scope.cancel()
            raise KeyError

    with trio.CancelScope() as scope:
        with pytest.raises(KeyError) as raised:
            await fail_in_block()
        assert adapter.present == 0
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert raised.type is KeyError


# P10, the pool outlives its server, and whatever its adapter does: the clauses.


async def test_a_hook_needs_no_name(autojump_clock: MockClock) -> None:
    """A hook may be any callable, such as a partial, and fail."""

    async def fail(resource: FakeResource) -> None:
        raise OSError(resource)

    class Adapter(GatedAdapter):
        validate = functools.partial(fail)

    async with respool.open_pool(Adapter(), validate_after=0) as pool:
        await warm(pool)
        async with pool.acquire() as resource:
            assert resource.number == 2


# The rest.


@pytest.mark.parametrize(("start", "idle"), [(4.3, 3.4), (7.3, 4.4), (2.6, 1.7)])
async def test_upkeep_does_not_spin_when_seconds_are_rounded(
    autojump_clock: MockClock, start: float, idle: float
) -> None:
    """``start + idle - start < idle`` in binary: what is due must be done then, or a mock clock stands still."""
    assert start + idle - start < idle
    async with respool.open_pool(GatedAdapter(), max_idle=idle) as pool:
        await trio.sleep(start - trio.current_time())
        await warm(pool)
        with trio.fail_after(60):
            await trio.sleep(idle)
        await wait_all_tasks_blocked()
        assert pool.statistics().discards["unused"] == 1


async def test_an_acquire_is_used_once(autojump_clock: MockClock) -> None:
    """Entering what `acquire` returned a second time is refused, above all while the first time is waiting."""
    async with respool.open_pool(GatedAdapter(), max_size=1) as pool:
        acquire = pool.acquire()

        async def wait() -> None:
            async with acquire:
                pass

        async with trio.open_nursery() as nursery, pool.acquire():
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match=r"call acquire\(\) again"):
                await acquire.__aenter__()
        with pytest.raises(RuntimeError, match=r"call acquire\(\) again"):
            await acquire.__aenter__()
        assert pool.statistics().idle == 1


async def test_max_waiting_counts_only_those_who_wait_for_others(autojump_clock: MockClock) -> None:
    """A pool nobody may wait for still opens its resources, and lends them after a long rest."""
    async with respool.open_pool(GatedAdapter(), max_size=2, max_waiting=0) as pool:
        for _ in range(2):
            async with pool.acquire(), pool.acquire():
                with pytest.raises(respool.PoolOverloaded, match=r"0 tasks are waiting already; 2 of 2 lent"):
                    await pool.acquire().__aenter__()
            await trio.sleep(60)
        assert pool.statistics().refused == 2
        assert pool.statistics().opened == 2
