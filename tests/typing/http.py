"""What type checkers make of respool_http."""

from __future__ import annotations

from typing import assert_type

from respool_http import Connection, HTTPAdapter, HTTPPool, Origin, Response, open_http_pool

import respool


async def raw_connection() -> None:
    async with respool.open_pool(HTTPAdapter("https://localhost")) as pool, pool.acquire() as connection:
        assert_type(connection, Connection)
        async with connection.request("GET", "/") as response:
            assert_type(response, Response)


async def pool_of_origins() -> None:
    async with open_http_pool(max_size=10, max_per_origin=2, instruments=[respool.Instrument()]) as pool:
        assert_type(pool, HTTPPool)
        assert_type(pool.connections, respool.KeyedPool[Origin, Connection])
        assert_type(await pool.request("GET", "https://localhost/"), Response)
        async with pool.stream("GET", "https://localhost/") as response:
            assert_type(response, Response)
        async with pool.acquire("https://localhost") as connection:
            assert_type(connection, Connection)
