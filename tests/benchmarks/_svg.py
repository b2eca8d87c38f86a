"""The little of SVG that the pictures need."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

OURS = "#2a6fbb"
THEIRS = ("#b9c3cd", "#d08a3c", "#6aa84f", "#a64d79")
_STYLE = "font-family: system-ui, sans-serif; font-size: 13px"


def svg(title: str, width: float, height: float, parts: Iterable[str]) -> str:
    """A picture with a heading on white."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" style="{_STYLE}" role="img">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            text(12, 24, title, 'font-weight="bold"'),
            *parts,
            "</svg>",
            "",
        ]
    )


def text(x: float, y: float, content: str, attributes: str = "") -> str:
    """One line of text."""
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(content)}</text>'


def line(points: Iterable[tuple[float, float]], colour: str, attributes: str = "") -> str:
    """A curve through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" stroke="{colour}" fill="none" stroke-width="2" {attributes}/>'
