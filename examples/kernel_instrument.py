"""Looking into a pool: at its numbers, and at what happens in it."""

from __future__ import annotations

from typing import Any

import trio

import respool
from respool.testing import FakeResource, GatedAdapter

Pool = respool.Pool[FakeResource]


class Diary(respool.Instrument):
    """Writes down what is out of the ordinary."""

    def cancelled(self, pool: respool.Pool[Any], waited: float) -> None:
        print(f"somebody waited for {waited:.2f} s and was cancelled")

    def opened(self, pool: respool.Pool[Any], took: float) -> None:
        print(f"opened a resource in {took:.2f} s")

    def discarded(self, pool: respool.Pool[Any], reason: str) -> None:
        print("closing a resource:", reason)


async def work(pool: Pool) -> None:
    with trio.move_on_after(0.15):
        async with pool.acquire():
            await trio.sleep(0.1)


async def main() -> None:
    adapter = GatedAdapter(open="slow", slow=0.01)
    async with respool.open_pool(adapter, name="shop", max_size=2, instruments=[Diary()]) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(work, pool)
        statistics = pool.statistics()
        print(pool)
        print("acquired:", statistics.acquired, "of these after waiting:", statistics.wait_time.count)
        print("nine in ten were held for less than", statistics.use_time.quantile(0.9), "s")


trio.run(main)
