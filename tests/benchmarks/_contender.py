"""Who is measured, and how what was measured comes back."""

from __future__ import annotations

import resource
import shutil
import subprocess
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


@attrs.frozen
class Program:
    """A program that does nothing but make load, in C mostly, and measures itself: what the server has to give."""

    name: str
    measure: Callable[[str, float], Sample]
    """Is told the server's URL, and about how many seconds to take."""


def output_of(command: Sequence[str], package: str) -> tuple[str, float]:
    """Run a program of that Debian `package`. Returns what it says, and the CPU seconds it took.

    Raises:
      ModuleNotFoundError: it is not installed.
      RuntimeError: it failed.
    """
    if shutil.which(command[0]) is None:
        raise ModuleNotFoundError(command[0], name=f"{package}, a Debian package,")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        raise RuntimeError(f"{command[0]}: {process.stderr or process.stdout}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


Measurement = Generator[list[Share], Burst, Sample]
"""Yields work to be done, is sent what it took, and ends with a sample."""
