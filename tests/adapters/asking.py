"""What tests of several databases ask in the same way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio

import respool

__all__ = ["every_resource_works", "value"]

T = TypeVar("T")


async def value(connection: Any, query: str, *args: Any) -> Any:
    """The only column of the only row."""
    cursor = await connection.execute(query, args or None)
    ((answer,),) = await cursor.fetchall()
    return answer


async def every_resource_works(
    pool: respool.Pool[T], ask: Callable[[T, int], Awaitable[None]], error: type[Exception]
) -> None:
    """Return when as many tasks as the pool may have resources have asked at once, and none of them got an `error`."""
    with trio.fail_after(10):
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    for i in range(pool.statistics().max_size):

                        @nursery.start_soon
                        async def _(i: int = i) -> None:
                            async with pool.acquire() as resource:
                                await ask(resource, i)

            except* (error, respool.PoolError):
                await trio.sleep(0.02)
            else:
                return
