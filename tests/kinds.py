"""The four adapters and their real servers, each with one question to ask: for tests that do the same with all of them.

Not imported by anything that must work without the adapters installed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import psycopg
import pymysql
import redis
import respool_http
import respool_mysql
import respool_postgres
import respool_redis

from respool.abc import Adapter
from tests.servers import MariaDBServer, NginxServer, PostgresServer, RedisServer, Server

__all__ = ["KINDS", "Kind"]


@attrs.frozen(kw_only=True)
class Kind:
    """One adapter and its server."""

    name: str
    server: Callable[[], Server]
    """Makes a server of its own."""
    adapter: Callable[[str], Adapter[Any]]
    """Makes an adapter from a server's URL."""
    ask: Callable[[Any, str], Awaitable[str]]
    """Sends a question on a connection, and returns the answer: the question."""
    error: type[Exception]
    """What its users must expect when the server or the network fails, besides the pool's own errors."""
    recovers: bool = True
    """Whether a connection outlives an exchange that was cut off."""
    stoppers: int = 0
    """Connections besides the pool's own, at most, by which queries are stopped; for each four of the pool."""


async def _ask_postgres(connection: respool_postgres.Connection, question: str) -> str:
    cursor = await connection.execute("SELECT %s::text", [question])
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


async def _ask_mysql(connection: respool_mysql.Connection, question: str) -> str:
    cursor = await connection.execute("SELECT %s", [question])
    ((answer,),) = await cursor.fetchall()
    return str(answer)


async def _ask_redis(connection: respool_redis.Connection, question: str) -> str:
    answer = await connection.echo(question)
    return answer if isinstance(answer, str) else answer.decode()


async def _ask_http(connection: respool_http.Connection, question: str) -> str:
    async with connection.request("GET", f"/echo?{question.replace(' ', '-')}") as response:
        return (await response.aread()).decode().replace("-", " ")


KINDS = [
    Kind(
        name="postgres",
        server=PostgresServer,
        adapter=respool_postgres.PostgresAdapter.from_url,
        ask=_ask_postgres,
        error=psycopg.Error,
        stoppers=4,
    ),
    Kind(
        name="mysql",
        server=MariaDBServer,
        adapter=respool_mysql.MySQLAdapter.from_url,
        ask=_ask_mysql,
        error=pymysql.MySQLError,
        stoppers=1,
    ),
    Kind(
        name="redis",
        server=RedisServer,
        adapter=respool_redis.RedisAdapter.from_url,
        ask=_ask_redis,
        error=redis.RedisError,
    ),
    Kind(
        name="http",
        server=NginxServer,
        adapter=respool_http.HTTPAdapter.from_url,
        ask=_ask_http,
        error=respool_http.HTTPError,
        recovers=False,  # HTTP/1.1 has no way to go on in the middle of an exchange
    ),
]
