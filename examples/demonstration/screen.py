"""What the demo looks like: a live view in a terminal, plain lines without one, and tables at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

import respool

from .load import SIZE, TASKS, Pool, Tally, View
from .subject import Subject

FRAME = 0.1  # seconds from one picture to the next
STATES = (("lent", "green"), ("idle", "blue"), ("opening", "yellow"), ("resetting", "cyan"), ("waiting", "magenta"))


class Screen(View):
    """Shows the phase that runs now."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.subject: Subject
        self.pool: Pool | None = None
        self.tally: Tally | None = None

    def begin(self, subject: Subject, tally: Tally, pool: Pool | None) -> None:
        """A phase begins."""
        self.subject, self.tally, self.pool = subject, tally, pool
        self.console.print(f"{subject.title}, {tally.phase}:", highlight=False)

    def end(self) -> None:
        """It is over."""
        assert self.tally is not None
        self.console.print(f"  {self._elapsed():4.1f} s  {self._progress()}", highlight=False)
        self.tally = None

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Show what runs in the block."""
        show = self._show_live if self.console.is_terminal else self._show_plainly
        async with trio.open_nursery() as nursery:
            nursery.start_soon(show)
            yield
            nursery.cancel_scope.cancel()

    async def _show_live(self) -> None:
        # Refreshed by hand: left alone, rich would start a thread.
        with Live(console=self.console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(self._picture(), refresh=True)
                await trio.sleep(FRAME)

    async def _show_plainly(self) -> None:
        while True:
            await trio.sleep(1.0)
            if self.tally is not None:
                state = "no pool" if self.pool is None else _in_words(self.pool.statistics())
                self.console.print(f"  {self._elapsed():4.1f} s  {self._progress()}; {state}", highlight=False)

    def _elapsed(self) -> float:
        assert self.tally is not None
        return trio.current_time() - self.tally.started

    def _progress(self) -> str:
        assert self.tally is not None
        failed = self.tally.failed.total()
        return (
            f"{len(self.tally.latencies):,} answers"
            + (f", {self.tally.cancelled:,} cancelled" if self.tally.cancelled else "")
            + (f", {failed:,} failed" if failed else "")
        )

    def _picture(self) -> RenderableType:
        if self.tally is None:
            return Text()
        title = Text(f"{self.subject.title}: {self.tally.phase}", style="bold")
        progress = Text(f"{self._elapsed():4.1f} s   {self._progress()}")
        if self.pool is None:
            return Group(title, progress, Text(f"{self.tally.opened:,} connections opened", style="red"))
        return Group(title, progress, _bars(self.pool.statistics()))


def _counts(statistics: respool.PoolStatistics) -> list[tuple[str, str, int]]:
    return [(state, colour, getattr(statistics, state)) for state, colour in STATES]


def _in_words(statistics: respool.PoolStatistics) -> str:
    return ", ".join(f"{count} {state}" for state, _, count in _counts(statistics))


def _bars(statistics: respool.PoolStatistics) -> Table:
    table = Table.grid(padding=(0, 1))
    for state, colour, count in _counts(statistics):
        table.add_row(state, Text("█" * count, style=colour), str(count))
    return table


def results(tallies: list[tuple[str, Tally, Tally]]) -> RenderableType:
    """What pooling bought: with no pool and with one, for every server."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("")
    for heading in ("requests/s", "p50 ms", "p99 ms", "opened", "wrong"):
        table.add_column(heading, justify="right")
    for title, *both in tallies:
        for tally in both:
            numbers = (f"{tally.rate:,.0f}", f"{tally.quantile(0.5) * 1e3:.1f}", f"{tally.quantile(0.99) * 1e3:.1f}")
            table.add_row(title, tally.phase, *numbers, f"{tally.opened:,}", str(tally.wrong))
        table.add_row(title, "gain", f"x {both[1].rate / both[0].rate:.1f}", style="bold", end_section=True)
    heading = f"What pooling bought: {TASKS} tasks, a pool of {SIZE} connections"
    return Group(Text(heading, style="bold"), table)


def adversities(tallies: list[tuple[str, Tally]]) -> RenderableType:
    """What went wrong, and what of it was felt."""
    lines = [Text("What happened when things went wrong", style="bold")]
    for title, tally in tallies:
        failed = ", ".join(f"{count:,} failed ({name})" for name, count in tally.failed.items()) or "none failed"
        felt = f"{len(tally.latencies):,} answered, {tally.cancelled:,} cancelled, {failed}"
        lines += [Text(), Text(f"  {title}, {tally.phase}"), Text(f"            {felt}")]
        for check in tally.checks:
            mark = Text("    kept    ", style="green") if check.kept else Text("    BROKEN  ", style="bold red")
            lines.append(mark + Text(f"{check.promise}: {check.found}"))
    return Group(*lines)
