"""What a pool says of itself: its statistics, its state in a line, and the texts of its errors."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType
from typing import Any

from ._entry import Discard, Lease, State
from ._ledger import Ledger
from ._statistics import Holder, PoolStatistics

__all__ = [
    "CLOSED",
    "NEVER_CLEAN",
    "USED_ALREADY",
    "deadlocked",
    "holder",
    "in_numbers",
    "not_opened",
    "queue_full",
    "statistics",
    "timed_out",
    "too_late",
]

_LONGEST_CAUSE = 200  # characters

_UNDER_WAY = [(state, state.value) for state in (State.OPENING, State.CHECKING, State.RESETTING, State.CLOSING)]


def statistics(name: str, ledger: Ledger[Any], now: float) -> PoolStatistics:
    """The snapshot of `Pool.statistics`. May run in any thread."""
    # Each set is copied in one step, which Trio's thread cannot come between.
    entries = list(ledger.entries)
    states = Counter(entry.state for entry in entries)
    leases = sorted((lease for entry in entries for lease in list(entry.leases)), key=_since)
    return PoolStatistics(
        name=name,
        min_size=ledger.limits.min_size,
        max_size=ledger.limits.max_size,
        size=len(entries),
        idle=states[State.IDLE],
        lent=states[State.LENT],
        leases=len(leases),
        opening=states[State.OPENING],
        checking=states[State.CHECKING],
        resetting=states[State.RESETTING],
        closing=states[State.CLOSING],
        waiting=ledger.queue.size,
        oldest_wait=max(0.0, now - ledger.queue.oldest_since_for_any_thread()),
        overloaded=ledger.queue.overloaded,
        holders=tuple(holder(lease, now) for lease in leases),
        acquired=ledger.use_time.count + len(leases),
        timeouts=ledger.timeouts,
        refused=ledger.refused,
        cancelled=ledger.cancelled,
        opened=ledger.opened_total,
        open_failures=ledger.open_failures,
        discards=MappingProxyType({reason.value: ledger.discards[reason] for reason in Discard}),
        wait_time=ledger.wait_time.snapshot(),
        use_time=ledger.use_time.snapshot(),
        open_time=ledger.open_time.snapshot(),
    )


def holder(lease: Lease[Any], now: float) -> Holder:
    """Who holds a lease, since when, and where it was acquired if that is recorded."""
    task = lease.task  # None for a moment, as another thread may see it, if the resource was closed too soon
    return Holder(task.name if task else "", now - lease.since, getattr(lease, "stack", None))


def in_numbers(ledger: Ledger[Any]) -> str:
    """The pool's state in a line. Cheap: in an overload, thousands of callers a second are told."""
    states = [entry.state for entry in ledger.entries]
    return ", ".join(
        [
            f"{states.count(State.LENT)} of {ledger.limits.max_size} lent",
            f"{len(ledger.idle)} idle",
            *(f"{states.count(state)} {words}" for state, words in _UNDER_WAY if state in states),
            f"{ledger.queue.size} waiting",
            *(["paused"] if ledger.paused else []),
            *(["overloaded"] if ledger.queue.overloaded else []),
        ]
    )


# Texts of the log.

NEVER_CLEAN = (
    "%s: is_clean of %s said no of a resource that had just been opened, and says no although %s has returned, so that "
    "every lease costs a resource: mend is_clean, or what reset leaves undone. Told once."
)


# Texts of errors.

CLOSED = "the pool is closed, or closing; acquire only inside open_pool()'s block"
USED_ALREADY = "this acquire() has been used already; call acquire() again for another lease"


def timed_out(ledger: Ledger[Any], waited: float, now: float) -> str:
    return f"waited {waited:.3g} s for a resource; {_plight(ledger, now)}"


def too_late(ledger: Ledger[Any], waited: float) -> str:
    return (
        f"waited {waited:.3g} s for a resource; the caller's deadline leaves less than the "
        f"{ledger.expected_use:.3g} s that nine in ten leases take; {in_numbers(ledger)}"
    )


def queue_full(ledger: Ledger[Any], now: float) -> str:
    return f"{ledger.queue.size} tasks are waiting already; {_plight(ledger, now)}"


def not_opened(ledger: Ledger[Any], now: float) -> str:
    outlook = "trying again will not help" if ledger.open_error_permanent else "the pool is to fail fast"
    return f"cannot open a resource, and {outlook}; {_plight(ledger, now)}"


def deadlocked(ledger: Ledger[Any], last: Lease[Any], now: float) -> str:
    return (
        f"task {last.task.name} waits for a resource, and so, directly or for child tasks that do, does every task "
        f"that holds one; {_plight(ledger, now)}"
    )


def _plight(ledger: Ledger[Any], now: float) -> str:
    """The pool's state and the holders of its resources, in words and numbers."""
    leases = [lease for entry in ledger.entries for lease in entry.leases]
    holders = "; ".join(str(holder(lease, now)) for lease in sorted(leases, key=_since))
    return (
        in_numbers(ledger)
        + (f"; held by {holders}" if holders else "")
        + (f"; {_failures(ledger, ledger.open_error)}" if ledger.open_error is not None else "")
    )


def _failures(ledger: Ledger[Any], last: Exception) -> str:
    """The last error too, in a line, for those who log a text and not its ``__cause__``."""
    text = " ".join(f"{type(last).__name__}: {last}".split())
    if len(text) > _LONGEST_CAUSE:
        text = f"{text[:_LONGEST_CAUSE]}..."
    return f"attempts to open one that failed in a row: {ledger.failures}, the last with {text}"


def _since(lease: Lease[Any]) -> float:
    return lease.since
