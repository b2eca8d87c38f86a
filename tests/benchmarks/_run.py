"""Rounds of fresh processes: every contender once a round, in an order that rotates, against the same server."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from ._benchmark import Benchmark, Contender, Goal

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 120.0  # seconds for one process: many times what it needs


@attrs.define
class Outcome:
    """One contender's measurements, one a round."""

    contender: str
    rates: list[float] = attrs.Factory(list)
    cpus: list[float] = attrs.Factory(list)
    missing: str = ""
    """What it needs and this environment does not have."""

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


@attrs.frozen
class Verdict:
    """Whether a goal was met: `factor` is how many times better ours was, the median over the rounds."""

    goal: Goal
    factor: float

    @property
    def met(self) -> bool:
        return self.factor >= self.goal.factor


@attrs.define
class Result:
    """One benchmark's outcomes, in the order of its contenders."""

    key: str
    benchmark: Benchmark
    outcomes: list[Outcome]

    @property
    def measured(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.rates]

    def verdicts(self) -> list[Verdict]:
        """On the goals between contenders that were measured."""
        by_name = {outcome.contender: outcome for outcome in self.measured}
        return [
            Verdict(goal, factor(by_name[goal.ours], by_name[goal.theirs], goal.measure))
            for goal in self.benchmark.goals
            if goal.ours in by_name and goal.theirs in by_name
        ]


def factor(ours: Outcome, theirs: Outcome, measure: str = "rate") -> float:
    """How many times better ours is. Compared round by round, because a machine has slow minutes."""
    if measure == "cpu":
        return statistics.median(b / a for a, b in zip(ours.cpus, theirs.cpus, strict=True))
    return statistics.median(a / b for a, b in zip(ours.rates, theirs.rates, strict=True))


def run(benchmarks: dict[str, Benchmark], *, rounds: int, seconds: float, tell: Callable[[str], None]) -> list[Result]:
    """Measure everything. `seconds` is the length of one measurement; a process takes about twice that.

    Raises:
      RuntimeError: a contender failed, or gave a wrong answer.
    """
    with ExitStack() as servers:
        urls: dict[Any, str] = {None: ""}
        results = []
        for key, benchmark in benchmarks.items():
            if benchmark.server not in urls:
                assert benchmark.server is not None
                urls[benchmark.server] = servers.enter_context(benchmark.server())
            request = {"benchmark": key, "url": urls[benchmark.server], "seconds": seconds}
            results.append(_run_one(key, benchmark, request, rounds, tell))
        return results


def _run_one(
    key: str, benchmark: Benchmark, request: dict[str, Any], rounds: int, tell: Callable[[str], None]
) -> Result:
    outcomes = {contender.name: Outcome(contender.name) for contender in benchmark.contenders}
    for turn in range(rounds):
        start = turn % len(benchmark.contenders)
        for contender in benchmark.contenders[start:] + benchmark.contenders[:start]:
            outcome = outcomes[contender.name]
            if outcome.missing:
                continue
            sample = _sample(contender, request)
            outcome.missing = sample.get("missing", "")
            if not outcome.missing:
                outcome.rates.append(sample["rate"])
                outcome.cpus.append(sample["cpu"])
                tell(f"{key} {turn + 1}/{rounds}  {contender.name}: {sample['rate']:,.0f}/s, {sample['cpu']:.2f} µs")
    return Result(key, benchmark, list(outcomes.values()))


def _sample(contender: Contender, request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}._child", json.dumps({**request, "contender": contender.name})]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if process.returncode:
        raise RuntimeError(f"{request['benchmark']}, {contender.name}: {process.stderr or process.stdout}")
    sample: dict[str, Any] = json.loads(process.stdout)
    return sample
