"""Every count, list and queue of a pool, and every decision about them. Synchronous: nothing here can be interrupted.

The pool tells the ledger what happened (a lease began to wait, a resource was opened, a reset failed) and the time at
which it did; the ledger changes its books, calls ``wake`` with every lease whose wait is over and its task (because it
holds an entry, or because it has an ``error``), and leaves in ``work`` the entries whose state asks for a job (open,
validate, reset or close the resource). The pool starts the jobs before it awaits anything.

Invariants, true whenever a public method returns:

* Bounds: ``len(entries) <= max_size``. An entry is in the census from before ``open`` until after ``close``.
* No lost wake-ups: every waiting lease has an entry in CHECKING for it if there is an idle one to check, and otherwise
  one in OPENING if there is room, unless the pool is paused, what is left is reserved for more urgent leases, or the
  server is being left alone after a failure (until ``retry_at``).
* First come, first served: while a lease is waiting, an entry is lent to the first in the queue and to nobody else;
  who is first, the queue says.
* An entry has leases exactly in LENT and never more than ``share``; it stands in the idle stack exactly in IDLE.

Where the ideas come from: all bookkeeping behind one lock with no await in it is bb8's ``internals.rs``; the idle
stack that lends the warmest and retires the coldest is connection_pool's and puddle's; handing a resource straight to
the first waiter is Trio's ``CapacityLimiter``; exponential back-off with full jitter is from the AWS Architecture
Blog (M. Brooker, 2015).
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import attrs

from ._budget import Budget
from ._entry import Discard, Entry, Lease, State
from ._limits import Limits
from ._queue import Priority, Queue
from ._statistics import BOUNDS, Histogram

__all__ = ["UPKEEP_PERIOD", "Ledger"]

T = TypeVar("T")

# Looking a member up on an enum class costs as much as a function call.
IDLE = State.IDLE
LENT = State.LENT
URGENT = Priority.URGENT
NORMAL = Priority.NORMAL

_FIRST_BACKOFF = 0.1  # seconds: upper bound of the first wait after a failed open
_LONGEST_BACKOFF = 5.0  # seconds: so that recovery is noticed soon
UPKEEP_PERIOD = 0.1  # seconds: how soon to look around when somebody waits; less and less often if it lasts
_TRUSTED_IDLE = 0.001  # seconds of idleness in which nothing can have happened, not even a frozen process
_REST = 0.002  # seconds between two looks at whose time is up: in an overload, a look costs more than telling someone
_LIFETIME_JITTER = 0.1  # fraction of max_lifetime by which a resource's own may be shorter


@attrs.define(eq=False, kw_only=True)
class Ledger(Generic[T]):
    """The books of one pool."""

    limits: Limits
    is_clean: Callable[[T], bool] | None = None  # None: every resource is, always
    wake: Callable[[Any, Any], object]  # takes a lease's task and the lease; must not run it at once, nor raise
    nudge: Callable[[], object]  # called by the budget after it has changed these books, on another pool's behalf
    share: int = 1  # leases one resource may serve at a time
    budget: Budget | None = None
    clock_jumped: Callable[[], bool] = bool  # whether time has passed that `now` does not show

    entries: dict[Entry[T], None] = attrs.field(init=False, factory=dict)  # the census, the oldest first
    idle: deque[Entry[T]] = attrs.field(init=False, factory=deque)  # coldest first; lent from the right
    spare: dict[Entry[T], None] = attrs.field(init=False, factory=dict)  # lent, shared, and able to serve more leases
    queue: Queue[T] = attrs.field(init=False)
    work: list[Entry[T]] = attrs.field(init=False, factory=list)

    closed: bool = attrs.field(init=False, default=False)
    paused: bool = attrs.field(init=False, default=False)
    guarded: bool = attrs.field(init=False)  # whether there may be free resources that not every lease may have
    plain: bool = attrs.field(init=False)  # whether a resource that is clean may go to whoever is first in line
    suspect_before: float = attrs.field(init=False, default=-math.inf)  # idle since before this: validate first
    generation: int = attrs.field(init=False, default=0)
    arriving: int = attrs.field(init=False, default=0)  # entries in OPENING or CHECKING: each will serve a waiter soon
    opening: int = attrs.field(init=False, default=0)  # entries in OPENING
    due: float = attrs.field(init=False, default=-math.inf)  # when upkeep has something to do, or earlier

    failures: int = attrs.field(init=False, default=0)  # failed opens in a row
    retry_at: float = attrs.field(init=False, default=-math.inf)  # no open begins before this
    open_error: Exception | None = attrs.field(init=False, default=None)  # of the last open, if it failed
    open_error_permanent: bool = attrs.field(init=False, default=False)

    expected_use: float = attrs.field(init=False, default=0.0)  # seconds; nine in ten uses take longer

    # totals since the start
    timeouts: int = attrs.field(init=False, default=0)
    refused: int = attrs.field(init=False, default=0)
    cancelled: int = attrs.field(init=False, default=0)
    opened_total: int = attrs.field(init=False, default=0)
    open_failures: int = attrs.field(init=False, default=0)
    discards: Counter[Discard] = attrs.field(init=False, factory=Counter)
    wait_time: Histogram = attrs.field(init=False, factory=Histogram)
    use_time: Histogram = attrs.field(init=False, factory=Histogram)
    open_time: Histogram = attrs.field(init=False, factory=Histogram)

    def __attrs_post_init__(self) -> None:
        self.queue = Queue()
        self._guard()

    # A lease's way: try_lend, or enqueue and then hand-over, give_up or dismiss; in the end check_in.

    def try_lend(self, lease: Lease[T], now: float) -> bool:
        """Lend the warmest idle resource, or else the least loaded shared one, if any is fit to be lent.

        Nobody may be waiting who would come before `lease`.
        """
        if self.guarded and self._held_back(lease.line):
            return False
        idle = self.idle
        is_clean = self.is_clean
        while idle:
            entry = idle[-1]
            since = entry.idle_since
            if since <= now - self.limits.validate_after or since <= self.suspect_before:
                break  # and so has what is left, for longer still
            if now - since > _TRUSTED_IDLE and self.clock_jumped():
                self.suspect_before = now
                break
            idle.pop()
            if self.budget is not None:
                self.budget.not_idle(entry)
            if is_clean is None or is_clean(entry.resource):
                assert entry.state is IDLE, f"bug: {entry.state.name} in the idle stack"
                entry.state = LENT
                lease.since = now  # before other threads' statistics can see it
                entry.leases.add(lease)
                lease.entry = entry
                if self.share > 1:
                    self._sort_spare(entry)
                return True
            self._reset(entry)
        return bool(self.spare) and self._lend_spare(lease, now)

    def enqueue(self, lease: Lease[T], now: float, latest_start: float) -> None:
        """Let `lease`, which `try_lend` has not served, wait its turn, but not beyond `latest_start`."""
        lease.error = None
        lease.waiting_since = now
        lease.latest_start = latest_start
        self.queue.push(lease)
        if now + UPKEEP_PERIOD < self.due or latest_start < self.due:
            self.due = min(now + UPKEEP_PERIOD, latest_start)
        if self.idle or len(self.entries) < self.limits.max_size:
            self.provide(now)

    def lend_or_enqueue_again(self, lease: Lease[T], now: float) -> bool:
        """What `lease` was given was closed before its task knew: give it something else, or its old place in line."""
        queue = self.queue
        if (not queue.size or (lease.line == URGENT and not queue.count_urgent())) and self.try_lend(lease, now):
            return True
        lease.error = None
        queue.push_back(lease)
        self.due = min(self.due, now + UPKEEP_PERIOD, lease.latest_start)
        self.provide(now)
        return False

    def give_up(self, lease: Lease[T], now: float, *, late: bool) -> None:
        """`lease`'s task was cancelled while it waited; `late` if that is because its time was up."""
        self.queue.remove(lease, late=late)
        self.cancelled += now > lease.waiting_since

    def dismiss(self, lease: Lease[T], error: Exception, *, late: bool = False) -> None:
        """End the wait of `lease` with `error`; `late` if that is because its time was up."""
        self.queue.remove(lease, late=late)
        lease.error = error
        self.wake(lease.task, lease)

    def check_in(self, lease: Lease[T], now: float, *, broken: bool = False) -> None:
        """`lease` is over; its resource goes to the next waiter or the idle stack, is reset, or is discarded."""
        used = now - lease.since
        use_time = self.use_time
        use_time.counts[bisect_left(BOUNDS, used)] += 1  # Histogram.add, without the call
        use_time.sum += used
        entry = lease.entry
        if entry is None:
            return  # the resource was closed under its borrower
        lease.entry = None
        entry.leases.remove(lease)
        entry.uses += 1
        is_clean = self.is_clean
        if broken:
            self.discard(entry, Discard.BROKEN)
        elif now >= entry.expires_at or entry.uses >= self.limits.max_uses:
            self._retire(entry)
        elif not entry.leases and is_clean is not None and not is_clean(entry.resource):
            self._reset(entry)
        elif not self.plain and (self.share > 1 or self.guarded or (self.budget and self.budget.contended())):
            self._place(entry, now)
        elif self.queue.size:
            self._hand_over(entry, now)
        else:
            assert entry.state is LENT, f"bug: {entry.state.name} at check-in"
            entry.state = IDLE  # as in `_place`, without the calls
            entry.idle_since = now
            self.idle.append(entry)
            if self.budget is not None:
                self.budget.now_idle(entry, self)
        if self.guarded and self.queue.size:
            self.provide(now)  # with fewer leases out, those who wait may be entitled to what else is free

    # A resource's way: what the pool's jobs report.

    def opened(self, entry: Entry[T], resource: T, took: float, now: float) -> None:
        """`Adapter.open` returned."""
        self._arrived(entry)
        entry.resource = resource
        entry.opened_at = now
        if entry.doom is None:
            entry.expires_at = now + self.limits.max_lifetime * (1 - random.random() * _LIFETIME_JITTER)  # noqa: S311
        self.opened_total += 1
        self.open_time.add(took)
        self.failures = 0
        self.retry_at = -math.inf
        self.open_error = None
        self.due = min(self.due, entry.expires_at, now + self.limits.max_idle)
        self._settle(entry, now)
        self.provide(now)

    def open_failed(self, entry: Entry[T], error: Exception, now: float, *, permanent: bool) -> None:
        """`Adapter.open` raised, or ran out of time. Nothing is open."""
        self._arrived(entry)
        self.open_failures += 1
        self.failures += 1
        self.open_error = error
        self.open_error_permanent = permanent
        ceiling = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(self.failures - 1, 16))
        self.retry_at = now + random.uniform(0, ceiling)  # noqa: S311
        self.due = min(self.due, self.retry_at)
        self.gone(entry, now)

    def open_abandoned(self, entry: Entry[T], now: float) -> None:
        """`Adapter.open` was cancelled because the pool is closing. Nothing is open."""
        self._arrived(entry)
        self.gone(entry, now)

    def recovered(self, entry: Entry[T], now: float) -> bool:
        """`Adapter.validate` or `Adapter.reset` returned. The answer is whether `Adapter.is_clean` agrees."""
        checked = entry.state is State.CHECKING
        if checked:
            self.arriving -= 1
        clean = self.is_clean is None or self.is_clean(entry.resource)
        if clean:
            self._settle(entry, now)
        else:
            self.discard(entry, entry.doom or (Discard.INVALID if checked else Discard.BROKEN))
        self.provide(now)
        return clean

    def unrecoverable(self, entry: Entry[T], now: float) -> None:
        """`Adapter.validate` or `Adapter.reset` raised, or ran out of time."""
        checked = entry.state is State.CHECKING
        if checked:
            self.arriving -= 1
        self.discard(entry, entry.doom or (Discard.INVALID if checked else Discard.BROKEN))
        # What has been idle for longer has very likely met the same fate (a NAT or a firewall forgot the connection),
        # and a borrower should not have to find that out one time-out after the other.
        while checked and self.idle and self.idle[0].idle_since <= entry.idle_since:
            self._discard_idle(self.idle[0], Discard.INVALID)
        self.provide(now)

    def discard(self, entry: Entry[T], reason: Discard) -> None:
        """Have `entry`'s resource closed, even under its borrowers. An idle one must have been taken off the stack."""
        entry.become(State.CLOSING)
        for lease in entry.leases:
            lease.entry = None
        entry.leases.clear()
        self.spare.pop(entry, None)
        entry.discarded = reason
        self.discards[reason] += 1
        self.work.append(entry)

    def gone(self, entry: Entry[T], now: float) -> None:
        """`Adapter.close` is over, one way or another, or there was nothing to close."""
        entry.become(State.GONE)
        del self.entries[entry]
        if self.budget is not None:
            self.budget.release(entry, now)
        self.provide(now)

    # The pool's own way.

    def retire_all(self, now: float) -> None:
        """Begin a new generation: close what is idle now, and the rest as it comes back.

        Those that ``min_size`` asks for begin to be replaced in the same step, as far as there is room.
        """
        self.generation += 1
        self._doom(self.entries, Discard.RETIRED)
        self.provide(now)

    def quiesce(self, *, lent: bool) -> None:
        """Close what is idle, and on demand the rest as it comes back."""
        self._doom(self.entries if lent else list(self.idle), Discard.QUIESCED)

    def resize(self, limits: Limits, now: float) -> None:
        """Go by new limits: close what is too many, the coldest first, then what is lent as it comes back."""
        self.limits = limits
        self._guard()
        excess = self._staying() - limits.max_size
        if excess > 0:
            others = (entry for entry in self.entries if entry.state is not IDLE and self._stays(entry))
            self._doom([*self.idle, *others][:excess], Discard.RESIZED)
        self.due = min(self.due, now)  # max_idle may apply to what min_size no longer protects
        self.provide(now)
        if self.budget is not None:
            self.budget.make_room()

    def pause(self) -> None:
        """Lend nothing until `resume`."""
        self.paused = True
        self._guard()

    def resume(self, now: float) -> None:
        """Lend again."""
        self.paused = False
        self._guard()
        self.provide(now)

    def close(self) -> None:
        """Close what is idle, and open and lend nothing more. The caller dismisses the waiters."""
        self.closed = True
        self._doom(self.entries, Discard.CLOSED)

    def close_lent(self) -> None:
        """Take every lent resource away from its borrower."""
        for entry in [entry for entry in self.entries if entry.state is LENT]:
            self.discard(entry, Discard.CLOSED)

    def hopeless(self) -> bool:
        """Whether opening fails, for good or with ``fail_fast``, and nothing else could serve a waiter instead."""
        return (
            self.open_error is not None
            and (self.open_error_permanent or self.limits.fail_fast)
            and all(entry.state is State.CLOSING for entry in self.entries)
        )

    def forgettable(self, now: float) -> bool:
        """Whether nothing is held, nobody waits, and no failure is recent enough to make the next back-off longer."""
        return not self.entries and not self.queue.size and now >= self.retry_at + _LONGEST_BACKOFF

    def tidy(self, now: float) -> None:
        """Retire what is too old or unused, open what is missing, and say when to come back."""
        self._retire_idle(now)
        self.provide(now)
        self.due = self._next_due(now)

    def take_stock(self) -> None:
        """Learn from the leases that have ended what to expect of the next."""
        use_time = self.use_time.snapshot()
        if use_time.count:
            self.expected_use = min(use_time.quantile(0.1), BOUNDS[-1])

    def count(self, state: State) -> int:
        """How many entries are in `state`."""
        return sum(entry.state is state for entry in self.entries)

    def can_spare_one(self) -> bool:
        """Whether a resource may give way to another pool's. One that may is idle, or has just been returned."""
        return not self.limits.min_size or self._staying() > self.limits.min_size

    def take_idle(self, entry: Entry[T]) -> None:
        """Take `entry` off the idle stack."""
        if self.idle[-1] is entry:
            self.idle.pop()
        else:
            self.idle.remove(entry)
        if self.budget is not None:
            self.budget.not_idle(entry)

    def provide(self, now: float) -> None:
        """See to it that every waiter has a resource coming, and that ``min_size`` are there."""
        # Whatever is being opened: that may take long, or fail.
        while self.idle and self.entitled() > self.arriving - self.opening:
            entry = self.idle[-1]
            self.take_idle(entry)
            if max(now - self.limits.validate_after, self.suspect_before) >= entry.idle_since:
                entry.become(State.CHECKING)
                self.arriving += 1
                self.work.append(entry)
            elif self.is_clean is None or self.is_clean(entry.resource):
                self._place(entry, now)
            else:
                self._reset(entry)
        while self.spare and self.entitled() and (shared := self._least_loaded(now)):
            self._hand_over(shared, now)
            self._sort_spare(shared)
        for _ in range(self._short_of(now)):
            waited_for = self.entitled() > self.arriving
            if self.budget is not None and not self.budget.take(self, now, waited_for=waited_for):
                break
            entry = Entry(generation=self.generation)
            self.entries[entry] = None
            self.arriving += 1
            self.opening += 1
            self.work.append(entry)

    # Helpers.

    def _guard(self) -> None:
        self.guarded = self.paused or self.limits.reserved > 0
        self.plain = self.share == 1 and self.budget is None and not self.guarded

    def _sort_spare(self, entry: Entry[T]) -> None:
        """Put a shared entry among those with something to spare, or take it away, as its number of leases demands."""
        if 0 < len(entry.leases) < self.share and entry.doom is None:
            self.spare[entry] = None
        else:
            self.spare.pop(entry, None)

    def _least_loaded(self, now: float) -> Entry[T] | None:
        """The shared entry with most to spare, if any has."""
        for entry in [entry for entry in self.spare if now >= entry.expires_at]:
            del self.spare[entry]
        return min(self.spare, key=_load, default=None)

    def _lend_spare(self, lease: Lease[T], now: float) -> bool:
        entry = self._least_loaded(now)
        if entry is None:
            return False
        lease.since = now
        entry.leases.add(lease)
        lease.entry = entry
        self._sort_spare(entry)
        return True

    def _place(self, entry: Entry[T], now: float) -> None:
        """Hand what a resource has to give to the first waiters; if nobody takes any of it, it is idle."""
        queue = self.queue
        if self.budget is not None and not entry.leases and self.budget.must_give_way(self, entry):
            self.discard(entry, Discard.MADE_ROOM)
            return
        while queue.size and len(entry.leases) < self.share:
            if self.guarded and not self.entitled():
                break
            self._hand_over(entry, now)
        if not entry.leases:
            self._rest(entry, now)
            if self.budget is not None:
                self.budget.now_idle(entry, self)
        if self.share > 1:
            self._sort_spare(entry)

    def _hand_over(self, entry: Entry[T], now: float) -> None:
        """Lend a clean resource to the first waiter, and wake it."""
        lease = self.queue.pop()
        waited = now - lease.waiting_since
        wait_time = self.wait_time
        wait_time.counts[bisect_left(BOUNDS, waited)] += 1  # Histogram.add, without the call
        wait_time.sum += waited
        if entry.state is not LENT:
            entry.become(LENT)
        lease.since = now
        entry.leases.add(lease)
        lease.entry = entry
        self.wake(lease.task, lease)

    def _rest(self, entry: Entry[T], now: float) -> None:
        entry.become(IDLE)
        entry.idle_since = now
        self.idle.append(entry)

    def _settle(self, entry: Entry[T], now: float) -> None:
        """Place a resource that a job has made ready, if it is still wanted."""
        if now >= entry.expires_at:
            self._retire(entry)
        else:
            self._place(entry, now)

    def _retire(self, entry: Entry[T]) -> None:
        """Discard a resource that is too old or used up, as soon as nobody holds it."""
        if entry.leases:
            self.spare.pop(entry, None)
        else:
            used_up = entry.uses >= self.limits.max_uses
            self.discard(entry, entry.doom or (Discard.USED_UP if used_up else Discard.EXPIRED))

    def _doom(self, entries: Iterable[Entry[T]], reason: Discard) -> None:
        """Close those of `entries` that are idle now, and the rest as they come back."""
        for entry in entries:
            entry.expires_at = -math.inf
            entry.doom = reason
            self.spare.pop(entry, None)
        for entry in [entry for entry in self.idle if entry.doom is not None]:
            self._discard_idle(entry, reason)

    def _discard_idle(self, entry: Entry[T], reason: Discard) -> None:
        self.take_idle(entry)
        self.discard(entry, reason)

    def _reset(self, entry: Entry[T]) -> None:
        entry.become(State.RESETTING)
        self.spare.pop(entry, None)
        self.work.append(entry)

    def _arrived(self, entry: Entry[T]) -> None:
        assert entry.state is State.OPENING, f"bug: reported as opened in {entry.state.name}"
        self.arriving -= 1
        self.opening -= 1

    def _retire_idle(self, now: float) -> None:
        for entry in [entry for entry in self.idle if now >= entry.expires_at]:
            self._discard_idle(entry, Discard.EXPIRED)
        spare = self._staying() - self.limits.min_size
        while spare > 0 and self.idle and now >= self.idle[0].idle_since + self.limits.max_idle:  # as in `_next_due`
            self._discard_idle(self.idle[0], Discard.UNUSED)
            spare -= 1

    def entitled(self) -> int:
        """Waiting leases that would be given a resource if one were free."""
        if self.paused:
            return 0
        if self.guarded and self._held_back(NORMAL):
            return self.queue.count_urgent()
        return self.queue.size

    def _held_back(self, line: int) -> bool:
        """Whether leases of this line get nothing: the pool is paused, or what is left is reserved for urgent ones."""
        if self.paused:
            return True
        if line == URGENT:
            return False
        leases = sum(len(entry.leases) for entry in self.entries)
        return leases >= (self.limits.max_size - self.limits.reserved) * self.share

    def _short_of(self, now: float) -> int:
        """How many more resources should begin to open now."""
        if self.closed or self.paused or now < self.retry_at:
            return 0
        at_once = 1 if self.failures else self.limits.max_opening  # a server that just failed is probed, not stormed
        room = min(self.limits.max_size - len(self.entries), at_once - self.opening)
        if room <= 0:
            return 0
        waited_for = -(-self.entitled() // self.share) - self.arriving
        return min(room, max(waited_for, self.limits.min_size - self._staying()))

    def _staying(self) -> int:
        """Resources that are not being closed, nor will be as soon as they come back."""
        return sum(map(self._stays, self.entries))

    @staticmethod
    def _stays(entry: Entry[T]) -> bool:
        return entry.state is not State.CLOSING and entry.doom is None

    def _next_due(self, now: float) -> float:
        due = max(self.queue.next_look(), now + _REST)
        if self.queue.size:
            due = min(due, now + max(UPKEEP_PERIOD, now - self.queue.oldest_since()))
        if now < self.retry_at:
            due = min(due, self.retry_at)
        elif now < self.retry_at + _LONGEST_BACKOFF:
            due = min(due, self.retry_at + _LONGEST_BACKOFF)  # see `forgettable`
        # One that is lent now may be idle by the time it expires.
        due = min([due, *(entry.expires_at for entry in self.entries if entry.expires_at > now)])
        if self._staying() > self.limits.min_size:
            if self.idle:
                due = min(due, self.idle[0].idle_since + self.limits.max_idle)
            else:  # whatever comes to be idle later than now is due later than this, or hardly sooner
                due = min(due, now + max(UPKEEP_PERIOD, self.limits.max_idle))
        return due


def _load(entry: Entry[Any]) -> int:
    return len(entry.leases)
