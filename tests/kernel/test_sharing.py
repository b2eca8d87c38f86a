"""Resources that serve several leases, pools that share a budget, and pools by key."""

from __future__ import annotations

import functools
import gc
import math
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from respool import Budget, KeyedPool, OpenFailed, Pool, PoolClosed, PoolTimeout, open_keyed_pool, open_pool
from respool._ledger import Ledger
from respool.abc import Verdict
from respool.testing import FakeResource, GatedAdapter, GatedError
from tests.kernel.counting import counted_calls

FakePool = Pool[FakeResource]
FakeKeyedPool = KeyedPool[str, FakeResource]


async def use(pool: FakePool, seconds: float = 0, record: list[object] | None = None, name: object = None) -> None:
    assert isinstance(pool.adapter, GatedAdapter)
    async with pool.acquire(timeout=math.inf) as resource:
        with pool.adapter.lease(resource):
            if record is not None:
                record.append(name)
            await trio.sleep(seconds)


async def use_key(pool: FakeKeyedPool, key: str, seconds: float = 0, record: list[str] | None = None) -> None:
    async with pool.acquire(key, timeout=math.inf):
        if record is not None:
            record.append(key)
        await trio.sleep(seconds)


async def fail(pool: FakePool, go: trio.Event, error: Exception) -> None:
    """Hold until `go`, and end in `error`, which must come out as it is."""

    async def borrow() -> None:
        async with pool.acquire(timeout=math.inf):
            await go.wait()
            raise error

    with pytest.raises(type(error)) as raised:
        await borrow()
    assert raised.value is error


def loads(pool: FakePool) -> list[int]:
    """How many leases each resource has."""
    return sorted(len(entry.leases) for entry in pool._ledger.entries)


# Shared leases.


async def test_spare_capacity_before_more_is_opened_and_the_least_loaded_first(autojump_clock: MockClock) -> None:
    """Two resources of three leases: filled evenly, and a third is opened only for the seventh lease."""
    adapter = GatedAdapter(leases=3)
    async with open_pool(adapter, max_size=3, min_size=2) as pool, AsyncExitStack() as stack:
        await trio.sleep(1)
        seen = []
        for _ in range(7):
            await stack.enter_async_context(pool.acquire())
            seen.append(loads(pool))
        assert seen == [[0, 1], [1, 1], [1, 2], [2, 2], [2, 3], [3, 3], [1, 3, 3]]
    assert adapter.faults == []


async def test_the_least_loaded_first(autojump_clock: MockClock) -> None:
    """Of those that have something to spare."""
    adapter = GatedAdapter(leases=4)
    async with open_pool(adapter, max_size=2) as pool, AsyncExitStack() as stack:
        crowd = [pool.acquire() for _ in range(8)]
        for acquire in crowd:
            await stack.enter_async_context(acquire)
        assert loads(pool) == [4, 4]
        for acquire in crowd[4:7]:  # of the second resource
            await acquire.__aexit__(None, None, None)
        await crowd[0].__aexit__(None, None, None)
        assert loads(pool) == [1, 3]
        for expected in ([2, 3], [3, 3]):
            await stack.enter_async_context(pool.acquire())
            assert loads(pool) == expected


async def test_bounds_of_sharing(autojump_clock: MockClock) -> None:
    """Never more leases on a resource than it serves, nor more resources than max_size; then whoever comes waits."""
    adapter = GatedAdapter(leases=3, open="slow")
    async with open_pool(adapter, max_size=2) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(use, pool, 1 + number / 100)
            await trio.sleep(1.5)
            statistics = pool.statistics()
            assert (statistics.leases, statistics.lent, statistics.waiting) == (6, 2, 14)
            assert len(statistics.holders) == 6
        assert pool.statistics().acquired == 20
    assert adapter.most_present == 2
    assert adapter.faults == []


async def test_no_more_is_opened_than_those_who_wait_will_share(autojump_clock: MockClock) -> None:
    """Four waiters, three leases a resource: two resources."""
    adapter = GatedAdapter(leases=3, open="slow")
    async with open_pool(adapter, max_size=9, max_opening=9) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use, pool, 5)
        await trio.sleep(0.5)
        assert pool.statistics().opening == 2
        await trio.sleep(1)
        assert loads(pool) == [1, 3]


async def test_a_broken_shared_resource_is_retired_once(autojump_clock: MockClock) -> None:
    """All its leases are over, it is closed once and at once, and who holds another resource is not harmed."""
    adapter = GatedAdapter(leases=3)
    async with open_pool(adapter, max_size=2) as pool, trio.open_nursery() as nursery:
        go = trio.Event()
        nursery.start_soon(use, pool, 10)
        nursery.start_soon(fail, pool, go, GatedError("broken"))
        nursery.start_soon(fail, pool, go, GatedError("broken"))
        await wait_all_tasks_blocked()
        async with pool.acquire() as other:
            assert loads(pool) == [1, 3]
            go.set()
            await trio.sleep(1)
            assert [call for call in adapter.calls if call.startswith("close")] == ["close 1"]
            assert pool.statistics().discards["broken"] == 1
            assert pool.statistics().leases == 1
            assert not other.closed
        await trio.sleep(10)  # the sharer leaves its block
        assert pool.statistics().acquired == pool.statistics().use_time.count == 4
        assert [call for call in adapter.calls if call.startswith("close")] == ["close 1"]
        await use(pool)


async def test_a_sharers_own_error_harms_nobody(autojump_clock: MockClock) -> None:
    """An error that says nothing against the resource ends one lease only."""
    adapter = GatedAdapter(leases=3)
    async with open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:
        go = trio.Event()
        nursery.start_soon(use, pool, 10)
        nursery.start_soon(fail, pool, go, KeyError("mine"))
        await wait_all_tasks_blocked()
        go.set()
        await trio.sleep(1)
        assert loads(pool) == [1]
        assert adapter.calls == ["open"]


async def test_reset_and_is_clean_only_when_nobody_holds_it(autojump_clock: MockClock) -> None:
    """What one sharer leaves is undone when the last has left."""
    asked: list[int] = []

    class Adapter(GatedAdapter):
        def is_clean(self, resource: FakeResource) -> bool:
            asked.extend(loads(pool))
            return super().is_clean(resource)

    async def use(pool: FakePool, seconds: float = 0) -> None:
        async with pool.acquire():
            await trio.sleep(seconds)

    adapter = Adapter(leases=3)
    async with open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:
        async with pool.acquire() as resource:
            resource.dirty = True
            nursery.start_soon(use, pool, 5)
            nursery.start_soon(use, pool, 10)
            await trio.sleep(1)
        await trio.sleep(5)
        assert loads(pool) == [1]
        assert adapter.calls == ["open"]
        await use(pool)
        await trio.sleep(5)
        assert adapter.calls == ["open", "reset 1"]
        assert set(asked) == {0}
    assert adapter.faults == []


@pytest.mark.parametrize("limit", ["max_uses", "max_lifetime"])
async def test_a_shared_resource_that_is_used_up_or_too_old(autojump_clock: MockClock, limit: str) -> None:
    """It gets no more leases, and is closed when the last has ended."""
    adapter = GatedAdapter(leases=3)
    pools = {
        "max_uses": open_pool(adapter, max_size=2, max_uses=2),
        "max_lifetime": open_pool(adapter, max_size=2, max_lifetime=10),
    }
    async with pools[limit] as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 30)
        await wait_all_tasks_blocked()
        await use(pool)
        await use(pool, 11 if limit == "max_lifetime" else 0)
        await trio.sleep(11)
        async with pool.acquire() as resource:
            assert resource.number == 2
            assert loads(pool) == [1, 1]
        assert adapter.closed == 0
        await trio.sleep(20)
        assert "close 1" in adapter.calls
    assert adapter.faults == []


async def test_reserved_counts_leases_where_they_are_shared(autojump_clock: MockClock) -> None:
    """What is not reserved serves all the leases it can."""
    async with open_pool(GatedAdapter(leases=3), max_size=2, reserved=1) as pool, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(use, pool, 5)
            await wait_all_tasks_blocked()
        assert pool.statistics().leases == 3
        assert pool.statistics().waiting == 2


async def test_resume_hands_out_what_lent_resources_have_to_spare(autojump_clock: MockClock) -> None:
    """P4. It was left lying until the next lease ended."""
    async with open_pool(GatedAdapter(leases=3), max_size=2) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(use, pool, 50)
            await wait_all_tasks_blocked()
        pool.pause()
        nursery.start_soon(use, pool, 1)
        await wait_all_tasks_blocked()
        assert pool.statistics().waiting == 1
        pool.resume()
        assert pool.statistics().waiting == 0
        assert loads(pool) == [2, 3]


async def test_a_lease_whose_resource_was_closed_at_the_hand_over(autojump_clock: MockClock) -> None:
    """It waits again, for what is left of its time. It was told twice that its time was up, which ended the program."""
    for _ in range(10):  # Trio runs the tasks in random order: in some of these it is handed what is then broken
        adapter = GatedAdapter(leases=2)
        async with open_pool(adapter, max_size=1, acquire_timeout=10) as pool, trio.open_nursery() as nursery:
            told: list[float] = []
            began = trio.current_time()

            async def wait(pool: FakePool = pool, told: list[float] = told, began: float = began) -> None:
                with pytest.raises(PoolTimeout):
                    await pool.acquire().__aenter__()
                told.append(trio.current_time() - began)

            go = trio.Event()
            nursery.start_soon(fail, pool, go, GatedError("broken"))
            nursery.start_soon(fail, pool, go, KeyError("mine"))
            await wait_all_tasks_blocked()
            nursery.start_soon(wait)
            await trio.sleep(1)
            nursery.start_soon(wait)
            nursery.start_soon(wait)
            await trio.sleep(6)
            adapter.always("open", "never")
            go.set()
            await trio.sleep(20)
            assert told == [10, 11, 11]
            nursery.cancel_scope.cancel()


async def test_who_loses_a_resource_at_the_hand_over_keeps_its_place(autojump_clock: MockClock) -> None:
    """It is served before all who came later, be there ever so many of them, and of those who lost one in order."""
    adapter = GatedAdapter(leases=2)
    for _ in range(10):  # Trio runs the tasks in random order
        served: list[object] = []
        async with open_pool(adapter, max_size=1, max_waiting=5) as pool, trio.open_nursery() as nursery:
            lost = [pool.acquire(), pool.acquire()]
            for lease in lost:
                await lease.__aenter__()
            for name in "abcde":
                nursery.start_soon(use, pool, 1, served, name)
                await trio.sleep(0.01)
            adapter.script("open", "slow")
            await lost[0].__aexit__(None, None, None)  # handed to a
            error = GatedError("broken")
            await lost[1].__aexit__(type(error), error, None)  # and closed, before a has come to use it
            await trio.sleep(0.1)
            assert pool.statistics().waiting == 5
            assert pool.statistics().oldest_wait == pytest.approx(0.15)
            nursery.start_soon(use, pool, 1, served, "f")
        assert [set(served[:2]), set(served[2:4]), set(served[4:])] == [{"a", "b"}, {"c", "d"}, {"e", "f"}]


async def test_who_loses_a_resource_that_was_free_keeps_its_place(autojump_clock: MockClock) -> None:
    """It did not have to wait until then, and came before all who did."""
    adapter = GatedAdapter(leases=2)

    async def borrow(pool: FakePool, came: list[str], served: list[object], name: str) -> None:
        came.append(name)
        await use(pool, 1, served, name)

    async def fail_now(lease: AbstractAsyncContextManager[FakeResource]) -> None:
        error = GatedError("broken")
        await lease.__aexit__(type(error), error, None)

    for _ in range(20):  # Trio runs the tasks in random order: in most of these the first is lent what then breaks
        came: list[str] = []
        served: list[object] = []
        async with open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:
            lease = pool.acquire()
            await lease.__aenter__()
            for name in "abc":
                nursery.start_soon(borrow, pool, came, served, name)
            nursery.start_soon(fail_now, lease)
        assert set(served[:2]) == set(came[:2])
        assert pool.statistics().discards["broken"] == 1


# Budgets.


@asynccontextmanager
async def two_pools(
    budget: Budget, first: GatedAdapter | None = None, second: GatedAdapter | None = None
) -> AsyncIterator[tuple[FakePool, FakePool]]:
    async with (
        open_pool(first or GatedAdapter(), name="first", budget=budget) as one,
        open_pool(second or GatedAdapter(), name="second", budget=budget) as other,
    ):
        yield one, other


async def test_a_budget_limits_the_sum(autojump_clock: MockClock) -> None:
    """From before open until after close, whatever the pools want."""
    budget = Budget(5)
    first, second = GatedAdapter(open="slow", close="slow"), GatedAdapter(open="slow", close="slow")
    async with two_pools(budget, first, second) as pools:
        most = 0
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(use, pools[number % 2], 1 + number % 7 / 10)
            await wait_all_tasks_blocked()
            while pools[0].statistics().waiting + pools[1].statistics().waiting:
                most = max(most, first.present + second.present)
                assert budget.size == sum(pool.statistics().size for pool in pools) >= first.present + second.present
                await trio.sleep(0.1)
        assert most == 5
        assert budget.size <= 5
        assert repr(budget) == "<respool.Budget: 5 of 5, 0 pools waiting>"
    assert budget.size == 0


async def test_idle_gives_way_to_waiters_of_another_pool(autojump_clock: MockClock) -> None:
    """The coldest of all first; and no more than are waited for."""
    budget = Budget(4)
    async with two_pools(budget) as (one, other):
        for pool in (one, other):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(use, pool, 1)
                await trio.sleep(0.1)  # else either of them may get the first resource
                nursery.start_soon(use, pool, 2)
        async with other.acquire(), other.acquire(), other.acquire():
            assert (one.statistics().size, other.statistics().size) == (1, 3)
            assert one.statistics().discards["made room"] == 1
            assert {resource.number for resource in one.adapter.resources} == {2}  # type: ignore[attr-defined]
        async with one.acquire(), one.acquire():
            assert other.statistics().discards["made room"] == 1
    assert budget.size == 0


async def test_min_size_is_protected(autojump_clock: MockClock) -> None:
    """Idle resources that min_size asks for are not closed for others, who wait for something else."""
    budget = Budget(3)
    async with (
        open_pool(GatedAdapter(), min_size=2, budget=budget) as one,
        open_pool(GatedAdapter(), budget=budget) as other,
        trio.open_nursery() as nursery,
    ):
        await trio.sleep(1)
        assert one.statistics().idle == 2
        nursery.start_soon(use, other, 5)
        nursery.start_soon(use, other, 5)
        await trio.sleep(1)
        assert (one.statistics().idle, other.statistics().lent, other.statistics().waiting) == (2, 1, 1)
        await trio.sleep(5)
        assert (one.statistics().idle, other.statistics().lent, other.statistics().waiting) == (2, 1, 0)


async def test_pools_take_turns(autojump_clock: MockClock) -> None:
    """When all are lent and both have tasks waiting for ever, each gets its part, and nobody starves."""
    served: Counter[str] = Counter()
    budget = Budget(4)

    async def work(pool: FakePool) -> None:
        while True:
            async with pool.acquire(timeout=math.inf):
                served[pool.name] += 1
                await trio.sleep(1)

    async with two_pools(budget) as (one, other), trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(work, one)
        await trio.sleep(10)
        assert one.statistics().lent == 4
        for _ in range(20):
            nursery.start_soon(work, other)
        await trio.sleep(10)
        assert one.statistics().lent == other.statistics().lent == 2
        served.clear()
        await trio.sleep(100)
        assert one.statistics().discards["made room"] + other.statistics().discards["made room"] <= 4, "to and fro"
        assert served["first"] == pytest.approx(served["second"], abs=5)
        nursery.cancel_scope.cancel()


async def test_a_pool_that_has_nothing_is_served_in_its_turn(autojump_clock: MockClock) -> None:
    """Even where there are more pools than resources: whose first waiter came first."""
    served: list[object] = []
    budget = Budget(1)
    async with two_pools(budget) as (one, other), trio.open_nursery() as nursery:
        for name, pool in [("a", one), ("b", one), ("c", other), ("d", one), ("e", other)]:
            nursery.start_soon(use, pool, 1, served, name)
            await wait_all_tasks_blocked()
    assert served[:2] == ["a", "b"]
    assert sorted(served[2:], key=str) == ["c", "d", "e"]
    assert served.index("c") < served.index("e")


@pytest.mark.parametrize(("max_size", "error"), [(0, ValueError), (True, TypeError), (2.5, TypeError)])
def test_a_budget_is_a_number_of_resources(max_size: int, error: type[Exception]) -> None:
    """At least one."""
    with pytest.raises(error, match="max_size must be an int >= 1, not"):
        Budget(max_size)


async def test_the_min_sizes_must_leave_something_of_the_budget(autojump_clock: MockClock) -> None:
    """Or a pool without could wait for ever. What a pool that has ended had reserved is free again."""
    budget = Budget(3)
    for _ in range(2):
        async with open_pool(GatedAdapter(), min_size=1, budget=budget) as pool:
            with pytest.raises(ValueError, match=r"less than its max_size \(3\), not 3"):
                await open_pool(GatedAdapter(), min_size=2, budget=budget).__aenter__()
            with pytest.raises(ValueError, match=r"less than its max_size \(3\), not 3"):
                pool.resize(min_size=3)
            assert pool.limits.min_size == pool.statistics().min_size == 1
            pool.resize(min_size=2)


# Pools by key.


async def test_limits_of_a_keyed_pool(autojump_clock: MockClock) -> None:
    """Per key, and of all keys together."""
    adapters = {key: GatedAdapter() for key in "abc"}
    most: Counter[str] = Counter()
    async with open_keyed_pool(adapters.__getitem__, max_size=4, max_per_key=2) as pool:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(use_key, pool, "abc"[number % 3], 1)
            await wait_all_tasks_blocked()
            statistics = pool.statistics()
            assert (statistics.size, statistics.max_size, statistics.waiting) == (4, 4, 56)
            assert set(statistics.keys) == {*"abc"}
            while pool.statistics().waiting:
                for key, adapter in adapters.items():
                    most[key] = max(most[key], adapter.present)
                most["all"] = max(most["all"], sum(adapter.present for adapter in adapters.values()))
                await trio.sleep(0.3)
        assert most == {"a": 2, "b": 2, "c": 2, "all": 4}
    assert sum(adapter.present for adapter in adapters.values()) == 0


async def test_the_coldest_of_any_key_makes_room(autojump_clock: MockClock) -> None:
    """Not the key's own, nor the one that was used last."""
    adapters = {key: GatedAdapter() for key in "abcd"}
    async with open_keyed_pool(adapters.__getitem__, max_size=3) as pool:
        for key in "abca":
            await use_key(pool, key, 1)
        await use_key(pool, "d")
        assert [key for key, adapter in adapters.items() if adapter.present] == ["a", "c", "d"]
        await trio.sleep(1)
        assert set(pool.statistics().keys) == {"a", "c", "d"}


async def test_keys_are_served_fairly_when_the_global_limit_binds(autojump_clock: MockClock) -> None:
    """A key with a thousand tasks does not starve one with a single task."""
    served: list[str] = []
    adapters = {key: GatedAdapter() for key in ("loud", "quiet")}
    async with open_keyed_pool(adapters.__getitem__, max_size=4) as pool, trio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(use_key, pool, "loud", 1, served)
        await trio.sleep(5)
        for _ in range(20):
            started = trio.current_time()
            await use_key(pool, "quiet", 1)
            assert trio.current_time() - started <= 3.5
        nursery.cancel_scope.cancel()
    assert len(served) > 60


async def test_there_is_room_for_what_could_be_opened(autojump_clock: MockClock) -> None:
    """Within both limits; what is idle under other keys could make room, what is lent could not."""
    adapters = {key: GatedAdapter() for key in "abc"}
    async with open_keyed_pool(adapters.__getitem__, max_size=4, max_per_key=2) as pool:
        assert pool.room("a") == 2
        async with pool.acquire("a"), pool.acquire("b"), pool.acquire("b"):
            assert [pool.room(key) for key in "abc"] == [1, 0, 1]
            async with pool.acquire("a"):
                assert pool.room("c") == 0
        await wait_all_tasks_blocked()
        assert [pool.room(key) for key in "abc"] == [0, 0, 2]
        await use_key(pool, "c")
        assert [pool.room(key) for key in "abc"] == [1, 0, 1]


async def test_keys_are_forgotten(autojump_clock: MockClock) -> None:
    """After thousands of keys nothing is left but what is idle: no task, and no memory."""
    adapter = GatedAdapter()

    def adapter_for(key: str) -> GatedAdapter:
        return adapter

    async with open_keyed_pool(adapter_for, max_size=10, max_idle=100) as pool:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for number in range(3000):
            await use_key(pool, str(number))
        await wait_all_tasks_blocked()
        assert len(pool.statistics().keys) == 10
        await trio.sleep(101)
        assert dict(pool.statistics().keys) == {}
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        gc.collect()
        ledgers = [thing for thing in gc.get_objects() if isinstance(thing, Ledger)]
        assert [ledger for ledger in ledgers if ledger.budget is pool._budget] == []
    assert adapter.opened == 3000
    assert adapter.present == 0


async def test_a_key_that_nobody_could_be_served_for_is_forgotten(autojump_clock: MockClock) -> None:
    """Once: the turn it leaves behind in the budget's line does not harm those who come after."""
    adapters = {key: GatedAdapter() for key in "abc"}

    async def use_and_break(key: str) -> None:
        with suppress(GatedError):
            async with pool.acquire(key, timeout=math.inf):
                await trio.sleep(10)
                raise GatedError("broken")

    async with open_keyed_pool(adapters.__getitem__, max_size=1) as pool, trio.open_nursery() as nursery:
        for key in "ab":
            nursery.start_soon(use_and_break, key)
            await wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await use_key(pool, "c")
        await trio.sleep(5)
        assert set(pool.statistics().keys) == {"a", "b"}
        nursery.start_soon(use_key, pool, "c", 10)
        await trio.sleep(20)
        assert set(pool.statistics().keys) == {"c"}
        with trio.fail_after(100):
            await use_key(pool, "c")
    assert adapters["c"].opened == 1


async def test_failing_keys_keep_their_back_off(autojump_clock: MockClock) -> None:
    """A key whose server is down is not stormed by being forgotten between two callers; others are not held up."""
    down, up = GatedAdapter(open="error"), GatedAdapter()
    async with open_keyed_pool({"down": down, "up": up}.__getitem__, fail_fast=True) as pool:
        for _ in range(300):
            with suppress(OpenFailed):
                await use_key(pool, "down")
            await use_key(pool, "up")
            await trio.sleep(0.1)
        assert 3 < down.calls.count("open") < 40
        assert up.opened == 1
        await trio.sleep(11)
        assert set(pool.statistics().keys) == {"up"}


async def test_a_permanent_failure_of_a_key_is_told_at_once(autojump_clock: MockClock) -> None:
    """And only to those who want this key."""
    down = GatedAdapter()
    async with open_keyed_pool({"down": down, "up": GatedAdapter()}.__getitem__) as pool:
        down.script("open", GatedError("no such host", Verdict.PERMANENT))
        with pytest.raises(OpenFailed):
            await use_key(pool, "down")
        await use_key(pool, "up")
        with pytest.raises(KeyError):
            await use_key(pool, "unknown")


async def calls_of_a_lease(keys: int, size: int) -> tuple[int, int]:
    """How many calls of functions a lease takes beside so many other keys; and one for which room must be made."""
    adapter = GatedAdapter()

    def adapter_for(key: str) -> GatedAdapter:
        return adapter

    async with open_keyed_pool(adapter_for, max_size=size, max_per_key=1, max_idle=math.inf, max_lifetime=1e9) as pool:
        for number in range(keys):
            await use_key(pool, str(number))
        await use_key(pool, "0")
        await wait_all_tasks_blocked()
        return await calls_of(use_key, pool, "0"), await calls_of(use_key, pool, "new")


async def calls_of(function: Callable[..., Awaitable[None]], *arguments: object) -> int:
    with counted_calls() as calls:
        await function(*arguments)
    return calls.made


async def test_a_lease_costs_the_same_however_many_keys_there_are(autojump_clock: MockClock) -> None:
    """Whether they are remembered, all of them with an idle resource, or have been forgotten.

    With a hundred thousand keys: ledgers alone in `test_ledger`, and all of it among the benchmarks.
    """
    lease, with_room = await calls_of_a_lease(10, 10)
    for keys, size in ((1000, 1000), (1500, 10)):
        other_lease, other_with_room = await calls_of_a_lease(keys, size)
        assert other_lease == lease
        assert other_with_room == pytest.approx(with_room, rel=0.02)  # Trio runs the tasks in random order


async def test_closing_a_keyed_pool(autojump_clock: MockClock) -> None:
    """It waits for outstanding leases up to drain_timeout, of all keys at the same time, and tells those who wait."""
    adapters = {key: GatedAdapter(close="slow") for key in "abc"}
    told: list[str] = []

    async def wait(key: str) -> None:
        try:
            await use_key(pool, key)
        except PoolClosed:
            told.append(key)

    async with trio.open_nursery() as nursery:
        async with open_keyed_pool(adapters.__getitem__, max_size=3, drain_timeout=5) as pool:
            for key, seconds in [("a", 0.5), ("b", 3), ("c", 20)]:
                nursery.start_soon(use_key, pool, key, seconds)
            await trio.sleep(1)
            nursery.start_soon(wait, "b")
            nursery.start_soon(wait, "c")
            await wait_all_tasks_blocked()
            started = trio.current_time()
        assert trio.current_time() - started == 6
        assert sorted(told) == ["b", "c"]
        assert sum(adapter.present for adapter in adapters.values()) == 0
        with pytest.raises(PoolClosed, match="the keyed pool is closed"):
            await use_key(pool, "d")
        assert "closed" in repr(pool)
        nursery.cancel_scope.cancel()


async def test_a_key_is_not_forgotten_at_the_hand_over(autojump_clock: MockClock) -> None:
    """Whoever was handed a shared resource that broke in the same moment was told that the pool is closed."""

    class Adapter(GatedAdapter):
        async def close(self, resource: FakeResource) -> None:
            """At once, without a checkpoint."""
            self.present -= 1

    async def share(error: Exception | None) -> None:
        with suppress(GatedError):
            async with pool.acquire("key"):
                await go.wait()
                if error is not None:
                    raise error

    adapter = Adapter(leases=2)
    async with open_keyed_pool({"key": adapter}.__getitem__, max_size=1) as pool:
        for _ in range(30):  # Trio runs the tasks in random order
            go = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(share, GatedError("broken"))
                nursery.start_soon(share, None)
                await wait_all_tasks_blocked()
                nursery.start_soon(use_key, pool, "key")
                await wait_all_tasks_blocked()
                go.set()
        assert adapter.present <= 1


async def test_a_key_is_not_forgotten_before_a_task_enters(autojump_clock: MockClock) -> None:
    """The task that was started to enter the lease was told that the pool is closed, half of the time."""
    adapter = GatedAdapter()
    adapters = dict.fromkeys(range(30), adapter)
    async with open_keyed_pool(adapters.__getitem__) as pool:
        for number in adapters:  # Trio runs the tasks in random order
            lease = pool.acquire(number)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lease.__aenter__)
            await lease.__aexit__(None, None, None)
    assert adapter.present == 0


@pytest.mark.parametrize(
    ("options", "message"), [({"min_size": 1}, "min_size must be 0"), ({"max_per_key": 0}, "max_size must be an int")]
)
def test_options_of_a_keyed_pool(options: dict[str, int], message: str) -> None:
    """Are checked before anything begins."""
    with pytest.raises(ValueError, match=message):
        open_keyed_pool(functools.partial(GatedAdapter), **options)  # type: ignore[arg-type]
