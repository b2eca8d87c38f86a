"""Your own code on fake resources, cancelled at every point where Trio could cancel it.

Run it: it needs no server, and no test framework. Under pytest-trio, main() is a test as it stands.
"""

from __future__ import annotations

import trio

import respool
from respool.testing import FakeResource, GatedAdapter, cancel_everywhere


async def ask_twice(pool: respool.Pool[FakeResource], adapter: GatedAdapter) -> None:
    """The code under test."""
    async with pool.acquire() as resource:
        with adapter.lease(resource):
            for question in ("one", "two"):
                assert await adapter.exchange(resource, question) == question


async def main() -> None:
    adapter = GatedAdapter(open="slow", slow=0.001)
    async with respool.open_pool(adapter, max_size=1) as pool:

        async def check() -> None:
            await ask_twice(pool, adapter)  # whoever comes next is served, and gets the right answers

        report = await cancel_everywhere(lambda: ask_twice(pool, adapter), check=check)
    print(f"cancelled at {report.points} points")
    assert adapter.faults == []
    assert adapter.present == 0


trio.run(main)
