"""Results that are read whole are bounded; what does not pile up in memory is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from psycopg import errors as e
from respool_postgres import Connection, PostgresAdapter

import respool
from tests.servers import PostgresServer

LIMIT = 1 << 18
ROWS = 10_000
QUERY = f"SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"  # of 10 MB


@pytest.fixture
async def bounded(server: PostgresServer) -> AsyncIterator[Connection]:
    connection = await Connection.connect(server.url, autocommit=True)
    connection.max_result_size = LIMIT
    yield connection
    await connection.close()


async def expect_too_long(connection: Connection[Any]) -> None:
    with pytest.raises(e.OperationalError, match=f"longer than max_result_size .{LIMIT} bytes.: use a server-side"):
        await connection.execute(QUERY)


async def test_the_connection_is_dropped(server: PostgresServer) -> None:
    async with respool.open_pool(PostgresAdapter(server.url, max_result_size=LIMIT), max_size=1) as pool:
        async with pool.acquire() as connection:
            await expect_too_long(connection)
            assert connection.closed
            with pytest.raises(e.OperationalError, match="closed"):
                await connection.execute("SELECT 1")
        async with pool.acquire() as another:
            assert another is not connection
            assert another.max_result_size == LIMIT
            another.max_result_size = 1 << 30
            cursor = await another.execute(QUERY)
            assert len(await cursor.fetchall()) == ROWS
        async with pool.acquire() as connection:
            assert connection is another
            assert connection.max_result_size == LIMIT
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchone() == (1,)


async def test_in_a_transaction(bounded: Connection) -> None:
    with pytest.raises(e.OperationalError, match="max_result_size"):
        async with bounded.transaction():
            await bounded.execute(QUERY)


async def test_in_a_pipeline(bounded: Connection) -> None:
    with pytest.raises(e.OperationalError, match="max_result_size"):
        async with bounded.pipeline():
            await (await bounded.execute(QUERY)).fetchall()
    assert bounded.closed


async def test_over_tls() -> None:
    with PostgresServer(tls=True) as server:
        async with await Connection.connect(server.url, sslmode="require") as connection:
            connection.max_result_size = LIMIT
            await expect_too_long(connection)


async def test_the_default_is_larger(connection: Connection) -> None:
    cursor = await connection.execute(QUERY)
    assert len(await cursor.fetchall()) == ROWS


async def test_what_does_not_pile_up_may_be_longer(bounded: Connection) -> None:
    assert len([row async for row in bounded.cursor().stream(QUERY)]) == ROWS
    async with bounded.transaction(), bounded.cursor("c") as parts:
        await parts.execute(QUERY)
        assert len([row async for row in parts]) == ROWS
    async with bounded.cursor().copy(f"COPY ({QUERY}) TO STDOUT") as copy:
        assert len([row async for row in copy.rows()]) == ROWS
    await bounded.execute("CREATE TEMP TABLE t (x text)")
    async with bounded.cursor().copy("COPY t FROM STDIN") as copy:
        for _ in range(ROWS):
            await copy.write_row(("x" * 1000,))
    await bounded.cursor().executemany("INSERT INTO t VALUES (%s)", [("x",)] * 2 * ROWS)
    cursor = await bounded.execute("SELECT count(*) FROM t")
    assert await cursor.fetchone() == (3 * ROWS,)


async def test_many_results_within_the_limit(bounded: Connection) -> None:
    for _ in range(20):
        cursor = await bounded.execute(f"SELECT repeat('x', 1000) FROM generate_series(1, {LIMIT // 1100})")
        assert len(await cursor.fetchall()) == LIMIT // 1100


async def test_a_cancelled_result_is_not_read_without_end(server: PostgresServer) -> None:
    """Its server is stopped before there is too much of it."""
    async with await Connection.connect(server.url, autocommit=True) as connection:
        connection.max_result_size = 1 << 24
        with trio.move_on_after(0.05):
            await connection.execute("SELECT repeat('x', 1000) FROM generate_series(1, 100000000)")
        cursor = await connection.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)
