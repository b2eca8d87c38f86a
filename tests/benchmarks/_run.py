"""Rounds of fresh processes: every contender once a round, in an order that rotates, against the same server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs

from ._benchmark import Benchmark
from ._contender import Contender, Program
from ._losing import Losing
from ._surge import Surge

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 900.0  # seconds for one process: many times what it needs


@attrs.define
class Outcome:
    """One contender's measurements, one a round."""

    contender: str
    samples: list[dict[str, Any]] = attrs.Factory(list)
    missing: str = ""
    """What it needs and this environment does not have."""


@attrs.define
class Result:
    """One benchmark's outcomes, in the order of its contenders."""

    key: str
    benchmark: Benchmark | Surge | Losing
    outcomes: list[Outcome]

    @property
    def measured(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.samples]


def run(
    benchmarks: dict[str, Benchmark | Surge | Losing], *, rounds: int, seconds: float, tell: Callable[[str], None]
) -> list[Result]:
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
    key: str, benchmark: Benchmark | Surge | Losing, request: dict[str, Any], rounds: int, tell: Callable[[str], None]
) -> Result:
    outcomes = {contender.name: Outcome(contender.name) for contender in benchmark.contenders}
    if isinstance(benchmark, Losing):
        rounds = 1  # what it counts it has tried often
    for turn in range(rounds):
        start = turn % len(benchmark.contenders)
        for contender in benchmark.contenders[start:] + benchmark.contenders[:start]:
            outcome = outcomes[contender.name]
            if outcome.missing:
                continue
            sample = _sample(contender, request)
            outcome.missing = sample.get("missing", "")
            if not outcome.missing:
                outcome.samples.append(sample)
                tell(f"{key}, round {turn + 1} of {rounds}: {contender.name}")
    return Result(key, benchmark, list(outcomes.values()))


def _sample(contender: Contender | Program, request: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-m", f"{__package__}._child", json.dumps({**request, "contender": contender.name})]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if process.returncode:
        raise RuntimeError(f"{request['benchmark']}, {contender.name}: {process.stderr or process.stdout}")
    sample: dict[str, Any] = json.loads(process.stdout)
    return sample
