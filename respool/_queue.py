"""The waiting leases of one pool, and who among them is next.

There is a line for each `Priority`, served strictly in that order. Within a line it is first come, first served, for
as long as that serves anybody: **the pool is overloaded from the moment when more than one in eight of the leases
leaving the queue (a moving average over about 32 of them) ran out of time, either although they were first in line or
once they were being served, until the queue is empty or it is less than one in 32.** While it is overloaded the newest
waiter is served first, but for every 16th time, which is the oldest's.

Why: under a standing overload everybody who is served first come, first served has waited for almost as long as its
caller will live, so that each use is slow and many are in vain; somebody must go unserved whatever the order, and the
newest have the most time left to make use of a resource. Why only then: newest first starves whoever is patient, so
a pool that is merely busy, or one with a few impatient callers behind many patient ones, must never do it. Only a
lease that was *first* when its time ran out proves that order, not patience, is what failed. Callers that are cancelled
for other reasons than their deadline prove nothing. The oldest has its turn even then, because a queue that is never
empty may have patient waiters in it, who would never be served; it costs a sixteenth of what can be done at the most.

Adaptive LIFO is from B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015, which switches on queue length over time, like
CoDel. A pool on Trio knows its waiters' deadlines, which is what both of those try to guess.
"""

from __future__ import annotations

import enum
import heapq
import math
import operator
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from ._entry import Lease

__all__ = ["Priority", "Queue"]

T = TypeVar("T")

_OVERLOADED_SHARE = 1 / 8
_RELAXED_SHARE = 1 / 32
_AVERAGED_OVER = 32
_TURNS = 16
_HORIZON = 1.0  # seconds: how far to look ahead at least
_SLACK = 64  # leases that left, for which it is not worth looking through the rest


class Priority(enum.IntEnum):
    """Who is served first when tasks have to wait. Within a priority: first come, first served."""

    URGENT = 0
    """Health checks, administration: may also use the resources that ``reserved`` holds back from the others."""
    NORMAL = 1
    BULK = 2
    """Work that can wait: served when nobody else is waiting."""


class Queue(Generic[T]):
    """Leases in line. Keeps in mind whose time will be up soon, so as to tell without looking at everyone."""

    __slots__ = ("_horizon", "_late_share", "_lines", "_pushed", "_soon", "_turn", "_vacant", "overloaded", "size")

    def __init__(self) -> None:
        self.size = 0  # leases in all lines
        self.overloaded = False
        self._late_share = 0.0
        self._turn = 0  # of how many since the oldest had its own
        # Who leaves from the middle of a line leaves a vacant place, until it comes to an end of the line: there is
        # always somebody waiting at either end. An OrderedDict has no such places, at three times the cost of a deque.
        self._lines: tuple[deque[Lease[T]], ...] = tuple(deque() for _ in Priority)
        self._vacant = 0  # places in all lines
        # Of all who wait, those whose time is up before the horizon are in the heap, with some that wait no more; the
        # number breaks ties. Most are served before they come that near.
        self._horizon = -math.inf
        self._soon: list[tuple[float, int, Lease[T]]] = []
        self._pushed = 0

    def __iter__(self) -> Iterator[Lease[T]]:
        for line in self._lines:
            yield from filter(_waits, line)

    def count_urgent(self) -> int:
        return sum(map(_waits, self._lines[0]))

    def oldest_since(self) -> float:
        """When the lease that has waited longest began to; ``math.inf`` if none waits."""
        return min((line[0].waiting_since for line in self._lines if line), default=math.inf)

    def oldest_since_for_any_thread(self) -> float:
        """The same, at the cost of copying each line in one step, which no other thread can come between."""
        return min((line[0].waiting_since for line in map(list, self._lines) if line), default=math.inf)

    def push(self, lease: Lease[T]) -> None:
        lease.waits = True
        self._lines[lease.line].append(lease)
        self.size += 1
        if lease.latest_start < self._horizon:
            self._keep_in_mind(lease)

    def push_back(self, lease: Lease[T]) -> None:
        """Put a lease that has been here before all who came no earlier. As slow as there are many of them."""
        line = self._lines[lease.line]
        line.insert(bisect_left(line, lease.waiting_since, key=_waiting_since), lease)
        lease.waits = True
        self.size += 1
        self._keep_in_mind(lease)

    def pop(self) -> Lease[T]:
        """Take out the lease to serve next. There must be one."""
        urgent, normal, bulk = self._lines
        line = urgent or normal or bulk
        lease = line.pop() if self.overloaded and self._newest_is_next() else line.popleft()
        lease.waits = False
        self.size -= 1
        if self._vacant:
            self._close_up(line)
        if self._late_share:
            self._note_success()
        return lease

    def remove(self, lease: Lease[T], *, late: bool) -> None:
        """Take out a lease that will not be served; `late` if that is because its time was up."""
        line = self._lines[lease.line]
        if late and line[0] is lease:
            self._note_failure()
        lease.waits = False
        self.size -= 1
        self._vacant += 1
        self._close_up(line)
        if not self.size:
            self._relax()
        elif self._vacant > self.size + _SLACK:
            self._sweep()

    def served_in_vain(self) -> None:
        """A lease that had waited was cut short by its caller's deadline."""
        if self.size:
            self._note_failure()

    def expired(self, now: float) -> list[Lease[T]]:
        """The leases that can no longer be served in time, those that came first first. Told once."""
        if now >= self._horizon:
            self._look_ahead(now)
        late: list[Lease[T]] = []
        while self._soon and self._soon[0][0] <= now:
            late.append(heapq.heappop(self._soon)[2])
        # Each once: a lease whose resource was closed at the hand-over has come to wait a second time.
        return sorted(dict.fromkeys(filter(_waits, late)), key=_waiting_since)

    def next_look(self) -> float:
        """When `expired` may have something to tell."""
        if not self.size:
            self._soon.clear()  # they wait no more, and may never be thought of again
            return math.inf
        while self._soon and not self._soon[0][2].waits:
            heapq.heappop(self._soon)
        return min(self._soon[0][0], self._horizon) if self._soon else self._horizon

    def _newest_is_next(self) -> bool:
        self._turn = (self._turn + 1) % _TURNS
        return self._turn > 0

    def _note_success(self) -> None:
        self._late_share -= self._late_share / _AVERAGED_OVER
        if self._late_share < _RELAXED_SHARE:
            self.overloaded = False
        if not self.size:
            self._relax()

    def _note_failure(self) -> None:
        self._late_share += (1 - self._late_share) / _AVERAGED_OVER
        self.overloaded = self.overloaded or self._late_share > _OVERLOADED_SHARE

    def _relax(self) -> None:
        self.overloaded = False
        self._late_share = 0.0
        self._turn = 0

    def _close_up(self, line: deque[Lease[T]]) -> None:
        """Take vacant places off the ends of `line`."""
        while line and not line[0].waits:
            line.popleft()
            self._vacant -= 1
        while line and not line[-1].waits:
            line.pop()
            self._vacant -= 1

    def _sweep(self) -> None:
        """Take out all vacant places. They are more than there are leases, so each costs a step or two."""
        for line in self._lines:
            waiting = list(filter(_waits, line))
            line.clear()
            line.extend(waiting)
        self._vacant = 0

    def _look_ahead(self, now: float) -> None:
        """Set a new horizon: a look at everyone, the less often the longer it has been good for nothing."""
        self._horizon = now + max(_HORIZON, now - self.oldest_since()) if self.size else -math.inf
        self._keep_those_in_mind(lease for lease in self if lease.latest_start < self._horizon)

    def _keep_in_mind(self, lease: Lease[T]) -> None:
        self._pushed += 1
        heapq.heappush(self._soon, (lease.latest_start, self._pushed, lease))
        if len(self._soon) > 2 * self.size + _SLACK:
            # Most wait no more. Rebuilding costs as many steps as there were arrivals since the last time.
            self._keep_those_in_mind(item[2] for item in sorted(self._soon) if item[2].waits)

    def _keep_those_in_mind(self, leases: Iterable[Lease[T]]) -> None:
        self._soon = [(lease.latest_start, number, lease) for number, lease in enumerate(leases)]
        self._pushed = len(self._soon)
        heapq.heapify(self._soon)


_waits = operator.attrgetter("waits")
_waiting_since = operator.attrgetter("waiting_since")
