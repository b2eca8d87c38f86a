"""Fifty tasks move money between accounts over five connections. Some lose patience; no money is lost."""

from __future__ import annotations

import os

import trio
from respool_postgres import Connection, PostgresAdapter

import respool

URL = os.environ.get("RESPOOL_POSTGRES_URL", "postgresql://postgres@localhost/postgres")


async def configure(connection: Connection) -> None:
    await connection.execute("SET statement_timeout = '5s'")


async def transfer(pool: respool.Pool[Connection], amount: int, patience: float) -> None:
    with trio.move_on_after(patience):
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("UPDATE example_account SET balance = balance - %s WHERE id = 1", (amount,))
            await connection.execute("UPDATE example_account SET balance = balance + %s WHERE id = 2", (amount,))


async def main() -> None:
    async with respool.open_pool(PostgresAdapter(URL, configure=configure), max_size=5) as pool:
        async with pool.acquire() as connection:
            await connection.execute("DROP TABLE IF EXISTS example_account")
            await connection.execute(
                "CREATE TABLE example_account AS SELECT id, 1000 AS balance FROM generate_series(1, 2) id"
            )

        async with trio.open_nursery() as nursery:
            for i in range(50):
                nursery.start_soon(transfer, pool, i, i / 1000)

        async with pool.acquire() as connection:
            cursor = await connection.execute("SELECT sum(balance), max(balance) FROM example_account")
            print("sum and largest balance:", await cursor.fetchone())
            await connection.execute("DROP TABLE example_account")
        print("connections opened:", pool.statistics().opened)


trio.run(main)
