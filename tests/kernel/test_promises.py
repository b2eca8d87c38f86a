"""The pool's promises: one story each, then the clauses that a story would be too crowded with.

Everything runs on pytest-trio's mock clock, with `respool.testing.GatedAdapter` for a server.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import logging
import math
import re
import signal
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from trio.lowlevel import enable_ki_protection
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

import respool
from respool import Verdict
from respool.testing import FakeResource, Gate, GatedAdapter, GatedError, Hook, cancel_everywhere
from tests.kernel.counting import counted_calls

FakePool = respool.Pool[FakeResource]


async def warm(pool: FakePool, count: int = 1) -> list[FakeResource]:
    """Have `count` resources opened and left idle. Returns them, the coldest first."""
    async with AsyncExitStack() as stack:
        resources = [await stack.enter_async_context(pool.acquire()) for _ in range(count)]
    assert pool.statistics().idle == count
    return resources[::-1]


async def hold(pool: FakePool, seconds: float, error: Exception | None = None) -> None:
    """Borrow, use for some seconds, and perhaps end in `error`."""
    assert isinstance(pool.adapter, GatedAdapter)
    async with pool.acquire() as resource:
        with pool.adapter.lease(resource):
            await trio.sleep(seconds)
            if error is not None:
                raise error


@asynccontextmanager
async def held(pool: FakePool) -> AsyncIterator[None]:
    """Have another task hold a resource for the length of a block."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, math.inf)
        await wait_all_tasks_blocked()
        yield
        nursery.cancel_scope.cancel()


async def hold_and_fail(pool: FakePool, seconds: float, error: Exception) -> None:
    """Borrow, use for some seconds, and end in `error`, which must come out as it is."""
    with pytest.raises(type(error)) as raised:
        await hold(pool, seconds, error)
    assert raised.value is error


class Watch(trio.abc.Instrument):
    """Looks at a pool after every step of every task, and writes down what must never be."""

    def __init__(self, pool: FakePool) -> None:
        self.pool = pool
        self.steps = 0
        self.seen: set[str] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        now = self.pool.statistics()
        if now.size > now.max_size:
            self.seen.add("more resources than max_size")
        if now.idle and now.waiting:
            self.seen.add("a waiting task beside a free resource")
        if now.idle + now.lent + now.opening + now.checking + now.resetting + now.closing != now.size:
            self.seen.add("counts that do not add up")


async def test_p1_bounds(autojump_clock: MockClock) -> None:
    """From before open until after close, the server sees at most max_size resources."""
    adapter = GatedAdapter(open="slow", close="slow")
    async with respool.open_pool(adapter, max_size=3, max_opening=10) as pool, trio.open_nursery() as nursery:
        # Three of five borrowers can have a resource, and nothing is opened for the others.
        for _ in range(5):
            nursery.start_soon(hold, pool, 10)
        await trio.sleep(0.5)
        assert adapter.present == pool.statistics().opening == 3
        await trio.sleep(1)
        assert adapter.present == pool.statistics().lent == 3
        assert pool.statistics().waiting == 2

        # One that is being closed counts until it is closed: only then may another be opened in its place.
        await trio.sleep(9)
        nursery.start_soon(hold_and_fail, pool, 1, GatedError("broken"))
        await trio.sleep(1.5)
        nursery.start_soon(hold, pool, 30)
        nursery.start_soon(hold, pool, 30)
        nursery.start_soon(hold, pool, 30)
        await trio.lowlevel.checkpoint()
        assert pool.statistics().size == adapter.present == 3
    assert adapter.most_present == 3
    assert adapter.present == 0
    assert adapter.faults == []


async def test_p2_exactly_once(autojump_clock: MockClock) -> None:
    """Whatever is raised or cancelled at whichever checkpoint, each lease comes back once and only once."""
    adapter = GatedAdapter(open="slow", reset="slow", close="slow", exchange="slow")
    async with respool.open_pool(adapter, max_size=1, reset_timeout=2) as pool:

        async def contend() -> trio.Nursery:
            background.start_soon(hold, pool, 1)
            await wait_all_tasks_blocked()
            return background

        async def borrow(_: object) -> None:
            async with pool.acquire() as resource:
                with adapter.lease(resource):
                    assert await adapter.exchange(resource, "mine") == "mine"

        async def everything_came_back(_: object) -> None:
            await trio.sleep(10)
            assert pool.statistics().lent == pool.statistics().waiting == 0
            assert pool.statistics().idle == 1
            assert pool.statistics().acquired == pool.statistics().use_time.count

        # Cancelled at its first, second, third... moment, in the queue, at the hand-over and in the exchange.
        async with trio.open_nursery() as background:
            report = await cancel_everywhere(borrow, prepare=contend, check=everything_came_back)
        assert report.cancelled >= 3
        assert adapter.faults == []

        # Raised: the error comes out as it is, and the resource goes where the verdict says.
        for error in [ValueError(), GatedError("gone"), ExceptionGroup("two", [KeyError(), GatedError("gone")])]:
            await hold_and_fail(pool, 1, error)
            await hold(pool, 1)
            await everything_came_back(None)
        assert pool.statistics().discards["broken"] == 2
    assert adapter.opened == adapter.closed == 3
    assert adapter.faults == []


async def test_p3_first_come_first_served(autojump_clock: MockClock) -> None:
    """Nobody overtakes a waiting task; a free resource is handed straight to the first waiter."""
    adapter = GatedAdapter()
    record: list[object] = []
    async with respool.open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:

        async def borrow(number: object) -> None:
            async with pool.acquire():
                record.append(number)
                await trio.sleep(1)

        async with pool.acquire():
            for number in range(5):
                nursery.start_soon(borrow, number)
                await wait_all_tasks_blocked()
        # The resource has been handed over already: whoever comes now finds it lent, and stands last.
        assert pool.statistics().lent == 1
        assert pool.statistics().waiting == 4
        await borrow("a newcomer")
    assert record == [0, 1, 2, 3, 4, "a newcomer"]


async def test_p4_no_lost_wake_ups(autojump_clock: MockClock) -> None:
    """After no step of any task is there a free resource beside a waiting task."""
    adapter = GatedAdapter(open="slow", exchange="slow", validate="slow")
    adapter.script("open", "ok", "error", "slow", "error")
    async with respool.open_pool(adapter, max_size=3, max_lifetime=50, validate_after=2) as pool:
        watch = Watch(pool)
        trio.lowlevel.add_instrument(watch)

        async def borrow(number: int) -> None:
            await trio.sleep(number * 0.35)
            with trio.move_on_after(0.3 + number % 7):
                async with pool.acquire() as resource:
                    if number % 5 == 0:
                        await adapter.exchange(resource, number)
                    if number % 11 == 0:
                        resource.broken = True

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(borrow, number)
        trio.lowlevel.remove_instrument(watch)
        assert watch.steps > 200
        assert watch.seen == set()
        assert pool.statistics().waiting == 0
        assert pool.statistics().acquired + pool.statistics().cancelled == 100


async def test_p5_no_strangers_data(autojump_clock: MockClock) -> None:
    """What is left in the middle of an exchange is recovered or discarded, never lent as it is."""
    adapter = GatedAdapter(exchange="slow")

    async def ask(question: str) -> None:
        async with pool.acquire() as resource:
            with adapter.lease(resource):
                assert await adapter.exchange(resource, question) == question

    async with respool.open_pool(adapter, max_size=1) as pool:
        # The borrower's time is up before the answer is there: it is read and dropped before the next one asks.
        with trio.move_on_after(0.5):
            await ask("yours")
        await ask("mine")
        assert adapter.calls == ["open", "reset 1"]

        # Where reset does not make it clean, or fails, or does not end, the resource is discarded.
        for gate in ("error", "never"):
            adapter.script("reset", gate)
            with trio.move_on_after(0.5):
                await ask("yours")
            await ask("mine")
        assert adapter.calls[2:] == ["reset 1", "close 1", "open", "reset 2", "close 2", "open"]

        # A waiter gets it only when it is clean, too.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            await trio.sleep(0.5)
            nursery.start_soon(ask, "second")
            nursery.start_soon(ask, "third")
            await trio.sleep(1)
            nursery.cancel_scope.deadline = trio.current_time() + 10
        async with pool.acquire() as resource:
            assert adapter.is_clean(resource)
    assert adapter.faults == []


async def test_p6_cancellation_is_prompt(autojump_clock: MockClock) -> None:
    """A cancelled borrower leaves at once; the pool cleans up behind it; mass time-outs cost no reconnects."""
    adapter = GatedAdapter(exchange="slow", reset="slow", close="slow")
    async with respool.open_pool(adapter, max_size=10, max_opening=10) as pool:
        await warm(pool, 10)

        async def impatient() -> None:
            started = trio.current_time()
            with trio.move_on_after(0.5):
                async with pool.acquire() as resource:
                    with adapter.lease(resource):
                        await adapter.exchange(resource, "a slow query")
            assert trio.current_time() - started == 0.5

        # 200 of them, ten of which get a resource, five times over.
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for _ in range(200):
                    nursery.start_soon(impatient)
            # They are all gone, and not one of the resources they left is lost: each is being reset.
            assert pool.statistics().waiting == pool.statistics().lent == 0
            assert pool.statistics().resetting == 10
            await trio.sleep(2)
            assert pool.statistics().idle == 10
        assert pool.statistics().opened == 10
        assert pool.statistics().cancelled == 5 * 190

        # Nor does one that cannot be recovered keep its borrower: reset and close have time limits of their own.
        adapter.always("reset", "never")
        adapter.always("close", "never")
        await impatient()
        await trio.sleep(pool.limits.reset_timeout + 0.1)
        assert pool.statistics().closing == 1
        await trio.sleep(pool.limits.close_timeout)
        assert pool.statistics().size == 9
        assert adapter.closed_forcefully == 1
        adapter.always("close", "ok")
    assert adapter.faults == []


async def test_p7_a_waiter_never_waits_on_one_connect(autojump_clock: MockClock) -> None:
    """A waiter takes whichever comes first, a returned resource or a new one; a new one is not wasted."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=3, max_lifetime=10_000) as pool:
        # The connect begun for it hangs, and a resource is returned: it has that.
        adapter.script("open", "ok", "never")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool, 2)
            await wait_all_tasks_blocked()
            async with pool.acquire() as resource:
                assert trio.current_time() == 2
                assert resource.number == 1
                assert pool.statistics().opening == 1
            await trio.sleep(pool.limits.open_timeout)

        # It gives up just before the connect is ready: the next one has it, and nothing else is opened.
        adapter.always("open", "slow")
        await warm(pool)
        async with pool.acquire():
            with trio.move_on_after(0.99) as patience:
                await pool.acquire().__aenter__()
            assert patience.cancelled_caught
            assert pool.statistics().opening == 1
            async with pool.acquire(timeout=0.02) as resource:
                assert resource.number == 2
        assert adapter.calls.count("open") == 3

        # Two connects are under way, and the first to be begun hangs: the first in the queue has the other one.
        adapter.script("open", "never")
        async with trio.open_nursery() as nursery:
            await hold_and_fail(pool, 0, GatedError("all of them", Verdict.RETIRE))
            await trio.sleep(1)
            nursery.start_soon(hold, pool, 0)
            nursery.start_soon(hold, pool, 60)
            await trio.sleep(1.5)
            assert [holder.seconds for holder in pool.statistics().holders] == [0.5]
            assert pool.statistics().opening == 1
            nursery.cancel_scope.cancel()
    assert adapter.faults == []


async def test_p8_failure_is_told(autojump_clock: MockClock) -> None:
    """An error says how long it waited, for what, who holds it and since when, and why nothing could be opened."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, name="shop", max_size=2, max_waiting=2) as pool:
        # Held for long.
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(hold, pool), 20, name="report")
            await trio.sleep(3)
            nursery.start_soon(functools.partial(hold, pool), 20, name="import")
            await trio.sleep(1)
            with pytest.raises(respool.PoolTimeout) as timeout:
                await pool.acquire(timeout=2).__aenter__()
            assert str(timeout.value) == (
                "shop: waited 2 s for a resource; 2 of 2 lent, 0 idle, 1 waiting;"
                " held by report for 6 s; import for 3 s"
            )
            assert isinstance(timeout.value, trio.TooSlowError)
            assert timeout.value.__cause__ is None

            # Refused at once.
            nursery.start_soon(hold, pool, 1)
            nursery.start_soon(hold, pool, 1)
            await wait_all_tasks_blocked()
            with pytest.raises(respool.PoolOverloaded) as overloaded:
                await pool.acquire().__aenter__()
            assert str(overloaded.value) == (
                "shop: 2 tasks are waiting already; 2 of 2 lent, 0 idle, 2 waiting;"
                " held by report for 6 s; import for 3 s"
            )
            assert trio.current_time() == 6

        # The server is away: the borrower waits as long as it said it would, and is told the last error.
        adapter.always("open", "error")
        await trio.sleep(2 * pool.limits.max_idle)
        with pytest.raises(respool.PoolTimeout) as timeout:
            await pool.acquire(timeout=20).__aenter__()
        _, _, last = str(timeout.value).partition("; attempts to open one that failed in a row: ")
        assert re.fullmatch(r"\d+, the last with GatedError: open: the gate says error", last)
        assert str(timeout.value.__cause__) == "open: the gate says error"

        # Nothing can help: it is told at once, and so is everybody who waits.
        wrong = GatedError("wrong password", Verdict.PERMANENT)
        adapter.script("open", wrong)
        await trio.sleep(10)
        started = trio.current_time()
        for _ in range(2):  # the second time without even asking
            with pytest.raises(respool.OpenFailed) as failed:
                await pool.acquire().__aenter__()
        assert trio.current_time() == started
        assert str(failed.value).startswith("shop: cannot open a resource, and trying again will not help; 0 of 2 lent")
        assert str(failed.value).endswith(", the last with GatedError: wrong password")
        assert failed.value.__cause__ is wrong

        # A long story is told in a line, and whole by the cause.
        long = GatedError("wrong\n\tpassword " * 20, Verdict.PERMANENT)
        adapter.script("open", long)
        await trio.sleep(10)
        with pytest.raises(respool.OpenFailed) as failed:
            await pool.acquire().__aenter__()
        assert re.search(r" GatedError: (wrong password ){12}wrong pa\.\.\.$", str(failed.value))
        assert failed.value.__cause__ is long

        # The back-off spares the server, not the password's owner: the next attempt comes soon.
        adapter.always("open", "ok")
        await trio.sleep(10)
        async with pool.acquire():
            pass


async def test_p9_closing_is_complete(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """When the block ends, the pool waits a while for its leases; then nothing is left, neither resource nor task."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    adapter = GatedAdapter(close="slow", reset="never")
    adapter.script("open", "ok", "ok", "ok", "ok", "ok", "never")
    async with trio.open_nursery() as nursery:
        async with respool.open_pool(adapter, min_size=6, max_size=6, max_opening=6, drain_timeout=10) as pool:
            # At the end of the block there is one resource in each state of its life.
            await trio.sleep(1)
            async with pool.acquire() as resource:
                resource.dirty = True
            nursery.start_soon(hold_and_fail, pool, 0, GatedError("broken"))
            nursery.start_soon(functools.partial(hold, pool), 4, name="patient")
            nursery.start_soon(functools.partial(hold, pool), 60, name="lingering")
            await wait_all_tasks_blocked()
            now = pool.statistics()
            assert (now.opening, now.idle, now.lent, now.resetting, now.closing) == (1, 1, 2, 1, 1)
            closing_began = trio.current_time()
        # It was waited for one, and not beyond the limit for the other, whose resource was closed under it.
        assert trio.current_time() - closing_began == 10 + 1
        assert [record.getMessage() for record in caplog.records] == [
            "GatedAdapter: closing with resources still lent to lingering for 10 s"
        ]
        assert adapter.present == 0
        assert adapter.opened == adapter.closed
        assert adapter.closed_forcefully == 0
        assert pool.statistics().size == 0
        with pytest.raises(respool.PoolClosed):
            await pool.acquire().__aenter__()
        # The lingering borrower is not disturbed, and gives back what is no longer there.
        assert trio.lowlevel.current_statistics().tasks_living == tasks + 1
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert adapter.faults == []


async def test_p10_the_pool_outlives_its_server(autojump_clock: MockClock) -> None:
    """Resets, refused connects, black holes and restarts neither crash the pool nor shrink it for good."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, min_size=4, max_size=4, validate_after=30, open_timeout=5) as pool:
        await trio.sleep(1)

        # The server resets every connection, and refuses new ones for ten minutes.
        def server_goes_away() -> None:
            for resource in adapter.resources:
                resource.broken = True

        for outage in ("error", "never"):
            server_goes_away()
            adapter.always("open", outage)
            for _ in range(30):
                with pytest.raises(respool.PoolTimeout):
                    await pool.acquire(timeout=20).__aenter__()
            assert adapter.present <= 1  # a single probe at a time
            assert pool.statistics().waiting == 0
            # It is back: soon so is the pool, in full.
            adapter.always("open", "ok")
            await trio.sleep(5 + 5)
            assert pool.statistics().idle == 4
            async with pool.acquire() as resource:
                assert not resource.broken

        # Connections fall into a black hole: validation finds out, and whoever waits has a new one.
        await trio.sleep(60)
        adapter.always("validate", "never")
        async with pool.acquire(timeout=10):
            pass
        adapter.always("validate", "ok")
        await trio.sleep(1)

        # It restarts, and tells one borrower so.
        opened = adapter.opened
        await hold_and_fail(pool, 0, GatedError("the server is shutting down", Verdict.RETIRE))
        await trio.sleep(1)
        assert pool.statistics().idle == 4
        assert adapter.opened == opened + 4
        assert pool.statistics().discards["retired"] == 4
    assert adapter.faults == []


async def test_p11_timeouts_cost_nothing_when_nobody_waits(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uncontended, acquire makes no cancel scope, sets no deadline, and allocates nothing but the lease."""
    made: list[str] = []
    init = trio.CancelScope.__init__
    deadline: Any = trio.CancelScope.deadline

    def counting_init(scope: trio.CancelScope, *args: Any, **kwargs: Any) -> None:
        made.append("a cancel scope")
        init(scope, *args, **kwargs)

    def counting_set(scope: trio.CancelScope, seconds: float) -> None:
        made.append("a deadline")
        deadline.fset(scope, seconds)

    async with respool.open_pool(GatedAdapter(), acquire_timeout=30) as pool:
        await warm(pool)
        monkeypatch.setattr(trio.CancelScope, "__init__", counting_init)
        monkeypatch.setattr(trio.CancelScope, "deadline", property(deadline.fget, counting_set))
        due = trio.lowlevel.current_statistics().seconds_to_next_deadline
        for _ in range(3):
            async with pool.acquire(timeout=5):
                pass
            async with pool.acquire():
                # What is kept while the lease lasts: one object, and the time.
                assert trio.lowlevel.current_statistics().seconds_to_next_deadline == due
        assert made == []
        monkeypatch.undo()

        only_ours = [tracemalloc.Filter(inclusive=True, filename_pattern="*/respool/_*.py")]
        tracemalloc.start()
        try:
            async with pool.acquire():
                pass
            before = tracemalloc.take_snapshot().filter_traces(only_ours)
            async with pool.acquire():
                during = tracemalloc.take_snapshot().filter_traces(only_ours)
            after = tracemalloc.take_snapshot().filter_traces(only_ours)
        finally:
            tracemalloc.stop()
        assert allocated(before, after) == 0
        assert allocated(before, during) == 1


def allocated(before: tracemalloc.Snapshot, after: tracemalloc.Snapshot) -> int:
    return sum(line.count_diff for line in after.compare_to(before, "lineno"))


async def test_acquire_is_a_checkpoint_and_check_in_is_not(autojump_clock: MockClock) -> None:
    """Always, whether or not it has to wait."""
    async with respool.open_pool(GatedAdapter()) as pool:
        for _ in range(2):
            acquire = pool.acquire()
            with assert_checkpoints():
                await acquire.__aenter__()
            with trio.CancelScope() as scope:
                scope.cancel()
                await acquire.__aexit__(None, None, None)
            assert not scope.cancelled_caught


# P1, bounds: the clauses.


async def test_max_opening_bounds_the_connects_at_one_time(autojump_clock: MockClock) -> None:
    """However many wait, at most max_opening resources are being opened."""
    adapter = GatedAdapter(open="slow")
    async with respool.open_pool(adapter, max_size=10, max_opening=2) as pool, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(hold, pool, 60)
        await trio.sleep(0.5)
        for second in range(4):
            assert pool.statistics().opening == 2
            assert pool.statistics().lent == 2 * second
            await trio.sleep(1)


async def test_min_size_is_opened_in_the_background_and_refilled(autojump_clock: MockClock) -> None:
    """Nobody waits for min_size, and it is there again after a loss."""
    adapter = GatedAdapter(open="slow")
    async with respool.open_pool(adapter, min_size=2, max_size=5) as pool:
        assert trio.current_time() == 0
        await trio.sleep(1.5)
        assert pool.statistics().idle == 2
        await hold_and_fail(pool, 0, GatedError("broken"))
        await trio.sleep(1.5)
        assert pool.statistics().idle == 2
        assert adapter.opened == 3


# P4, no lost wake-ups: the clauses.


async def test_a_burst_is_served_by_as_many_resources_as_there_may_be(autojump_clock: MockClock) -> None:
    """Each open that succeeds begins the next, as long as somebody waits."""
    adapter = GatedAdapter(open="slow")
    async with respool.open_pool(adapter, max_size=4, max_opening=1) as pool, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(hold, pool, 5)
        await trio.sleep(4.5)
        assert pool.statistics().lent == 4


async def test_whoever_may_not_wait_still_has_an_unclean_resource_reset(autojump_clock: MockClock) -> None:
    """A resource found unclean by an acquire that ends in an error is reset for the next one."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=1) as pool:
        (resource,) = await warm(pool)
        resource.dirty = True
        with pytest.raises(respool.PoolTimeout):
            await pool.acquire(timeout=0).__aenter__()
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


async def test_unclean_at_check_out_is_reset_and_another_one_lent(autojump_clock: MockClock) -> None:
    """A resource to which something happened while it was idle is not lent as it is."""
    adapter = GatedAdapter(reset="slow")
    async with respool.open_pool(adapter, max_size=2) as pool:
        colder, warmer = await warm(pool, 2)
        warmer.unread.append("a notice")
        async with pool.acquire() as resource:
            assert resource is colder
            assert pool.statistics().resetting == 1
            async with pool.acquire() as reset:
                assert reset is warmer
                assert adapter.is_clean(reset)
        # The peer of this one is gone: reset finds out.
        warmer.broken = colder.broken = True
        async with pool.acquire() as resource:
            assert resource.number == 3
    assert adapter.faults == []


async def test_an_error_that_says_nothing_against_the_resource_keeps_it(autojump_clock: MockClock) -> None:
    """KEEP and clean: lent again without further ado."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter) as pool:
        await hold_and_fail(pool, 0, KeyError())
        await hold(pool, 0)
    assert adapter.calls == ["open", "close 1"]


async def test_validation_after_a_long_rest(autojump_clock: MockClock) -> None:
    """A resource idle for validate_after is validated before it is lent; not sooner, and not in the borrower's task."""
    adapter = GatedAdapter(validate="slow")
    async with respool.open_pool(adapter, validate_after=30) as pool:
        await warm(pool)
        await trio.sleep(29.9)
        async with pool.acquire():
            assert adapter.calls == ["open"]
        await trio.sleep(30)
        with trio.move_on_after(0.5) as patience:
            await pool.acquire().__aenter__()
        assert patience.cancelled_caught
        await trio.sleep(1)
        async with pool.acquire(timeout=0):
            assert adapter.calls == ["open", "validate 1"]


async def test_what_was_idle_even_longer_goes_with_one_that_fails_validation(autojump_clock: MockClock) -> None:
    """Nobody has to find out about a forgotten connection one time-out after the other."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=4, validate_after=30) as pool:
        await warm(pool, 3)
        await trio.sleep(10)
        async with pool.acquire() as warmest:
            pass
        await trio.sleep(40)
        adapter.script("validate", "never")
        async with pool.acquire() as resource:
            assert trio.current_time() == 50 + pool.limits.reset_timeout
            assert resource.number == 4
        assert [call for call in adapter.calls if "validate" in call] == [f"validate {warmest.number}"]
        assert pool.statistics().discards["invalid"] == 3


async def test_a_waiter_does_not_wait_for_the_close_of_what_failed_validation(autojump_clock: MockClock) -> None:
    """If there is room to open another, that begins at once."""
    adapter = GatedAdapter(validate="error", close="slow")
    async with respool.open_pool(adapter, max_size=2, validate_after=0) as pool:
        await warm(pool)
        async with pool.acquire() as resource:
            assert trio.current_time() == 0
            assert resource.number == 2


async def test_retired_resources_are_replaced_at_once(autojump_clock: MockClock) -> None:
    """Those that min_size asks for, if there is room, and not only when the old ones are closed."""
    adapter = GatedAdapter(close="slow")
    async with respool.open_pool(adapter, min_size=1, max_size=3) as pool:
        await warm(pool, 2)
        await hold_and_fail(pool, 0, GatedError("shutting down", Verdict.RETIRE))
        await wait_all_tasks_blocked()
        assert trio.current_time() == 0
        assert {resource.number for resource in adapter.resources if not resource.closed} == {3}


@pytest.mark.parametrize("wrapped", [False, True])
async def test_retire_closes_everything_opened_before(autojump_clock: MockClock, wrapped: bool) -> None:
    """Idle now, lent when it comes back, being opened as soon as it is open; also if the error came in a group."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=4) as pool, trio.open_nursery() as nursery:
        *_, warmest = await warm(pool, 3)
        nursery.start_soon(hold, pool, 10)
        await trio.sleep(1)
        error: Exception = GatedError("shutting down", Verdict.RETIRE)
        await hold_and_fail(pool, 0, ExceptionGroup("two", [KeyError(), error]) if wrapped else error)
        await trio.sleep(1)
        assert adapter.resources == {warmest}
        await trio.sleep(10)
        assert adapter.resources == set()
        assert pool.statistics().discards["retired"] == 3
    assert adapter.faults == []


async def test_an_older_resources_complaint_does_not_retire_newer_ones(autojump_clock: MockClock) -> None:
    """After a failover each old connection dies with the same error; the new ones have nothing to do with it."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=4) as pool, trio.open_nursery() as nursery:
        shutting_down = GatedError("shutting down", Verdict.RETIRE | Verdict.DISCARD)
        nursery.start_soon(hold_and_fail, pool, 1, shutting_down)
        nursery.start_soon(hold_and_fail, pool, 2, shutting_down)
        await trio.sleep(1.5)
        async with pool.acquire() as newer:
            pass
        await trio.sleep(1)
        assert adapter.resources == {newer}
        assert not newer.closed


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


# P7, a waiter never waits on one connect: the clauses.


async def test_an_open_that_outlives_its_generation_is_not_lent(autojump_clock: MockClock) -> None:
    """What was begun before the generation was retired is closed, and whoever waited for it has another."""
    adapter = GatedAdapter(slow=2)
    async with respool.open_pool(adapter, max_size=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold_and_fail, pool, 1, GatedError("shutting down", Verdict.RETIRE))
        await wait_all_tasks_blocked()
        adapter.script("open", "slow")
        async with pool.acquire() as resource:
            assert resource.number == 3
        assert pool.statistics().discards["retired"] == 2


# P8, failure is told: the clauses.


async def test_a_permanent_error_does_not_fail_those_who_may_still_be_served(autojump_clock: MockClock) -> None:
    """As long as something is lent, a waiter may have it; once nothing is, the waiter is told."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, 10)
        await wait_all_tasks_blocked()
        adapter.always("open", "error")
        wrong = GatedError("wrong password", Verdict.PERMANENT)
        adapter.script("open", *[wrong] * 100)
        async with pool.acquire() as resource:
            assert trio.current_time() == 10
            assert resource.number == 1
            started = trio.current_time()
            nursery.start_soon(fail_to_acquire, pool, respool.OpenFailed, wrong)
            await trio.sleep(1)
            resource.broken = True
        await wait_all_tasks_blocked()
    assert trio.current_time() - started < 1 + 5 + 0.1  # the longest back-off


async def fail_to_acquire(pool: FakePool, error: type[Exception], cause: Exception | None = None) -> None:
    with pytest.raises(error) as raised:
        await pool.acquire().__aenter__()
    assert raised.value.__cause__ is cause


async def test_back_off_is_one_probe_at_a_time_with_jitter(autojump_clock: MockClock) -> None:
    """A server that cannot be reached is asked again soon, ever less often, by one connect, at no fixed interval."""
    attempts: list[float] = []

    class Adapter(GatedAdapter):
        async def open(self) -> FakeResource:
            attempts.append(trio.current_time())
            return await super().open()

    adapter = Adapter(open="error")
    async with respool.open_pool(adapter, max_size=10, max_opening=5) as pool, trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(fail_after_a_minute, pool)
    assert attempts[:5] == [0] * 5
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts[4:])]
    assert len(gaps) > 12
    assert all(0 < gap <= min(5, 0.1 * 2 ** (5 + number)) for number, gap in enumerate(gaps))
    assert len(set(gaps)) == len(gaps)
    assert adapter.most_present == 5


async def fail_after_a_minute(pool: FakePool) -> None:
    started = trio.current_time()
    with pytest.raises(respool.PoolTimeout, match=r"waited 60 s for a resource; 0 of 10 lent") as raised:
        await pool.acquire(timeout=60).__aenter__()
    assert isinstance(raised.value.__cause__, GatedError)
    assert trio.current_time() - started == 60


async def test_recovery_is_noticed_by_all_who_wait(autojump_clock: MockClock) -> None:
    """The first open that succeeds ends the single probing."""
    adapter = GatedAdapter(open="error")
    async with respool.open_pool(adapter, max_size=4, max_opening=4) as pool, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hold, pool, 60)
        await trio.sleep(10)
        adapter.always("open", "slow")
        await trio.sleep(5 + 1 + 1 + 0.1)
        assert pool.statistics().lent == 4


async def test_stacks_are_recorded_if_asked_for(autojump_clock: MockClock) -> None:
    """With record_stacks the error shows the line that acquired."""
    async with respool.open_pool(GatedAdapter(), max_size=1, record_stacks=True) as pool, held(pool):
        with pytest.raises(respool.PoolTimeout) as raised:
            await pool.acquire(timeout=1).__aenter__()
        assert "in hold\n" in str(raised.value)
        assert "async with pool.acquire() as resource:" in str(raised.value)


async def test_the_callers_own_deadline_wins(autojump_clock: MockClock) -> None:
    """And acquire's timeout wins over acquire_timeout."""
    async with respool.open_pool(GatedAdapter(), max_size=1, acquire_timeout=10) as pool, held(pool):
        with trio.move_on_after(5) as scope:
            await pool.acquire().__aenter__()
        assert scope.cancelled_caught
        for timeout, expected in [(None, 10), (3, 3), (20, 20)]:
            started = trio.current_time()
            with pytest.raises(respool.PoolTimeout, match=f"waited {expected} s"):
                await pool.acquire(timeout=timeout).__aenter__()
            assert trio.current_time() - started == expected
        with trio.move_on_after(1_000_000) as scope:
            await pool.acquire(timeout=math.inf).__aenter__()
        assert scope.cancelled_caught


async def test_waiters_with_different_timeouts_are_each_told_in_time(autojump_clock: MockClock) -> None:
    """Whatever order they came in."""
    async with respool.open_pool(GatedAdapter(), max_size=1, acquire_timeout=7) as pool, held(pool):

        async def wait(timeout: float | None) -> None:
            with pytest.raises(respool.PoolTimeout):
                await pool.acquire(timeout=timeout).__aenter__()
            assert trio.current_time() == (7 if timeout is None else timeout)

        async with trio.open_nursery() as nursery:
            for timeout in [None, 3, 20, None, 1, 7, 15, 2, 0, None]:
                nursery.start_soon(wait, timeout)
        assert pool.statistics().timeouts == 10


@pytest.mark.parametrize("timeout", [-1, math.nan, True])
async def test_a_timeout_must_be_a_number_of_seconds(timeout: float) -> None:
    """Refused before anything else happens."""
    async with respool.open_pool(GatedAdapter()) as pool:
        with pytest.raises(ValueError, match=f"timeout must be a number of seconds >= 0, not {timeout}"):
            pool.acquire(timeout=timeout)


# P9, closing is complete: the clauses.


async def test_closing_fails_those_who_wait(autojump_clock: MockClock) -> None:
    """At once, and says why."""
    async with trio.open_nursery() as nursery:
        async with respool.open_pool(GatedAdapter(), max_size=1) as pool:
            nursery.start_soon(hold, pool, 5)
            await wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(fail_to_acquire, pool, respool.PoolClosed)
            await wait_all_tasks_blocked()
        assert trio.current_time() == 5


async def test_closing_under_cancellation_is_at_once(autojump_clock: MockClock) -> None:
    """No politeness, no waiting for leases; but still everything is closed."""
    adapter = GatedAdapter(close="never", reset="never")
    async with trio.open_nursery() as borrowers:
        with trio.move_on_after(1):
            async with respool.open_pool(adapter, min_size=4) as pool:
                await trio.sleep(0.1)
                async with pool.acquire() as resource:
                    resource.dirty = True
                borrowers.start_soon(hold, pool, 60)
                borrowers.start_soon(hold_and_fail, pool, 0, GatedError("broken"))
                await trio.sleep_forever()
        assert trio.current_time() == 1
        assert adapter.present == 0
        assert adapter.closed == adapter.closed_forcefully == 4
        borrowers.cancel_scope.cancel()


async def test_a_cancellation_while_draining_ends_it(autojump_clock: MockClock) -> None:
    """The block has ended and the pool waits for a lease: then it is cancelled."""
    adapter = GatedAdapter(close="slow")
    async with trio.open_nursery() as borrowers:
        with trio.move_on_after(1):
            async with respool.open_pool(adapter, drain_timeout=60) as pool:
                borrowers.start_soon(hold, pool, 10)
                await wait_all_tasks_blocked()
        assert trio.current_time() == 1
        assert adapter.present == 0


async def test_closing_does_not_wait_for_what_nobody_needs_any_more(autojump_clock: MockClock) -> None:
    """An open, a validation and a reset under way are cut short, and the resources closed politely."""
    adapter = GatedAdapter(open="never", validate="never", reset="never", close="slow")
    adapter.script("open", "ok", "ok")
    async with respool.open_pool(adapter, max_size=3, max_opening=3, validate_after=1) as pool:
        await warm(pool, 2)
        async with pool.acquire() as resource:
            resource.dirty = True
        await trio.sleep(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, pool, 1)
            nursery.start_soon(hold, pool, 1)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        now = pool.statistics()
        assert (now.opening, now.checking, now.resetting) == (1, 1, 1)
        closing_began = trio.current_time()
    assert trio.current_time() - closing_began == adapter.slow
    assert adapter.present == adapter.closed_forcefully == 0


@pytest.mark.parametrize("gate", ["ok", "never"])
async def test_an_error_leaves_the_block_as_it_is(autojump_clock: MockClock, gate: Gate) -> None:
    """Not wrapped in a group, and not before everything is closed."""
    adapter = GatedAdapter(close=gate)
    error = KeyError()

    async def fail_in_block() -> None:
        async with respool.open_pool(adapter) as pool:
            await warm(pool)
            raise error

    with pytest.raises(KeyError) as raised:
        await fail_in_block()
    assert raised.value is error
    assert adapter.present == 0


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


class Unruly(GatedAdapter):
    """Its synchronous hooks raise as well."""

    async def open(self) -> FakeResource:
        resource = await super().open()
        resource.dirty = True
        return resource

    def is_clean(self, resource: FakeResource) -> bool:
        raise LookupError("is_clean")

    def verdict(self, error: BaseException) -> Verdict:
        raise LookupError("verdict")


async def fail(pool: FakePool, error: Exception) -> None:
    async with pool.acquire():
        raise error


async def test_hooks_that_raise_cost_a_resource_and_no_more(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the pool, and not the borrower's own error."""
    adapter = Unruly(close="error")
    async with respool.open_pool(adapter, max_size=2) as pool:
        error = KeyError("the borrower's")
        for number in (1, 2):
            with pytest.raises(KeyError) as raised:
                await fail(pool, error)
            assert raised.value is error
            assert adapter.opened == number
        async with pool.acquire():
            pass
        await trio.sleep(1)
        assert pool.statistics().discards["broken"] == 3
        adapter.script("open", ExceptionGroup("several addresses", [OSError(), OSError()]))
        async with pool.acquire() as resource:
            assert resource.number == 4
    messages = {record.getMessage().partition(" of Unruly")[0] for record in caplog.records}
    assert messages == {
        "Unruly: verdict() failed; discarding the resource",
        "Unruly: is_clean() failed; resetting the resource",
        "Unruly: is_clean",
        "Unruly: closing a resource failed: GatedError: close: the gate says error",
        "Unruly: could not open a resource: ExceptionGroup: several addresses (2 sub-exceptions)",
    }


async def test_a_server_that_stays_away_is_warned_of_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """For each reason that differs from the last one, and again after it has been back."""
    caplog.set_level(logging.DEBUG)
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, name="shop") as pool:
        for _ in range(2):
            adapter.script("open", *map(GatedError, ["refused", "refused", "refused", "broken", "refused"]))
            async with pool.acquire():
                pass
            pool.retire_all()
            await trio.sleep(1)
    prefix = "shop: could not open a resource: GatedError: "
    assert [f"{record.levelname} {record.getMessage().removeprefix(prefix)}" for record in caplog.records] == [
        "WARNING refused",
        "DEBUG refused",
        "DEBUG refused",
        "WARNING broken",
        "WARNING refused",
    ] * 2


async def test_hooks_that_never_end_are_ended(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """Each by the option named for it."""
    adapter = GatedAdapter()
    async with respool.open_pool(
        adapter, max_size=1, acquire_timeout=60, validate_after=10, open_timeout=2, reset_timeout=3, close_timeout=4
    ) as pool:
        adapter.script("open", "never")
        async with pool.acquire() as resource:
            assert 2 < trio.current_time() <= 2.1
            resource.dirty = True
        adapter.script("reset", "never")
        adapter.script("close", "never")
        started = trio.current_time()
        async with pool.acquire():
            assert trio.current_time() - started == pytest.approx(3 + 4)
        await trio.sleep(11)
        adapter.script("validate", "never")
        started = trio.current_time()
        async with pool.acquire():
            assert trio.current_time() - started == pytest.approx(3)
    assert adapter.closed_forcefully == 1
    assert adapter.faults == []
    assert [record.getMessage().partition("TimeoutError: ")[2] for record in caplog.records] == [
        "it took longer than open_timeout (2 s)",
        "it took longer than reset_timeout (3 s)",
        "it took longer than close_timeout (4 s)",
        "it took longer than reset_timeout (3 s)",
    ]


async def test_a_hook_needs_no_name(autojump_clock: MockClock) -> None:
    """A hook may be any callable, such as a partial, and fail."""

    async def fail(resource: FakeResource) -> None:
        raise OSError(resource)

    class Adapter(GatedAdapter):
        validate = staticmethod(functools.partial(fail))

    async with respool.open_pool(Adapter(), validate_after=0) as pool:
        await warm(pool)
        async with pool.acquire() as resource:
            assert resource.number == 2


# The options on a resource's life.


async def test_max_uses(autojump_clock: MockClock) -> None:
    """After so many leases it is closed, whether or not somebody waits."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, max_size=1, max_uses=2) as pool:
        for expected in [1, 1, 2, 2, 3]:
            async with pool.acquire() as resource:
                assert resource.number == expected
        assert pool.statistics().discards["used up"] == 2


async def test_max_idle_spares_min_size_and_the_warmest(autojump_clock: MockClock) -> None:
    """What is too many and unused for long is closed, the coldest first."""
    adapter = GatedAdapter()
    async with respool.open_pool(adapter, min_size=1, max_size=3, max_idle=100, validate_after=math.inf) as pool:
        *_, warmest = await warm(pool, 3)
        await trio.sleep(99)
        assert pool.statistics().idle == 3
        await trio.sleep(2)
        assert adapter.resources == {warmest}
        await trio.sleep(1000)
        assert adapter.resources == {warmest}
        assert pool.statistics().discards["unused"] == 2


async def test_max_lifetime_is_jittered_and_spares_the_borrower(autojump_clock: MockClock) -> None:
    """Resources opened together are closed one by one, up to a tenth early; a lent one when it comes back."""
    closed: list[float] = []

    class Adapter(GatedAdapter):
        async def close(self, resource: FakeResource) -> None:
            closed.append(trio.current_time())
            await super().close(resource)

    options: respool.Options = {"max_size": 6, "max_opening": 6, "max_lifetime": 100, "max_idle": 1000}
    async with respool.open_pool(Adapter(), **options) as pool, trio.open_nursery() as nursery:
        await warm(pool, 6)
        nursery.start_soon(hold, pool, 150)
        await trio.sleep(89.9)
        assert closed == []
        await trio.sleep(20)
        assert len(set(closed)) == 5
        assert all(90 <= time <= 100 for time in closed)
        await trio.sleep(50)
        assert closed[-1] == 150
        assert pool.statistics().discards["expired"] == 6


# The rest.


async def test_a_shielded_borrower_is_served_while_the_pool_is_cancelled(autojump_clock: MockClock) -> None:
    """Cleaning up in a shielded scope may use the pool: opening, resetting and closing go on for it."""
    adapter = GatedAdapter(open="slow", reset="slow", close="slow")
    with trio.CancelScope() as scope:
        async with respool.open_pool(adapter, max_size=1) as pool:
            scope.cancel()
            with trio.move_on_after(60, shield=True) as shielded:
                for number in (1, 1, 2):
                    async with pool.acquire() as resource:
                        assert resource.number == number
                        resource.dirty = True
                        if pool.statistics().acquired == 2:
                            adapter.script("reset", "error")
            assert not shielded.cancelled_caught
    assert adapter.present == 0
    assert adapter.faults == []


async def test_jobs_run_in_the_context_of_the_pool(autojump_clock: MockClock) -> None:
    """Not in that of the borrower that happens to cause them: its request id has no business in the next one's log."""
    whose = contextvars.ContextVar("whose", default="nobody's")
    seen: list[str] = []

    class Adapter(GatedAdapter):
        async def _pass(self, hook: Hook) -> None:
            seen.append(f"{hook} is {whose.get()}")
            await super()._pass(hook)

    whose.set("the pool's")
    async with respool.open_pool(Adapter(), max_size=1, validate_after=10) as pool:
        whose.set("the borrower's")
        async with pool.acquire() as resource:
            resource.dirty = True
        await trio.sleep(20)
        with pytest.raises(GatedError):
            async with pool.acquire():
                raise GatedError("broken")
    assert seen == [f"{hook} is the pool's" for hook in ("open", "reset", "validate", "close")]


@pytest.fixture
def control_c() -> Iterator[None]:
    """Control-C raises KeyboardInterrupt, even if the tests were started in the background, where shells ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("control_c")
@pytest.mark.parametrize(
    "when", ["in the block", "in is_clean at check-out", "in is_clean at check-in", "while waiting", "in open"]
)
def test_keyboard_interrupt(when: str) -> None:
    """Control-C in any place ends the run as it should; the books are right, and everything is closed."""

    class Adapter(GatedAdapter):
        async def open(self) -> FakeResource:
            if when == "in open":
                signal.raise_signal(signal.SIGINT)
            return await super().open()

        def is_clean(self, resource: FakeResource) -> bool:
            if when in seen and not interrupted:
                interrupted.append(True)
                signal.raise_signal(signal.SIGINT)
            return super().is_clean(resource)

    seen: set[str] = set()  # where the program has come to
    interrupted: list[bool] = []
    adapter = Adapter(close="slow")

    async def main() -> None:
        async with respool.open_pool(adapter, max_size=1) as pool:
            try:
                await use(pool)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                    assert pool.statistics().lent == pool.statistics().waiting == 0
                    await hold(pool, 0)

    async def use(pool: FakePool) -> None:
        await warm(pool)
        seen.add("in is_clean at check-out")
        async with pool.acquire():
            seen.add("in is_clean at check-in")
            if when == "in the block":
                signal.raise_signal(signal.SIGINT)
            if when == "while waiting":
                trio.lowlevel.spawn_system_task(interrupt)
                await pool.acquire().__aenter__()
        await trio.sleep_forever()

    @enable_ki_protection
    async def interrupt() -> None:
        await trio.sleep(1)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert adapter.present == 0
    assert adapter.opened == adapter.closed >= 1
    assert adapter.faults == []


async def test_thousands_of_time_outs_at_once_do_not_stop_the_program(autojump_clock: MockClock) -> None:
    """Telling one waiter that its time is up costs the same however many wait: no look at the whole queue."""
    calls = {waiting: await calls_of_time_outs(waiting) for waiting in (50, 500)}
    assert calls[500] < 11 * calls[50]  # quadratic cost would be a hundred times


async def calls_of_time_outs(waiting: int) -> int:
    """How many calls of functions, and steps of generators, it takes to tell so many waiters that their time is up."""
    async with respool.open_pool(GatedAdapter(), max_size=1) as pool, pool.acquire(), trio.open_nursery() as nursery:
        for _ in range(waiting):
            nursery.start_soon(fail_to_acquire, pool, respool.PoolTimeout)
        await wait_all_tasks_blocked()
        with counted_calls() as calls:
            await trio.sleep(pool.limits.acquire_timeout + 1)
        assert pool.statistics().timeouts == waiting
    return calls.made


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


async def test_upkeep_rests_however_short_the_times_are(autojump_clock: MockClock) -> None:
    """It looks for what is due ten times a second at most, as long as nothing is."""
    options: dict[str, Any] = dict.fromkeys(("max_idle", "max_lifetime", "warn_hold"), 0.001)
    async with respool.open_pool(GatedAdapter(), **options) as pool, pool.acquire():
        await trio.sleep(1)  # until the lease has been reported, and the resource has expired under it
        watch = Watch(pool)
        trio.lowlevel.add_instrument(watch)
        await trio.sleep(10)
        trio.lowlevel.remove_instrument(watch)
    assert watch.steps <= 105


async def test_upkeep_tells_together_whose_time_is_up_at_almost_the_same_time(autojump_clock: MockClock) -> None:
    """A thousand who came within a tenth of a second: it need not look a thousand times. Nobody is told much later."""
    told: list[float] = []

    async def wait(pool: FakePool) -> None:
        came = trio.current_time()
        await fail_to_acquire(pool, respool.PoolTimeout)
        told.append(trio.current_time() - came)

    async with respool.open_pool(GatedAdapter(), max_size=1, acquire_timeout=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(hold, pool, 10)
        await wait_all_tasks_blocked()
        looks = Looks(pool)
        trio.lowlevel.add_instrument(looks)
        for _ in range(1000):
            nursery.start_soon(wait, pool)
            await trio.sleep(0.0001)
        await trio.sleep(5)
        trio.lowlevel.remove_instrument(looks)
    assert looks.count < 100
    assert len(told) == 1000
    assert 0.9999 < min(told) <= max(told) < 1.0021


class Looks(trio.abc.Instrument):
    """Counts the steps of a pool's upkeep."""

    def __init__(self, pool: FakePool) -> None:
        self.upkeep = f"respool {pool.name}: upkeep"
        self.count = 0

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self.upkeep


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


async def test_a_priority_must_be_one() -> None:
    """A number that happens to be the value of one is not."""
    async with respool.open_pool(GatedAdapter()) as pool:
        for wrong in ("urgent", 0, None):
            with pytest.raises(TypeError, match=r"priority must be a respool\.Priority, not"):
                pool.acquire(priority=wrong)  # type: ignore[arg-type]
