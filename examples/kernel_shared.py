"""A resource that serves three leases at the same time."""

from __future__ import annotations

from itertools import count

import attrs
import trio

import respool


@attrs.frozen
class Channels(respool.Adapter[str]):
    """Opens channels that carry several conversations."""

    numbers: count[int] = attrs.field(factory=count)

    @property
    def leases_per_resource(self) -> int:
        return 3

    async def open(self) -> str:
        return f"channel {next(self.numbers)}"

    async def close(self, resource: str) -> None:
        print("closing", resource)


async def talk(pool: respool.Pool[str]) -> None:
    async with pool.acquire() as channel:
        print("talking on", channel)
        await trio.sleep(0.1)


async def main() -> None:
    async with respool.open_pool(Channels(), max_size=4) as pool, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(talk, pool)
        await trio.sleep(0.05)
        print(pool.statistics().leases, "leases on", pool.statistics().lent, "resources")


trio.run(main)
