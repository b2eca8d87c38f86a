"""Borrowers lose patience in the middle of an exchange. Nothing is lost, and nobody reads their answers."""

from __future__ import annotations

import trio

import respool
from respool.testing import FakeResource, GatedAdapter

# Fake connections: each exchange takes a tenth of a second, and an answer stays unread if nobody waited for it.
adapter = GatedAdapter(exchange="slow", slow=0.1)


async def ask(pool: respool.Pool[FakeResource], question: str) -> None:
    async with pool.acquire() as connection:
        answer = await adapter.exchange(connection, question)
        assert answer == question


async def give_up_early(pool: respool.Pool[FakeResource], question: str) -> None:
    with trio.move_on_after(0.05):
        await ask(pool, question)


async def main() -> None:
    async with respool.open_pool(adapter, max_size=5) as pool:
        async with trio.open_nursery() as nursery:
            for i in range(200):
                nursery.start_soon(give_up_early, pool, f"question {i}")
        await ask(pool, "mine")
        print("given up:", 200)
        print("opened:", pool.statistics().opened, "of at most", pool.statistics().max_size)
        print("put in order and kept:", sum(call.startswith("reset") for call in adapter.calls))


trio.run(main)
