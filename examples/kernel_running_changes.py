"""Changing a pool while it is used."""

from __future__ import annotations

import trio

import respool
from respool.testing import FakeResource, GatedAdapter

adapter = GatedAdapter()


async def borrow_again_and_again(pool: respool.Pool[FakeResource]) -> None:
    while True:
        async with pool.acquire():
            await trio.sleep(0.01)


async def main() -> None:
    async with respool.open_pool(adapter, max_size=4) as pool, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(borrow_again_and_again, pool)
        await trio.sleep(0.1)
        print(pool)

        pool.resize(max_size=2)
        await trio.sleep(0.1)
        print(pool)

        opened = pool.statistics().opened
        pool.retire_all()
        await trio.sleep(0.1)
        print("replaced:", pool.statistics().opened - opened)

        await pool.drain()
        print("drained:", adapter.present, "connections;", pool)
        pool.resume()
        await trio.sleep(0.1)
        print(pool)

        nursery.cancel_scope.cancel()


trio.run(main)
