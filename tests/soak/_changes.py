"""What is done to a pool while it works: one function each, which returns when it is undone."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from respool import Pool

__all__ = ["CHANGES", "Change"]

Change = Callable[[Pool[Any], random.Random], Awaitable[None]]


async def resized(pool: Pool[Any], chance: random.Random) -> None:
    """Both sizes, up and down."""
    limits = pool.limits
    for _ in range(3):
        size = chance.randint(1, 2 * limits.max_size)
        pool.resize(max_size=size, min_size=chance.randint(0, size))
        await trio.sleep(chance.uniform(0, 0.1))
    pool.resize(max_size=limits.max_size, min_size=limits.min_size)


async def retired(pool: Pool[Any], chance: random.Random) -> None:
    """Every connection is replaced, several times."""
    for _ in range(5):
        pool.retire_all()
        await trio.sleep(chance.uniform(0, 0.05))


async def paused(pool: Pool[Any], chance: random.Random) -> None:
    """Nothing is lent for a while."""
    pool.pause()
    await trio.sleep(chance.uniform(0, 0.2))
    pool.resume()


async def drained(pool: Pool[Any], chance: random.Random) -> None:
    """Everything comes back and is closed, or as much as does in time."""
    with trio.move_on_after(chance.uniform(0, 0.5)):
        await pool.drain()
    pool.resume()


async def quiesced(pool: Pool[Any], chance: random.Random) -> None:
    """What is idle is closed."""
    with trio.move_on_after(chance.uniform(0, 0.5)):
        await pool.quiesce()


CHANGES: list[Change] = [resized, retired, paused, drained, quiesced]
