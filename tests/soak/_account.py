"""What a soak has done and found."""

from __future__ import annotations

from collections import Counter

import attrs

from tests.footprint import Footprint
from tests.storms import Losses

__all__ = ["Account", "Tally"]

# What caches and fragments may take, however long it runs.
_DRIFT = 20_000_000  # bytes
_DRIFT_IN_PIECES = 20_000


@attrs.define
class Tally:
    """What one adapter has been through."""

    losses: Losses = attrs.field(factory=Losses)
    faults: Counter[str] = attrs.field(factory=Counter)
    changes: Counter[str] = attrs.field(factory=Counter)
    pools: int = 0
    stuck: int = 0
    """Rounds after which an operation did not end."""
    sockets: int = 0
    """Connections that were still open when their pool was not."""
    slowest: float = 0.0
    """Seconds from the end of a fault until the pool served at full size, the longest."""

    @property
    def must_be_none(self) -> dict[str, int]:
        """What a right pool has none of."""
        return {
            "wrong answers": self.losses.wrong_answers,
            "lost slots": self.losses.lost_slots,
            "connections too many": self.losses.orphans,
            "leaked sockets": self.sockets,
            "strange errors": len(self.losses.strange),
            "stuck operations": self.stuck,
        }

    @property
    def progress(self) -> dict[str, int | str]:
        """What was done."""
        losses = self.losses
        return {
            "operations": losses.completed + losses.cancelled,
            "answered": losses.completed - losses.failed - losses.refused - len(losses.strange),
            "cancelled": losses.cancelled,
            "refused": losses.refused,
            "failed": losses.failed,
            "faults": self.faults.total(),
            "changes": self.changes.total(),
            "pools": self.pools,
            "slowest recovery": f"{self.slowest:.2f} s",
        }


@attrs.define
class Account:
    """What all of them have been through, and what is left of it."""

    tallies: dict[str, Tally]
    before: Footprint
    after: Footprint
    memory: list[int] = attrs.field(factory=list)
    """Bytes of resident memory after each lap."""
    blocks: list[int] = attrs.field(factory=list)
    """Pieces of memory that Python has allocated, after each lap."""

    @property
    def left(self) -> dict[str, int]:
        """What is left although all pools are closed: files, tasks, objects."""
        return self.after.beyond(self.before)

    @property
    def drift(self) -> int:
        """Bytes by which memory has grown since the first lap."""
        return self.memory[-1] - self.memory[0]

    @property
    def drift_in_pieces(self) -> int:
        """Pieces of memory by which Python's share has grown since the first lap."""
        return self.blocks[-1] - self.blocks[0]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was lost, wrong or left."""
        found = [count for tally in self.tallies.values() for count in tally.must_be_none.values()]
        drifts = self.drift > _DRIFT or self.drift_in_pieces > _DRIFT_IN_PIECES
        return not (any(found) or self.left or drifts)

    def __str__(self) -> str:
        lines = [_row("", self.tallies)]
        for table in ("progress", "must_be_none"):
            tables = [getattr(tally, table) for tally in self.tallies.values()]
            lines += ["", *(_row(name, [table[name] for table in tables]) for name in tables[0])]
        left = dict(self.left)
        lines += ["", _row("leaked file descriptors", [left.pop("files", 0)])]
        lines += [_row("leaked tasks", [left.pop("tasks", 0)]), _row("leaked objects", [sum(left.values())])]
        lines += [f"    {count} of {name}" for name, count in left.items()]
        drift = f"{self.drift / 1e6:+.1f} MB"
        lines += [f"{_row('memory drift', [drift])}, {self.drift_in_pieces:+,} pieces, in {len(self.memory)} laps"]
        for name, tally in self.tallies.items():
            lines += ["", *(f"{name}, strange:\n{error}" for error in tally.losses.strange[:3])]
        return "\n".join(lines).rstrip()


def _row(name: str, values: object) -> str:
    assert isinstance(values, (list, dict))
    return f"{name:24}" + "".join(f"{value:>12,}" if isinstance(value, int) else f"{value:>12}" for value in values)
