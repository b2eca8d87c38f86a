"""A real PostgreSQL, started on a free port and thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, LiteralString

from tests.servers import PostgresServer

from .servers import started
from .subject import ROWS, SLOWLY, Subject, Unavailable

if TYPE_CHECKING:
    from respool_postgres import Connection

NAME = "respool demo"  # what the connections of this program call themselves on the server

TABLE = f"""
CREATE TABLE item AS SELECT key, key * 7919 % 10007 AS price FROM generate_series(0, {ROWS - 1}) AS key;
ALTER TABLE item ADD PRIMARY KEY (key);
"""

COUNT = """
SELECT count(*), count(*) FILTER (WHERE state = 'active')
FROM pg_stat_activity WHERE application_name = %s AND pid != pg_backend_pid()
"""


@asynccontextmanager
async def postgres() -> AsyncIterator[Subject]:
    """The demo's subject."""
    try:
        import psycopg  # noqa: PLC0415  # it may lack its C library
        from respool_postgres import Connection, PostgresAdapter  # noqa: PLC0415
    except ImportError as error:
        raise Unavailable("psycopg finds no libpq: apt-get install libpq5, or pip install psycopg[binary]") from error
    async with started(PostgresServer) as server:

        async def count() -> tuple[int, int]:
            async with await Connection.connect(server.url) as connection:
                row = await (await connection.execute(COUNT, (NAME,))).fetchone()
                assert row is not None
                return row[0], row[1]

        async with await Connection.connect(server.url) as connection:
            await connection.execute(TABLE)
            version = connection.info.server_version // 10000
        yield Subject(
            title=f"PostgreSQL {version}",
            adapter=PostgresAdapter(server.url, application_name=NAME),
            ask=_ask,
            ask_slowly=_ask_slowly,
            failures=(psycopg.Error,),
            count=count,
            restart=server.restart_async,
            examples="postgres",
            url=server.url,
        )


async def _ask(connection: Connection[Any], key: int) -> int:
    return await _number(connection, "SELECT price FROM item WHERE key = %s", (key,))


async def _ask_slowly(connection: Connection[Any], key: int) -> int:
    return await _number(connection, "SELECT price FROM item, pg_sleep(%s) WHERE key = %s", (SLOWLY, key))


async def _number(connection: Connection[Any], query: LiteralString, values: tuple[float, ...]) -> int:
    cursor = await connection.execute(query, values)
    row = await cursor.fetchone()
    assert row is not None
    number: int = row[0]
    return number
