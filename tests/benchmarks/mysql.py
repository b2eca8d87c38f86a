"""One row by its primary key, 1,000 rows, and a stream of 100,000: respool_mysql beside aiomysql, asyncmy and threads.

asyncmy's protocol code is compiled (Cython); everybody else's is Python. Every connection is in autocommit mode.
PyMySQL has no pool: its threads borrow from a queue.
"""

from __future__ import annotations

import importlib
import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from tests.servers import MariaDBServer

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Share

SIZE = 10
ROWS = 1000
LONG = 100_000
QUERY = "SELECT id, name, price, added FROM item WHERE id = %s"
MANY = "SELECT id, name, price, added FROM item WHERE id >= %s ORDER BY id LIMIT 1000"
STREAM = "SELECT seq + %s FROM seq_1_to_100000"


def price(key: int) -> int:
    return key * 7919 % 10007


def many(key: int) -> int:
    return sum(price(i) for i in range(key, key + 1000))


def stream(key: int) -> int:
    return LONG * (LONG + 1) // 2 + key * LONG


def place(url: str) -> dict[str, Any]:
    """What all drivers take."""
    parts = urlsplit(url)
    return {"host": parts.hostname, "port": parts.port, "user": parts.username, "password": "", "autocommit": True}


@contextmanager
def server() -> Iterator[str]:
    import pymysql

    with MariaDBServer(settings={"innodb_buffer_pool_size": "64M"}) as mariadb:
        with pymysql.connect(**place(mariadb.url), database="test") as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(50), price INT, added DATETIME)")
            rows = [(key, f"item {key}", price(key)) for key in range(2 * ROWS)]
            cursor.executemany("INSERT INTO item VALUES (%s, %s, %s, '2024-02-29 12:00:00')", rows)
            cursor.execute("ANALYZE TABLE item")
        yield mariadb.url


# Opening a pool, and what to do with a cursor.


def open_respool(url: str) -> AbstractAsyncContextManager[Any]:
    from respool_mysql import MySQLAdapter

    import respool

    return respool.open_pool(MySQLAdapter(url, autocommit=True), min_size=SIZE, max_size=SIZE)


def _open(package: str) -> Any:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Any]:
        create_pool = importlib.import_module(package).create_pool
        pool = await create_pool(**place(url), db="test", minsize=SIZE, maxsize=SIZE)
        try:
            yield pool
        finally:
            pool.close()
            await pool.wait_closed()

    return opened


async def one_row(cursor: Any, key: int) -> int:
    await cursor.execute(QUERY, (key,))
    row = await cursor.fetchone()
    return int(row[2])


async def many_rows(cursor: Any, key: int) -> int:
    await cursor.execute(MANY, (key,))
    return sum(row[2] for row in await cursor.fetchall())


async def streamed_rows(cursor: Any, key: int) -> int:
    await cursor.execute(STREAM, (key,))
    total = 0
    async for row in cursor:
        total += row[0]
    return total


def _contender(open_pool: Any, ask: Any, cursor_class: str = "") -> Any:
    """``cursor_class``: ``package:Class``, for another than the default."""

    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Any]:
        package, _, name = cursor_class.partition(":")
        kinds = [getattr(importlib.import_module(package), name)] if name else []
        async with open_pool(url) as pool:

            async def work(keys: Share) -> int:
                total = 0
                for key in keys:
                    async with pool.acquire() as connection, connection.cursor(*kinds) as cursor:
                        total += key * await ask(cursor, key)
                return total

            yield work

    return contender


def _threads(query: str) -> Any:
    @contextmanager
    def threads(url: str) -> Iterator[Any]:
        import pymysql

        idle: queue.LifoQueue[Any] = queue.LifoQueue()
        for _ in range(SIZE):
            idle.put(pymysql.connect(**place(url), database="test"))

        def work(keys: Share) -> int:
            total = 0
            for key in keys:
                connection = idle.get()
                try:
                    with connection.cursor() as cursor:
                        cursor.execute(query, (key,))
                        total += key * sum(row[2] for row in cursor.fetchall())
                finally:
                    idle.put(connection)
            return total

        try:
            yield work
        finally:
            while not idle.empty():
                idle.get().close()

    return threads


def _trio_threads(query: str) -> Any:
    @asynccontextmanager
    async def trio_threads(url: str) -> AsyncIterator[Any]:
        limiter = trio.CapacityLimiter(SIZE)
        with _threads(query)(url) as ask:

            async def work(keys: Share) -> int:
                total = 0
                for key in keys:
                    total += await trio.to_thread.run_sync(ask, [key], limiter=limiter)
                return total

            yield work

    return trio_threads


def _contenders(ask: Any, query: str) -> tuple[Contender, ...]:
    return (
        Contender("respool_mysql", _contender(open_respool, ask)),
        Contender("aiomysql, asyncio", _contender(_open("aiomysql"), ask), "asyncio"),
        Contender("aiomysql, uvloop", _contender(_open("aiomysql"), ask), "uvloop"),
        Contender("asyncmy, asyncio", _contender(_open("asyncmy"), ask), "asyncio"),
        Contender("asyncmy, uvloop", _contender(_open("asyncmy"), ask), "uvloop"),
        Contender("PyMySQL, threads", _threads(query), "threads"),
        Contender("PyMySQL, trio.to_thread", _trio_threads(query)),
    )


BENCHMARKS = (
    Benchmark(
        name="row-fifty",
        title=f"One row by key, 50 tasks over {SIZE} MariaDB connections",
        contenders=_contenders(one_row, QUERY),
        tasks=50,
        keys=ROWS,
        answer=price,
        server=server,
        goals=(
            Goal("respool_mysql", "PyMySQL, trio.to_thread", 3.5),
            Goal("respool_mysql", "aiomysql, asyncio", 1.3),
            Goal("respool_mysql", "aiomysql, uvloop", 1.3),
        ),
    ),
    Benchmark(
        name="row-alone",
        title="One row by key, one task",
        contenders=_contenders(one_row, QUERY),
        keys=ROWS,
        answer=price,
        server=server,
    ),
    Benchmark(
        name="thousand-rows",
        title=f"A result of 1,000 rows and 4 columns, 10 tasks over {SIZE} MariaDB connections",
        contenders=_contenders(many_rows, MANY),
        tasks=10,
        keys=ROWS,
        answer=many,
        server=server,
    ),
    Benchmark(
        name="stream",
        title="A result of 100,000 rows, streamed row by row, one task",
        contenders=(
            Contender("respool_mysql", _contender(open_respool, streamed_rows, "respool_mysql:SSCursor")),
            Contender(
                "aiomysql, asyncio", _contender(_open("aiomysql"), streamed_rows, "aiomysql:SSCursor"), "asyncio"
            ),
            Contender(
                "asyncmy, asyncio", _contender(_open("asyncmy"), streamed_rows, "asyncmy.cursors:SSCursor"), "asyncio"
            ),
        ),
        keys=5,
        answer=stream,
        server=server,
    ),
)
