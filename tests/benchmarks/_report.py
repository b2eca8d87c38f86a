"""What was measured, as text and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from typing import Any

from ._run import Result, Verdict, factor

PACKAGES = ("trio", "psycopg", "psycopg_pool", "asyncpg", "uvloop", "SQLAlchemy")


def table(result: Result) -> str:
    """A result for people: median, and in brackets the lowest and the highest round."""
    lines = [result.benchmark.title, ""]
    rows = [("", "operations/s", "CPU µs an operation", "we are")]
    for outcome in result.outcomes:
        if outcome.missing:
            rows.append((outcome.contender, f"not installed: {outcome.missing}", "", ""))
            continue
        times = factor(result.outcomes[0], outcome) if result.outcomes[0].rates else None
        rows.append(
            (
                outcome.contender,
                f"{outcome.rate:,.0f} ({min(outcome.rates):,.0f}-{max(outcome.rates):,.0f})",
                f"{outcome.cpu:.2f} ({min(outcome.cpus):.2f}-{max(outcome.cpus):.2f})",
                "" if times is None or outcome is result.outcomes[0] else f"{times:.2f} times as fast",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        name, *numbers = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(["  " + name, *numbers]).rstrip())
    lines += ["", *map(told, result.verdicts())]
    return "\n".join(lines).rstrip() + "\n"


def told(verdict: Verdict) -> str:
    """A goal and what became of it."""
    goal = verdict.goal
    unit = "the operations/s" if goal.measure == "rate" else "the operations a CPU second"
    outcome = "met" if verdict.met else "MISSED"
    return f"  goal {outcome}: {goal.ours}, {goal.factor:.2f} times {unit} of {goal.theirs}: {verdict.factor:.2f}"


def document(results: Sequence[Result], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
        },
        "rounds": rounds,
        "seconds": seconds,
        "results": [_entry(result) for result in results],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _entry(result: Result) -> dict[str, Any]:
    return {
        "benchmark": result.key,
        "title": result.benchmark.title,
        "tasks": result.benchmark.tasks,
        "contenders": [
            {
                "name": outcome.contender,
                "missing": outcome.missing or None,
                "operations_per_second": outcome.rates,
                "cpu_microseconds_per_operation": outcome.cpus,
            }
            for outcome in result.outcomes
        ],
        "goals": [
            {
                "ours": verdict.goal.ours,
                "theirs": verdict.goal.theirs,
                "measure": verdict.goal.measure,
                "wanted": verdict.goal.factor,
                "measured": verdict.factor,
                "met": verdict.met,
            }
            for verdict in result.verdicts()
        ],
    }
