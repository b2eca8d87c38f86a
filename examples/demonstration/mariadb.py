"""A real MariaDB, started on a free port and thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pymysql
from respool_mysql import Connection, MySQLAdapter, connect

from tests.servers import MariaDBServer

from .servers import started
from .subject import ROWS, SLOWLY, Subject

TABLE = f"""
CREATE TABLE item (PRIMARY KEY (id))
SELECT seq AS id, seq * 7919 % 10007 AS price FROM seq_0_to_{ROWS - 1}
"""

USER = "demo"  # as whom the connections of this program log in

COUNT = f"""
SELECT COUNT(*), COUNT(IF(command = 'Query', 1, NULL))
FROM information_schema.processlist WHERE user = '{USER}'
"""


@asynccontextmanager
async def mariadb() -> AsyncIterator[Subject]:
    """The demo's subject."""
    async with started(MariaDBServer) as server:

        async def count() -> tuple[int, int]:
            async with await connect(server.url) as connection:
                row = await (await connection.execute(COUNT)).fetchone()
                return row[0], row[1]

        async with await connect(server.url) as connection:
            await connection.execute(TABLE)
            await connection.execute(f"GRANT ALL ON test.* TO {USER}@'%' IDENTIFIED BY ''")
            version = (await (await connection.execute("SELECT VERSION()")).fetchone())[0].partition("-")[0]
        yield Subject(
            title=f"MariaDB {version}",
            adapter=MySQLAdapter(server.url.replace("respool@", f"{USER}@"), autocommit=True),
            ask=_ask,
            ask_slowly=_ask_slowly,
            failures=(pymysql.MySQLError,),
            count=count,
            restart=server.restart_async,
            examples="mysql",
            url=server.url,
        )


async def _ask(connection: Connection, key: int) -> int:
    return await _number(connection, "SELECT price FROM item WHERE id = %s", (key,))


async def _ask_slowly(connection: Connection, key: int) -> int:
    return await _number(connection, "SELECT price, SLEEP(%s) FROM item WHERE id = %s", (SLOWLY, key))


async def _number(connection: Connection, query: str, values: tuple[float, ...]) -> int:
    cursor = await connection.execute(query, values)
    row = await cursor.fetchone()
    return int(row[0])
