"""See `tests.soak`. Ends with 0 only if nothing was lost, wrong or left; Ctrl-C stops it and leaves nothing running."""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys

import trio

from tests.kinds import KINDS

from ._soak import soak


def main() -> int:
    names = [kind.name for kind in KINDS]
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("adapters", nargs="*", help=f"which of {', '.join(names)}; default: all")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="choose as an earlier run did (default: at random)")
    arguments = parser.parse_args()
    if unknown := set(arguments.adapters) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    if arguments.seed is None:
        arguments.seed = random.randrange(1_000_000)
    # The pool warns of every connection it loses. Here that is the plan.
    logging.getLogger("respool").setLevel(logging.CRITICAL)
    return trio.run(_until_interrupted, arguments)


async def _until_interrupted(arguments: argparse.Namespace) -> int:
    """Ctrl-C cancels everything, so that every block ends as it would in an application."""
    kinds = [kind for kind in KINDS if kind.name in arguments.adapters or not arguments.adapters]
    print(f"{', '.join(kind.name for kind in kinds)}: {arguments.seconds:g} s, seed {arguments.seed}", flush=True)
    outcome = 130
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_on_signal, nursery.cancel_scope)
        account = await soak(kinds, seconds=arguments.seconds, seed=arguments.seed)
        outcome = 0 if account.is_clean else 1
        print(f"\n{account}\n\n{'Nothing lost, nothing wrong, nothing left.' if not outcome else 'NOT ALL WELL.'}")
        nursery.cancel_scope.cancel()
    if outcome == 130:
        print("Stopped. Nothing is left running.")
    return outcome


async def _cancel_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
