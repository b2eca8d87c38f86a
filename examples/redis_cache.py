"""A cache in front of something slow: a thousand tasks, one connection, and each value is made only once."""

from __future__ import annotations

import os

import trio
from respool_redis import Redis, open_redis

URL = os.environ.get("RESPOOL_REDIS_URL", "redis://localhost/0")

made = 0


async def make_slowly(name: str) -> str:
    global made  # noqa: PLW0603
    made += 1
    await trio.sleep(0.05)
    return name.upper()


async def cached(redis: Redis, name: str) -> str:
    """What ``make_slowly`` returns, remembered for a minute. Whoever is first makes it; the others wait."""
    key = f"example:cache:{name}"
    if (value := await redis.get(key)) is not None:
        return str(value)
    async with redis.lock(f"{key}:lock", timeout=10, sleep=0.01):
        if (value := await redis.get(key)) is not None:
            return str(value)
        value = await make_slowly(name)
        await redis.set(key, value, ex=60)
        return value


async def main() -> None:
    async with open_redis(URL, decode_responses=True) as redis:
        await redis.delete(*[f"example:cache:name {n}" for n in range(10)])
        async with trio.open_nursery() as nursery:
            for n in range(1000):
                nursery.start_soon(cached, redis, f"name {n % 10}")
        print(f"1000 asked, {made} values made, {redis.pool.statistics().size} connection")


trio.run(main)
