"""Publish, and listen to it, on connections of the pool's."""

from __future__ import annotations

import os

import trio
from respool_redis import Redis, open_redis

URL = os.environ.get("RESPOOL_REDIS_URL", "redis://localhost/0")


async def listen(redis: Redis, task_status: trio.TaskStatus[None]) -> None:
    async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
        await subscription.psubscribe("example:news:*")
        await subscription.get_message(timeout=5)  # the confirmation: from here on nothing is missed
        task_status.started()
        async for message in subscription:
            print(message["channel"], message["data"])
            if message["data"] == "the end":
                return


async def main() -> None:
    async with open_redis(URL, decode_responses=True) as redis, trio.open_nursery() as nursery:
        await nursery.start(listen, redis)
        await redis.publish("example:news:weather", "sunny")
        await redis.publish("example:news:sport", "the end")


trio.run(main)
