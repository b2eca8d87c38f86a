"""The waiting leases of one pool, and who among them is next.

There is a line for each `Priority`, served strictly in that order. Within a line it is first come, first served, for
as long as that serves anybody: **the pool is overloaded from the moment when more than one in eight of the leases
leaving the queue (a moving average over about 32 of them) ran out of time, either although they were first in line or
once they were being served, until the queue is empty.** While it is overloaded the newest waiter is served first.

Why: under a standing overload everybody who is served first come, first served has waited for almost as long as its
caller will live, so that each use is slow and many are in vain; somebody must go unserved whatever the order, and the
newest have the most time left to make use of a resource. Why only then: newest first starves whoever is patient, so
a pool that is merely busy, or one with a few impatient callers behind many patient ones, must never do it. Only a
lease that was *first* when its time ran out proves that order, not patience, is what failed. Callers that are cancelled
for other reasons than their deadline prove nothing.

Adaptive LIFO is from B. Maurer, "Fail at Scale", ACM Queue 13(8), 2015, which switches on queue length over time, like
CoDel. A pool on Trio knows its waiters' deadlines, which is what both of those try to guess.
"""

from __future__ import annotations

import enum
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

from ._entry import Lease

__all__ = ["Priority", "Queue"]

T = TypeVar("T")

_OVERLOADED_SHARE = 1 / 8
_AVERAGED_OVER = 32


class Priority(enum.IntEnum):
    """Who is served first when tasks have to wait. Within a priority: first come, first served."""

    URGENT = 0
    """Health checks, administration: may also use the resources that ``reserved`` holds back from the others."""
    NORMAL = 1
    BULK = 2
    """Work that can wait: served when nobody else is waiting."""


class Queue(Generic[T]):
    """Leases in line. Keeps itself sorted well enough to tell whose time is up without looking at everyone."""

    __slots__ = ("_heap", "_late_share", "_lines", "_pushed", "_sorted", "_timeout", "overloaded", "size")

    def __init__(self, acquire_timeout: float) -> None:
        self.size = 0  # leases in all lines
        self.overloaded = False
        self._late_share = 0.0
        # OrderedDict because leases also leave from the middle; a dict is slow to find its first after many have left
        self._lines: tuple[OrderedDict[Lease[T], None], ...] = tuple(OrderedDict() for _ in Priority)
        # Leases by deadline, some of them long gone: those whose deadline is acquire_timeout after their arrival, which
        # need no sorting, and a heap of those with any other, where the number breaks ties.
        self._timeout = acquire_timeout
        self._sorted: deque[Lease[T]] = deque()
        self._heap: list[tuple[float, int, Lease[T]]] = []
        self._pushed = 0

    def __contains__(self, lease: Lease[T]) -> bool:
        return lease in self._lines[lease.line]

    def __iter__(self) -> Iterator[Lease[T]]:
        for line in self._lines:
            yield from line

    def count_urgent(self) -> int:
        return len(self._lines[0])

    def oldest_since(self) -> float:
        """When the lease that has waited longest began to; ``math.inf`` if none waits."""
        return min((next(iter(line)).waiting_since for line in self._lines if line), default=math.inf)

    def oldest_since_for_any_thread(self) -> float:
        """The same, at the cost of copying each line in one step, which no other thread can come between."""
        return min((line[0].waiting_since for line in map(list, self._lines) if line), default=math.inf)

    def push(self, lease: Lease[T]) -> None:
        self._lines[lease.line][lease] = None
        self.size += 1
        if lease.latest_start == lease.waiting_since + self._timeout:
            self._sorted.append(lease)
        else:
            self._push_on_heap(lease)

    def push_back(self, lease: Lease[T]) -> None:
        """Put a lease that has been here before all who came no earlier. As slow as there are many of them."""
        line = self._lines[lease.line]
        later = [other for other in line if other.waiting_since >= lease.waiting_since]
        line[lease] = None
        for other in later:
            line.move_to_end(other)
        self.size += 1
        self._push_on_heap(lease)

    def pop(self) -> Lease[T]:
        """Take out the lease to serve next. There must be one."""
        urgent, normal, bulk = self._lines
        lease, _ = (urgent or normal or bulk).popitem(self.overloaded)
        self.size -= 1
        if not self.size:
            self._relax()
        elif self._late_share:
            self._late_share -= self._late_share / _AVERAGED_OVER
        return lease

    def remove(self, lease: Lease[T], *, late: bool) -> None:
        """Take out a lease that will not be served; `late` if that is because its time was up."""
        line = self._lines[lease.line]
        if late and next(iter(line)) is lease:
            self._note_failure()
        del line[lease]
        self.size -= 1
        if not self.size:
            self._relax()

    def served_in_vain(self) -> None:
        """A lease that had waited was cut short by its caller's deadline."""
        if self.size:
            self._note_failure()

    def expired(self, now: float) -> list[Lease[T]]:
        """The leases that can no longer be served in time, those that came first first. Told once."""
        late: list[Lease[T]] = []
        while self._sorted and self._sorted[0].latest_start <= now:
            late.append(self._sorted.popleft())
        while self._heap and self._heap[0][0] <= now:
            late.append(heapq.heappop(self._heap)[2])
        # A set, because a lease whose resource was closed at the hand-over has come to wait a second time.
        return sorted({lease for lease in late if lease in self}, key=_waiting_since)

    def next_deadline(self) -> float:
        """When `expired` next has something to tell."""
        while self._sorted and self._sorted[0] not in self:
            self._sorted.popleft()
        while self._heap and self._heap[0][2] not in self:
            heapq.heappop(self._heap)
        return min(
            self._sorted[0].latest_start if self._sorted else math.inf,
            self._heap[0][0] if self._heap else math.inf,
        )

    def _note_failure(self) -> None:
        self._late_share += (1 - self._late_share) / _AVERAGED_OVER
        self.overloaded = self.overloaded or self._late_share > _OVERLOADED_SHARE

    def _relax(self) -> None:
        self.overloaded = False
        self._late_share = 0.0
        self._sorted.clear()
        self._heap.clear()

    def _push_on_heap(self, lease: Lease[T]) -> None:
        heap = self._heap
        self._pushed += 1
        heapq.heappush(heap, (lease.latest_start, self._pushed, lease))
        if len(heap) > 2 * self.size + 64:
            # Most have been served. Rebuilding costs as many steps as there were arrivals since the last time.
            heap[:] = [item for item in heap if item[2] in self]
            heapq.heapify(heap)


def _waiting_since(lease: Lease[Any]) -> float:
    return lease.waiting_since
