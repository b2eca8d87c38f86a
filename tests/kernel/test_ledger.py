"""The ledger by itself: no pool, no Trio, a number for a clock, and a list for a task that waits."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from respool import Budget, Limits, Priority
from respool._entry import TRANSITIONS, Discard, Entry, Lease, State
from respool._ledger import Ledger
from tests.kernel.counting import counted_calls


@attrs.define(eq=False)
class Thing:
    """What is pooled here."""

    clean: bool = True


@attrs.define(eq=False)
class Books:
    """A ledger, the time, and the shortest way to say what happens. Only this knows a ledger's methods."""

    limits: Limits = attrs.field(factory=Limits)
    asks: bool = True  # whether the adapter has an is_clean
    share: int = 1  # leases a resource serves
    budget: Budget | None = None
    now: float = 0.0
    jumped: bool = False  # whether the clocks have jumped, and nobody has been told
    ledger: Ledger[Thing] = attrs.field(init=False)
    woken: list[Lease[Thing]] = attrs.field(init=False, factory=list)  # in order

    def __attrs_post_init__(self) -> None:
        is_clean = (lambda thing: thing.clean) if self.asks else None
        self.ledger = Ledger(
            limits=self.limits,
            is_clean=is_clean,
            wake=lambda _, lease: self.woken.append(lease),
            nudge=lambda: None,
            share=self.share,
            budget=self.budget,
            clock_jumped=self.clock_jumped,
        )

    def clock_jumped(self) -> bool:
        jumped, self.jumped = self.jumped, False
        return jumped

    def acquire(self, timeout: float = 30.0, priority: Priority = Priority.NORMAL) -> Lease[Thing]:
        """What a task does: take what is free, or wait."""
        lease: Lease[Thing] = Lease()
        lease.task = object()
        lease.entry = None
        lease.line = priority
        queue = self.ledger.queue
        first = not queue.size or (priority is Priority.URGENT and not queue.count_urgent())
        if not first or not self.ledger.try_lend(lease, self.now):
            self.ledger.enqueue(lease, self.now, self.now + timeout)
        return lease

    def acquire_again(self, lease: Lease[Thing]) -> None:
        """What a task does that finds its resource closed before it came to use it."""
        if not hasattr(lease, "waiting_since"):
            lease.waiting_since, lease.latest_start = lease.since, lease.since + 30
        lent = self.ledger.lend_or_enqueue_again(lease, self.now)
        assert lent == (lease.entry is not None), "woken before it waits"

    def give_up(self, lease: Lease[Thing]) -> None:
        self.ledger.give_up(lease, self.now, late=self.now >= lease.latest_start)

    def check_in(self, lease: Lease[Thing], *, broken: bool = False) -> None:
        self.ledger.check_in(lease, self.now, broken=broken)

    def opened(self, entry: Entry[Thing]) -> None:
        self.ledger.opened(entry, Thing(), 1.0, self.now)

    def open_failed(self, entry: Entry[Thing], *, permanent: bool = False) -> None:
        self.ledger.open_failed(entry, OSError(), self.now, permanent=permanent)

    def recovered(self, entry: Entry[Thing]) -> None:
        self.ledger.recovered(entry, self.now)

    def unrecoverable(self, entry: Entry[Thing]) -> None:
        self.ledger.unrecoverable(entry, self.now)

    def gone(self, entry: Entry[Thing]) -> None:
        self.ledger.gone(entry, self.now)

    def retire_all(self) -> None:
        self.ledger.retire_all(self.now)

    def resize(self, min_size: int, max_size: int) -> None:
        if self.budget is not None:
            self.budget.reserve(min_size - self.limits.min_size)
        self.limits = attrs.evolve(self.limits, min_size=min_size, max_size=max_size)
        self.ledger.resize(self.limits, self.now)

    def pause(self) -> None:
        self.ledger.pause()

    def resume(self) -> None:
        self.ledger.resume(self.now)

    def quiesce(self, *, lent: bool) -> None:
        self.ledger.quiesce(lent=lent)

    def close(self) -> None:
        self.ledger.close()
        for lease in list(self.ledger.queue):
            self.ledger.dismiss(lease, RuntimeError("closed"))

    def close_lent(self) -> None:
        self.ledger.close_lent()

    def upkeep(self) -> None:
        """What the pool's upkeep does, when it is due."""
        if self.ledger.due <= self.now:
            for lease in self.ledger.queue.expired(self.now):
                self.ledger.dismiss(lease, TimeoutError(), late=True)
            self.ledger.tidy(self.now)
            assert self.ledger.due > self.now, "upkeep would spin"

    def budget_is_used_up(self) -> bool:
        return self.budget is not None and self.budget.size >= self.budget.max_size

    def sleep(self, seconds: float) -> None:
        """Let time pass, with upkeep whenever it is due and at no other time."""
        end = self.now + seconds
        while self.ledger.due <= end:
            self.now = max(self.now, self.ledger.due)
            self.upkeep()
        self.now = end

    def work(self) -> list[Entry[Thing]]:
        """Take the jobs that have been ordered."""
        ordered = self.ledger.work[:]
        self.ledger.work.clear()
        return ordered

    def states(self) -> Counter[State]:
        return Counter(entry.state for entry in self.ledger.entries)

    def do_all(self) -> None:
        """Let every job that has been ordered, and those ordered meanwhile, succeed."""
        while work := self.work():
            for entry in work:
                self.do(entry)

    def do(self, entry: Entry[Thing]) -> None:
        match entry.state:
            case State.OPENING:
                self.opened(entry)
            case State.CHECKING:
                self.recovered(entry)
            case State.RESETTING:
                entry.resource.clean = True
                self.recovered(entry)
            case _:
                self.gone(entry)


def idle(books: Books, count: int) -> list[Entry[Thing]]:
    """So many resources opened and idle, the coldest first."""
    leases = [books.acquire() for _ in range(count)]
    books.do_all()
    for lease in leases:
        books.check_in(lease)
    assert len(books.ledger.idle) == count
    return list(books.ledger.idle)


def test_the_warmest_is_lent() -> None:
    books = Books()
    *_, warmest = idle(books, 3)
    assert books.acquire().entry is warmest


def test_a_returned_resource_goes_to_the_first_waiter() -> None:
    books = Books(Limits(max_size=1))
    (entry,) = idle(books, 1)
    holder, first, second = (books.acquire() for _ in range(3))
    books.check_in(holder)
    assert books.woken[-1] is first
    assert first.entry is entry
    assert second.entry is None
    assert list(books.ledger.queue) == [second]


def test_who_gives_up_is_forgotten_and_what_was_begun_for_it_goes_on() -> None:
    books = Books()
    books.give_up(books.acquire())
    (entry,) = books.work()
    books.opened(entry)
    assert entry.state is State.IDLE
    assert books.woken == []


def test_no_more_are_opened_than_wait() -> None:
    books = Books(Limits(max_size=10, max_opening=10))
    leases = [books.acquire() for _ in range(4)]
    assert len(books.work()) == 4
    books.give_up(leases[0])
    books.acquire()
    assert books.work() == []


def test_unclean_at_check_in_is_reset_and_then_lent() -> None:
    books = Books(Limits(max_size=1))
    (entry,) = idle(books, 1)
    lease = books.acquire()
    waiting = books.acquire()
    entry.resource.clean = False
    books.check_in(lease)
    assert entry.state is State.RESETTING
    assert books.woken[1:] == []
    books.do_all()
    assert waiting.entry is entry


def test_a_reset_that_did_not_clean_discards() -> None:
    books = Books()
    (entry,) = idle(books, 1)
    lease = books.acquire()
    entry.resource.clean = False
    books.check_in(lease)
    books.recovered(entry)
    assert entry.state is State.CLOSING
    assert books.ledger.discards == {Discard.BROKEN: 1}


def test_check_out_looks_past_unclean_ones() -> None:
    books = Books()
    colder, warmer = idle(books, 2)
    warmer.resource.clean = False
    assert books.acquire().entry is colder
    assert books.work() == [warmer]
    assert warmer.state is State.RESETTING


def test_what_failed_once_is_probed_alone() -> None:
    books = Books(Limits(max_size=10, max_opening=3))
    for _ in range(5):
        books.acquire(math.inf)
    for entry in books.work():
        books.open_failed(entry)
    assert books.work() == []
    books.sleep(10)
    (probe,) = books.work()
    books.opened(probe)
    assert len(books.work()) == 3


def test_upkeep_is_due_when_a_back_off_ends() -> None:
    """Also if it looks before: nobody waits for what ``min_size`` asks for, so nothing else would have it opened."""
    books = Books(Limits(min_size=1))
    books.ledger.tidy(books.now)
    books.open_failed(*books.work())
    assert books.ledger.retry_at > books.now
    books.ledger.tidy(books.now)
    assert books.ledger.due == books.ledger.retry_at
    books.now = books.ledger.due
    books.ledger.tidy(books.now)
    assert len(books.work()) == 1


def sharing(max_size: int) -> tuple[Books, Books]:
    """Two pools that share a budget."""
    budget = Budget(max_size)
    limits = Limits(max_size=max_size)
    return Books(limits, budget=budget), Books(limits, budget=budget)


def test_a_pool_for_which_nobody_waits_gives_way() -> None:
    """Also to one that has as many resources, which it does not do while somebody waits for it."""
    giver, taker = sharing(2)
    lent = giver.acquire()
    giver.do_all()
    taker.acquire()
    taker.do_all()
    taker.acquire()
    assert taker.work() == []
    entry = lent.entry
    assert entry is not None
    giver.check_in(lent)
    assert entry.state is State.CLOSING
    giver.do_all()
    assert [entry.state for entry in taker.work()] == [State.OPENING]


def test_what_min_size_no_longer_keeps_gives_way() -> None:
    """At once, to a pool for which somebody waits already."""
    giver, taker = sharing(2)
    giver.resize(1, 2)
    idle(giver, 1)
    taker.acquire()
    taker.do_all()
    taker.acquire()
    assert giver.states() == {State.IDLE: 1}
    giver.resize(0, 2)
    assert giver.states() == {State.CLOSING: 1}


def test_a_paused_pool_has_no_turn() -> None:
    """Nobody who waits for it could use what another gave."""
    giver, paused = sharing(1)
    lent = giver.acquire()
    giver.do_all()
    paused.acquire()
    paused.pause()
    giver.now += 1
    waiting = giver.acquire()
    giver.check_in(lent)
    assert giver.woken[-1] is waiting


def test_hopeless_is_when_nothing_can_come_of_waiting() -> None:
    books = Books(Limits(max_size=2, max_opening=1))
    (entry,) = idle(books, 1)
    lease = books.acquire()
    books.acquire(math.inf)
    assert not books.ledger.hopeless()
    (opening,) = books.work()
    books.open_failed(opening, permanent=True)
    assert not books.ledger.hopeless(), "one is lent"
    books.check_in(lease, broken=True)
    assert books.ledger.hopeless()
    books.gone(entry)
    assert books.ledger.hopeless()


def test_a_transient_failure_is_not_hopeless() -> None:
    books = Books()
    books.acquire()
    books.open_failed(*books.work())
    assert not books.ledger.hopeless()


def test_one_that_was_taken_from_its_borrower_is_not_checked_in() -> None:
    books = Books()
    (entry,) = idle(books, 1)
    lease = books.acquire()
    books.close()
    books.close_lent()
    assert entry.state is State.CLOSING
    books.check_in(lease)
    assert entry.state is State.CLOSING
    assert len(books.work()) == 1


def test_a_lease_is_returned_once() -> None:
    books = Books()
    idle(books, 1)
    lease = books.acquire()
    books.check_in(lease)
    books.check_in(lease)
    assert books.states() == {State.IDLE: 1}
    assert len(books.ledger.idle) == 1


def calls_of(function: Callable[..., None], *arguments: object) -> int:
    """How many calls of functions this one makes."""
    with counted_calls() as calls:
        function(*arguments)
    return calls.made


def calls_beside(ledgers: int) -> list[int]:
    """What it costs, in calls, to do each of these beside so many other ledgers with the same budget."""
    budget = Budget(ledgers)
    others = [Books(Limits(max_size=1), budget=budget) for _ in range(ledgers)]
    for books in others:
        idle(books, 1)

    def lease_what_is_idle() -> None:
        others[1].check_in(others[1].acquire())

    def have_room_made_by_the_idle() -> None:
        newcomer.acquire()
        others[0].do_all()
        newcomer.do_all()

    def have_room_made_at_check_in() -> None:
        late.acquire()
        others[1].check_in(held[0])
        others[1].do_all()
        late.do_all()

    newcomer, late = (Books(Limits(max_size=1), budget=budget) for _ in range(2))
    calls = [calls_of(lease_what_is_idle), calls_of(have_room_made_by_the_idle)]
    held = [books.acquire() for books in others[1:]]
    calls.append(calls_of(have_room_made_at_check_in))
    assert [books.ledger.discards[Discard.MADE_ROOM] for books in others[:3]] == [1, 1, 0]
    assert late.woken != []
    return calls


def test_a_lease_costs_the_same_with_ten_ledgers_and_with_a_hundred_thousand() -> None:
    """Those of a keyed pool's keys, say. Not a step more for any of it."""
    gc.disable()  # it would go through so many objects again and again, and take longer than all the rest
    try:
        assert calls_beside(100_000) == calls_beside(10)
    finally:
        gc.enable()


@pytest.mark.parametrize("state", State)
def test_the_table_is_held(state: State) -> None:
    """Only transitions in the table are possible; nothing leaves GONE, and everything can get there."""
    for successor in State:
        entry: Entry[Thing] = Entry(state=state)
        if successor in TRANSITIONS[state]:
            entry.become(successor)
            assert entry.state is successor
        else:
            with pytest.raises(AssertionError, match=f"bug: {state.name} does not lead to {successor.name}"):
                entry.become(successor)
    reachable = {state}
    for _ in State:
        reachable |= {successor for reached in reachable for successor in TRANSITIONS[reached]}
    assert State.GONE in reachable
    assert (TRANSITIONS[state] == ()) == (state is State.GONE)


LIMITS = st.builds(
    Limits,
    min_size=st.integers(0, 2),
    max_size=st.integers(2, 4),
    max_opening=st.integers(1, 3),
    max_uses=st.sampled_from([1, 2, math.inf]),
    validate_after=st.sampled_from([0.0, 2.0, math.inf]),
    max_idle=st.sampled_from([3.4, 600.0]),
    max_lifetime=st.sampled_from([8.0, 3600.0]),
    reserved=st.sampled_from([0, 0, 1]),
)
TIMEOUTS = st.sampled_from([30.0, math.inf, 0.0, 1.7, 4.0])
PRIORITIES = st.sampled_from([Priority.NORMAL, *Priority])
ANY = st.integers(0, 11)  # which one of those that there are


@attrs.define(eq=False)
class Followed:
    """A ledger, what has come of it so far, and what must be true of it."""

    books: Books
    waiting: list[Lease[Thing]] = attrs.field(init=False, factory=list)  # in the order in which they should be served
    holding: list[Lease[Thing]] = attrs.field(init=False, factory=list)
    jobs: list[Entry[Thing]] = attrs.field(init=False, factory=list)  # begun and not yet over
    totals: Counter[str] = attrs.field(init=False, factory=Counter)
    size: int = attrs.field(init=False, default=0)  # after the last step

    def lent(self, lease: Lease[Thing]) -> None:
        """Hold the ledger to what it may lend."""
        entry, ledger = lease.entry, self.books.ledger
        assert entry is not None
        assert not ledger.closed
        assert not ledger.paused
        assert entry.state is State.LENT
        assert lease in entry.leases
        assert len(entry.leases) <= self.books.share
        assert entry.resource.clean
        assert entry.generation == ledger.generation
        if lease.line != Priority.URGENT and ledger.limits.reserved:
            others = sum(len(entry.leases) for entry in ledger.entries) - 1
            assert others < (ledger.limits.max_size - ledger.limits.reserved) * self.books.share, "reserved"
        assert entry.uses < ledger.limits.max_uses
        assert self.books.now < entry.expires_at
        assert lease.since == self.books.now
        self.holding.append(lease)

    def notice(self) -> None:
        """Follow what the ledger has done: whom it woke, and which jobs it ordered."""
        for lease in self.books.woken:
            if lease.entry is None:
                assert lease.error is not None, "woken for nothing"
                self.waiting.remove(lease)
                self.totals["timed out"] += isinstance(lease.error, TimeoutError)
            else:
                newest_first = self.books.ledger.queue.overloaded
                assert lease is self.waiting[0] or newest_first, "served out of turn"
                assert lease.line == self.waiting[0].line, "served before the more urgent"
                self.waiting.remove(lease)
                self.totals["waited"] += 1
                self.lent(lease)
        self.books.woken.clear()
        for entry in self.books.work():
            assert entry not in self.jobs, "two jobs at work on one resource"
            self.jobs.append(entry)
            self.totals["discarded"] += entry.state is State.CLOSING

    def lacks_something(self) -> bool:
        """Whether anybody waits, or less is there than should be and may be."""
        ledger = self.books.ledger
        too_few = not ledger.closed and len(ledger.entries) < self.books.limits.min_size
        return bool(self.waiting) or (too_few and not self.books.budget_is_used_up())

    def staying(self) -> int:
        """Resources that are not about to be closed, be it only when they come back."""
        entries = self.books.ledger.entries
        return sum(entry.state is not State.CLOSING and entry.doom is None for entry in entries)

    def has_to_spare(self) -> bool:
        return self.staying() > self.books.limits.min_size

    def needs_room(self) -> bool:
        """Whether somebody waits who could be served only by one more resource, if the budget had room for it."""
        ledger, limits = self.books.ledger, self.books.limits
        at_once = 1 if ledger.failures else limits.max_opening
        may_open = self.books.now >= ledger.retry_at and ledger.opening < at_once and not ledger.closed
        return (
            may_open and len(ledger.entries) < limits.max_size and self.entitled() > ledger.arriving * self.books.share
        )

    def books_are_right(self) -> None:
        ledger, limits, now = self.books.ledger, self.books.limits, self.books.now
        states = self.books.states()

        # A pool that was made smaller has too many until they have been closed.
        assert len(ledger.entries) <= max(limits.max_size, self.size)
        self.size = len(ledger.entries)
        assert self.staying() <= limits.max_size
        assert all(len(entry.leases) <= self.books.share for entry in ledger.entries)
        assert [entry for entry in ledger.idle if entry.state is not State.IDLE] == []
        assert len(set(ledger.idle)) == len(ledger.idle) == states[State.IDLE]
        assert sorted(ledger.idle, key=lambda entry: entry.idle_since) == list(ledger.idle)
        assert all((entry.state is State.LENT) == bool(entry.leases) for entry in ledger.entries)
        assert {lease for entry in ledger.entries for lease in entry.leases} <= set(self.holding)
        assert ledger.opening == states[State.OPENING] <= limits.max_opening
        assert ledger.arriving == states[State.OPENING] + states[State.CHECKING]
        at_work = (State.OPENING, State.CHECKING, State.RESETTING, State.CLOSING)
        assert set(self.jobs) == {entry for entry in ledger.entries if entry.state in at_work}

        assert list(ledger.queue) == self.waiting
        assert all(now < lease.latest_start + 0.002 for lease in self.waiting)  # upkeep rests as long between two looks
        if ledger.closed:
            assert not self.waiting
            assert not ledger.idle
        else:
            assert all(now < entry.expires_at for entry in ledger.idle)
            entitled = self.entitled()
            assert not ledger.idle or entitled <= states[State.CHECKING]
            at_once = 1 if ledger.failures else limits.max_opening
            if now >= ledger.retry_at and len(ledger.entries) < limits.max_size and ledger.opening < at_once:
                assert entitled <= ledger.arriving * self.books.share or self.books.budget_is_used_up()
            if entitled:
                sharers = [
                    entry
                    for entry in ledger.entries
                    if entry.state is State.LENT and now < entry.expires_at and entry.uses < limits.max_uses
                ]
                assert all(len(entry.leases) == self.books.share for entry in sharers), "something to spare"

        assert ledger.cancelled == self.totals["cancelled"]
        assert ledger.use_time.count == self.totals["used"]
        assert ledger.wait_time.count == self.totals["waited"]
        assert ledger.opened_total == ledger.open_time.count == self.totals["opened"]
        assert ledger.open_failures == self.totals["failed to open"]
        assert sum(ledger.discards.values()) == self.totals["discarded"]

    def entitled(self) -> int:
        """Those who wait and would not be held back if there were something free."""
        ledger, limits = self.books.ledger, self.books.limits
        leases = sum(len(entry.leases) for entry in ledger.entries)
        if ledger.paused:
            return 0
        if limits.reserved and leases >= (limits.max_size - limits.reserved) * self.books.share:
            return sum(lease.line == Priority.URGENT for lease in self.waiting)
        return len(self.waiting)


class Ledgers(RuleBasedStateMachine):
    """Everything that may happen to a ledger, in any order.

    To add something that may happen, add a method to `Books` and a rule here, with a precondition if it cannot happen
    always. What must then be true belongs into `Followed`, and what must come of it in the end into `teardown`.
    """

    all: list[Followed]  # the ledgers of this story
    here: Followed  # the one to which things happen now
    budget: Budget | None = None

    books = property(lambda self: self.here.books)
    waiting = property(lambda self: self.here.waiting)
    holding = property(lambda self: self.here.holding)
    jobs = property(lambda self: self.here.jobs)
    totals = property(lambda self: self.here.totals)

    def begin_holding(self, leases: int) -> None:
        self.upkeep()
        for _ in range(min(leases, self.books.limits.max_size)):
            self.acquire(math.inf, Priority.URGENT)
        self.succeed_all()

    # What tasks do.

    @precondition(lambda self: not self.books.ledger.closed and len(self.waiting) < 5)
    @rule(timeout=TIMEOUTS, priority=PRIORITIES)
    def acquire(self, timeout: float, priority: Priority) -> None:
        lease = self.books.acquire(timeout, priority)
        if lease.entry is None:
            self.waiting.append(lease)
            self.waiting.sort(key=lambda lease: lease.line)
        else:
            assert all(priority < other.line for other in self.waiting), "overtook a waiting task"
            self.here.lent(lease)
        self.upkeep()

    @precondition(lambda self: self.waiting)
    @rule(which=ANY)
    def give_up(self, which: int) -> None:
        lease = self.waiting.pop(which % len(self.waiting))
        self.books.give_up(lease)
        self.totals["cancelled"] += self.books.now > lease.waiting_since

    @precondition(lambda self: self.holding)
    @rule(which=ANY, broken=st.booleans(), clean=st.booleans())
    def check_in(self, which: int, broken: bool, clean: bool) -> None:
        lease = self.holding.pop(which % len(self.holding))
        if lease.entry is not None:  # else it was taken away
            # Shared, it stays unclean until all have left; nothing is soiled under somebody who has just come.
            lease.entry.resource.clean = clean or len(lease.entry.leases) > 1 or not self.books.asks
        self.books.check_in(lease, broken=broken)
        self.totals["used"] += 1

    @precondition(lambda self: not self.books.ledger.closed and any(lease.entry is None for lease in self.holding))
    @rule()
    def acquire_again(self) -> None:
        """A task learns only now that it has been given something that was closed at once."""
        lease = next(lease for lease in self.holding if lease.entry is None)
        self.holding.remove(lease)
        self.books.acquire_again(lease)
        if lease.entry is None:
            place = lease.line, lease.waiting_since
            self.waiting.insert(sum((other.line, other.waiting_since) < place for other in self.waiting), lease)
        else:
            assert all(lease.line < other.line for other in self.waiting), "overtook a waiting task"
            self.here.lent(lease)
        self.upkeep()

    # What the world does.

    @precondition(lambda self: self.books.asks and self.books.ledger.idle)
    @rule(which=ANY)
    def soil(self, which: int) -> None:
        """Unread bytes arrive at an idle resource, or its peer goes away."""
        self.books.ledger.idle[which % len(self.books.ledger.idle)].resource.clean = False

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.7, 1.7, 4.3, 40.0]))
    def sleep(self, seconds: float) -> None:
        """Let time pass, with upkeep whenever it is due and at no other time."""
        end = self.books.now + seconds
        while (due := min(each.books.ledger.due for each in self.all)) <= end:
            self.set_time(max(self.books.now, due))
            self.upkeep()
        self.set_time(end)

    def set_time(self, now: float) -> None:
        for each in self.all:
            each.books.now = now

    def upkeep(self) -> None:
        for each in self.all:
            each.books.upkeep()

    def notice(self) -> None:
        for each in self.all:
            each.notice()

    # What the pool's jobs do.

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def succeed(self, which: int) -> None:
        entry = self.jobs.pop(which % len(self.jobs))
        self.totals["opened"] += entry.state is State.OPENING
        self.books.do(entry)

    @precondition(lambda self: self.jobs)
    @rule()
    def succeed_all(self) -> None:
        self.notice()
        while self.jobs:
            self.succeed(0)
            self.notice()

    @precondition(lambda self: self.jobs)
    @rule(which=ANY, permanent=st.booleans())
    def fail(self, which: int, permanent: bool) -> None:
        entry = self.jobs.pop(which % len(self.jobs))
        match entry.state:
            case State.OPENING:
                self.books.open_failed(entry, permanent=permanent)
                self.totals["failed to open"] += 1
            case State.CLOSING:
                self.books.gone(entry)
            case _:
                self.books.unrecoverable(entry)

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def recover_in_vain(self, which: int) -> None:
        """A reset or validation ends well, but leaves the resource unclean."""
        entry = self.jobs[which % len(self.jobs)]
        if entry.state in (State.CHECKING, State.RESETTING):
            self.jobs.remove(entry)
            entry.resource.clean = not self.books.asks
            self.books.recovered(entry)

    # What the pool does.

    @precondition(lambda self: sum(self.totals.values()) > 10)
    @rule()
    def retire_all(self) -> None:
        self.books.retire_all()

    @precondition(lambda self: not self.books.ledger.closed)
    @rule(max_size=st.integers(2, 5), min_size=st.integers(0, 2))
    def resize(self, max_size: int, min_size: int) -> None:
        if self.budget is not None:  # the sum of all min_size stays below it
            kept = sum(each.books.limits.min_size for each in self.all if each is not self.here)
            min_size = min(min_size, self.budget.max_size - 1 - kept)
        self.books.resize(min_size, max_size)
        self.upkeep()

    @rule()
    def pause(self) -> None:
        self.books.pause()

    @precondition(lambda self: self.books.ledger.paused)
    @rule()
    def resume(self) -> None:
        self.books.resume()

    @precondition(lambda self: not self.books.ledger.closed)
    @rule(lent=st.booleans())
    def quiesce(self, lent: bool) -> None:
        """As `Pool.quiesce` does, or `Pool.drain`, which pauses first."""
        if lent:
            self.books.pause()
        self.books.quiesce(lent=lent)

    @rule()
    def clock_jumps(self) -> None:
        self.books.jumped = True

    @precondition(lambda self: sum(self.totals.values()) > 20)
    @rule(at_once=st.booleans())
    def close(self, at_once: bool) -> None:
        if not self.books.ledger.closed:
            self.books.close()
        if at_once:
            self.books.close_lent()

    @invariant()
    def the_books_are_right(self) -> None:
        self.notice()
        for each in self.all:
            each.books_are_right()

    def teardown(self) -> None:
        """When everything goes well from here, everybody is served; and when the pool is closed, nothing is left."""
        if not hasattr(self, "all"):
            return
        self.come_to_rest()
        for each in self.all:
            self.here = each
            ledger = self.books.ledger
            if not ledger.closed:
                assert len(ledger.idle) == len(ledger.entries)
                assert len(ledger.idle) >= self.books.limits.min_size or self.books.budget_is_used_up()
                self.books.close()
            self.notice()
            self.succeed_all()
            assert not ledger.entries

    def come_to_rest(self) -> None:
        """Let everything go well, and everybody end, until nobody needs more."""
        for each in self.all:
            if not each.books.ledger.closed:
                each.books.resume()
        self.let_all_go_well()

    def let_all_go_well(self) -> None:
        for _ in range(1000):
            self.the_books_are_right()
            if busy := [each for each in self.all if each.jobs]:
                self.here = busy[0]
                self.succeed(0)
            elif holders := [each for each in self.all if each.holding]:
                self.here = holders[0]
                self.check_in(0, broken=False, clean=True)
            elif lacking := [each for each in self.all if each.lacks_something()]:
                self.here = lacking[0]
                ledger = self.books.ledger
                assert self.books.now < ledger.retry_at or not self.waiting, "nothing is under way for those who wait"
                self.sleep(min(max(0.0, ledger.due - self.books.now), 5))  # what min_size lacks can wait
            else:
                return
        raise AssertionError("it does not come to an end")


class LedgerMachine(Ledgers):
    """One ledger."""

    @initialize(limits=LIMITS, asks=st.booleans(), share=st.sampled_from([1, 1, 2, 3]), holding=st.integers(0, 4))
    def begin(self, limits: Limits, asks: bool, share: int, holding: int) -> None:
        self.all = [Followed(Books(limits, asks, share))]
        self.here = self.all[0]
        self.begin_holding(holding)


LedgerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestLedger: Any = LedgerMachine.TestCase


class BudgetMachine(Ledgers):
    """Several ledgers that share a budget."""

    budget: Budget

    @initialize(
        limits=st.lists(LIMITS, min_size=2, max_size=3),
        room=st.integers(1, 4),
        asks=st.booleans(),
        share=st.sampled_from([1, 1, 2]),
        leases=st.lists(st.tuples(ANY, st.booleans()), max_size=8),
    )
    def begin(self, limits: list[Limits], room: int, asks: bool, share: int, leases: list[tuple[int, bool]]) -> None:
        self.budget = Budget(sum(each.min_size for each in limits) + room)
        self.all = [Followed(Books(each, asks, share, self.budget)) for each in limits]
        self.here = self.all[0]
        for each in limits:
            self.budget.reserve(each.min_size)
        for which, over in leases:
            self.turn_to(which)
            self.acquire(30.0, Priority.NORMAL)
            self.succeed_all()
            if over and self.holding:
                self.check_in(0, broken=False, clean=True)
            self.notice()
            self.sleep(0.1)

    @rule(which=ANY)
    def turn_to(self, which: int) -> None:
        """What happens next happens to another ledger."""
        self.here = self.all[which % len(self.all)]

    @rule(which=ANY, priority=PRIORITIES)
    def acquire_elsewhere(self, which: int, priority: Priority) -> None:
        self.turn_to(which)
        if not self.books.ledger.closed:
            self.acquire(30.0, priority)

    @rule(which=ANY)
    def check_in_elsewhere(self, which: int) -> None:
        self.turn_to(which)
        if self.holding:
            self.check_in(which, broken=False, clean=True)

    @invariant()
    def the_budget_is_right(self) -> None:
        entries = [entry for each in self.all for entry in each.books.ledger.entries]
        assert len(entries) == self.budget.size <= self.budget.max_size

        # No task waits for room while something idle could give way, unless enough is giving way already.
        needy = sum(each.needs_room() for each in self.all)
        giving_way = sum(entry.discarded is Discard.MADE_ROOM for entry in entries)
        could = [entry for each in self.all if each.has_to_spare() for entry in each.books.ledger.idle]
        assert not could or giving_way >= needy

    def notice(self) -> None:
        """As for one ledger; and what gives way is what is coldest, and nothing that ``min_size`` keeps."""
        begun = {job for each in self.all for job in each.jobs}
        super().notice()
        for each in self.all:
            for entry in each.jobs:
                if entry not in begun and entry.discarded is Discard.MADE_ROOM:
                    assert each.staying() >= each.books.limits.min_size
                    others = [other for rival in self.all if rival.has_to_spare() for other in rival.books.ledger.idle]
                    assert all(entry.idle_since <= other.idle_since for other in others), "not the coldest"

    def come_to_rest(self) -> None:
        """When nobody needs more, every ledger has its ``min_size``."""
        super().come_to_rest()
        for _ in range(3):
            self.sleep(700)  # until what is idle for nothing has been closed
            self.let_all_go_well()
        for each in self.all:
            assert each.books.ledger.closed or each.staying() >= each.books.limits.min_size

    def teardown(self) -> None:
        """And when all are closed, the budget has room for everything."""
        super().teardown()
        assert not hasattr(self, "all") or self.budget.size == 0


BudgetMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
TestBudget: Any = BudgetMachine.TestCase
