"""Fifty tasks move money between accounts over five connections. Some lose patience; no money is lost."""

from __future__ import annotations

import os

import trio
from respool_mysql import Connection, MySQLAdapter

import respool

URL = os.environ.get("RESPOOL_MYSQL_URL", "mysql://root@localhost/test")


async def transfer(pool: respool.Pool[Connection], amount: int, patience: float) -> None:
    with trio.move_on_after(patience):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE example_account SET balance = balance - %s WHERE id = 1", (amount,))
            await connection.execute("UPDATE example_account SET balance = balance + %s WHERE id = 2", (amount,))


async def main() -> None:
    async with respool.open_pool(MySQLAdapter(URL, autocommit=True), max_size=5) as pool:
        async with pool.acquire() as connection:
            await connection.execute("CREATE OR REPLACE TABLE example_account (id INT PRIMARY KEY, balance INT)")
            await connection.execute("INSERT INTO example_account VALUES (1, 1000), (2, 1000)")

        async with trio.open_nursery() as nursery:
            for i in range(50):
                nursery.start_soon(transfer, pool, i, i / 1000)

        async with pool.acquire() as connection:
            cursor = await connection.execute("SELECT SUM(balance) FROM example_account")
            print("sum of the balances:", await cursor.fetchone())
            await connection.execute("DROP TABLE example_account")
        print("connections opened:", pool.statistics().opened)


trio.run(main)
