"""The queue by itself: whose time is up is told in time, and who has left is forgotten.

What overloads it is in `test_overload`.
"""

from __future__ import annotations

import weakref
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from respool._entry import Lease
from respool._ledger import UPKEEP_PERIOD
from respool._queue import Priority, Queue


class Remembered(Lease[Any]):
    """A lease that can be seen to have been forgotten."""

    __slots__ = ("__weakref__",)


@attrs.define
class Line:
    """A queue, its clock, and what it should know."""

    queue: Queue[Any] = attrs.field(factory=Queue)
    now: float = 0.0
    waiting: list[Remembered] = attrs.field(factory=list)
    living: weakref.WeakSet[Remembered] = attrs.field(factory=weakref.WeakSet)
    due: float = float("inf")

    def push(self, patience: float, priority: Priority = Priority.NORMAL) -> None:
        lease = Remembered()
        lease.line, lease.waiting_since, lease.latest_start = priority.value, self.now, self.now + patience
        self.queue.push(lease)
        self.waiting.append(lease)
        self.living.add(lease)
        self.due = min(self.due, self.now + UPKEEP_PERIOD, lease.latest_start)  # as the ledger does

    def pop(self) -> None:
        assert self.queue.pop() is self.waiting.pop(0)

    def leave(self, place: int) -> None:
        self.queue.remove(self.waiting.pop(place), late=False)

    def sleep(self, seconds: float) -> None:
        """Let time pass; look at the queue whenever it asks for it, and at no other time."""
        end = self.now + seconds
        while self.due <= end:
            self.now = self.due
            told = self.queue.expired(self.now)
            assert set(told) == {lease for lease in self.waiting if lease.latest_start <= self.now}
            for lease in told:
                self.queue.remove(lease, late=True)
            self.waiting = [lease for lease in self.waiting if lease.waits]
            self.due = self.queue.next_look()
            assert self.due > self.now
        self.now = end


ACTIONS = st.one_of(
    st.tuples(st.just("push"), st.floats(0, 100)),
    st.tuples(st.just("sleep"), st.floats(0, 50)),
    st.tuples(st.just("pop"), st.none()),
    st.tuples(st.just("leave"), st.integers(0, 10)),
)


@given(actions=st.lists(ACTIONS, max_size=60))
def test_whose_time_is_up_is_told_when_it_is(actions: list[tuple[str, Any]]) -> None:
    """Each exactly once, whatever has happened to the others, and whenever it came."""
    line = Line()
    for action, detail in actions:
        if action == "push":
            line.push(detail)
        elif action == "sleep":
            line.sleep(detail)
        elif action == "pop" and line.waiting:
            line.pop()
        elif action == "leave" and line.waiting:
            line.leave(detail % len(line.waiting))
        assert list(line.queue) == line.waiting
        assert line.queue.size == len(line.waiting)
    line.sleep(200)
    assert not line.waiting


def test_who_left_from_the_middle_is_forgotten() -> None:
    """However long somebody in front of them waits."""
    line = Line()
    line.push(1000)
    line.push(1000)
    for _ in range(1000):
        line.push(1000)
        line.leave(1)
        assert len(line.living) < 200


def test_who_was_served_is_forgotten() -> None:
    """However long it would have been until their time was up, and however far ahead the queue has looked."""
    line = Line()
    line.push(1000, Priority.BULK)
    line.sleep(100)
    for _ in range(1000):
        line.push(10)
        assert line.queue.pop() is line.waiting.pop()
        assert len(line.living) < 200
