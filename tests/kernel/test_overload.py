"""More work than a pool can do: who is served, who is refused and when, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from respool import LeaseRevoked, OpenFailed, Pool, PoolOverloaded, PoolTimeout, Priority, open_pool
from respool._entry import Lease
from respool._queue import Queue
from respool.abc import Verdict
from respool.testing import FakeResource, GatedAdapter, GatedError

FakePool = Pool[FakeResource]


async def use(
    pool: FakePool,
    seconds: float,
    record: list[object] | None = None,
    name: object = None,
    timeout: float | None = None,
    priority: Priority = Priority.NORMAL,
) -> None:
    """Borrow and use for some seconds; write down who was served."""
    async with pool.acquire(timeout=timeout, priority=priority):
        if record is not None:
            record.append(name)
        await trio.sleep(seconds)


async def fail_to_use(pool: FakePool, timeout: float) -> None:
    with pytest.raises(PoolTimeout):
        await use(pool, 0, timeout=timeout)


async def in_line(nursery: trio.Nursery, *tasks: Callable[[], Awaitable[object]]) -> None:
    """Have tasks queue up in this order."""
    for task in tasks:
        nursery.start_soon(task)
        await wait_all_tasks_blocked()


# The default: first come, first served.


async def test_a_few_impatient_behind_many_patient_do_not_end_first_come_first_served(
    autojump_clock: MockClock,
) -> None:
    """That they give up behind others proves nothing against the order."""
    served: list[object] = []
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        for number in range(60):
            patient = functools.partial(use, pool, 0.3, served, number)
            impatient = functools.partial(fail_to_use, pool, 0.25)
            await in_line(nursery, impatient if number > 5 and number % 2 else patient)
        overloaded = False
        while pool.statistics().waiting:
            overloaded = overloaded or pool.statistics().overloaded
            await trio.sleep(0.01)
        assert not overloaded
        assert pool.statistics().timeouts == 27
    assert served == [*range(6), *range(6, 60, 2)]


async def test_a_single_time_out_does_not_end_first_come_first_served(autojump_clock: MockClock) -> None:
    """Not even of the first in line."""
    served: list[object] = []
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        await in_line(nursery, functools.partial(use, pool, 2), functools.partial(fail_to_use, pool, 1))
        await in_line(nursery, *(functools.partial(use, pool, 0.1, served, number) for number in range(20)))
        await trio.sleep(1.5)
        assert pool.statistics().timeouts == 1
        assert not pool.statistics().overloaded
    assert served == [*range(20)]


async def test_a_queue_that_is_never_empty_is_no_overload(autojump_clock: MockClock) -> None:
    """A thousand tasks that ask again as soon as they are done take turns, none twice before another's first."""
    served: list[int] = []
    async with open_pool(GatedAdapter(), max_size=10, max_opening=10) as pool:

        async def work(number: int) -> None:
            for _ in range(3):
                async with pool.acquire():
                    served.append(number)
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for number in range(1000):
                nursery.start_soon(work, number)
            await trio.sleep(1.5)
            assert pool.statistics().waiting == 990
            assert not pool.statistics().overloaded
    turns = [served[start : start + 1000] for start in (0, 1000, 2000)]
    assert all(len(set(turn)) == 1000 for turn in turns)
    places = [{number: place for place, number in enumerate(turn)} for turn in turns]
    # Ten are served at one moment, in any order.
    assert all(abs(earlier[number] - later[number]) < 10 for earlier, later in pairwise(places) for number in earlier)


# When a pool is overloaded: the rule in the head of `respool._queue`, on a queue by itself.


@attrs.define(eq=False)
class Line:
    """A queue, and the leases put into it, named by their numbers."""

    queue: Queue[None] = attrs.field(factory=lambda: Queue[None]())
    leases: dict[int, Lease[None]] = attrs.field(factory=dict)

    def push(self, *numbers: int, line: Priority = Priority.NORMAL) -> None:
        for number in numbers:
            lease = self.leases[number] = Lease()
            lease.line = line
            lease.waiting_since = float(number)
            lease.latest_start = number + 30.0
            self.queue.push(lease)

    def pop(self) -> int:
        lease = self.queue.pop()
        return next(number for number, other in self.leases.items() if other is lease)

    def remove(self, number: int, *, late: bool) -> None:
        self.queue.remove(self.leases[number], late=late)


def test_overload_begins_when_more_than_one_in_eight_failed_though_first() -> None:
    """Of a moving average over about 32: the fifth in a row, since 1 - (31/32)^5 > 1/8 > 1 - (31/32)^4."""
    line = Line()
    line.push(*range(50))
    for number in range(4):
        line.remove(number, late=True)
    assert not line.queue.overloaded
    line.remove(4, late=True)
    assert line.queue.overloaded


@pytest.mark.parametrize(("served_between", "overloaded"), [(9, False), (5, True)])
def test_overload_is_a_share_of_those_who_leave(served_between: int, overloaded: bool) -> None:
    """One failure in ten for ever is not too many; one in six is, before long."""
    line = Line()
    line.push(*range(1000))
    number = 0
    while number < 900 and not line.queue.overloaded:
        line.remove(number, late=True)
        for served in range(number + 1, number + 1 + served_between):
            if not line.queue.overloaded:
                assert line.pop() == served
        number += 1 + served_between
    assert line.queue.overloaded is overloaded


def test_what_proves_nothing() -> None:
    """Those who ran out of time behind others, and those who left for reasons of their own, even as the first."""
    line = Line()
    line.push(*range(100))
    for number in range(1, 40):
        line.remove(number, late=True)
    for number in (0, *range(40, 80)):
        line.remove(number, late=False)
    assert not line.queue.overloaded
    assert line.pop() == 80


def test_use_in_vain_counts_like_a_failure_while_others_wait() -> None:
    """A caller whose time ends in the middle of its use was served too late; but not if nobody else is waiting."""
    line = Line()
    for _ in range(50):
        line.queue.served_in_vain()
    assert not line.queue.overloaded
    line.push(*range(10))
    for _ in range(5):
        assert not line.queue.overloaded
        line.queue.served_in_vain()
    assert line.queue.overloaded


def test_newest_first_until_the_queue_is_empty() -> None:
    """And not a lease longer: then it begins again from nothing, first come, first served."""
    line = Line()
    line.push(*range(10))
    for number in range(5):
        line.remove(number, late=True)
    line.push(10)
    assert [line.pop() for _ in range(3)] == [10, 9, 8]
    line.push(11)
    assert [line.pop() for _ in range(4)] == [11, 7, 6, 5]
    assert not line.queue.overloaded
    line.push(*range(20, 40))
    for number in range(20, 24):
        line.remove(number, late=True)
    assert not line.queue.overloaded
    assert [line.pop() for _ in range(3)] == [24, 25, 26]


def test_overload_ends_too_when_the_last_gives_up() -> None:
    """However the queue comes to be empty."""
    for late in (False, True):
        line = Line()
        line.push(*range(6))
        for number in range(5):
            line.remove(number, late=True)
        assert line.queue.overloaded
        line.remove(5, late=late)
        assert not line.queue.overloaded


def test_every_sixteenth_turn_is_the_oldest_s() -> None:
    """However long the line is never empty, and however many come."""
    line = Line()
    line.push(*range(25))
    for number in range(5):
        line.remove(number, late=True)
    served = [line.pop() for _ in range(15)]
    assert served == list(range(24, 9, -1))
    assert line.pop() == 5
    assert line.pop() == 9


def test_an_overload_ends_when_next_to_nobody_fails_any_more() -> None:
    """Although somebody always waits: after five failures it takes 49 that are served, and not 48."""
    line = Line()
    line.push(*range(10))
    for number in range(5):
        line.remove(number, late=True)
    for number in range(10, 59):
        assert line.queue.overloaded
        line.push(number)
        line.pop()
    assert not line.queue.overloaded
    line.push(59)
    assert line.pop() < 10


async def test_the_patient_are_served_in_an_overload_that_does_not_end(autojump_clock: MockClock) -> None:
    """Among callers who are served, if at all, at the last moment, and always too late."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:

        async def impatient() -> None:
            with trio.move_on_after(1.5), contextlib.suppress(PoolOverloaded):
                await use(pool, 1)

        async def surge() -> None:
            while True:
                nursery.start_soon(impatient)
                await trio.sleep(0.2)

        nursery.start_soon(surge)
        await trio.sleep(30)
        assert pool.statistics().overloaded
        for _ in range(3):
            await use(pool, 1, timeout=60)
        assert pool.statistics().overloaded
        nursery.cancel_scope.cancel()


def test_priority_goes_before_newness() -> None:
    """Overloaded or not, the urgent come first and bulk comes last."""
    line = Line()
    line.push(*range(6))
    line.push(6, 7, line=Priority.BULK)
    line.push(8, 9, line=Priority.URGENT)
    for number in range(5):
        line.remove(number, late=True)
    line.push(10)
    assert line.queue.overloaded
    assert [line.pop() for _ in range(6)] == [9, 8, 10, 5, 7, 6]


async def test_a_pool_in_overload_and_after(autojump_clock: MockClock) -> None:
    """The whole of it: time-outs of the first in line, the newest first, and first come, first served again."""
    served: list[object] = []
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 10)
        await wait_all_tasks_blocked()
        await in_line(nursery, *(functools.partial(fail_to_use, pool, 1 + number / 10) for number in range(5)))
        await in_line(nursery, *(functools.partial(use, pool, 1, served, number) for number in range(3)))
        await trio.sleep(1.35)
        assert pool.statistics().timeouts == 4
        assert not pool.statistics().overloaded
        await trio.sleep(0.1)
        assert pool.statistics().timeouts == 5
        assert pool.statistics().overloaded
        assert "overloaded" in repr(pool)
        await trio.sleep(10)
        assert served == [2, 1]
        await in_line(nursery, functools.partial(use, pool, 1, served, "newest"))
        await trio.sleep(3)
        assert served == [2, 1, "newest", 0]
        assert not pool.statistics().overloaded
        await in_line(nursery, *(functools.partial(use, pool, 1, served, number) for number in "abcd"))
    assert served[4:] == [*"abcd"]


async def test_uses_cut_short_by_their_callers_deadline_overload_the_pool(autojump_clock: MockClock) -> None:
    """First come, first served, everybody would begin, and nobody would end."""
    async with open_pool(GatedAdapter(), max_size=1) as pool:

        async def caller() -> None:
            with trio.move_on_after(3.1), contextlib.suppress(PoolOverloaded):
                await use(pool, 1)

        async with trio.open_nursery() as nursery:
            overloaded_at = math.inf
            for _ in range(100):
                nursery.start_soon(caller)
                await trio.sleep(0.3)
                if pool.statistics().overloaded:
                    overloaded_at = min(overloaded_at, trio.current_time())
    assert overloaded_at < 30
    assert pool.statistics().use_time.count > 20


async def test_leases_cut_short_by_max_hold_prove_nothing(autojump_clock: MockClock) -> None:
    """The deadline was the pool's own."""
    async with open_pool(GatedAdapter(), max_size=1, max_hold=1) as pool:

        async def borrower() -> None:
            with pytest.raises(LeaseRevoked):
                await use(pool, 2)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(borrower)
            for _ in range(18):
                await trio.sleep(1)
                assert pool.statistics().waiting > 0
                assert not pool.statistics().overloaded


# Refusals.


async def use_one_second_each(pool: FakePool, times: int = 20) -> None:
    """Let the pool learn how long a use takes. It will say 1.31 s, the bound of the histogram's bucket."""
    for _ in range(times):
        await use(pool, 1)
    pool._ledger.take_stock()
    assert pool._ledger.expected_use == pytest.approx(1.31072)


async def test_refused_as_soon_as_the_deadline_leaves_less_than_a_use_takes(autojump_clock: MockClock) -> None:
    """Not a moment later, and not a moment before."""
    async with open_pool(GatedAdapter(), max_size=1, validate_after=math.inf) as pool:
        await use_one_second_each(pool)
        async with trio.open_nursery() as nursery:
            await in_line(nursery, functools.partial(use, pool, 100), functools.partial(use, pool, 0, timeout=200))
            started = trio.current_time()
            with trio.fail_after(5), pytest.raises(PoolOverloaded, match=r"waited 3.69 s .* less than the 1.31 s"):
                await use(pool, 1)
            assert trio.current_time() - started == pytest.approx(5 - 1.31072)

            # For whom it is too late already is refused at once.
            started = trio.current_time()
            with trio.fail_after(1.3), pytest.raises(PoolOverloaded, match="waited 0 s"):
                await use(pool, 1)
            assert trio.current_time() == started
            assert pool.statistics().refused == 2

            # Its own timeout, if that comes first, is its own fault.
            with trio.fail_after(5), pytest.raises(PoolTimeout):
                await use(pool, 1, timeout=2)
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("by_deadline", [True, False])
async def test_callers_who_leave_at_their_deadline_show_an_overload(
    autojump_clock: MockClock, by_deadline: bool
) -> None:
    """If they were first in line, or had been served in vain. Those who are cancelled for other reasons do not."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(10)]

        async def wait_in(scope: trio.CancelScope) -> None:
            with scope:
                await use(pool, 0)

        await in_line(nursery, functools.partial(use, pool, math.inf))
        await in_line(nursery, *(functools.partial(wait_in, scope) for scope in scopes))
        await in_line(nursery, functools.partial(use, pool, 0, timeout=math.inf))
        for scope in scopes:
            if by_deadline:
                scope.deadline = trio.current_time()
            else:
                scope.cancel()
            await trio.sleep(0.01)
        assert pool.statistics().waiting == 1
        assert pool.statistics().overloaded is by_deadline
        nursery.cancel_scope.cancel()


async def test_the_hopeless_never_stand_in_line(autojump_clock: MockClock) -> None:
    """Refused before they could be served in vain, even first in line, in the moment in which a resource comes back."""
    async with open_pool(GatedAdapter(), max_size=1, validate_after=math.inf) as pool:
        await use_one_second_each(pool)
        for _ in range(20):  # whether the borrower or the pool's upkeep is next to run is up to Trio
            release = trio.Event()

            async def hold(release: trio.Event) -> None:
                async with pool.acquire():
                    await release.wait()

            async with trio.open_nursery() as nursery:
                await in_line(nursery, functools.partial(hold, release), functools.partial(use, pool, 0, timeout=200))
                release.set()
                with trio.fail_after(1), pytest.raises(PoolOverloaded, match="waited 0 s"):
                    async with pool.acquire(priority=Priority.URGENT):
                        pass


async def test_a_resource_that_is_free_is_lent_however_little_time_is_left(autojump_clock: MockClock) -> None:
    """Nobody else wants it, and this use may be a quick one."""
    async with open_pool(GatedAdapter(), max_size=1, validate_after=math.inf) as pool:
        await use_one_second_each(pool)
        with trio.fail_after(0.5):
            await use(pool, 0.1)


async def test_no_resource_for_the_hopeless_while_others_wait(autojump_clock: MockClock) -> None:
    """First in line when it comes free, but with less time left than a use takes: the next one has it."""
    served: list[object] = []

    async def hopeless() -> None:
        with trio.move_on_after(5), pytest.raises(PoolOverloaded):
            await use(pool, 1, served, "hopeless")

    async with open_pool(GatedAdapter(), max_size=1, validate_after=math.inf) as pool:
        await use_one_second_each(pool)
        async with trio.open_nursery() as nursery:
            await in_line(
                nursery,
                functools.partial(use, pool, 4),
                functools.partial(fail_to_use, pool, 2),
                hopeless,
                functools.partial(use, pool, 1, served, "patient"),
            )
            await trio.sleep(4.5)
            assert served == ["patient"]
    assert pool.statistics().refused == 1


async def test_otherwise_the_callers_own_cancel_scope_ends_the_wait(autojump_clock: MockClock) -> None:
    """At its deadline, with a pool that has seen no uses, or only such as take no time worth speaking of."""
    async with open_pool(GatedAdapter(), max_size=1, validate_after=math.inf) as pool:
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                await in_line(nursery, functools.partial(use, pool, 100), functools.partial(use, pool, 0, timeout=200))
                started = trio.current_time()
                with trio.move_on_after(2) as scope:
                    await use(pool, 1)
                assert scope.cancelled_caught
                assert trio.current_time() - started == 2
                nursery.cancel_scope.cancel()
            for _ in range(100):
                await use(pool, 0.0005)
            await trio.sleep(1000)
        assert pool.statistics().refused == 0
        assert pool.statistics().cancelled >= 2


async def test_max_waiting_bounds_the_queue(autojump_clock: MockClock) -> None:
    """The next is refused at once, and may come again as soon as one has left."""
    async with open_pool(GatedAdapter(), max_size=2, max_waiting=3) as pool, trio.open_nursery() as nursery:
        await in_line(nursery, *(functools.partial(use, pool, 10) for _ in range(2)))
        await in_line(nursery, *(functools.partial(use, pool, 0) for _ in range(3)))
        started = trio.current_time()
        for _ in range(3):
            with pytest.raises(PoolOverloaded, match="3 tasks are waiting already; 2 of 2 lent"):
                await use(pool, 0)
        assert trio.current_time() == started
        assert pool.statistics().waiting == 3
        assert pool.statistics().refused == 3
        await trio.sleep(11)
        await use(pool, 0)


# Goodput: open-loop surges on ten resources whose use takes 10 ms, with callers that have 200 ms to live.

SIZE, USE, PATIENCE = 10, 0.01, 0.2
CAPACITY = SIZE / USE


@attrs.define
class Phase:
    """So many times the capacity, for so many seconds."""

    load: float
    seconds: float
    latencies: list[float] = attrs.field(factory=list, init=False)  # of those that were done in time
    of_late: list[float] = attrs.field(factory=list, init=False)  # and came after the first second

    def goodput(self) -> float:
        """As a share of the capacity."""
        return len(self.latencies) / self.seconds / CAPACITY


def p99(latencies: list[float]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)]


async def call(pool: FakePool, phase: Phase, began: float, use_time: float) -> None:
    arrived = trio.current_time()
    with trio.move_on_after(PATIENCE) as scope:
        try:
            async with pool.acquire():
                await trio.sleep(use_time)
        except PoolOverloaded:
            return
    if not scope.cancelled_caught:
        latency = trio.current_time() - arrived
        phase.latencies.append(latency)
        if arrived >= began + 1:
            phase.of_late.append(latency)


@pytest.mark.parametrize("use_times", ["constant", "exponential"])
async def test_goodput_in_a_surge(autojump_clock: MockClock, use_times: str) -> None:
    """At 2 and 5 times the capacity at least 90 % of it is done in time; a second later all is as it was before."""
    chance = random.Random(1)
    before, twice, five_times, after = phases = [Phase(0.5, 2), Phase(2, 2), Phase(5, 1.5), Phase(0.5, 2)]
    async with open_pool(GatedAdapter(), max_size=SIZE) as pool, trio.open_nursery() as nursery:
        for phase in phases:
            began = trio.current_time()
            arrivals = 0
            while (passed := trio.current_time() - began) < phase.seconds:
                while arrivals < passed * CAPACITY * phase.load:
                    arrivals += 1
                    use_time = USE if use_times == "constant" else chance.expovariate(1 / USE)
                    nursery.start_soon(call, pool, phase, began, use_time)
                await trio.sleep(0.002)
    assert before.goodput() > 0.49
    assert twice.goodput() > 0.9
    assert five_times.goodput() > 0.9
    assert after.goodput() > 0.45
    assert p99(after.of_late) < 1.25 * p99(before.of_late)


# Priorities.


async def test_urgent_first_bulk_last(autojump_clock: MockClock) -> None:
    """Whenever they came; and first come, first served within each."""
    served: list[object] = []
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        await in_line(nursery, functools.partial(use, pool, 1))
        for priority in (Priority.BULK, Priority.NORMAL, Priority.URGENT) * 2:
            name = f"{priority.name} {len(served)}"
            await in_line(nursery, functools.partial(use, pool, 1, served, name, priority=priority))
    assert [str(name).split()[0] for name in served] == [*["URGENT"] * 2, *["NORMAL"] * 2, *["BULK"] * 2]


async def test_a_surge_cannot_starve_the_urgent(autojump_clock: MockClock) -> None:
    """They find what is reserved for them free, and never wait but for each other."""
    async with open_pool(GatedAdapter(), max_size=3, reserved=1) as pool:
        lent_to_others: Counter[str] = Counter()

        async def surge(priority: Priority) -> None:
            with trio.move_on_after(2), contextlib.suppress(PoolOverloaded):
                async with pool.acquire(priority=priority):
                    lent_to_others["now"] += 1
                    lent_to_others["most"] = max(lent_to_others["most"], lent_to_others["now"])
                    try:
                        await trio.sleep(0.5)
                    finally:
                        lent_to_others["now"] -= 1

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                for _ in range(10):
                    nursery.start_soon(surge, Priority.NORMAL)
                    nursery.start_soon(surge, Priority.BULK)
                await trio.sleep(0.2)
                started = trio.current_time()
                await use(pool, 0.1, priority=Priority.URGENT)
                assert trio.current_time() - started == pytest.approx(0.1)
                await trio.sleep(0.2)
    assert lent_to_others["most"] == 2
    assert pool.statistics().acquired > 80


async def test_what_is_reserved_is_all_there_is_to_wait_for(autojump_clock: MockClock) -> None:
    """Those who may not have it wait for another, although it lies idle; the urgent wait only when all are lent."""
    async with open_pool(GatedAdapter(), max_size=2, reserved=1) as pool, trio.open_nursery() as nursery:
        await in_line(nursery, *[functools.partial(use, pool, 1, priority=Priority.URGENT)] * 2)
        await trio.sleep(2)
        assert pool.statistics().idle == 2
        await in_line(nursery, *(functools.partial(use, pool, 5) for _ in range(2)))
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().waiting) == (1, 1, 1)
        await in_line(nursery, *[functools.partial(use, pool, 2, priority=Priority.URGENT)] * 2)
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().waiting) == (0, 2, 2)
        await trio.sleep(2.1)
        assert (pool.statistics().lent, pool.statistics().waiting) == (2, 1), "the second of the urgent"
        await trio.sleep(2.1)
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().waiting) == (1, 1, 1)
        await trio.sleep(1)
        assert (pool.statistics().idle, pool.statistics().lent, pool.statistics().waiting) == (1, 1, 0)


@pytest.mark.parametrize("ending", ["dirty", "broken"])
async def test_no_lost_wake_up_when_less_is_lent_than_the_others_may_have(
    autojump_clock: MockClock, ending: str
) -> None:
    """P4. While the one that came back is reset or closed, the idle one is for whoever waits."""
    async with open_pool(GatedAdapter(reset="slow", close="slow"), max_size=2, reserved=1) as pool:
        async with trio.open_nursery() as nursery:
            await in_line(nursery, *[functools.partial(use, pool, 1, priority=Priority.URGENT)] * 2)

        async def misuse() -> None:
            async with pool.acquire() as resource:
                await trio.sleep(1)
                resource.dirty = ending == "dirty"
                if ending == "broken":
                    raise GatedError("broken")

        async def misuse_and_tell() -> None:
            with pytest.raises(GatedError) if ending == "broken" else trio.CancelScope():
                await misuse()

        async with trio.open_nursery() as nursery:
            await in_line(nursery, misuse_and_tell, functools.partial(use, pool, 1))
            await trio.sleep(1.1)
            assert pool.statistics().waiting == 0


# Servers that fail.


async def test_fail_fast(autojump_clock: MockClock) -> None:
    """While the server is down every acquire ends at once in what happened; the first after a back-off step probes."""
    adapter = GatedAdapter(open="error")
    async with open_pool(adapter, max_size=2, fail_fast=True) as pool:
        began = trio.current_time()
        failures = 0
        while trio.current_time() < began + 30:
            started = trio.current_time()
            with pytest.raises(OpenFailed, match="the pool is to fail fast") as raised:
                await use(pool, 0)
            assert trio.current_time() == started
            assert isinstance(raised.value.__cause__, GatedError)
            failures += 1
            await trio.sleep(0.1)
        assert failures == 300
        assert pool.statistics().open_failures < 40
        adapter.always("open", "ok")
        await trio.sleep(5)
        await use(pool, 0)


async def test_fail_fast_spares_those_whom_a_lent_one_will_serve(autojump_clock: MockClock) -> None:
    """As long as anything may be returned, waiting is not in vain."""
    adapter = GatedAdapter()
    adapter.script("open", "ok", "error", "error", "error", "error", "error", "error")
    async with open_pool(adapter, max_size=2, fail_fast=True) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 1)
        await wait_all_tasks_blocked()
        await use(pool, 0)
        assert trio.current_time() == 1


async def test_without_fail_fast_a_permanent_error_alone_is_told_at_once(autojump_clock: MockClock) -> None:
    """A transient one is left to the caller's patience."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=1) as pool:
        adapter.script("open", GatedError("no such database", Verdict.PERMANENT))
        with pytest.raises(OpenFailed, match="trying again will not help"):
            await use(pool, 0)
        assert trio.current_time() == 0
        await trio.sleep(1)
        adapter.script("open", "error")
        await use(pool, 0)


async def test_recovery_is_noticed_within_one_back_off_step_and_without_a_herd(autojump_clock: MockClock) -> None:
    """However many wait: one probe at a time while it fails, and then no more connects at one time than allowed."""
    at_once: list[int] = []

    class Adapter(GatedAdapter):
        async def open(self) -> FakeResource:
            at_once.append(pool.statistics().opening)
            return await super().open()

    adapter = Adapter(open="error", slow=0.01)
    async with (
        open_pool(adapter, max_size=50, max_opening=4, acquire_timeout=200) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(500):
            nursery.start_soon(use, pool, 1)
        await trio.sleep(60)
        assert set(at_once[4:]) == {1}, "after the first failures"
        assert 10 < len(at_once) < 80
        adapter.always("open", "slow")
        seen = len(at_once)
        await trio.sleep(5 + 0.1)  # the longest back-off, and what an open takes
        assert pool.statistics().opened >= 1
        await trio.sleep(1)
        assert at_once[seen] == 1
        assert max(at_once) == 4
        assert pool.statistics().lent == 50
    assert pool.statistics().acquired == 500
