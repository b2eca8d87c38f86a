"""A lease, and one row by its primary key: respool_postgres beside psycopg_pool, asyncpg, SQLAlchemy and threads.

Every connection is in autocommit mode, asyncpg's default. asyncpg's pool sends a reset query at each release unless
it is given another ``reset``; it is shown both ways, because the other pools do not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import psycopg
import trio

from tests.servers import PostgresServer

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Share

SIZE = 10
ROWS = 1000
QUERY = "SELECT price FROM item WHERE id = %s"


def price(key: int) -> int:
    return key * 7919 % 10007


@contextmanager
def server() -> Iterator[str]:
    with PostgresServer() as postgres:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE item (id integer PRIMARY KEY, price integer NOT NULL)")
            with connection.cursor() as cursor:
                rows = [(key, price(key)) for key in range(ROWS)]
                cursor.executemany("INSERT INTO item VALUES (%s, %s)", rows)
            connection.execute("VACUUM ANALYZE item")
        yield postgres.url


# The pools.


def open_respool(url: str, size: int) -> AbstractAsyncContextManager[Any]:
    from respool_postgres import PostgresAdapter

    import respool

    return respool.open_pool(PostgresAdapter(url, autocommit=True), min_size=size, max_size=size)


@asynccontextmanager
async def open_psycopg_pool(url: str, size: int) -> AsyncIterator[Any]:
    import psycopg_pool

    options = {"autocommit": True}
    async with psycopg_pool.AsyncConnectionPool(url, min_size=size, max_size=size, kwargs=options) as pool:
        await pool.wait()
        yield pool


def open_asyncpg(url: str, size: int, **options: Any) -> AbstractAsyncContextManager[Any]:
    import asyncpg

    pool: AbstractAsyncContextManager[Any] = asyncpg.create_pool(url, min_size=size, max_size=size, **options)
    return pool


@asynccontextmanager
async def open_sqlalchemy(url: str, size: int) -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"), pool_size=size, max_overflow=0)
    try:
        yield engine
    finally:
        await engine.dispose()


async def _no_reset(_: Any) -> None:
    pass


# A lease and nothing else.


def _lease(open_pool: Any, acquire: str, **options: Any) -> Any:
    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Any]:
        async with open_pool(url, SIZE, **options) as pool:
            borrow = getattr(pool, acquire)

            async def work(keys: Share) -> int:
                total = 0
                for key in keys:
                    async with borrow():
                        total += key
                return total

            yield work

    return contender


LEASES = (
    Contender("respool_postgres", _lease(open_respool, "acquire")),
    Contender("psycopg_pool, asyncio", _lease(open_psycopg_pool, "connection"), "asyncio"),
    Contender("psycopg_pool, uvloop", _lease(open_psycopg_pool, "connection"), "uvloop"),
    Contender("asyncpg, asyncio", _lease(open_asyncpg, "acquire"), "asyncio"),
    Contender("asyncpg, uvloop", _lease(open_asyncpg, "acquire"), "uvloop"),
    Contender("asyncpg, uvloop, no reset", _lease(open_asyncpg, "acquire", reset=_no_reset), "uvloop"),
    Contender("SQLAlchemy + asyncpg, asyncio", _lease(open_sqlalchemy, "connect"), "asyncio"),
    Contender("SQLAlchemy + asyncpg, uvloop", _lease(open_sqlalchemy, "connect"), "uvloop"),
)


# Looking whether a connection can be lent as it is.


@asynccontextmanager
async def look(url: str) -> AsyncIterator[Any]:
    from respool_postgres import PostgresAdapter

    adapter = PostgresAdapter(url, autocommit=True)
    connection = await adapter.open()

    async def work(keys: Share) -> int:
        return sum(key for key in keys if adapter.is_clean(connection))

    try:
        yield work
    finally:
        await adapter.close(connection)


@asynccontextmanager
async def ask(url: str) -> AsyncIterator[Any]:
    """psycopg_pool's way to find out, an option of it."""
    from psycopg_pool import AsyncConnectionPool

    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                await AsyncConnectionPool.check_connection(connection)
                total += key
            return total

        yield work


# One row by its key.


def _ask(borrow: Any) -> Any:
    """The work on psycopg's asynchronous connections, whatever loop they are on."""

    async def work(keys: Share) -> int:
        total = 0
        for key in keys:
            async with borrow() as connection:
                cursor = await connection.execute(QUERY, (key,))
                total += key * (await cursor.fetchone())[0]
        return total

    return work


def _ask_one(connection: Any) -> Any:
    async def work(keys: Share) -> int:
        total = 0
        for key in keys:
            cursor = await connection.execute(QUERY, (key,))
            total += key * (await cursor.fetchone())[0]
        return total

    return work


@asynccontextmanager
async def respool_postgres(url: str) -> AsyncIterator[Any]:
    async with open_respool(url, SIZE) as pool:
        yield _ask(pool.acquire)


@asynccontextmanager
async def respool_postgres_connection(url: str) -> AsyncIterator[Any]:
    from respool_postgres import Connection

    async with await Connection.connect(url, autocommit=True) as connection:
        yield _ask_one(connection)


@asynccontextmanager
async def psycopg_pool(url: str) -> AsyncIterator[Any]:
    async with open_psycopg_pool(url, SIZE) as pool:
        yield _ask(pool.connection)


@asynccontextmanager
async def psycopg_connection(url: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        yield _ask_one(connection)


def _asyncpg(**options: Any) -> Any:
    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Any]:
        async with open_asyncpg(url, SIZE, **options) as pool:

            async def work(keys: Share) -> int:
                total = 0
                for key in keys:
                    async with pool.acquire() as connection:
                        total += key * await connection.fetchval("SELECT price FROM item WHERE id = $1", key)
                return total

            yield work

    return contender


@contextmanager
def threads(url: str) -> Iterator[Any]:
    import psycopg_pool

    options = {"autocommit": True}
    with psycopg_pool.ConnectionPool(url, min_size=SIZE, max_size=SIZE, kwargs=options) as pool:
        pool.wait()

        def work(keys: Share) -> int:
            total = 0
            for key in keys:
                with pool.connection() as connection:
                    total += key * connection.execute(QUERY, (key,)).fetchone()[0]
            return total

        yield work


@asynccontextmanager
async def trio_threads(url: str) -> AsyncIterator[Any]:
    with threads(url) as ask:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                total += await trio.to_thread.run_sync(ask, [key])
            return total

        yield work


OTHERS = (
    Contender("psycopg_pool, asyncio", psycopg_pool, "asyncio"),
    Contender("psycopg_pool, uvloop", psycopg_pool, "uvloop"),
    Contender("asyncpg, asyncio", _asyncpg(), "asyncio"),
    Contender("asyncpg, uvloop", _asyncpg(), "uvloop"),
    Contender("asyncpg, uvloop, no reset", _asyncpg(reset=_no_reset), "uvloop"),
    Contender("psycopg_pool, threads", threads, "threads"),
    Contender("psycopg_pool, trio.to_thread", trio_threads),
)

BENCHMARKS = (
    Benchmark(
        name="is-clean",
        title="Look whether a Postgres connection can be lent as it is",
        contenders=(
            Contender("PostgresAdapter.is_clean", look),
            Contender("psycopg_pool's check, asyncio", ask, "asyncio"),
        ),
        server=server,
        goals=(Goal("PostgresAdapter.is_clean", "psycopg_pool's check, asyncio", 15, "cpu"),),
    ),
    Benchmark(
        name="lease-alone",
        title="Acquire and release a Postgres connection, one task",
        contenders=LEASES,
        server=server,
    ),
    Benchmark(
        name="lease-fifty",
        title=f"Acquire and release a Postgres connection, 50 tasks over {SIZE} connections",
        contenders=LEASES,
        tasks=50,
        server=server,
    ),
    Benchmark(
        name="row-fifty",
        title=f"One row by key, 50 tasks over {SIZE} Postgres connections",
        contenders=(Contender("respool_postgres", respool_postgres), *OTHERS),
        tasks=50,
        keys=ROWS,
        answer=price,
        server=server,
        goals=(
            Goal("respool_postgres", "psycopg_pool, asyncio", 1.7),
            Goal("respool_postgres", "asyncpg, uvloop", 1.0),
        ),
    ),
    Benchmark(
        name="row-alone",
        title="One row by key, one task",
        contenders=(
            Contender("respool_postgres", respool_postgres),
            Contender("respool_postgres, no pool", respool_postgres_connection),
            Contender("psycopg, no pool, asyncio", psycopg_connection, "asyncio"),
            *OTHERS,
        ),
        keys=ROWS,
        answer=price,
        server=server,
        goals=(
            Goal("respool_postgres", "psycopg_pool, asyncio", 1 / 1.15),
            Goal("respool_postgres, no pool", "psycopg, no pool, asyncio", 1 / 1.15),
        ),
    ),
)
