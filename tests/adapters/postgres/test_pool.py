"""A pool of connections to a real server: cancelled borrowers, and servers that fail."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from psycopg import errors as e
from respool_postgres import Connection, PostgresAdapter

import respool
from tests.adapters.asking import every_resource_works, value
from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.servers import PostgresServer


async def number(connection: Connection[Any], i: int) -> None:
    assert await value(connection, "SELECT %s::int FROM pg_sleep(0.01)", i) == i


async def serves(pool: respool.Pool[Connection]) -> None:
    await every_resource_works(pool, number, e.OperationalError)


async def test_200_timed_out_queries_cost_no_reconnect_and_leave_nothing_running(server: PostgresServer) -> None:
    async with respool.open_pool(PostgresAdapter(server.url), max_size=10) as pool:

        async def impatient() -> None:
            async with pool.acquire() as connection:
                with trio.move_on_after(0.01) as scope:
                    await connection.execute("SELECT pg_sleep(61)")
                assert scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(impatient)
        await serves(pool)
        statistics = pool.statistics()
        assert statistics.opened <= 10
        assert dict(statistics.discards) == dict.fromkeys(statistics.discards, 0)
        async with pool.acquire() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%pg_sleep(61)%%'"
            assert await value(connection, query + " AND pid <> %s", connection.info.backend_pid) == 0


async def test_no_borrower_sees_anothers_answer(server: PostgresServer) -> None:
    """Hundreds of borrowers, most of them cut off at some moment; each answer belongs to its question."""
    answered = 0
    async with respool.open_pool(PostgresAdapter(server.url), max_size=4) as pool:

        async def borrower(i: int) -> None:
            nonlocal answered
            # One who would be served too late is refused instead.
            with trio.move_on_after(0.001 * (i % 40)), contextlib.suppress(respool.PoolOverloaded):
                async with pool.acquire() as connection:
                    assert await value(connection, "SELECT %s::int", i) == i
                    async with connection.transaction():
                        assert await value(connection, "SELECT %s::int FROM pg_sleep(0.001)", -i) == -i
                    answered += 1

        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for i in range(60):
                    nursery.start_soon(borrower, i)
        await serves(pool)
        assert pool.statistics().opened <= 4
    assert answered > 0


async def test_terminated_connections_are_replaced(server: PostgresServer) -> None:
    async with respool.open_pool(PostgresAdapter(server.url), max_size=3) as pool:
        await serves(pool)
        async with await Connection.connect(server.url, autocommit=True) as other:
            await other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        async with pool.acquire() as connection:  # never sees it: is_clean did
            assert await value(connection, "SELECT 1") == 1


async def test_a_terminated_borrower_retires_what_was_opened_before(server: PostgresServer) -> None:
    async with respool.open_pool(PostgresAdapter(server.url), max_size=3) as pool:
        await serves(pool)
        opened = pool.statistics().opened
        with pytest.raises(e.AdminShutdown):
            async with pool.acquire() as connection:
                await connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        await serves(pool)
        assert pool.statistics().opened == opened + 3


async def test_a_server_that_became_read_only_is_left(fresh_postgres_server: PostgresServer) -> None:
    """One failing write retires every connection opened before, as none of them can write any more."""
    server = fresh_postgres_server

    async def become_read_only(setting: str) -> None:
        async with await Connection.connect(server.url, autocommit=True) as admin:
            await admin.execute("SET default_transaction_read_only = off")
            await admin.execute(f"ALTER SYSTEM SET default_transaction_read_only = {setting}")
            await admin.execute("SELECT pg_reload_conf()")

    adapter = PostgresAdapter(server.url, target_session_attrs="read-write")
    async with respool.open_pool(adapter, min_size=3, max_size=3) as pool:
        async with pool.acquire() as connection:
            await connection.execute("CREATE TABLE written (i int)")
        await serves(pool)
        opened = pool.statistics().opened
        await become_read_only("on")
        with trio.fail_after(10), pytest.raises(e.ReadOnlySqlTransaction):
            while True:  # until the server's process for this connection has noticed as well
                async with pool.acquire() as connection:
                    await connection.execute("INSERT INTO written VALUES (1)")
        with pytest.raises(respool.PoolError):
            async with pool.acquire(timeout=0.3):
                pass
        await become_read_only("off")
        await serves(pool)
        async with pool.acquire() as connection:
            await connection.execute("INSERT INTO written VALUES (1)")
        assert pool.statistics().opened == opened + 3


async def test_idle_connections_lost_unnoticed_are_validated(server: PostgresServer) -> None:
    """A network that swallows everything tells nobody: only a round trip can."""
    proxy = FaultProxy(server.host, server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        adapter = PostgresAdapter(proxy.redirect(server.url))
        async with respool.open_pool(
            adapter, max_size=1, validate_after=0, reset_timeout=0.2, close_timeout=0.1
        ) as pool:
            await serves(pool)
            proxy.fault = Fault(silent=True)
            async with trio.open_nursery() as inner:

                @inner.start_soon
                async def _() -> None:
                    await trio.sleep(0.3)
                    proxy.fault = PASS

                async with pool.acquire() as connection:
                    assert await value(connection, "SELECT 1") == 1
        nursery.cancel_scope.cancel()


async def test_an_open_transaction_is_told_of_even_if_the_pool_ends_at_once(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is lost all the same, and a short program is where it is most easily forgotten."""
    async with respool.open_pool(PostgresAdapter(server.url, autocommit=False)) as pool, pool.acquire() as connection:
        await connection.execute("SELECT 1")
    assert [record.levelname for record in caplog.records if "left a transaction open" in record.message] == ["WARNING"]
