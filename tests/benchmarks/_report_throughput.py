"""Operations a second and CPU time an operation: medians over the rounds, with the lowest and the highest."""

from __future__ import annotations

import statistics
from typing import Any, cast

import attrs

from ._benchmark import Benchmark, Goal
from ._run import Outcome, Result
from ._svg import OURS, THEIRS, svg, text

LABELS, NUMBERS, WIDTH, ROW, TOP = 220, 90, 760, 26, 44


def _values(outcome: Outcome, measure: str) -> list[float]:
    return [sample[measure] for sample in outcome.samples]


def factor(ours: Outcome, theirs: Outcome, measure: str = "rate") -> float:
    """How many times better ours is. Compared round by round, because a machine has slow minutes."""
    pairs = zip(_values(ours, measure), _values(theirs, measure), strict=True)
    return statistics.median(b / a if measure == "cpu" else a / b for a, b in pairs)


@attrs.frozen
class Verdict:
    """Whether a goal was met: `factor` is how many times better ours was, the median over the rounds."""

    goal: Goal
    factor: float

    @property
    def met(self) -> bool:
        return self.factor >= self.goal.factor

    def __str__(self) -> str:
        goal = self.goal
        unit = "the operations/s" if goal.measure == "rate" else "the operations a CPU second"
        outcome = "met" if self.met else "MISSED"
        return f"  goal {outcome}: {goal.ours}, {goal.factor:.2f} times {unit} of {goal.theirs}: {self.factor:.2f}"


def verdicts(result: Result) -> list[Verdict]:
    """On the goals between contenders that were measured."""
    by_name = {outcome.contender: outcome for outcome in result.measured}
    return [
        Verdict(goal, factor(by_name[goal.ours], by_name[goal.theirs], goal.measure))
        for goal in cast("Benchmark", result.benchmark).goals
        if goal.ours in by_name and goal.theirs in by_name
    ]


def goals(result: Result) -> list[dict[str, Any]]:
    """What became of the goals, for machines."""
    return [{**attrs.asdict(each.goal), "measured": each.factor, "met": each.met} for each in verdicts(result)]


def lines(result: Result) -> list[str]:
    """A table, and what became of the goals."""
    rows = [("", "operations/s", "CPU µs an operation", "we are")]
    rows += [_row(outcome, result.outcomes[0]) for outcome in result.measured]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    shown = []
    for name, *numbers in rows:
        cells = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=True)]
        shown.append("  ".join(["  " + name.ljust(widths[0]), *cells]).rstrip())
    return [*shown, "", *map(str, verdicts(result)), *_fractions(result)]


def _fractions(result: Result) -> list[str]:
    by_name = {outcome.contender: outcome for outcome in result.measured}
    return [
        f"  {ours}: {factor(by_name[ours], by_name[theirs]):.2f} of the operations/s of {theirs}"
        for ours, theirs in cast("Benchmark", result.benchmark).fractions
        if ours in by_name and theirs in by_name
    ]


def _row(outcome: Outcome, ours: Outcome) -> tuple[str, str, str, str]:
    rates, cpus = _values(outcome, "rate"), _values(outcome, "cpu")
    return (
        outcome.contender,
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
        f"{statistics.median(cpus):.2f} ({min(cpus):.2f}-{max(cpus):.2f})",
        f"{factor(ours, outcome):.2f} times as fast" if ours.samples and outcome is not ours else "",
    )


def plot(result: Result) -> str:
    """A bar a contender, with a whisker from the lowest round to the highest."""
    longest = max((rate for outcome in result.measured for rate in _values(outcome, "rate")), default=1.0)
    scale = (WIDTH - LABELS - NUMBERS) / longest
    parts = []
    for row, outcome in enumerate(result.measured):
        rates = _values(outcome, "rate")
        top = TOP + row * ROW
        middle = top + ROW / 2 - 3
        low, high = (LABELS + rate * scale for rate in (min(rates), max(rates)))
        colour = OURS if outcome.contender.startswith("respool") else THEIRS[0]
        whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
        length = statistics.median(rates) * scale
        parts += [
            text(LABELS - 8, middle + 4, outcome.contender, 'text-anchor="end"'),
            f'<rect x="{LABELS}" y="{top}" width="{length:.1f}" height="{ROW - 6}" fill="{colour}"/>',
            f'<path d="{whisker}" stroke="#3b4650" fill="none"/>',
            text(high + 8, middle + 4, f"{statistics.median(rates):,.0f}"),
        ]
    title = f"{result.benchmark.title}, operations/s"
    return svg(title, WIDTH, TOP + ROW * len(result.measured) + 12, parts)
