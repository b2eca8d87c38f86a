"""One pool a tenant, and at most four resources for all of them."""

from __future__ import annotations

import trio

import respool
from respool.testing import FakeResource, GatedAdapter


def adapter_for(tenant: str) -> GatedAdapter:
    print("first use of", tenant)
    return GatedAdapter()


async def work(pool: respool.KeyedPool[str, FakeResource], tenant: str) -> None:
    async with pool.acquire(tenant):
        await trio.sleep(0.01)


async def main() -> None:
    async with respool.open_keyed_pool(adapter_for, max_size=4, max_per_key=2) as pool:
        async with trio.open_nursery() as nursery:
            for i in range(30):
                nursery.start_soon(work, pool, f"tenant {i % 6}")
        statistics = pool.statistics()
        print(statistics.size, "resources of", len(statistics.keys), "tenants are open")


trio.run(main)
