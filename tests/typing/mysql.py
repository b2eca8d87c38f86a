"""What type checkers make of respool_mysql: rows have the type that the cursor's class gives them."""

from __future__ import annotations

from typing import Any, assert_type

from respool_mysql import Connection, DictCursor, MySQLAdapter, connect

import respool


async def rows() -> None:
    adapter = MySQLAdapter("mysql://localhost/shop")
    async with respool.open_pool(adapter, max_size=10) as pool, pool.acquire() as connection:
        assert_type(connection, Connection)
        cursor = await connection.execute("SELECT name FROM item WHERE id = %s", (42,))
        assert_type(await cursor.fetchone(), Any | None)
        async with connection.cursor(DictCursor) as dictionaries:
            assert_type(dictionaries, DictCursor)
            assert_type(await dictionaries.execute("SELECT 1"), int)
            assert_type(await dictionaries.fetchone(), dict[str, Any] | None)


async def alone() -> None:
    assert_type(await connect(host="localhost", user="app"), Connection)
