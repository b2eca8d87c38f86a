"""One resource's life as a table, its record in the ledger, and the lease that holds it.

Rule 1: a state is changed by `Entry.become` and nowhere else, and only along the table. The documentation draws its
picture from the same table.

Rule 2: the state says what is being done. An entry in OPENING, CHECKING, RESETTING or CLOSING has exactly one task of
the pool's at work on it; in IDLE and LENT it has none.
"""

from __future__ import annotations

import enum
import math
from typing import Any, Generic, TypeVar

import attrs

__all__ = ["TRANSITIONS", "Discard", "Entry", "Lease", "State"]

T = TypeVar("T")


class State(enum.Enum):
    """Where a resource is in its life."""

    OPENING = "opening"
    IDLE = "idle"
    CHECKING = "checking"
    LENT = "lent"
    RESETTING = "resetting"
    CLOSING = "closing"
    GONE = "gone"

    leads_to: tuple[State, ...]


TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.OPENING: (State.LENT, State.IDLE, State.CLOSING, State.GONE),
    State.IDLE: (State.LENT, State.CHECKING, State.RESETTING, State.CLOSING),
    State.CHECKING: (State.LENT, State.IDLE, State.CLOSING),
    State.LENT: (State.IDLE, State.RESETTING, State.CLOSING),
    State.RESETTING: (State.LENT, State.IDLE, State.CLOSING),
    State.CLOSING: (State.GONE,),
    State.GONE: (),
}
for _state, _successors in TRANSITIONS.items():
    # On the member itself: hashing an enum member runs Python code, and this is looked up twice a lease.
    _state.leads_to = _successors


class Discard(enum.Enum):
    """Why a resource was taken out of the ledger and closed."""

    BROKEN = "broken"
    """Its borrower's error said so, or it could not be reset."""
    INVALID = "invalid"
    """It did not pass validation, or had been idle even longer than one that did not."""
    EXPIRED = "expired"
    """It reached ``max_lifetime``."""
    USED_UP = "used up"
    """It reached ``max_uses``."""
    UNUSED = "unused"
    """It was idle for ``max_idle``."""
    RETIRED = "retired"
    """Its generation was retired."""
    MADE_ROOM = "made room"
    """It made room for a resource of another pool with the same budget."""
    RESIZED = "resized"
    """``max_size`` was lowered."""
    QUIESCED = "quiesced"
    """`Pool.quiesce` or `Pool.drain` was called."""
    CLOSED = "closed"
    """The pool is closing."""


@attrs.define(eq=False)
class Entry(Generic[T]):
    """The ledger's record of one resource."""

    state: State = State.OPENING
    resource: T = attrs.field(default=None, repr=False)  # set before it is ever lent
    generation: int = 0
    opened_at: float = 0.0  # set when opened
    expires_at: float = -math.inf  # set when opened; again -inf once the entry is doomed
    doom: Discard | None = None  # why it is to be closed as soon as nobody holds it, whatever its age
    discarded: Discard | None = None  # why it was, from CLOSING on
    idle_since: float = 0.0
    uses: int = 0
    leases: set[Lease[T]] = attrs.field(factory=set)  # not empty exactly in LENT
    job: Any = None  # the cancel scope of the task at work on it, if any; the pool's business

    def become(self, state: State) -> None:
        """Move along the table; anything else is a bug of ours."""
        assert state in self.state.leads_to, f"bug: {self.state.name} does not lead to {state.name}"
        self.state = state


class Lease(Generic[T]):
    """One borrower's claim on a resource: first it may wait, then it holds one, then it is over.

    A hand-written class because one is made for every acquire. What only a waiting lease needs is set only there.
    """

    __slots__ = (
        "entry",
        "error",
        "latest_start",
        "line",
        "since",
        "stack",
        "task",
        "transferable",
        "waiting_since",
        "waits",
        "warned",
    )

    entry: Any  # the Entry[T] held, or None
    error: BaseException | None  # why waiting ended in vain
    latest_start: float  # a waiting lease served after this would be served too late
    line: int  # where it waits: the value of its priority
    since: float  # when the hold began
    stack: str  # where it was acquired; set only if stacks are recorded
    task: Any
    transferable: bool  # set only if another task may end it than the one that acquired
    waiting_since: float
    waits: bool  # whether it is in the queue; set only once it has been
    warned: bool  # set once its long hold has been reported
