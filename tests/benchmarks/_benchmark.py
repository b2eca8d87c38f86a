"""What a benchmark is, and how one contender is measured."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import attrs

from ._contender import Burst, Contender, Measurement, Program, Sample, Share
from ._loops import drive
from ._losing import Losing
from ._surge import Surge

TURNS = 20  # operations of each task at least, lest starting and ending tasks be what is measured


@attrs.frozen
class Goal:
    """What respool promises: a measure of one contender's is at least `factor` times better than another's."""

    ours: str
    theirs: str
    factor: float
    measure: Literal["rate", "cpu"] = "rate"
    """``rate``: operations a second. ``cpu``: for what never waits, where it is the same and less noisy."""


@attrs.frozen(kw_only=True)
class Benchmark:
    """Contenders doing the same work, ours first."""

    name: str
    title: str
    contenders: tuple[Contender | Program, ...]
    tasks: int = 1
    answer: Callable[[int], int] = attrs.field(default=lambda _: 1)
    keys: int = 1000
    goals: tuple[Goal, ...] = ()
    fractions: tuple[tuple[str, str], ...] = ()
    """Ours, and the program beside which it is shown. No goal: only an upper limit."""
    server: Callable[[], AbstractContextManager[str]] | None = None

    def shares(self, operations: int) -> list[Share]:
        """Deal out at least `operations` keys to the tasks, as equally as can be."""
        each = max(1, -(-operations // self.tasks))
        return [[(task + turn * self.tasks) % self.keys for turn in range(each)] for task in range(self.tasks)]

    def right_total(self, shares: list[Share]) -> int:
        """What all the work must add up to."""
        answers = [key * self.answer(key) for key in range(self.keys)]
        return sum(answers[key] for share in shares for key in share)

    def sample(self, contender: Contender | Program, url: str, seconds: float) -> dict[str, Any]:
        """Measure one contender, in this process or its own."""
        if isinstance(contender, Program):
            return attrs.asdict(contender.measure(url, seconds))
        return attrs.asdict(drive(contender, url, self.measure(seconds)))

    def measure(self, seconds: float) -> Measurement:
        """Warm up, find out how much work fills the time, then do that much. Yields work, is sent what it took.

        Raises:
          RuntimeError: an answer was wrong, or went astray.
        """
        operations = self.tasks
        while True:
            burst = yield from self._checked(self.shares(operations))
            if burst.seconds >= seconds / 4:
                break
            operations *= 2
        shares = self.shares(max(round(operations * seconds / burst.seconds), TURNS * self.tasks))
        burst = yield from self._checked(shares)
        operations = sum(map(len, shares))
        return Sample(operations, operations / burst.seconds, burst.cpu_seconds * 1e6 / operations)

    def _checked(self, shares: list[Share]) -> Generator[list[Share], Burst, Burst]:
        burst = yield shares
        if burst.total != self.right_total(shares):
            raise RuntimeError(f"wrong answers: they add up to {burst.total}, not {self.right_total(shares)}")
        return burst


def find(names: Sequence[str] = ()) -> dict[str, Benchmark | Surge | Losing]:
    """All benchmarks, or those of the named modules (``kernel``) and of these names (``kernel.alone``).

    Raises:
      ValueError: there is none of that name.
    """
    package = importlib.import_module(__package__)
    modules = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]
    found = {
        f"{module}.{benchmark.name}": benchmark
        for module in modules
        for benchmark in importlib.import_module(f"{__package__}.{module}").BENCHMARKS
    }
    for name in names:
        if name not in found and name not in modules:
            raise ValueError(f"there is no benchmark {name!r}: choose from {', '.join([*modules, *found])}")
    return {key: found[key] for key in found if not names or key in names or key.partition(".")[0] in names}
