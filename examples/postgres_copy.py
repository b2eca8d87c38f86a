"""Load rows with COPY, and read them back as dictionaries, in one round trip each."""

from __future__ import annotations

import os

import trio
from psycopg.rows import dict_row
from respool_postgres import PostgresAdapter

import respool

URL = os.environ.get("RESPOOL_POSTGRES_URL", "postgresql://postgres@localhost/postgres")


async def main() -> None:
    async with (
        respool.open_pool(PostgresAdapter(URL, row_factory=dict_row), max_size=2) as pool,
        pool.acquire() as connection,
    ):
        await connection.execute("CREATE TEMP TABLE example_item (id int, name text)")
        async with connection.cursor() as cursor, cursor.copy("COPY example_item FROM STDIN") as copy:
            for i in range(100_000):
                await copy.write_row((i, f"item {i}"))
        cursor = await connection.execute("SELECT count(*) AS rows, max(name) AS last FROM example_item")
        print(await cursor.fetchone())
        await connection.execute("DROP TABLE example_item")


trio.run(main)
