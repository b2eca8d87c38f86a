"""Who is measured, and how what was measured comes back."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Literal

import attrs

LoopName = Literal["trio", "asyncio", "uvloop", "threads"]
Share = Sequence[int]
"""The keys of one task."""


@attrs.frozen
class Contender:
    """One way of doing the work: see the package's text for what `prepare` is."""

    name: str
    prepare: Callable[[str], Any]
    loop: LoopName = "trio"


@attrs.frozen
class Burst:
    """What one burst of operations took: seconds of wall clock and of this process's CPU, and the sum of answers."""

    seconds: float
    cpu_seconds: float
    total: int


@attrs.frozen
class Sample:
    """What is known of one contender after one process."""

    operations: int
    rate: float
    """Operations a second."""
    cpu: float
    """Microseconds of the client's CPU time an operation."""


Measurement = Generator[list[Share], Burst, Sample]
"""Yields work to be done, is sent what it took, and ends with a sample."""
