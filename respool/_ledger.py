"""Every count, list and queue of a pool, and every decision about them. Synchronous: nothing here can be interrupted.

The pool tells the ledger what happened (a lease began to wait, a resource was opened, a reset failed) and the time at
which it did; the ledger changes its books, calls ``wake`` with the task of every lease whose wait is over (because it
holds an entry, or because it has an ``error``), and leaves in ``work`` the entries whose state asks for a job (open,
validate, reset or close the resource). The pool starts the jobs before it awaits anything.

Invariants, true whenever a public method returns:

* Bounds: ``len(entries) <= max_size``. An entry is in the census from before ``open`` until after ``close``.
* No lost wake-ups: every waiting lease has an entry in CHECKING for it if there is an idle one to check, and otherwise
  one in OPENING if there is room, unless the server is being left alone after a failure (until ``retry_at``).
* First come, first served: while a lease is waiting, an entry is lent to the first in the queue and to nobody else.
* An entry has a lease exactly in LENT, and stands in the idle stack exactly in IDLE.

Where the ideas come from: all bookkeeping behind one lock with no await in it is bb8's ``internals.rs``; the idle
stack that lends the warmest and retires the coldest is connection_pool's and puddle's; handing a resource straight to
the first waiter is Trio's ``CapacityLimiter``; exponential back-off with full jitter is from the AWS Architecture
Blog (M. Brooker, 2015).
"""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ._entry import Discard, Entry, Lease, State
from ._limits import Limits
from ._statistics import BOUNDS, Histogram

__all__ = ["Ledger"]

T = TypeVar("T")

# Looking a member up on an enum class costs as much as a function call.
IDLE = State.IDLE
LENT = State.LENT

_FIRST_BACKOFF = 0.1  # seconds: upper bound of the first wait after a failed open
_LONGEST_BACKOFF = 5.0  # seconds: so that recovery is noticed soon
_LIFETIME_JITTER = 0.1  # fraction of max_lifetime by which a resource's own may be shorter


class Ledger(Generic[T]):
    """The books of one pool."""

    def __init__(self, limits: Limits, is_clean: Callable[[T], bool] | None, wake: Callable[[Any], object]) -> None:
        self.limits = limits
        self.wake = wake  # takes a lease's task; must not run it at once
        self.is_clean = is_clean  # None: every resource is, always
        self.entries: set[Entry[T]] = set()  # the census
        self.idle: deque[Entry[T]] = deque()  # coldest first; lent from the right
        self.queue: OrderedDict[Lease[T], None] = OrderedDict()  # first come first; quick to leave from the middle
        self.work: list[Entry[T]] = []
        self.closed = False
        self.generation = 0
        self.arriving = 0  # entries in OPENING or CHECKING: each will serve a waiter soon
        self.opening = 0  # entries in OPENING
        self.failures = 0  # failed opens in a row
        self.retry_at = -math.inf  # no open begins before this
        self.open_error: Exception | None = None  # of the last open, if it failed
        self.open_error_permanent = False
        self.due = -math.inf  # when `expired` or `tidy` next has something to do, or earlier
        # The queue is sorted by the deadlines that acquire_timeout sets; this heap holds the leases with other ones,
        # some of them long gone. The number breaks ties.
        self._deadlines: list[tuple[float, int, Lease[T]]] = []
        self._pushed = 0
        # totals since the start
        self.timeouts = self.refused = self.cancelled = 0
        self.opened_total = self.open_failures = 0
        self.discards: Counter[Discard] = Counter()
        self.wait_time = Histogram()
        self.use_time = Histogram()
        self.open_time = Histogram()

    # A lease's way: try_lend, or enqueue and then hand-over, give_up or expire; in the end check_in.

    def try_lend(self, lease: Lease[T], now: float) -> bool:
        """Lend the warmest idle resource that is fit to be lent, if there is one. Nobody may be waiting."""
        idle = self.idle
        is_clean = self.is_clean
        while idle and now - idle[-1].idle_since < self.limits.validate_after:
            entry = idle.pop()
            if is_clean is None or is_clean(entry.resource):
                assert entry.state is IDLE, f"bug: {entry.state.name} in the idle stack"
                entry.state = LENT
                entry.lease = lease
                lease.entry = entry
                lease.since = now
                return True
            self._reset(entry)
        return False  # what is left has been idle for longer still

    def enqueue(self, lease: Lease[T], now: float, latest_start: float) -> None:
        """Let `lease` wait its turn, but not beyond `latest_start`."""
        lease.error = None
        lease.waiting_since = now
        lease.latest_start = latest_start
        self.queue[lease] = None
        if latest_start < self.due:
            self.due = latest_start
        if latest_start != now + self.limits.acquire_timeout:
            self._remember_deadline(lease)
        if self.idle or len(self.entries) < self.limits.max_size:
            self._provide(now)

    def give_up(self, lease: Lease[T]) -> None:
        """`lease`'s task was cancelled while it waited."""
        del self.queue[lease]
        self.cancelled += 1

    def check_in(self, lease: Lease[T], now: float, *, broken: bool = False) -> None:
        """`lease` is over; its resource goes to the next waiter or the idle stack, is reset, or is discarded."""
        entry = lease.entry
        assert entry is not None, "bug: checked in twice"
        lease.entry = None
        used = now - lease.since
        use_time = self.use_time
        use_time.counts[bisect_left(BOUNDS, used)] += 1  # Histogram.add, without the call
        use_time.sum += used
        if entry.lease is not lease:
            return  # the pool closed the resource under its borrower
        entry.uses += 1
        is_clean = self.is_clean
        if broken:
            self.discard(entry, Discard.BROKEN)
        elif now >= entry.expires_at or entry.uses >= self.limits.max_uses:
            self.discard(entry, self._why_unfit(entry))
        elif is_clean is None or is_clean(entry.resource):
            self._place(entry, now)
        else:
            self._reset(entry)

    # A resource's way: what the pool's tasks report.

    def opened(self, entry: Entry[T], resource: T, took: float, now: float) -> None:
        """`Adapter.open` returned."""
        self._arrived(entry)
        entry.resource = resource
        if entry.generation == self.generation and not self.closed:
            entry.expires_at = now + self.limits.max_lifetime * (1 - random.random() * _LIFETIME_JITTER)  # noqa: S311
        self.opened_total += 1
        self.open_time.add(took)
        self.failures = 0
        self.retry_at = -math.inf
        self.open_error = None
        self.due = min(self.due, entry.expires_at, now + self.limits.max_idle)
        self._settle(entry, now)
        self._provide(now)

    def open_failed(self, entry: Entry[T], error: Exception, now: float, *, permanent: bool) -> None:
        """`Adapter.open` raised, or ran out of time. Nothing is open."""
        self._arrived(entry)
        entry.become(State.GONE)
        self.entries.discard(entry)
        self.open_failures += 1
        self.failures += 1
        self.open_error = error
        self.open_error_permanent = permanent
        ceiling = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(self.failures - 1, 16))
        self.retry_at = now + random.uniform(0, ceiling)  # noqa: S311
        self.due = min(self.due, self.retry_at)

    def open_abandoned(self, entry: Entry[T]) -> None:
        """`Adapter.open` was cancelled because the pool is closing. Nothing is open."""
        self._arrived(entry)
        entry.become(State.GONE)
        self.entries.discard(entry)

    def recovered(self, entry: Entry[T], now: float) -> None:
        """`Adapter.validate` or `Adapter.reset` returned."""
        checked = entry.state is State.CHECKING
        if checked:
            self.arriving -= 1
        if self.is_clean is None or self.is_clean(entry.resource):
            self._settle(entry, now)
        else:
            self.discard(entry, Discard.INVALID if checked else Discard.BROKEN)
        self._provide(now)

    def unrecoverable(self, entry: Entry[T], now: float) -> None:
        """`Adapter.validate` or `Adapter.reset` raised, or ran out of time."""
        if entry.state is State.CHECKING:
            self.arriving -= 1
        if self.closed:
            self.discard(entry, Discard.CLOSED)
        elif entry.state is State.CHECKING:
            self.discard(entry, Discard.INVALID)
            # What has been idle for longer has very likely met the same fate (a NAT or a firewall forgot the
            # connection), and a borrower should not have to find that out one time-out after the other.
            while self.idle and self.idle[0].idle_since <= entry.idle_since:
                self.discard(self.idle.popleft(), Discard.INVALID)
        else:
            self.discard(entry, Discard.BROKEN)
        self._provide(now)

    def discard(self, entry: Entry[T], reason: Discard) -> None:
        """Have `entry`'s resource closed. An idle entry must have been taken off the stack."""
        entry.become(State.CLOSING)
        entry.lease = None
        self.discards[reason] += 1
        self.work.append(entry)

    def gone(self, entry: Entry[T], now: float) -> None:
        """`Adapter.close` is over, one way or another."""
        entry.become(State.GONE)
        self.entries.discard(entry)
        self._provide(now)

    # The pool's own way.

    def retire_all(self, now: float) -> None:
        """Begin a new generation: close what is idle now, and the rest as it comes back."""
        self.generation += 1
        self._expire_all()
        self._provide(now)

    def close(self) -> None:
        """Close what is idle, and open and lend nothing more. The caller fails the waiters."""
        self.closed = True
        self._expire_all()

    def close_lent(self) -> None:
        """Take every lent resource away from its borrower."""
        for entry in [entry for entry in self.entries if entry.state is State.LENT]:
            self.discard(entry, Discard.CLOSED)

    def dismiss(self, lease: Lease[T], error: Exception) -> None:
        """End the wait of `lease` with `error`."""
        del self.queue[lease]
        lease.error = error
        self.wake(lease.task)

    def hopeless(self) -> bool:
        """Whether opening fails for good while nothing is in use or under way that could serve a waiter instead."""
        return (
            self.open_error is not None
            and self.open_error_permanent
            and all(entry.state is State.CLOSING for entry in self.entries)
        )

    def expired(self, now: float) -> list[Lease[T]]:
        """The waiting leases that can no longer be served in time. The caller dismisses them."""
        late: list[Lease[T]] = []
        for lease in self.queue:
            if lease.latest_start <= now:
                late.append(lease)
            elif lease.latest_start == lease.waiting_since + self.limits.acquire_timeout:
                break  # so have all that follow, unless the heap knows better
        heap = self._deadlines
        while heap and heap[0][0] <= now:
            lease = heapq.heappop(heap)[2]
            if lease in self.queue and lease.latest_start <= now:
                late.append(lease)
        return list(dict.fromkeys(late))

    def tidy(self, now: float) -> None:
        """Retire what is too old or unused, and open what is missing."""
        self._retire_idle(now)
        self._provide(now)
        self.due = self._next_due(now)

    def count(self, state: State) -> int:
        """How many entries are in `state`."""
        return sum(entry.state is state for entry in self.entries)

    # Helpers.

    def _next_due(self, now: float) -> float:
        due = self._deadlines[0][0] if self._deadlines else math.inf
        for lease in self.queue:
            due = min(due, lease.latest_start)
            if lease.latest_start == lease.waiting_since + self.limits.acquire_timeout:
                break
        if now < self.retry_at:
            due = min(due, self.retry_at)
        # One that is lent now may be idle by the time it expires.
        due = min([due, *(entry.expires_at for entry in self.entries if entry.expires_at > now)])
        if self._staying() > self.limits.min_size:
            # Whatever comes to be idle later than now is due later than this.
            due = min(due, (self.idle[0].idle_since if self.idle else now) + self.limits.max_idle)
        return due

    def _place(self, entry: Entry[T], now: float) -> None:
        """Hand a clean resource to the first waiter, or to nobody."""
        if entry.state is not LENT:
            entry.become(LENT if self.queue else IDLE)
        if self.queue:
            lease, _ = self.queue.popitem(last=False)
            self.wait_time.add(now - lease.waiting_since)
            entry.lease = lease
            lease.entry = entry
            lease.since = now
            self.wake(lease.task)
        else:
            entry.state = IDLE
            entry.lease = None
            entry.idle_since = now
            self.idle.append(entry)

    def _settle(self, entry: Entry[T], now: float) -> None:
        """Place a resource that a task of the pool's has made ready, if it is still wanted."""
        if now >= entry.expires_at or entry.uses >= self.limits.max_uses:
            self.discard(entry, self._why_unfit(entry))
        else:
            self._place(entry, now)

    def _why_unfit(self, entry: Entry[T]) -> Discard:
        if self.closed:
            return Discard.CLOSED
        if entry.generation != self.generation:
            return Discard.RETIRED
        if entry.uses >= self.limits.max_uses:
            return Discard.USED_UP
        return Discard.EXPIRED

    def _expire_all(self) -> None:
        """Close what is idle now and the rest as it comes back."""
        for entry in self.entries:
            entry.expires_at = -math.inf
        while self.idle:
            entry = self.idle.popleft()
            self.discard(entry, self._why_unfit(entry))

    def _reset(self, entry: Entry[T]) -> None:
        entry.become(State.RESETTING)
        entry.lease = None
        self.work.append(entry)

    def _arrived(self, entry: Entry[T]) -> None:
        assert entry.state is State.OPENING, f"bug: reported as opened in {entry.state.name}"
        self.arriving -= 1
        self.opening -= 1

    def _retire_idle(self, now: float) -> None:
        expired = [entry for entry in self.idle if now >= entry.expires_at]
        for entry in expired:
            self.idle.remove(entry)
            self.discard(entry, Discard.EXPIRED)
        spare = self._staying() - self.limits.min_size
        while spare > 0 and self.idle and now >= self.idle[0].idle_since + self.limits.max_idle:  # as in `_next_due`
            self.discard(self.idle.popleft(), Discard.UNUSED)
            spare -= 1

    def _provide(self, now: float) -> None:
        """See to it that every waiter has a resource coming, and that ``min_size`` are there."""
        # Whatever is being opened: that may take long, or fail.
        while self.idle and len(self.queue) > self.arriving - self.opening:
            entry = self.idle.pop()  # overdue for a check, or `try_lend` would have lent it
            entry.become(State.CHECKING)
            self.arriving += 1
            self.work.append(entry)
        for _ in range(self._short_of(now)):
            entry = Entry(generation=self.generation)
            self.entries.add(entry)
            self.arriving += 1
            self.opening += 1
            self.work.append(entry)

    def _short_of(self, now: float) -> int:
        """How many more resources should begin to open now."""
        if self.closed or now < self.retry_at:
            return 0
        at_once = 1 if self.failures else self.limits.max_opening  # a server that just failed is probed, not stormed
        room = min(self.limits.max_size - len(self.entries), at_once - self.opening)
        if room <= 0:
            return 0
        wanted = len(self.queue) - self.arriving
        return min(room, max(wanted, self.limits.min_size - self._staying()))

    def _staying(self) -> int:
        return len(self.entries) - self.count(State.CLOSING)

    def _remember_deadline(self, lease: Lease[T]) -> None:
        heap = self._deadlines
        self._pushed += 1
        heapq.heappush(heap, (lease.latest_start, self._pushed, lease))
        if len(heap) > 2 * len(self.queue) + 64:
            # Most have been served. Rebuilding costs as many steps as there were arrivals since the last time.
            heap[:] = [item for item in heap if item[2] in self.queue]
            heapq.heapify(heap)
