"""A table of what was lost, and whether ours lost nothing."""

from __future__ import annotations

from typing import Any, cast

from ._losing import Losing
from ._run import Outcome, Result

NOTHING = ("leaked", "not_served", "lost_slots", "swallowed", "failed", "wrong", "orphans", "left_running")
PROMPT = 0.002  # seconds from a cancellation to the end of the block
HEADS = (
    ("points", "points"),
    ("leaked", "leaked"),
    ("not served", "not_served"),
    ("lost", "lost_slots"),
    ("re-made", "remade"),
    ("swallowed", "swallowed"),
    ("failed", "failed"),
    ("wrong", "wrong"),
    ("orphans", "orphans"),
    ("running", "left_running"),
)


def _remade(sample: dict[str, Any]) -> float:
    return float(sample["remade"] / sample["cancelled"])


def goals(result: Result) -> list[dict[str, Any]]:
    """What became of the goals, for machines."""
    losing = cast("Losing", result.benchmark)
    return [
        {"ours": outcome.contender, "goal": goal, "wanted": wanted, "measured": measured, "met": measured <= wanted}
        for outcome in result.measured
        if outcome.contender in losing.ours
        for goal, wanted, measured in _goals(losing, outcome.samples[-1])
    ]


def _goals(losing: Losing, sample: dict[str, Any]) -> list[tuple[str, float, float]]:
    nothing = [(name.replace("_", " "), 0, sample[name]) for name in NOTHING if name in sample]
    remade = ("connections re-made a cancellation (at most)", losing.remade, _remade(sample))
    return [*nothing, remade, ("seconds to leave, median (at most)", PROMPT, sample["exit_median"])]


def lines(result: Result) -> list[str]:
    """A line for each contender, and what became of the goals."""
    width = max((len(outcome.contender) for outcome in result.measured), default=0)
    heads = "  ".join(f"{head:>{max(6, len(head))}}" for head, _ in HEADS)
    shown = [f"  {'':{width}}  {heads}  ms to leave, p99"]
    shown += [f"  {outcome.contender:{width}}  {_row(outcome)}" for outcome in result.measured]
    missed = [goal for goal in goals(result) if not goal["met"]]
    for goal in missed:
        shown.append(
            f"  goal MISSED: {goal['ours']}, {goal['goal']}: {goal['wanted']:g} wanted, {goal['measured']:.3g} found"
        )
    return shown if missed else [*shown, "  all goals met"]


def _row(outcome: Outcome) -> str:
    sample = outcome.samples[-1]
    cells = {name: str(sample[name]) if name in sample else "-" for _, name in HEADS}
    cells["lost_slots"] += f"/{sample['slots']}"
    cells["remade"] = f"{_remade(sample):.2f}"
    row = "  ".join(f"{cells[name]:>{max(6, len(head))}}" for head, name in HEADS)
    return f"{row}  {sample['exit_median'] * 1e3:11.1f}, {sample['exit_p99'] * 1e3:.1f}"


def plot(_: Result) -> str:
    """There is nothing to see that a table does not show better."""
    return ""
