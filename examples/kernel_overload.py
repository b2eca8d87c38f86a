"""Five times as many callers as can be served, each with a fifth of a second to live."""

from __future__ import annotations

from collections import Counter

import trio

import respool
from respool.testing import FakeResource, GatedAdapter

# Four resources that are needed for 20 ms: two hundred callers a second.
SIZE, USE, PATIENCE = 4, 0.02, 0.2
CAPACITY = SIZE / USE

ended: Counter[str] = Counter()


async def call(pool: respool.Pool[FakeResource]) -> None:
    try:
        with trio.fail_after(PATIENCE):
            async with pool.acquire():
                await trio.sleep(USE)
        ended["served in time"] += 1
    except respool.PoolOverloaded:
        ended["refused"] += 1
    except trio.TooSlowError:
        ended["out of time"] += 1


async def main() -> None:
    async with respool.open_pool(GatedAdapter(), max_size=SIZE) as pool, trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call, pool)  # so that the pool knows how long a use takes
            await trio.sleep(1 / CAPACITY)
        ended.clear()
        began = trio.current_time()
        for arrival in range(int(2 * 5 * CAPACITY)):
            await trio.sleep_until(began + arrival / (5 * CAPACITY))
            nursery.start_soon(call, pool)
        print(f"in {trio.current_time() - began:.1f} s:", dict(ended))
        print("overloaded:", pool.statistics().overloaded)
        await trio.sleep(2 * PATIENCE)
        print("overloaded:", pool.statistics().overloaded)


trio.run(main)
