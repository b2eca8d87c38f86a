"""What type checkers make of respool_postgres: rows have the type that the row factory gives them."""

from __future__ import annotations

from typing import Any, assert_type

import attrs
from psycopg.rows import DictRow, TupleRow, class_row, dict_row
from respool_postgres import Connection, PostgresAdapter

import respool


@attrs.frozen
class Item:
    name: str


async def tuples() -> None:
    adapter = PostgresAdapter("postgresql://localhost/shop", sslmode="disable")
    assert_type(adapter, PostgresAdapter[TupleRow])
    async with respool.open_pool(adapter) as pool, pool.acquire() as connection:
        assert_type(connection, Connection[TupleRow])
        cursor = await connection.execute("SELECT name FROM item WHERE id = %s", (42,))
        assert_type(await cursor.fetchone(), tuple[Any, ...] | None)


async def dictionaries() -> None:
    adapter = PostgresAdapter(row_factory=dict_row)
    async with respool.open_pool(adapter, max_size=10) as pool, pool.acquire() as connection:
        assert_type(connection, Connection[DictRow])
        cursor = await connection.execute("SELECT 1")
        assert_type(await cursor.fetchall(), list[dict[str, Any]])


async def objects() -> None:
    adapter = PostgresAdapter(row_factory=class_row(Item))
    async with respool.open_pool(adapter) as pool, pool.acquire() as connection:
        cursor = await connection.execute("SELECT name FROM item")
        assert_type(await cursor.fetchone(), Item | None)
        async for item in cursor:
            assert_type(item, Item)


async def alone() -> None:
    async with await Connection.connect("postgresql://localhost/shop") as connection:
        assert_type(connection, Connection[TupleRow])
