"""The directive ``life-of-a-resource``: a picture of the kernel's transition table, and the same in words.

Boxes and arrows are laid out by hand, below. Which arrows there are is not: the build fails if a transition of the
table has none, or an arrow no transition.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from respool._entry import TRANSITIONS, State

if TYPE_CHECKING:
    from sphinx.application import Sphinx

WIDTH, HEIGHT = 720, 400
BOX_WIDTH, BOX_HEIGHT = 110, 40

# The middle of each box.
PLACES = {
    State.OPENING: (65, 150),
    State.IDLE: (285, 150),
    State.CHECKING: (450, 60),
    State.LENT: (650, 150),
    State.RESETTING: (470, 250),
    State.CLOSING: (285, 360),
    State.GONE: (65, 360),
}

# Each transition's arrow, as an SVG path, and when it happens.
ARROWS = {
    (State.OPENING, State.LENT): (
        "M65,130 C65,-20 640,-10 650,128",
        "``open`` has returned, and somebody is waiting.",
    ),
    (State.OPENING, State.IDLE): ("M120,150 H228", "``open`` has returned, and nobody is waiting."),
    (State.OPENING, State.CLOSING): (
        "M90,170 C110,260 160,320 232,346",
        "``open`` has returned, but nobody wants it any more: it has been retired, or the pool is closing.",
    ),
    (State.OPENING, State.GONE): ("M65,170 V338", "``open`` has failed, or was cancelled: there is nothing to close."),
    (State.IDLE, State.LENT): ("M340,143 H593", "It is taken, or handed to the first waiter."),
    (State.IDLE, State.CHECKING): (
        "M310,130 L396,78",
        "Somebody needs it, and it has been idle for ``validate_after``, or since before the clocks jumped.",
    ),
    (State.IDLE, State.RESETTING): (
        "M325,170 L414,232",
        "Somebody needs it, and ``is_clean`` says no: its peer has closed, or something has arrived unasked.",
    ),
    (State.IDLE, State.CLOSING): (
        "M285,170 V338",
        "It is too old, has been idle for too long, or is not wanted any more.",
    ),
    (State.CHECKING, State.LENT): (
        "M505,68 C560,78 595,98 620,126",
        "``validate`` has returned, and somebody is waiting.",
    ),
    (State.CHECKING, State.IDLE): ("M410,80 L342,132", "``validate`` has returned, and nobody is waiting any more."),
    (State.CHECKING, State.CLOSING): (
        "M440,80 C420,190 370,280 318,338",
        "``validate`` has failed, or took longer than ``reset_timeout``.",
    ),
    (State.LENT, State.IDLE): (
        "M595,157 H342",
        "The last lease on it has ended, ``is_clean`` says yes, and nobody is waiting.",
    ),
    (State.LENT, State.RESETTING): (
        "M620,170 L526,231",
        "The last lease on it has ended, and ``is_clean`` says no.",
    ),
    (State.LENT, State.CLOSING): (
        "M655,170 C650,300 520,365 342,365",
        "``verdict`` says so, it is too old, used up, or not wanted any more, or ``drain_timeout`` is over.",
    ),
    (State.RESETTING, State.LENT): ("M525,243 L632,172", "``reset`` has returned, and somebody is waiting."),
    (State.RESETTING, State.IDLE): ("M432,230 L342,167", "``reset`` has returned, and nobody is waiting."),
    (State.RESETTING, State.CLOSING): (
        "M460,270 C445,315 400,340 342,350",
        "``reset`` has failed, took longer than ``reset_timeout``, or did not make it clean.",
    ),
    (State.CLOSING, State.GONE): (
        "M230,360 H122",
        "``close`` has returned, failed, or was cancelled: the handle is free.",
    ),
}


def check_arrows() -> None:
    """Raise unless there is an arrow for each transition, and nothing else."""
    transitions = {(before, after) for before, successors in TRANSITIONS.items() for after in successors}
    for before, after in transitions ^ set(ARROWS):
        known = "an arrow but no transition" if (before, after) in ARROWS else "a transition but no arrow"
        raise ExtensionError(f"docs/life_picture.py: {before.name} to {after.name} is {known}")


def picture() -> str:
    """The picture as SVG, in the colours of the text around it."""
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" style="width: 100%; font: 15px sans-serif">',
            "<title>The life of a resource</title>",
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" orient="auto"',
            ' markerWidth="8" markerHeight="8">',
            '<path d="M0,1 L10,5 L0,9 z" fill="currentColor"/></marker></defs>',
            *_arrows(),
            *_boxes(),
            "</svg>",
        ]
    )


def _arrows() -> Iterator[str]:
    for (before, after), (path, when) in ARROWS.items():
        faint = ' opacity="0.5"' if after in (State.CLOSING, State.GONE) else ""
        title = escape(f"{before.value} to {after.value}: {when}".replace("``", ""))
        yield (
            f'<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5" marker-end="url(#tip)"{faint}>'
            f"<title>{title}</title></path>"
        )


def _boxes() -> Iterator[str]:
    for state, (x, y) in PLACES.items():
        yield (
            f'<rect x="{x - BOX_WIDTH / 2:g}" y="{y - BOX_HEIGHT / 2:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
            ' rx="8" fill="none" stroke="currentColor" stroke-width="2"/>'
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" fill="currentColor">{state.value}</text>'
        )


def words() -> Iterator[str]:
    """The same as a table in reStructuredText."""
    yield from [
        ".. list-table::",
        "   :header-rows: 1",
        "   :widths: 1 1 4",
        "",
        "   * - from",
        "     - to",
        "     - when",
    ]
    for (before, after), (_, when) in ARROWS.items():
        yield from [f"   * - {before.value}", f"     - {after.value}", f"     - {when}"]


class LifeOfAResource(SphinxDirective):
    """Draws the picture, and says it in a table below."""

    def run(self) -> list[nodes.Node]:
        """Give the picture and the table."""
        check_arrows()
        self.env.note_dependency(__file__)
        return [
            nodes.raw("", picture(), format="html"),
            *self.parse_text_to_nodes("\n".join(words())),
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known."""
    app.add_directive("life-of-a-resource", LifeOfAResource)
    return {"parallel_read_safe": True}
