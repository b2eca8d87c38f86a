"""Two pools that may have five resources between them."""

from __future__ import annotations

import trio

import respool
from respool.testing import FakeResource, GatedAdapter

Pool = respool.Pool[FakeResource]


async def work(pool: Pool) -> None:
    async with pool.acquire():
        await trio.sleep(0.05)


async def use(pool: Pool, tasks: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work, pool)


async def main() -> None:
    budget = respool.Budget(5)
    async with (
        respool.open_pool(GatedAdapter(), name="orders", budget=budget) as orders,
        respool.open_pool(GatedAdapter(), name="reports", budget=budget) as reports,
    ):
        await use(orders, 10)
        print(orders, reports, budget, sep="\n")
        await use(reports, 3)
        print(orders, reports, budget, sep="\n")


trio.run(main)
