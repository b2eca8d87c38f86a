"""Goodput at each load, as a share of what the contender can do at most, and how soon all is well again."""

from __future__ import annotations

import statistics
from typing import Any, cast

from ._run import Outcome, Result
from ._surge import LOADS, NOMINAL, TIME_TO_LIVE, Surge
from ._svg import OURS, THEIRS, line, svg, text

WANTED = {2.0: 0.9, 5.0: 0.9}  # goodput by load, as a share of the capacity
CALM = 1.5  # after the surge, p99 is at most this many times what it was before
WIDTH, LEFT, RIGHT, PANEL, GAP = 760, 60, 20, 170, 50


def _median(outcome: Outcome, of: Any) -> float:
    return float(statistics.median(of(sample) for sample in outcome.samples))


def _kept(outcome: Outcome, load: float) -> float:
    """Which share of the capacity was goodput at this load, or of what arrived, if that was less."""
    number = LOADS.index(load)

    def share(sample: dict[str, Any]) -> float:
        wanted: float = min(sample["capacity"], sample["phases"][number]["arrived"])
        return float(sample["phases"][number]["goodput"] / wanted)

    return _median(outcome, share)


def _calm(outcome: Outcome) -> float | None:
    """How p99 from one second after the surge on compares with p99 before it. None: nothing was measured or served."""
    pairs = [
        (sample["calm_again"]["p99"], sample["phases"][0]["p99"]) for sample in outcome.samples if sample["calm_again"]
    ]
    ratios = [after / before for after, before in pairs if after and before]
    return statistics.median(ratios) if ratios else None


def goals(result: Result) -> list[dict[str, Any]]:
    """What became of the goals, for machines."""
    found = []
    for outcome in result.measured:
        if outcome.contender not in cast("Surge", result.benchmark).ours:
            continue
        for load, wanted in WANTED.items():
            kept = _kept(outcome, load)
            goal = f"goodput at {load:g} times the load, of its capacity"
            found.append(
                {"ours": outcome.contender, "goal": goal, "wanted": wanted, "measured": kept, "met": kept >= wanted}
            )
        calm = _calm(outcome)
        goal = "p99 a second after the surge, of p99 before it (at most)"
        met = calm is not None and calm <= CALM
        found.append({"ours": outcome.contender, "goal": goal, "wanted": CALM, "measured": calm, "met": met})
    return found


def lines(result: Result) -> list[str]:
    """A table, and what became of the goals."""
    width = max((len(outcome.contender) for outcome in result.measured), default=0)
    head = "  ".join(f"{f'{load:g}x':>6}" for load in LOADS)
    shown = [f"  {'':{width}}  capacity/s  goodput at {head}  p50, p99 ms at 5x  p99 before, after"]
    for outcome in result.measured:
        kept = "  ".join(f"{_kept(outcome, load):6.0%}" for load in LOADS)
        capacity = _median(outcome, lambda sample: sample["capacity"])
        surge = outcome.samples[-1]["phases"][LOADS.index(5.0)]
        before, after = outcome.samples[-1]["phases"][0], outcome.samples[-1]["calm_again"]
        shown.append(
            f"  {outcome.contender:{width}}  {capacity:10,.0f}             {kept}"
            f"  {_ms(surge['p50'])}, {_ms(surge['p99'])}       {_ms(before['p99'])}, {_ms(after and after['p99'])}"
        )
    for goal in goals(result):
        measured = "nothing" if goal["measured"] is None else f"{goal['measured']:.2f}"
        outcome_ = "met" if goal["met"] else "MISSED"
        shown.append(
            f"  goal {outcome_}: {goal['ours']}, {goal['goal']}: {goal['wanted']:.2f} wanted, {measured} found"
        )
    return shown


def _ms(seconds: float | None) -> str:
    return "     -" if seconds is None else f"{seconds * 1e3:6.1f}"


def plot(result: Result) -> str:
    """Goodput and p99 of the last round over time, with the load behind them."""
    colours = [OURS, *THEIRS]
    parts = [
        *_panel(result, colours, 44, "goodput", 1.2 * NOMINAL, "goodput/s"),
        *_panel(result, colours, 44 + PANEL + GAP, "p99", 1.1 * TIME_TO_LIVE, "p99 of those served, s"),
    ]
    bottom = 44 + 2 * (PANEL + GAP)
    for number, outcome in enumerate(result.measured):
        x = LEFT + number * (WIDTH - LEFT) / len(result.measured)
        parts.append(text(x, bottom, outcome.contender, f'fill="{colours[number]}" font-weight="bold"'))
    return svg(result.benchmark.title, WIDTH, bottom + 16, parts)


def _panel(result: Result, colours: list[str], top: float, what: str, highest: float, label: str) -> list[str]:
    width = (WIDTH - LEFT - RIGHT) / len(LOADS)
    bottom = top + PANEL
    parts = [
        text(LEFT, top - 6, label),
        f'<path d="M{LEFT} {top}V{bottom}H{WIDTH - RIGHT}" stroke="#3b4650" fill="none"/>',
    ]
    for number, load in enumerate(LOADS):
        x = LEFT + number * width
        parts.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="#dde3e8"/>')
        parts.append(text(x + width / 2, bottom + 16, f"{load:g} times the capacity", 'text-anchor="middle"'))
    parts += [
        text(LEFT - 6, bottom, "0", 'text-anchor="end"'),
        text(LEFT - 6, top + 12, f"{highest:g}", 'text-anchor="end"'),
    ]
    for outcome, colour in zip(result.measured, colours, strict=False):
        course = outcome.samples[-1]["course"]
        step = (WIDTH - LEFT - RIGHT) / len(course)
        points = [
            (LEFT + (place + 0.5) * step, bottom - min(point[what] or 0.0, highest) / highest * PANEL)
            for place, point in enumerate(course)
        ]
        parts.append(line(points, colour))
    return parts
