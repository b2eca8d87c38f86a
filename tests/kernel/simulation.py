"""Stories of pools, their borrowers and their troubles, lived through on a mock clock and watched at every step."""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Literal, TypeAlias

import attrs
import trio
from trio.testing import MockClock

from respool import (
    LeaseRevoked,
    OpenFailed,
    Options,
    Pool,
    PoolClosed,
    PoolOverloaded,
    PoolTimeout,
    Priority,
    open_pool,
)
from respool._entry import Lease, State
from respool.abc import Verdict
from respool.testing import FakeResource, Gate, GatedAdapter, GatedError, Hook

__all__ = ["Borrow", "Ending", "Fault", "Outage", "Story", "borrow_all", "run", "watched"]

Ending: TypeAlias = Literal["heals", "ends", "is cancelled", "fails"]

LIMITS: Options = {"max_size": 3, "open_timeout": 2.5, "reset_timeout": 1.5, "close_timeout": 1.5, "drain_timeout": 2.0}


@attrs.frozen
class Borrow:
    """One task that borrows once."""

    at: float
    hold: float = 0
    doing: Literal["exchange", "soil", "break", "fail", "retire"] = "exchange"
    timeout: float | None = None
    patience: float = math.inf
    """Seconds after which the task is cancelled, whatever it does then."""
    priority: Priority = Priority.NORMAL


@attrs.frozen
class Fault:
    """From now on all calls of a hook go like this."""

    at: float
    hook: Hook
    gate: Gate | Verdict
    """A verdict: only the next call fails, with an error of which the adapter says this."""


@attrs.frozen
class Outage:
    """The server loses all connections."""

    at: float


@attrs.frozen
class Change:
    """Somebody changes the pool while it runs."""

    at: float
    what: Literal["retire", "pause", "resume", "shrink", "grow", "quiesce", "drain"]


Step: TypeAlias = Borrow | Fault | Outage | Change


@attrs.frozen(kw_only=True)
class Story:
    """What happens to one pool."""

    steps: list[Step]
    ending: Ending
    at: float
    options: Options
    gates: tuple[Gate, Gate, Gate, Gate] = ("ok", "ok", "ok", "ok")
    leases_per_resource: int = 1


def run(story: Story, seed: object = 0) -> None:
    """Live through `story`. Chance, also in the order of tasks, depends on `seed` alone."""
    trio._core._run._r.seed(repr(seed))
    random.seed(repr(seed))
    life = _Life(story)
    trio.run(life.live_within_limits, clock=MockClock(autojump_threshold=0))


class _Life:
    def __init__(self, story: Story) -> None:
        self.story = story
        self.adapter = GatedAdapter(*story.gates, leases=story.leases_per_resource)
        self.adapter.script("open", "ok", "ok")  # so that there is something to validate, reset and close
        self.outcomes: Counter[str] = Counter()
        self.pool: Pool[FakeResource]

    async def live_within_limits(self) -> None:
        with trio.move_on_after(1000) as limit, _spinning_ends(limit):
            await self.live()
        assert not limit.cancelled_caught, "somebody waits for ever, or somebody never waits"

    async def live(self) -> None:
        story, adapter = self.story, self.adapter
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with trio.open_nursery() as people:
            with (
                contextlib.ExitStack() as watching,
                trio.CancelScope() as scope,
                contextlib.suppress(_BlockFailedError),
            ):
                async with open_pool(adapter, **(LIMITS | story.options)) as self.pool:
                    watching.enter_context(watched(self.pool, adapter))
                    for step in story.steps:
                        people.start_soon(self.take, step)
                    await trio.sleep(story.at)
                    if story.ending == "heals":
                        await self.heal()
                    elif story.ending == "is cancelled":
                        scope.cancel()
                    began = trio.current_time()
                    if story.ending == "fails":
                        raise _BlockFailedError
            took = trio.current_time() - began
            grace = 0 if story.ending == "is cancelled" else LIMITS["drain_timeout"] + LIMITS["close_timeout"]
            assert took <= grace + 1e-6, f"P9: closing took {took} s"
        assert trio.lowlevel.current_statistics().tasks_living == tasks, "P9: a task is left"
        self.assert_the_books_balance()

    async def take(self, step: Step) -> None:
        await trio.sleep(step.at)
        match step:
            case Borrow():
                with trio.move_on_after(step.patience) as patience:
                    await self.borrow(step)
                if patience.cancelled_caught:
                    assert trio.current_time() == patience.deadline, "P6: a cancelled borrower left late"
            case Fault(gate=Verdict() as verdict):
                self.adapter.script(step.hook, GatedError("as the story says", verdict))
            case Fault(gate=str() as gate):
                self.adapter.always(step.hook, gate)
            case Outage():
                for resource in self.adapter.resources - self.on_their_way():
                    resource.broken = True
            case Change():
                await self.change(step)

    async def change(self, step: Change) -> None:
        pool = self.pool
        if pool._ledger.closed:
            return
        match step.what:
            case "retire":
                pool.retire_all()
            case "pause":
                pool.pause()
            case "resume":
                pool.resume()
            case "shrink":
                pool.resize(min_size=0, max_size=pool.limits.reserved + 1)
            case "grow":
                pool.resize(max_size=pool.limits.max_size + 1)
            case "quiesce":
                await pool.quiesce()
            case "drain":
                with trio.move_on_after(3):
                    await pool.drain()
                    assert pool.statistics().size == 0 or not pool._ledger.paused

    def on_their_way(self) -> set[FakeResource]:
        """Resources handed to a task that has not run since: what breaks there looks as if it had been lent broken."""
        lent = {entry.resource for entry in self.pool._ledger.entries if entry.state is State.LENT}
        return {resource for resource in lent if not resource.users}

    async def borrow(self, step: Borrow) -> None:
        acquired = False
        started = trio.current_time()
        try:
            async with self.pool.acquire(timeout=step.timeout, priority=step.priority) as resource:
                acquired = True
                self.outcomes["acquired"] += 1
                with self.adapter.lease(resource):
                    await self.use(resource, step)
        except (PoolTimeout, PoolOverloaded, OpenFailed, PoolClosed, LeaseRevoked) as error:
            self.outcomes[type(error).__name__] += 1
            if isinstance(error, PoolTimeout):
                limit = self.pool.limits.acquire_timeout if step.timeout is None else step.timeout
                late = trio.current_time() - started - limit
                assert -1e-9 < late < 0.002 + 1e-9, "a time-out came early or late"  # upkeep rests for 2 ms
        except GatedError:
            assert acquired, "an adapter's error reached a task that held nothing"
        except trio.Cancelled:
            if not acquired and trio.current_time() > started:
                self.outcomes["cancelled while waiting"] += 1
            raise

    async def use(self, resource: FakeResource, step: Borrow) -> None:
        await trio.sleep(step.hold)
        match step.doing:
            case "exchange":
                answer = await self.adapter.exchange(resource, step)
                assert answer is step, "P5: a stranger's data"
            case "soil":
                resource.dirty = True
            case "break":
                resource.broken = True
            case "fail":
                raise GatedError("the borrower's own")
            case "retire":
                raise GatedError("the server says goodbye", Verdict.DISCARD | Verdict.RETIRE)

    async def heal(self) -> None:
        """P10: once everything goes well again, the pool serves at its full size."""
        await trio.sleep(10)  # until all steps have been taken
        self.adapter._scripts.clear()
        for hook in ("open", "validate", "reset", "close", "exchange"):
            self.adapter.always(hook, "ok")
        self.pool.resume()
        self.pool.resize(max_size=self.pool.limits.reserved + 3)
        await trio.sleep(100)  # until all borrowers are done
        self.outcomes["acquired"] += await borrow_all(self.pool, self.adapter)

    def assert_the_books_balance(self) -> None:
        adapter, outcomes, statistics = self.adapter, self.outcomes, self.pool.statistics()
        told = {
            "acquired": (statistics.acquired, statistics.use_time.count, outcomes["acquired"]),
            "timeouts": (statistics.timeouts, outcomes["PoolTimeout"]),
            "refused": (statistics.refused, outcomes["PoolOverloaded"]),
            "cancelled": (statistics.cancelled, outcomes["cancelled while waiting"]),
            "opened": (statistics.opened, adapter.opened, adapter.closed, sum(statistics.discards.values())),
            "left": (statistics.size, statistics.waiting, statistics.lent, 0),
        }
        assert all(len(set(numbers)) == 1 for numbers in told.values()), told


class _BlockFailedError(Exception):
    """What the block of the pool raises."""


@contextlib.contextmanager
def _spinning_ends(scope: trio.CancelScope) -> Iterator[None]:
    """Cancel `scope` if its tasks take steps without end at one moment of the mock clock."""
    spinning = _StepCounter(scope)
    trio.lowlevel.add_instrument(spinning)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(spinning)


class _StepCounter(trio.abc.Instrument):
    def __init__(self, scope: trio.CancelScope) -> None:
        self.scope = scope
        self.now = -math.inf
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        now = trio.current_time()
        self.steps = self.steps + 1 if now == self.now else 0
        self.now = now
        if self.steps > 10_000:
            self.scope.cancel()


async def borrow_all(pool: Pool[FakeResource], adapter: GatedAdapter) -> int:
    """Hold every slot at once, which must be possible again after any trouble. Returns how many there are."""
    everybody = trio.Event()
    slots = pool.limits.max_size * adapter.leases
    holding = 0

    async def hold() -> None:
        nonlocal holding
        async with pool.acquire(timeout=60, priority=Priority.URGENT) as resource:
            with adapter.lease(resource):
                holding += 1
                if holding == slots:
                    everybody.set()
                await everybody.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(slots):
            nursery.start_soon(hold)
    return slots


@contextlib.contextmanager
def watched(pool: Pool[FakeResource], adapter: GatedAdapter) -> Iterator[None]:
    """Hold the pool to its promises after every step of every task, until it has ended."""
    watcher = _Watcher(pool, adapter)
    trio.lowlevel.add_instrument(watcher)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watcher)
    assert not watcher.broken, watcher.broken
    assert not adapter.faults, adapter.faults
    assert adapter.present == len(adapter.resources) == 0, "P9: something is left open"


class _Watcher(trio.abc.Instrument):
    def __init__(self, pool: Pool[FakeResource], adapter: GatedAdapter) -> None:
        self.pool = pool
        self.adapter = adapter
        self.broken: Counter[str] = Counter()
        self.size = 0  # this and what follows: after the last step
        self.waiting: list[Lease[FakeResource]] = []
        self.holding: set[Lease[FakeResource]] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        ledger, limits, present = self.pool._ledger, self.pool.limits, self.adapter.present
        states = Counter(entry.state for entry in ledger.entries)
        size, waiting = len(ledger.entries), self.entitled(states[State.LENT])
        left_alone = ledger.failures or ledger.closed
        promises = {
            # A pool that was made smaller has too many until they have been closed.
            "P1: no more resources than max_size, none unknown": present <= size <= max(limits.max_size, self.size),
            "P2: lent exactly if there is a lease": all(
                (entry.state is State.LENT) == bool(entry.leases) for entry in ledger.entries
            ),
            "P3: first come, first served": not self.overtakers(),
            "P4: idle while a task waits, and not checked for it": not ledger.idle or waiting <= states[State.CHECKING],
            "P4: room while a task waits, and not filled for it": left_alone
            or waiting <= ledger.arriving * ledger.share
            or size >= limits.max_size
            or ledger.opening >= limits.max_opening,
            "P4: room on a shared resource while a task waits": not waiting
            or all(
                len(entry.leases) == ledger.share or entry.doom or trio.current_time() >= entry.expires_at
                for entry in ledger.entries
                if entry.state is State.LENT
            ),
            "idle stack": sorted(map(id, ledger.idle))
            == sorted(id(entry) for entry in ledger.entries if entry.state is State.IDLE),
            "opening": ledger.opening == states[State.OPENING] <= limits.max_opening,
            "arriving": ledger.arriving == states[State.OPENING] + states[State.CHECKING],
            "work left lying": not ledger.work,
        }
        self.size = size
        self.broken.update(promise for promise, kept in promises.items() if not kept)

    def entitled(self, lent: int) -> int:
        """Tasks that wait, and would not be held back if there were a free resource."""
        ledger, limits = self.pool._ledger, self.pool.limits
        if ledger.paused:
            return 0
        if limits.reserved and lent >= limits.max_size - limits.reserved:
            return sum(lease.line == Priority.URGENT for lease in ledger.queue)
        return ledger.queue.size

    def overtakers(self) -> set[Lease[FakeResource]]:
        """Leases that got a resource in the last step while one of the same priority that had waited longer did not."""
        ledger = self.pool._ledger
        still_waiting = [place for place, lease in enumerate(self.waiting) if lease in ledger.queue]
        holding = {lease for entry in ledger.entries for lease in entry.leases}
        overtakers: set[Lease[FakeResource]] = set()
        if still_waiting and not ledger.queue.overloaded:  # then the newest come first
            first = still_waiting[0]
            overtakers = holding - self.holding - set(self.waiting[:first])
            overtakers = {lease for lease in overtakers if lease.line >= self.waiting[first].line}
        self.waiting, self.holding = list(ledger.queue), holding
        return overtakers
