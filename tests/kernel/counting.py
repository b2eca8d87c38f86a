"""What something costs, in calls: the same on every machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

__all__ = ["Calls", "counted_calls"]


@attrs.define
class Calls:
    """How many there were."""

    made: int = 0


@contextmanager
def counted_calls() -> Iterator[Calls]:
    """Count calls of functions, and steps of generators, within the block. Those of leaving it are always as many."""
    calls = Calls()

    def note(*_: object) -> None:
        calls.made += 1

    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
