"""What cancelled tasks cost everybody else: our four adapters beside nine other pools.

Each contender opens its library's pool of the given size as its documentation does, and leaves everything else as it
is by default. A use is a lease and one question in it; the answer must be the question. HTTP is served by a server of
our own, which can hold answers back: some clients give a connection back as soon as its answer is in.
"""

from __future__ import annotations

import importlib
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any

import attrs
import trio

import respool
from tests.servers import MariaDBServer, PostgresServer, RedisServer

from ._contender import Contender, LoopName
from ._losing import Borrowing, Losing
from .mysql import place

PATIENCE = 5  # seconds that an acquire may take


def _contender(name: str, opened: Any, loop: LoopName = "trio") -> Contender:
    return Contender(name, lambda url: partial(opened, url), loop)


def _ours(adapter_from_url: Any, ask: Any, sleep: Any = None) -> Any:
    @asynccontextmanager
    async def opened(url: str, size: int) -> AsyncIterator[Borrowing]:
        async with respool.open_pool(adapter_from_url(url), max_size=size, acquire_timeout=PATIENCE) as pool:
            yield attrs.evolve(_borrowing(pool.acquire, ask, sleep), opened=lambda: pool.statistics().opened)

    return opened


def _borrowing(borrow: Any, ask: Any, sleep: Any = None) -> Borrowing:
    """From an acquire, and functions of a connection."""

    @asynccontextmanager
    async def use(question: str) -> AsyncIterator[str]:
        async with borrow() as connection:
            yield await ask(connection, question)

    async def sleeping(seconds: float) -> None:
        async with borrow() as connection:
            await sleep(connection, seconds)

    return Borrowing(use=use, sleep=sleeping if sleep else None)


# Postgres.


@contextmanager
def postgres_server() -> Iterator[str]:
    with PostgresServer() as server:
        yield server.url


def busy_postgres(url: str) -> int:
    import psycopg

    with psycopg.connect(url) as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> "
        row = connection.execute(busy + "pg_backend_pid()").fetchone()
        assert row is not None
        return int(row[0])


async def _ask_psycopg(connection: Any, question: str) -> str:
    cursor = await connection.execute("SELECT %s::text", [question])
    return str((await cursor.fetchone())[0])


async def _sleep_psycopg(connection: Any, seconds: float) -> None:
    await connection.execute("SELECT pg_sleep(%s)", [seconds])


def respool_postgres() -> Any:
    from respool_postgres import PostgresAdapter

    return _ours(PostgresAdapter, _ask_psycopg, _sleep_psycopg)


@asynccontextmanager
async def psycopg_pool(url: str, size: int) -> AsyncIterator[Borrowing]:
    from psycopg_pool import AsyncConnectionPool

    pool = AsyncConnectionPool(url, min_size=0, max_size=size, timeout=PATIENCE, open=False)
    await pool.open()
    yield _borrowing(pool.connection, _ask_psycopg, _sleep_psycopg)
    await pool.close(timeout=1)


@asynccontextmanager
async def asyncpg(url: str, size: int) -> AsyncIterator[Borrowing]:
    import asyncpg

    async def ask(connection: Any, question: str) -> str:
        return str(await connection.fetchval("SELECT $1::text", question))

    async def sleep(connection: Any, seconds: float) -> None:
        await connection.fetchval("SELECT pg_sleep($1)", seconds)

    pool = await asyncpg.create_pool(url, min_size=0, max_size=size)
    yield _borrowing(partial(pool.acquire, timeout=PATIENCE), ask, sleep)
    pool.terminate()


def _sqlalchemy(driver: str) -> Any:
    @asynccontextmanager
    async def opened(url: str, size: int) -> AsyncIterator[Borrowing]:
        from sqlalchemy import text
        from sqlalchemy.ext.asyncio import create_async_engine

        async def ask(connection: Any, question: str) -> str:
            return str(
                (await connection.execute(text("SELECT CAST(:question AS text)"), {"question": question})).scalar()
            )

        async def sleep(connection: Any, seconds: float) -> None:
            await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

        address = url.replace("postgresql:", f"postgresql+{driver}:")
        engine = create_async_engine(address, pool_size=size, max_overflow=0, pool_timeout=PATIENCE)
        yield _borrowing(engine.connect, ask, sleep)
        await engine.dispose()

    return opened


# MySQL.


@contextmanager
def mariadb_server() -> Iterator[str]:
    with MariaDBServer() as server:
        yield server.url


def busy_mysql(url: str) -> int:
    import pymysql

    with pymysql.connect(**place(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(%'")
        return int(cursor.fetchone()[0])


async def _ask_mysql(connection: Any, question: str) -> str:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT %s", (question,))
        return str((await cursor.fetchone())[0])


async def _sleep_mysql(connection: Any, seconds: float) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT SLEEP(%s)", (seconds,))


def respool_mysql() -> Any:
    from respool_mysql import MySQLAdapter

    return _ours(MySQLAdapter, _ask_mysql, _sleep_mysql)


def _like_aiomysql(package: str) -> Any:
    @asynccontextmanager
    async def opened(url: str, size: int) -> AsyncIterator[Borrowing]:
        create_pool = importlib.import_module(package).create_pool
        pool = await create_pool(**place(url), db="test", minsize=0, maxsize=size)
        yield _borrowing(pool.acquire, _ask_mysql, _sleep_mysql)
        pool.terminate() if hasattr(pool, "terminate") else pool.close()
        await pool.wait_closed()

    return opened


# Redis.


@contextmanager
def redis_server() -> Iterator[str]:
    with RedisServer() as server:
        yield server.url


async def _ask_redis(connection: Any, question: str) -> str:
    answer = await connection.echo(question)
    return answer if isinstance(answer, str) else str(answer.decode())


def respool_redis() -> Any:
    from respool_redis import RedisAdapter

    return _ours(RedisAdapter, _ask_redis)


@asynccontextmanager
async def redis_asyncio(url: str, size: int) -> AsyncIterator[Borrowing]:
    import redis.asyncio

    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=size, timeout=PATIENCE)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        yield _borrowing(client.client, _ask_redis)


@asynccontextmanager
async def coredis(url: str, size: int) -> AsyncIterator[Borrowing]:
    import coredis

    async def ask(connection: Any, question: str) -> str:
        return str((await connection.create_request(b"ECHO", question)).decode())

    pool = coredis.ConnectionPool.from_url(url, max_connections=size, timeout=PATIENCE)
    async with pool:
        yield _borrowing(pool.acquire, ask)


# HTTP.


@contextmanager
def http_server() -> Iterator[str]:
    """Answers a GET with its path; such as ``/look-7-4-1`` only when four that begin with ``/look-7-4`` have come."""
    addresses: list[str] = []
    started = threading.Event()
    looks: Counter[str] = Counter()
    complete: dict[str, trio.Event] = {}

    async def answer(stream: trio.SocketStream) -> None:
        buffer = b""
        async for data in stream:
            buffer += data
            while b"\r\n\r\n" in buffer:
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                path = head.split(b" ")[1].decode()
                if path.startswith("/look-"):
                    await together(path.rpartition("-")[0])
                body = path.encode()
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def together(look: str) -> None:
        looks[look] += 1
        event = complete.setdefault(look, trio.Event())
        if looks[look] == int(look.rpartition("-")[2]):
            event.set()
        await event.wait()

    async def serve_client(stream: trio.SocketStream) -> None:
        try:
            await answer(stream)
        except trio.BrokenResourceError:
            pass  # a client that was cancelled
        finally:
            await trio.aclose_forcefully(stream)

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(partial(trio.serve_tcp, serve_client, 0, host="127.0.0.1"))
            addresses.append(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
            stop.append(partial(trio.lowlevel.current_trio_token().run_sync_soon, nursery.cancel_scope.cancel))
            started.set()

    stop: list[Any] = []
    thread = threading.Thread(target=trio.run, args=(serve,), name="http server")
    thread.start()
    started.wait()
    yield addresses[0]
    stop[0]()
    thread.join()


def respool_http() -> Any:
    from respool_http import HTTPAdapter

    async def ask(connection: Any, question: str) -> str:
        async with connection.request("GET", f"/{question}") as response:
            return str((await response.aread()).decode()[1:])

    return _ours(HTTPAdapter, ask)


def _httpcore(package: str) -> Any:
    @asynccontextmanager
    async def opened(url: str, size: int) -> AsyncIterator[Borrowing]:
        core = importlib.import_module(package)
        async with core.AsyncConnectionPool(max_connections=size, max_keepalive_connections=size) as pool:

            @asynccontextmanager
            async def use(question: str) -> AsyncIterator[str]:
                timeout = {"timeout": {"pool": PATIENCE}}
                async with pool.stream("GET", f"{url}/{question}", extensions=timeout) as response:
                    yield (await response.aread()).decode()[1:]

            yield Borrowing(use=use)

    return opened


@asynccontextmanager
async def aiohttp(url: str, size: int) -> AsyncIterator[Borrowing]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=size)) as session:

        @asynccontextmanager
        async def use(question: str) -> AsyncIterator[str]:
            async with session.get(f"{url}/{question}") as response:
                yield (await response.read()).decode()[1:]

        yield Borrowing(use=use)


def _imported_late(opened: Any) -> Any:
    """Adapters are imported in the process that measures them."""
    return lambda url, size: opened()(url, size)


BENCHMARKS = (
    Losing(
        name="postgres",
        title="What is lost when tasks are cancelled: Postgres",
        contenders=(
            _contender("respool_postgres", _imported_late(respool_postgres)),
            _contender("asyncpg", asyncpg, "asyncio"),
            _contender("psycopg_pool", psycopg_pool, "asyncio"),
            _contender("SQLAlchemy + psycopg", _sqlalchemy("psycopg"), "asyncio"),
            _contender("SQLAlchemy + asyncpg", _sqlalchemy("asyncpg"), "asyncio"),
        ),
        server=postgres_server,
        busy=busy_postgres,
        ours=("respool_postgres",),
    ),
    Losing(
        name="mysql",
        title="What is lost when tasks are cancelled: MariaDB",
        contenders=(
            _contender("respool_mysql", _imported_late(respool_mysql)),
            _contender("aiomysql", _like_aiomysql("aiomysql"), "asyncio"),
            _contender("asyncmy", _like_aiomysql("asyncmy"), "asyncio"),
        ),
        server=mariadb_server,
        busy=busy_mysql,
        ours=("respool_mysql",),
    ),
    Losing(
        name="redis",
        title="What is lost when tasks are cancelled: Redis",
        contenders=(
            _contender("respool_redis", _imported_late(respool_redis)),
            _contender("redis.asyncio", redis_asyncio, "asyncio"),
            _contender("coredis, trio", coredis),
        ),
        server=redis_server,
        ours=("respool_redis",),
    ),
    Losing(
        name="http",
        title="What is lost when tasks are cancelled: HTTP/1.1",
        contenders=(
            _contender("respool_http", _imported_late(respool_http)),
            _contender("httpcore, trio", _httpcore("httpcore")),
            _contender("httpcore2, trio", _httpcore("httpcore2")),
            _contender("aiohttp", aiohttp, "asyncio"),
        ),
        server=http_server,
        ours=("respool_http",),
        remade=1.0,  # there is no way to go on with HTTP/1.1 in the middle of an exchange
    ),
)
