"""Whether a pool still has all its connections."""

from __future__ import annotations

import trio
from respool_redis import Connection

import respool


async def use_all(pool: respool.Pool[Connection], size: int) -> list[Connection]:
    """Acquire all connections at the same time and use each. A lost slot would make this time out."""
    everybody = trio.Event()
    held: list[Connection] = []

    async def hold(question: str) -> None:
        async with pool.acquire(timeout=20) as connection:
            answer = await connection.echo(question)
            assert answer in {question, question.encode()}
            held.append(connection)
            if len(held) == size:
                everybody.set()
            await everybody.wait()

    async with trio.open_nursery() as nursery:
        for number in range(size):
            nursery.start_soon(hold, f"held {number}")
    assert len(set(held)) == size
    return held
