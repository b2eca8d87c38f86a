"""Tasks that wait for each other's resources, and leases that last too long."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from respool import LeaseRevoked, Options, Pool, PoolDeadlock, PoolTimeout, open_keyed_pool, open_pool
from respool._deadlock import _stands_at_end_of_nursery
from respool.testing import FakeResource, GatedAdapter, GatedError

FakePool = Pool[FakeResource]


async def nested(pool: FakePool) -> None:
    """Acquire, and again while holding."""
    async with pool.acquire():
        await trio.sleep(1)
        async with pool.acquire(timeout=math.inf):
            pass


async def use(pool: FakePool, seconds: float = 0) -> None:
    async with pool.acquire(timeout=math.inf):
        await trio.sleep(seconds)


async def through_children(pool: FakePool, children: int = 2, depth: int = 1) -> None:
    """Acquire, and wait for child tasks that acquire."""
    async with pool.acquire():
        await trio.sleep(1)
        await wait_for_children(pool, children, depth)


async def wait_for_children(pool: FakePool, children: int, depth: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(children):
            if depth > 1:
                nursery.start_soon(wait_for_children, pool, children, depth - 1)
            else:
                nursery.start_soon(use, pool)


def the_one(error: BaseException) -> BaseException:
    """What is in a group, however deep, if it is alone there."""
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    return error


Story = Callable[[FakePool], Awaitable[None]]
deep = functools.partial(through_children, depth=3)


@pytest.mark.parametrize(
    "holders",
    [
        pytest.param([nested], id="a single task"),
        pytest.param([nested, nested, nested], id="direct"),
        pytest.param([through_children, through_children], id="through child tasks"),
        pytest.param([deep, deep], id="through nested nurseries"),
        pytest.param([nested, through_children, deep], id="mixed"),
    ],
)
async def test_p13_certain_deadlock_is_an_error(autojump_clock: MockClock, holders: list[Story]) -> None:
    """One acquire raises, at once; then the others can go on."""
    errors: list[BaseException] = []
    ended: list[float] = []

    async def live(story: Story) -> None:
        try:
            await story(pool)
        except (PoolDeadlock, BaseExceptionGroup) as error:
            errors.append(the_one(error))
        ended.append(trio.current_time())

    async with open_pool(GatedAdapter(), name="shop", max_size=len(holders)) as pool, trio.open_nursery() as nursery:
        for number, story in enumerate(holders):
            nursery.start_soon(live, story, name=f"holder {number}")
    assert [type(error) for error in errors] == [PoolDeadlock]
    assert len(ended) == len(holders)
    assert max(ended) < 1.2, "within a look of upkeep's"
    for number in range(len(holders)):
        assert f"holder {number} for 1" in str(errors[0])
    assert str(errors[0]).startswith("shop: task ")
    assert pool.statistics().lent == pool.statistics().waiting == 0


async def test_p13_who_closed_the_circle(autojump_clock: MockClock) -> None:
    """The last acquire of a holder raises: not one that only waits, from before or since."""
    raised: list[str] = []

    async def twice(name: str, delay: float) -> None:
        async with pool.acquire():
            await trio.sleep(delay)
            try:
                async with pool.acquire():
                    pass
            except PoolDeadlock:
                raised.append(name)

    async with open_pool(GatedAdapter(), max_size=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(twice, "first", 1)
        nursery.start_soon(twice, "last", 2)
        await trio.sleep(0.5)
        nursery.start_soon(use, pool)  # waits all the time, and holds nothing
        await trio.sleep(2)
        nursery.start_soon(use, pool)  # came even later
    assert raised == ["last"]
    assert pool.statistics().acquired == 5


async def test_p13_says_where_they_acquired_if_stacks_are_recorded(autojump_clock: MockClock) -> None:
    """And nothing of it otherwise."""
    for record_stacks in (False, True):
        async with open_pool(GatedAdapter(), max_size=1, record_stacks=record_stacks) as pool:
            with pytest.raises(PoolDeadlock) as raised:
                await nested(pool)
        assert ("in nested\n    async with pool.acquire():" in str(raised.value)) is record_stacks


@pytest.mark.parametrize("idle", [0, 1])
async def test_p13_what_is_held_back_does_not_count(autojump_clock: MockClock, idle: int) -> None:
    """A resource that is reserved for the urgent, or could be opened for them, helps nobody who waits."""
    errors: list[BaseException] = []

    async def live() -> None:
        try:
            await nested(pool)
        except PoolDeadlock as error:
            errors.append(error)

    async with open_pool(GatedAdapter(), min_size=2 + idle, max_size=3, reserved=1) as pool:
        await wait_all_tasks_blocked()
        with trio.fail_after(1.2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(live)
                nursery.start_soon(live)
    assert len(errors) == 1


async def test_p13_shared_leases(autojump_clock: MockClock) -> None:
    """Every lease of every resource counts."""
    async with open_pool(GatedAdapter(leases=2), max_size=1) as pool:
        async with pool.acquire():
            await use(pool)
        errors: list[BaseException] = []

        async def one() -> None:
            try:
                await nested(pool)
            except PoolDeadlock as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
        assert len(errors) == 1


# Not certain: no error.


async def sleeping_sibling(pool: FakePool, go: trio.Event) -> None:
    async with pool.acquire(), trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        nursery.start_soon(go.wait)


async def body_goes_on(pool: FakePool, go: trio.Event) -> None:
    async with pool.acquire(), trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        await go.wait()
        nursery.cancel_scope.cancel()


async def event_wait(pool: FakePool, go: trio.Event) -> None:
    async with pool.acquire():
        await go.wait()


async def grandchild_goes_on(pool: FakePool, go: trio.Event) -> None:
    async def child() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool)
            nursery.start_soon(go.wait)

    async with pool.acquire(), trio.open_nursery() as nursery:
        nursery.start_soon(use, pool)
        nursery.start_soon(child)


@pytest.mark.parametrize("holder", [sleeping_sibling, body_goes_on, event_wait, grandchild_goes_on])
async def test_p13_not_while_any_holder_can_go_on(
    autojump_clock: MockClock, holder: Callable[[FakePool, trio.Event], Awaitable[None]]
) -> None:
    """It waits out its timeout, or until that holder is done."""
    go = trio.Event()
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(holder, pool, go)
        await wait_all_tasks_blocked()
        with pytest.raises(PoolTimeout):
            await pool.acquire(timeout=20).__aenter__()
        assert pool.statistics().lent == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("what", ["room", "opening", "closing", "paused"])
async def test_p13_not_while_a_resource_may_come(autojump_clock: MockClock, what: str) -> None:
    """From elsewhere than the tasks that hold one."""
    adapter = GatedAdapter(slow=5)
    async with open_pool(adapter, max_size=2 if what in ("room", "opening") else 1) as pool:
        if what == "opening":
            adapter.script("open", "ok", "slow")
        elif what == "room":
            adapter.script("open", "ok", "error", "error", "error")
        elif what == "closing":
            pool.resize(max_size=2)
            adapter.script("close", "slow")
            with pytest.raises(GatedError):
                await fail(pool)
        async with pool.acquire():
            if what == "paused":
                pool.pause()
                with pytest.raises(PoolTimeout):
                    await pool.acquire(timeout=5).__aenter__()
            else:
                await use(pool)


async def fail(pool: FakePool) -> None:
    async with pool.acquire():
        raise GatedError("broken")


async def test_the_gentle_form_is_told_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The first time a task acquires while it holds a lease of the same pool, and never again."""
    async with open_pool(GatedAdapter(), name="a") as pool, open_pool(GatedAdapter(), name="b") as other:
        async with pool.acquire(), other.acquire(), trio.open_nursery() as nursery:
            nursery.start_soon(use, pool)
        await use(pool)
        assert caplog.messages == []
        for _ in range(3):
            await nested(pool)
        (message,) = caplog.messages
        assert message.startswith("a: task ")
        assert "acquires while it already holds a lease" in message
        await nested(other)
        assert [message[:2] for message in caplog.messages] == ["a:", "b:"]


async def test_what_trio_calls_the_wait_at_the_end_of_a_nursery() -> None:
    """`respool._deadlock` relies on a name inside Trio. If this fails, Trio has changed it."""
    for stands_at_end in (True, False):

        async def child(stands_at_end: bool = stands_at_end) -> None:
            async with trio.open_nursery() as inner:
                inner.start_soon(trio.sleep_forever)
                if not stands_at_end:
                    await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await wait_all_tasks_blocked()
            (task,) = nursery.child_tasks
            assert _stands_at_end_of_nursery(task) is stands_at_end
            nursery.cancel_scope.cancel()


# Leases that last too long.


async def hold(pool: FakePool, seconds: float) -> None:
    assert isinstance(pool.adapter, GatedAdapter)
    async with pool.acquire() as resource:
        with pool.adapter.lease(resource):
            await trio.sleep(seconds)


async def test_p12_nobody_holds_for_ever(autojump_clock: MockClock) -> None:
    """The block is cancelled after max_hold and ends in LeaseRevoked; the resource is recovered and lent again."""
    adapter = GatedAdapter(exchange="slow", slow=100)
    async with open_pool(adapter, name="shop", max_size=1, max_hold=10) as pool:
        with pytest.raises(LeaseRevoked, match=r"shop: the lease was held for 10 s, longer than max_hold \(10 s\)"):
            async with pool.acquire() as resource:
                with adapter.lease(resource):
                    await adapter.exchange(resource, "a question")
        assert trio.current_time() == 10
        await hold(pool, 9)
        assert adapter.calls == ["open", "reset 1"]
        assert pool.statistics().acquired == pool.statistics().use_time.count == 2
    assert adapter.faults == []


async def test_p12_each_lease_has_its_own_time(autojump_clock: MockClock) -> None:
    """It begins when the resource is lent, not when the wait for it does; only those who overstay are revoked."""
    revoked: list[float] = []

    async def overstay(seconds: float) -> None:
        try:
            await hold(pool, seconds)
        except LeaseRevoked:
            revoked.append(trio.current_time())

    async with open_pool(GatedAdapter(), max_size=1, max_hold=10) as pool, trio.open_nursery() as nursery:
        for seconds in (9.5, 20, 9.5, math.inf):
            nursery.start_soon(overstay, seconds)
            await wait_all_tasks_blocked()
    assert revoked == [19.5, 39]
    assert pool.statistics().acquired == 4


async def test_p12_the_users_own_cancel_scopes(autojump_clock: MockClock) -> None:
    """Inside the block they end what they end; outside they win, and nothing is revoked that was cancelled anyway."""
    async with open_pool(GatedAdapter(), max_size=1, max_hold=10) as pool:
        async with pool.acquire():
            with trio.move_on_after(3) as inner:
                await trio.sleep(5)
            assert inner.cancelled_caught
        with trio.move_on_after(3) as outer:
            await hold(pool, math.inf)
        assert outer.cancelled_caught
        with pytest.raises(LeaseRevoked):
            async with pool.acquire():
                with trio.move_on_after(30) as inner:
                    await trio.sleep_forever()
        assert not inner.cancelled_caught
        # A shield holds it up for as long as it lasts.
        started = trio.current_time()
        with pytest.raises(LeaseRevoked, match="held for 15 s"):
            async with pool.acquire():
                with trio.move_on_after(15, shield=True):
                    await trio.sleep_forever()
                await trio.lowlevel.checkpoint()
        assert trio.current_time() - started == 15
        # A block that ends well although late ends well.
        async with pool.acquire():
            with trio.move_on_after(15, shield=True):
                await trio.sleep_forever()
        assert pool.statistics().lent == 0


async def test_p12_other_errors_pass_through(autojump_clock: MockClock) -> None:
    """What the block raises in its own right is not turned into anything, not even if it was being cancelled."""

    async def fails_at_the_end() -> None:
        async with pool.acquire():
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")

    async def fails_beside_the_cancellation() -> None:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("mine")

        async with pool.acquire(), trio.open_nursery() as nursery:
            nursery.start_soon(child)
            await trio.sleep_forever()

    async def fails_early() -> None:
        async with pool.acquire():
            raise KeyError("mine")

    async with open_pool(GatedAdapter(), max_size=1, max_hold=10) as pool:
        for story in (fails_early, fails_at_the_end, fails_beside_the_cancellation):
            with pytest.raises((KeyError, ExceptionGroup)) as raised:
                await story()
            assert type(the_one(raised.value)) is KeyError
            await use(pool, 1)
        assert pool.statistics().lent == 0
        assert pool.statistics().opened == 1


async def test_warn_hold_reports_a_lease_once(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """With its task and how long it has held, soon after its time; those who give back earlier are not mentioned."""
    async with open_pool(GatedAdapter(), name="shop", warn_hold=5) as pool, trio.open_nursery() as nursery:
        await trio.sleep(3)
        nursery.start_soon(functools.partial(use, pool, 60), name="report")
        await trio.sleep(4)
        nursery.start_soon(functools.partial(use, pool, 60), name="import")
        for _ in range(20):
            await use(pool, 0.9)
        assert caplog.messages == [
            "shop: a lease is held for long, by report for 5 s",
            "shop: a lease is held for long, by import for 5 s",
        ]


async def test_warn_hold_says_where_it_was_acquired(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """If stacks are recorded: the last line is the borrower's own, whatever the pool does beneath it."""
    options: Options = {"warn_hold": 5, "record_stacks": True}
    revocable: Options = {"max_hold": 60, **options}
    for chosen in options, revocable:
        async with open_pool(GatedAdapter(), **chosen) as pool, pool.acquire():
            await trio.sleep(20)
    async with open_keyed_pool({"key": GatedAdapter()}.__getitem__, **options) as keyed, keyed.acquire("key"):
        await trio.sleep(20)
    assert len(caplog.messages) == 3
    for message in caplog.messages:
        assert "acquire(" in message.rstrip().splitlines()[-1]


async def test_a_lease_that_another_task_may_end_proves_nothing(autojump_clock: MockClock) -> None:
    """The task that acquired waits for the pool, but another one will give the resource back."""
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        lease = pool.acquire(transferable=True)
        await lease.__aenter__()

        async def end_it() -> None:
            await trio.sleep(5)
            await lease.__aexit__(None, None, None)

        nursery.start_soon(end_it)
        async with pool.acquire():
            assert trio.current_time() == 5
