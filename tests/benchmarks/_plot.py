"""A result as an SVG picture: a bar a contender, with a whisker from the lowest round to the highest."""

from __future__ import annotations

from html import escape

from ._run import Result

WIDTH, LABELS, NUMBERS, ROW, TOP = 760, 220, 90, 26, 44
OURS, THEIRS, WHISKER = "#2a6fbb", "#b9c3cd", "#3b4650"
STYLE = "font-family: system-ui, sans-serif; font-size: 13px"


def plot(result: Result) -> str:
    """Operations a second of everyone who was measured."""
    outcomes = result.measured
    longest = max((max(outcome.rates) for outcome in outcomes), default=1.0)
    scale = (WIDTH - LABELS - NUMBERS) / longest
    height = TOP + ROW * len(outcomes) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" style="{STYLE}" role="img">',
        f"<title>{escape(result.benchmark.title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-weight="bold">{escape(result.benchmark.title)}, operations/s</text>',
    ]
    for row, outcome in enumerate(outcomes):
        top = TOP + row * ROW
        middle = top + ROW / 2 - 3
        colour = OURS if outcome.contender.startswith("respool") else THEIRS
        low, high = (LABELS + each * scale for each in (min(outcome.rates), max(outcome.rates)))
        whisker = f"M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"
        parts += [
            f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end">{escape(outcome.contender)}</text>',
            f'<rect x="{LABELS}" y="{top}" width="{outcome.rate * scale:.1f}" height="{ROW - 6}" fill="{colour}"/>',
            f'<path d="{whisker}" stroke="{WHISKER}" fill="none"/>',
            f'<text x="{high + 8:.1f}" y="{middle + 4}">{outcome.rate:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
