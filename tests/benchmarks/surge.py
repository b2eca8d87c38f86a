"""What is left of ten resources' capacity when up to five times as many callers come as they can serve.

Each use takes 10 ms, each caller has 200 ms to live. First with nothing behind the resources, then with Postgres
doing ``pg_sleep``. Callers give up as their library's users do: `trio.move_on_after`, `asyncio.timeout`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

import respool

from . import postgres
from ._contender import Contender
from ._surge import RESOURCES, USE, Surge


@asynccontextmanager
async def respool_pool(_: str) -> AsyncIterator[Any]:
    async def open_object() -> object:
        return object()

    async def close_object(_: object) -> None:
        pass

    # An object is as good as new whatever became of its borrower.
    adapter = respool.adapter(open=open_object, close=close_object, verdict=lambda _: respool.Verdict.KEEP)
    async with respool.open_pool(adapter, min_size=RESOURCES, max_size=RESOURCES) as pool:

        async def use() -> None:
            async with pool.acquire():
                await trio.sleep(USE)

        yield use


@asynccontextmanager
async def capacity_limiter(_: str) -> AsyncIterator[Any]:
    limiter = trio.CapacityLimiter(RESOURCES)

    async def use() -> None:
        async with limiter:
            await trio.sleep(USE)

    yield use


def _sleeping(open_pool: Any, acquire: str) -> Any:
    """A contender whose connections have Postgres sleep. They all have ``execute``."""

    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Any]:
        async with open_pool(url, RESOURCES) as pool:
            borrow = getattr(pool, acquire)

            async def use() -> None:
                async with borrow() as connection:
                    await connection.execute(f"SELECT pg_sleep({USE})")

            yield use

    return contender


BENCHMARKS = (
    Surge(
        name="kernel",
        title="A surge on ten resources",
        contenders=(Contender("respool", respool_pool), Contender("trio.CapacityLimiter", capacity_limiter)),
        ours=("respool",),
    ),
    Surge(
        name="postgres",
        title="A surge on ten Postgres connections",
        contenders=(
            Contender("respool_postgres", _sleeping(postgres.open_respool, "acquire")),
            Contender("psycopg_pool, asyncio", _sleeping(postgres.open_psycopg_pool, "connection"), "asyncio"),
            Contender("asyncpg, asyncio", _sleeping(postgres.open_asyncpg, "acquire"), "asyncio"),
            Contender("asyncpg, uvloop", _sleeping(postgres.open_asyncpg, "acquire"), "uvloop"),
        ),
        server=postgres.server,
        ours=("respool_postgres",),
    ),
)
