"""An httpx2 program on a pool: one line is different, the rest is as it was.

Set RESPOOL_HTTP_URL to a server's URL. For httpx, write httpx where this says httpx2.
"""

from __future__ import annotations

import os
import sys

import httpx2
import respool_http
import trio
from respool_http.httpx2 import PoolTransport

URL = os.environ.get("RESPOOL_HTTP_URL") or sys.exit("Set RESPOOL_HTTP_URL to a server's URL: http://127.0.0.1:8000")


async def main() -> None:
    async with (
        respool_http.open_http_pool(max_per_origin=10) as pool,
        httpx2.AsyncClient(transport=PoolTransport(pool), base_url=URL) as client,  # this one
    ):
        response = await client.get("/")
        print(f"{response.http_version} {response.status_code}: {response.text!r}")

        async with client.stream("GET", "/") as response:
            async for line in response.aiter_lines():
                print(f"streamed: {line!r}")

        async def fetch() -> None:
            (await client.get("/")).raise_for_status()

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(fetch)
        print(f"102 requests over {pool.connections.statistics().size} connections")


trio.run(main)
