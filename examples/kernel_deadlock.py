"""Two tasks, two resources, and each task wants a second one."""

from __future__ import annotations

import logging
import sys

import trio

import respool

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")


async def open_one() -> object:
    return object()


async def close_one(_: object) -> None:
    await trio.lowlevel.checkpoint()


async def transfer(pool: respool.Pool[object], name: str) -> None:
    try:
        async with pool.acquire():
            await trio.sleep(0.1)  # so that both have one
            async with pool.acquire():
                print(name, "has both")
    except respool.PoolDeadlock as error:
        print(name, "gives way:", error)


async def main() -> None:
    adapter = respool.adapter(open=open_one, close=close_one)
    async with respool.open_pool(adapter, max_size=2) as pool, trio.open_nursery() as nursery:
        nursery.start_soon(transfer, pool, "Alice")
        nursery.start_soon(transfer, pool, "Bob")


trio.run(main)
