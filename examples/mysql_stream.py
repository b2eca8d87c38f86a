"""Read a large result row by row, leave it half way, and find the connection in order."""

from __future__ import annotations

import os

import trio
from respool_mysql import MySQLAdapter, SSDictCursor

import respool

URL = os.environ.get("RESPOOL_MYSQL_URL", "mysql://root@localhost/test")
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT a.i FROM n a, n b"


async def main() -> None:
    async with respool.open_pool(MySQLAdapter(URL, autocommit=True), max_size=1) as pool:
        async with pool.acquire() as connection, connection.cursor(SSDictCursor) as cursor:
            await cursor.execute(NUMBERS)  # 810,000 rows, never more than a few thousand of them here
            async for row in cursor:
                if cursor.rownumber == 10_000:
                    print("enough after", row)
                    break

        async with pool.acquire() as connection:
            with trio.move_on_after(0.1):
                await connection.execute("SELECT SLEEP(60)")
            answer = await connection.execute("SELECT 'at once'")
            print("the next query is answered", await answer.fetchone())
        print("connections opened:", pool.statistics().opened)


trio.run(main)
