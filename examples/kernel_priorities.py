"""A health check gets through while everybody else has to wait, and a bulk job waits for everybody."""

from __future__ import annotations

import trio

import respool
from respool import Priority
from respool.testing import FakeResource, GatedAdapter


async def work(pool: respool.Pool[FakeResource], name: str, priority: Priority) -> None:
    started = trio.current_time()
    async with pool.acquire(priority=priority):
        print(f"{name}: waited for {trio.current_time() - started:.1f} s")
        await trio.sleep(0.1)


async def main() -> None:
    async with respool.open_pool(GatedAdapter(), max_size=3, reserved=1) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(work, pool, "bulk job", Priority.BULK)
        for i in range(4):
            nursery.start_soon(work, pool, f"request {i}", Priority.NORMAL)
        await trio.sleep(0.01)
        nursery.start_soon(work, pool, "another bulk job", Priority.BULK)
        nursery.start_soon(work, pool, "request 4", Priority.NORMAL)
        await trio.sleep(0.01)
        nursery.start_soon(work, pool, "health check", Priority.URGENT)


trio.run(main)
