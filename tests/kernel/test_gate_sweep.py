"""Every combination of an adapter's hooks going well, badly, slowly and never, against impatient borrowers.

Nothing is asserted but the promises. The idea is deadpool's ``managed_cancellation.rs``.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from typing import Literal, TypeAlias, get_args

import pytest
import trio

from respool import Options, Pool, open_pool
from respool.testing import FakeResource, Gate, GatedAdapter

from .simulation import Borrower, borrow_all, run, watched

Ending: TypeAlias = Literal["heals", "ends", "is cancelled", "fails"]
GATES: tuple[Gate, ...] = get_args(Gate)
ENDINGS: tuple[Ending, ...] = get_args(Ending)

LIMITS: Options = {
    "max_size": 3,
    "acquire_timeout": 6.0,
    "validate_after": 0.25,
    "max_idle": 3.0,
    "max_uses": 5,
    "max_waiting": 4,
    "open_timeout": 2.5,
    "reset_timeout": 1.5,
    "close_timeout": 1.5,
    "drain_timeout": 2.0,
}


class BlockFailedError(Exception):
    """What the block of the pool raises."""


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("open_gate", GATES)
def test_the_promises_hold(open_gate: Gate, ending: Ending) -> None:
    """P1, P2, P4, P5, P6, P9 and P10, whatever the hooks do and however the pool's block ends."""
    for gates in itertools.product([open_gate], GATES, GATES, GATES):
        run(scenario, gates, ending, seed=(gates, ending))


async def scenario(gates: tuple[Gate, ...], ending: Ending) -> None:
    chance = random.Random(repr((gates, ending)))
    adapter = GatedAdapter(*gates)
    adapter.script("open", "ok", "ok")  # so that there is something to validate, reset and close
    outcomes: Counter[str] = Counter()
    tasks = trio.lowlevel.current_statistics().tasks_living
    async with trio.open_nursery() as borrowers:
        with (
            contextlib.ExitStack() as watching,
            trio.CancelScope() as scope,
            contextlib.suppress(BlockFailedError),
        ):
            async with open_pool(adapter, **(LIMITS | {"min_size": chance.choice([0, 2])})) as pool:
                watching.enter_context(watched(pool, adapter))
                for _ in range(8):
                    borrowers.start_soon(Borrower(pool, adapter, chance, outcomes).run)
                await trio.sleep(chance.uniform(0, 6))
                if ending == "heals":
                    await heal(pool, adapter)
                    outcomes["acquired"] += pool.limits.max_size
                elif ending == "is cancelled":
                    scope.cancel()
                ending_began = trio.current_time()
                if ending == "fails":
                    raise BlockFailedError
        took = trio.current_time() - ending_began
        grace = 0 if ending == "is cancelled" else LIMITS["drain_timeout"] + LIMITS["close_timeout"]
        assert took <= grace + 1e-6, "P9: closing took too long"
    assert trio.lowlevel.current_statistics().tasks_living == tasks, "P9: a task is left"
    assert_the_books_balance(pool, adapter, outcomes)


async def heal(pool: Pool[FakeResource], adapter: GatedAdapter) -> None:
    """P10: once everything goes well again, the pool serves at its full size."""
    for hook in ("open", "validate", "reset", "close"):
        adapter.always(hook, "ok")
    await trio.sleep(60)  # longer than the borrowers live
    await borrow_all(pool, adapter)


def assert_the_books_balance(pool: Pool[FakeResource], adapter: GatedAdapter, outcomes: Counter[str]) -> None:
    statistics = pool.statistics()
    assert statistics.acquired == statistics.use_time.count == outcomes["acquired"], "P2"
    assert statistics.timeouts == outcomes["PoolTimeout"]
    assert statistics.refused == outcomes["PoolOverloaded"]
    assert statistics.cancelled == outcomes["cancelled while waiting"]
    assert statistics.opened == adapter.opened == adapter.closed == sum(statistics.discards.values())
    assert adapter.most_present <= pool.limits.max_size, "P1"
    assert statistics.size == statistics.waiting == statistics.lent == 0
