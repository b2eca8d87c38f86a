"""The main job, on servers that the demo starts itself: what a pool buys, and what it survives.

Run it with ``make demo``, or ``python -m examples.demo``. Ctrl-C stops it, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio
from rich.console import Console

from .demonstration import load
from .demonstration.embedded import embedded
from .demonstration.http import http
from .demonstration.load import Tally
from .demonstration.mariadb import mariadb
from .demonstration.postgres import postgres
from .demonstration.programs import run_examples
from .demonstration.redis import redis
from .demonstration.screen import Screen, adversities, results
from .demonstration.subject import Subject, Unavailable

SUBJECTS: dict[str, Callable[[], AbstractAsyncContextManager[Subject]]] = {
    "postgres": postgres,
    "mariadb": mariadb,
    "redis": redis,
    "http": http,
    "embedded": embedded,
}
PHASES = (load.without_pool, load.with_pool, load.cancelled, load.restarted)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("servers", nargs="*", help=f"which of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each phase (default: %(default)s)")
    parser.add_argument("--plain", action="store_true", help="plain lines, as without a terminal")
    arguments = parser.parse_args()
    if unknown := set(arguments.servers) - set(SUBJECTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(SUBJECTS)}")
    # The pool warns of every connection it loses. Here that is the plan, and the view shows it.
    logging.getLogger("respool").setLevel(logging.ERROR)
    console = Console(force_terminal=False if arguments.plain else None, soft_wrap=False)
    return trio.run(_until_interrupted, console, arguments.servers or list(SUBJECTS), arguments.seconds)


async def _until_interrupted(console: Console, names: list[str], seconds: float) -> int:
    """Ctrl-C cancels everything, so that every block ends as it would in an application."""
    outcome = 130
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        outcome = await _show(console, names, seconds)
        nursery.cancel_scope.cancel()
    if outcome == 130:
        console.print("Stopped. Nothing is left running.")
    return outcome


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


async def _show(console: Console, names: list[str], seconds: float) -> int:
    screen = Screen(console)
    shown: list[tuple[str, list[Tally]]] = []
    failed: list[str] = []
    for name in names:
        try:
            async with SUBJECTS[name]() as subject:
                shown.append((subject.title, await _run_phases(screen, subject, seconds)))
                failed += await run_examples(console, subject)
        except Unavailable as reason:
            console.print(f"{name} is not shown. {reason}", highlight=False)
    console.print()
    console.print(results([(title, tallies[0], tallies[1]) for title, tallies in shown]))
    console.print()
    console.print(adversities([(title, tally) for title, tallies in shown for tally in tallies[2:]]))
    broken = [check for _, tallies in shown for tally in tallies for check in tally.checks if not check.kept]
    for check in broken:
        console.print(f"BROKEN: {check.promise}: {check.found}", style="bold red")
    for example in failed:
        console.print(f"BROKEN: examples/{example} failed", style="bold red")
    if not (broken or failed):
        console.print("\nNothing lost, nothing wrong.", style="bold")
    return 1 if broken or failed else 0


async def _run_phases(screen: Screen, subject: Subject, seconds: float) -> list[Tally]:
    async with screen.showing():
        return [await phase(subject, seconds, screen) for phase in PHASES]


if __name__ == "__main__":
    sys.exit(main())
