"""Let each user in five times a second, wherever the requests arrive: a Lua script decides on the server."""

from __future__ import annotations

import os

import trio
from respool_redis import open_redis

URL = os.environ.get("RESPOOL_REDIS_URL", "redis://localhost/0")

ALLOW = """
local used = redis.call('incr', KEYS[1])
if used == 1 then redis.call('pexpire', KEYS[1], ARGV[2]) end
return used <= tonumber(ARGV[1])
"""


async def main() -> None:
    async with open_redis(URL) as redis:
        allow = redis.register_script(ALLOW)
        let_in = {"ann": 0, "bob": 0}

        async def request(user: str) -> None:
            if await allow(keys=[f"example:rate:{user}"], args=[5, 1000]):
                let_in[user] += 1

        await redis.delete("example:rate:ann", "example:rate:bob")
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(request, "ann")
            for _ in range(3):
                nursery.start_soon(request, "bob")
        print("let in:", let_in)


trio.run(main)
