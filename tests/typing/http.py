"""What type checkers make of respool_http."""

from __future__ import annotations

from typing import assert_type

from respool_http import Connection, HTTPAdapter, Response

import respool


async def raw_connection() -> None:
    async with respool.open_pool(HTTPAdapter("https://localhost")) as pool, pool.acquire() as connection:
        assert_type(connection, Connection)
        async with connection.request("GET", "/") as response:
            assert_type(response, Response)
