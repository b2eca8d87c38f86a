"""One test for each bug that a sweep, a simulation or a user has found in the kernel."""

from __future__ import annotations

import gc
import math
import weakref
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from respool import Budget, KeyedPool, Pool, PoolOverloaded, PoolTimeout, Priority, adapter, open_keyed_pool, open_pool
from respool.testing import FakeResource, GatedAdapter, GatedError


async def test_an_idle_resource_is_checked_for_a_waiter_although_another_is_being_opened(
    autojump_clock: MockClock,
) -> None:
    """P4, P7. It stayed idle while the waiter sat out a connect that never came."""
    adapter = GatedAdapter()
    adapter.script("open", "ok", "never")
    async with open_pool(adapter, min_size=2, validate_after=1) as pool:
        await trio.sleep(2)
        async with pool.acquire(timeout=0.5):
            assert adapter.calls == ["open", "open", "validate 1"]


async def use(pool: Pool[FakeResource], seconds: float) -> None:
    async with pool.acquire(timeout=math.inf):
        await trio.sleep(seconds)


async def test_max_hold_lets_those_be_who_keep_it(autojump_clock: MockClock) -> None:
    """A block that ended in time ended in LeaseRevoked."""
    async with open_pool(GatedAdapter(), max_hold=10) as pool:
        await use(pool, 9)


async def test_a_lease_with_max_hold_whose_resource_was_closed_at_the_hand_over(autojump_clock: MockClock) -> None:
    """It entered a second cancel scope, and never left the first."""

    class Shared(GatedAdapter):
        leases_per_resource = 2

    async with open_pool(Shared(leases=2), max_size=1, max_hold=10) as pool, trio.open_nursery() as nursery:
        both_hold = trio.Event()

        async def break_it() -> None:
            with pytest.raises(GatedError):
                await hold_and_fail()

        async def hold_and_fail() -> None:
            async with pool.acquire():
                await both_hold.wait()
                raise GatedError("broken")

        async def hand_over() -> None:
            async with pool.acquire():
                await both_hold.wait()

        for _ in range(10):  # the order in which Trio runs tasks is random: some of these meet the closed resource
            nursery.start_soon(hand_over)
            await wait_all_tasks_blocked()
            nursery.start_soon(break_it)
            await wait_all_tasks_blocked()
            nursery.start_soon(use, pool, 1)
            await wait_all_tasks_blocked()
            both_hold.set()
            await trio.sleep(5)
            both_hold = trio.Event()
        assert pool.statistics().leases == 0


async def test_drain_ends_although_min_size_asks_for_more(autojump_clock: MockClock) -> None:
    """What was closed was replaced at once, and the pool was never empty."""
    async with open_pool(GatedAdapter(open="slow"), min_size=2) as pool:
        await trio.sleep(5)
        with trio.fail_after(10):
            await pool.drain()
        await trio.sleep(5)
        assert pool.statistics().size == 0
        pool.resume()
        await trio.sleep(5)
        assert pool.statistics().idle == 2


async def test_uses_too_long_to_measure_are_not_taken_for_endless(autojump_clock: MockClock) -> None:
    """Beyond the histogram's last bound, whoever had a deadline was refused as hopeless."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(use, pool, 200)
        await trio.sleep(450)
        with trio.fail_after(1000):
            await use(pool, 1)


@pytest.mark.parametrize(("start", "timeout"), [(4.3, 3.4), (7.3, 4.4), (2.6, 1.7)])
async def test_a_time_out_is_one_however_seconds_are_rounded(
    autojump_clock: MockClock, start: float, timeout: float
) -> None:
    """``start + timeout - start < timeout`` in binary: it was told as the fault of its caller's deadline."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 20)
        await trio.sleep(start)
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=timeout).__aenter__()


async def test_a_budget_too_small_for_min_size_is_told_as_it_is() -> None:
    """It came in an ExceptionGroup."""
    with pytest.raises(ValueError, match="must add up to less than its max_size"):
        await open_pool(GatedAdapter(), min_size=5, budget=Budget(5)).__aenter__()


async def test_what_ends_the_block_of_a_keyed_pool_leaves_it_as_it_is(autojump_clock: MockClock) -> None:
    """A cancellation came in a group, and hid the block's own error."""
    adapter = GatedAdapter(close="slow")

    def adapter_for(key: str) -> GatedAdapter:
        return adapter

    async def cancel_and(error: Exception | None) -> None:
        async with open_keyed_pool(adapter_for) as pool:
            async with pool.acquire("key"):
                pass
            scope.cancel()
            if error is not None:
                raise error

    for error, expected in [(None, trio.Cancelled), (KeyError(), KeyError)]:
        with trio.CancelScope() as scope, pytest.raises(expected) as raised:
            await cancel_and(error)
        assert raised.type is expected  # a group would have passed both contexts
        assert adapter.present == 0


async def test_all_who_will_share_what_is_being_opened_may_wait_for_it(autojump_clock: MockClock) -> None:
    """``max_waiting`` counted one task for each resource that was coming, however many it would serve."""
    adapter = GatedAdapter(leases=3)

    async def borrow() -> None:
        async with pool.acquire():
            await trio.sleep(1)

    async with open_pool(adapter, max_size=1, max_waiting=0) as pool, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(borrow)
    assert pool.statistics().refused == 0


async def test_an_idle_resource_stays_if_min_size_needs_it(autojump_clock: MockClock) -> None:
    """``max_idle`` never leaves fewer than ``min_size``, which would be closed and opened again for ever."""
    adapter = GatedAdapter()
    async with open_pool(adapter, min_size=2, max_idle=1):
        await trio.sleep(60)
        assert adapter.opened == 2


async def test_closing_does_not_wait_for_an_open_that_nobody_needs(autojump_clock: MockClock) -> None:
    """P9. It is cut short at once."""
    adapter = GatedAdapter(open="never")
    started = trio.current_time()
    async with open_pool(adapter, min_size=1):
        await trio.testing.wait_all_tasks_blocked()
    assert trio.current_time() == started
    assert adapter.present == 0


async def test_a_shared_resource_is_not_reset_while_somebody_holds_it(autojump_clock: MockClock) -> None:
    """Undoing one borrower's traces must wait until nobody else is in the middle of something."""
    adapter = GatedAdapter(leases=2)
    async with open_pool(adapter, max_size=1) as pool, pool.acquire() as resource, trio.open_nursery() as nursery:
        with adapter.lease(resource):
            async with pool.acquire():
                resource.dirty = True
            await wait_all_tasks_blocked()
            assert adapter.calls == ["open"]
        nursery.cancel_scope.cancel()
    assert adapter.faults == []


async def test_a_pool_made_smaller_closes_what_is_too_many(autojump_clock: MockClock) -> None:
    """Idle resources at once, and lent ones when they come back."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=4) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(use, pool, 0)
            nursery.start_soon(use, pool, 1)
            await trio.sleep(0.5)
            assert adapter.present == 4
            pool.resize(max_size=1)
            await wait_all_tasks_blocked()
            assert adapter.present == 1
        async with trio.open_nursery() as nursery:
            pool.resize(max_size=2)
            nursery.start_soon(use, pool, 1)
            nursery.start_soon(use, pool, 1)
            await trio.sleep(0.5)
            pool.resize(max_size=1)
        await wait_all_tasks_blocked()
        assert adapter.present == 1


async def test_a_pool_made_smaller_does_not_count_on_what_leaves_anyway(autojump_clock: MockClock) -> None:
    """What it doomed for being too many had partly been doomed before, and the pool stayed too large for good."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=40, max_opening=40) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(use, pool, 1)
            await wait_all_tasks_blocked()
            pool.retire_all()
            for _ in range(20):
                nursery.start_soon(use, pool, 1)
            await wait_all_tasks_blocked()
            pool.resize(max_size=1)
        await wait_all_tasks_blocked()
        assert adapter.present == 1


async def test_a_pool_made_larger_serves_those_who_wait(autojump_clock: MockClock) -> None:
    """At once, not when somebody comes back or upkeep looks around."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 10)
        nursery.start_soon(use, pool, 10)
        await wait_all_tasks_blocked()
        pool.resize(max_size=2)
        await wait_all_tasks_blocked()
        assert pool.statistics().lent == 2
        nursery.cancel_scope.cancel()


async def test_a_shared_resource_is_not_lent_while_it_is_reset(autojump_clock: MockClock) -> None:
    """It had capacity to spare a moment before."""

    class Shared(GatedAdapter):
        @property
        def leases_per_resource(self) -> int:
            return 2

    shared = Shared()
    shared.always("reset", "slow")
    async with open_pool(shared, max_size=1) as pool:
        async with pool.acquire() as resource:
            resource.dirty = True
        started = trio.current_time()
        async with pool.acquire() as resource:
            assert not resource.dirty
            assert trio.current_time() == started + shared.slow


async def test_a_pool_in_line_for_more_gives_way_to_one_that_has_less(autojump_clock: MockClock) -> None:
    """Else the budget's line never moves, once a pool with plenty stands first in it."""
    budget = Budget(6)
    served = {"one": 0, "other": 0}
    async with (
        open_pool(GatedAdapter(), budget=budget, acquire_timeout=math.inf) as one,
        open_pool(GatedAdapter(), budget=budget, acquire_timeout=math.inf) as other,
        trio.open_nursery() as nursery,
    ):

        async def use(pool: Pool[FakeResource], name: str) -> None:
            while True:
                async with pool.acquire():
                    await trio.sleep(1)
                    served[name] += 1

        nursery.start_soon(use, other, "other")
        await trio.sleep(0.1)
        for _ in range(20):
            nursery.start_soon(use, one, "one")
        await trio.sleep(0.1)
        for _ in range(20):
            nursery.start_soon(use, other, "other")
        await trio.sleep(60)
        assert abs(one.statistics().size - other.statistics().size) <= 1
        nursery.cancel_scope.cancel()
    assert served["other"] > served["one"] / 2


async def test_min_size_is_filled_as_soon_as_the_budget_has_room(autojump_clock: MockClock) -> None:
    """Although nobody waits."""
    budget = Budget(2)
    async with open_pool(GatedAdapter(), budget=budget, max_idle=5) as one:
        async with one.acquire(), one.acquire():
            other_pool = open_pool(GatedAdapter(), min_size=1, budget=budget)
            other = await other_pool.__aenter__()
            await trio.sleep(1)
            assert other.statistics().size == 0
        await trio.sleep(60)
        assert other.statistics().idle == 1
        await other_pool.__aexit__(None, None, None)


async def test_max_waiting_does_not_count_who_waits_for_the_pool_alone(autojump_clock: MockClock) -> None:
    """A resource that is being reset or replaced is nobody else's."""
    gated = GatedAdapter()
    gated.always("close", "slow")
    async with open_pool(gated, max_size=1, max_uses=1, max_waiting=0) as pool:
        for _ in range(3):
            async with pool.acquire():
                pass


async def test_a_hook_that_ends_the_program_leaves_the_budget_its_room(autojump_clock: MockClock) -> None:
    budget = Budget(1)

    async def give_up() -> None:
        raise SystemExit(3)

    async with open_pool(GatedAdapter(), budget=budget) as survivor:
        with pytest.raises(BaseExceptionGroup):
            async with open_pool(adapter(open=give_up, close=give_up_closing), budget=budget) as pool, pool.acquire():
                pass
        async with survivor.acquire(timeout=1):
            assert budget.size == 1


async def give_up_closing(_: None) -> None:
    """Never called: nothing is ever opened."""


async def test_a_wait_with_a_time_out_of_its_own_is_no_deadlock(autojump_clock: MockClock) -> None:
    """Its caller has said what to do."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, pool.acquire():
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=0.5).__aenter__()


async def test_the_urgent_are_cancelled_too_where_a_shared_resource_has_a_lease_to_spare(
    autojump_clock: MockClock,
) -> None:
    """They got it, whatever had become of their caller, while others waited who may not have it."""

    class Shared(GatedAdapter):
        leases_per_resource = 2

    async with (
        open_pool(Shared(leases=2), max_size=2, min_size=2, reserved=1) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(3):
            nursery.start_soon(use, pool, 10)
            await wait_all_tasks_blocked()
        assert (pool.statistics().leases, pool.statistics().waiting) == (2, 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.acquire(priority=Priority.URGENT).__aenter__()
        assert scope.cancelled_caught


async def test_max_waiting_does_not_count_on_what_is_reserved_for_others(autojump_clock: MockClock) -> None:
    async with open_pool(GatedAdapter(), max_size=2, reserved=1, max_waiting=0) as pool, pool.acquire():
        with pytest.raises(PoolOverloaded):
            await pool.acquire(timeout=1).__aenter__()
        async with pool.acquire(priority=Priority.URGENT):
            pass


async def test_an_acquire_for_a_key_is_for_one_lease(autojump_clock: MockClock) -> None:
    """P2. Used again within its own block, it forgot the first lease, which nothing returned then."""
    keyed: AbstractAsyncContextManager[KeyedPool[str, FakeResource]] = open_keyed_pool(lambda _: GatedAdapter())
    async with keyed as pool:
        once = pool.acquire("key")
        async with once:
            with pytest.raises(RuntimeError, match="used already"):
                await once.__aenter__()
        assert pool.statistics().keys["key"].leases == 0


async def test_a_time_out_frees_what_its_caller_held_at_once(autojump_clock: MockClock) -> None:
    """The error held itself, by way of its traceback, until the garbage collector came."""

    class Treasure:
        """Held by the frame of the caller."""

    async def wait_in_vain() -> weakref.ref[Treasure]:
        treasure = Treasure()
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=1).__aenter__()
        return weakref.ref(treasure)

    async with open_pool(GatedAdapter(), max_size=1) as pool, pool.acquire():
        treasure = await wait_in_vain()
        assert treasure() is None


async def test_a_pool_at_rest_forgets_who_was_served(autojump_clock: MockClock) -> None:
    """It kept their tasks as long as nobody else came, up to max_idle."""
    tasks: list[weakref.ref[Any]] = []

    async def use_briefly() -> None:
        tasks.append(weakref.ref(trio.lowlevel.current_task()))
        async with pool.acquire(timeout=0.5):
            pass

    async with open_pool(GatedAdapter(), max_size=1) as pool:
        async with trio.open_nursery() as nursery, pool.acquire():
            for _ in range(100):
                nursery.start_soon(use_briefly)
            await trio.sleep(0.2)  # upkeep looks at who waits
        await trio.sleep(2)
        gc.collect()
        assert not any(task() for task in tasks)


@pytest.mark.parametrize("hook", ["validate", "reset", "close"])
async def test_a_hook_that_ends_the_program_leaves_nothing_open(
    autojump_clock: MockClock, hook: Literal["validate", "reset", "close"]
) -> None:
    """P9. The resource was never closed, and its room in the budget never free again."""

    async def end_the_program(_: FakeResource) -> None:
        raise SystemExit(3)

    budget = Budget(1)
    gated = GatedAdapter()
    ending = adapter(
        open=gated.open,
        is_clean=gated.is_clean,
        validate=end_the_program if hook == "validate" else gated.validate,
        reset=end_the_program if hook == "reset" else gated.reset,
        close=end_the_program if hook == "close" else gated.close,
    )
    with pytest.raises(BaseExceptionGroup):
        async with open_pool(ending, validate_after=0, budget=budget) as pool:
            async with pool.acquire() as resource:
                resource.dirty = hook == "reset"
            async with pool.acquire():
                pass
    assert budget.size == 0
    assert hook == "close" or gated.present == 0


async def test_a_pool_that_has_ended_reserves_nothing_more(autojump_clock: MockClock) -> None:
    """Whoever resized it took room from the others, which nobody gave back."""
    budget = Budget(2)
    async with open_pool(GatedAdapter(), min_size=1, budget=budget) as ended:
        ended.resize(min_size=0)
    ended.resize(min_size=1)
    async with open_pool(GatedAdapter(), min_size=1, budget=budget):
        pass


def adapter_for(_: str) -> GatedAdapter:
    return GatedAdapter()


async def test_max_waiting_does_not_count_on_what_other_keys_hold(autojump_clock: MockClock) -> None:
    """Of two resources for all keys both were lent, and a third key's task waited although nobody should."""
    async with open_keyed_pool(adapter_for, max_size=2, max_waiting=0) as pool, pool.acquire("a"):
        async with pool.acquire("b"):  # in this one's place may another be opened
            pass
        async with pool.acquire("c"):
            with pytest.raises(PoolOverloaded, match="0 tasks are waiting already"):
                async with pool.acquire("b"):
                    pass


async def test_max_waiting_counts_on_every_idle_resource_of_other_keys(autojump_clock: MockClock) -> None:
    """As many may come at once as can be made room for."""
    async with open_keyed_pool(adapter_for, max_size=3, max_waiting=0) as pool:
        async with pool.acquire("a"), pool.acquire("a"), pool.acquire("a"):
            pass

        async def borrow() -> None:
            async with pool.acquire("b"):
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(borrow)
