"""A pool of connections to a real server: cancelled borrowers, and servers that fail."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import trio
from psycopg import errors as e
from respool_postgres import Connection, PostgresAdapter

import respool
from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.servers import PostgresServer

AT_ONCE = 0.5  # seconds: see test_cancellation.py


async def value(connection: Connection[Any], query: str, *params: Any) -> Any:
    row = await (await connection.execute(query, params)).fetchone()
    assert row is not None
    return row[0]


async def serves(pool: respool.Pool[Connection], *, within: float = 10.0) -> None:
    """Every resource of the pool works, soon."""
    with trio.fail_after(within):
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    for i in range(pool.statistics().max_size):

                        @nursery.start_soon
                        async def _(i: int = i) -> None:
                            async with pool.acquire() as connection:
                                assert await value(connection, "SELECT %s::int FROM pg_sleep(0.01)", i) == i

            except* (e.OperationalError, respool.PoolError):
                await trio.sleep(0.02)
            else:
                return


async def test_200_timed_out_queries_cost_no_reconnect_and_leave_nothing_running(server: PostgresServer) -> None:
    async with respool.open_pool(PostgresAdapter(server.url), max_size=10) as pool:

        async def impatient() -> None:
            with trio.move_on_after(0.2):
                async with pool.acquire() as connection:
                    with trio.move_on_after(0.01):
                        await connection.execute("SELECT pg_sleep(61)")

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(impatient)
        await serves(pool)
        statistics = pool.statistics()
        assert statistics.opened == 10
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
        assert pool.statistics().opened == 4
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


@pytest.mark.parametrize("how", ["kill", "restart"])
async def test_the_server_ends_under_load(fresh_postgres_server: PostgresServer, how: str) -> None:
    server = fresh_postgres_server
    async with respool.open_pool(PostgresAdapter(server.url), max_size=5) as pool:
        stop = trio.Event()
        answered = 0

        async def load() -> None:
            nonlocal answered
            while not stop.is_set():
                try:
                    async with pool.acquire(timeout=5) as connection:
                        await connection.execute("SELECT pg_sleep(0.001)")
                except (e.OperationalError, respool.PoolError):
                    await trio.sleep(0.01)
                else:
                    answered += 1

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(load)
            await trio.sleep(0.1)
            await (server.kill_async() if how == "kill" else server.stop_async())
            await trio.sleep(0.1)
            await server.start_async()
            before = answered
            await serves(pool)
            stop.set()
        assert answered > before
        assert pool.statistics().size <= 5


async def test_a_frozen_server(fresh_postgres_server: PostgresServer) -> None:
    """Borrowers leave at their deadlines; the pool closes in time; after the thaw it serves again."""
    server = fresh_postgres_server
    options: respool.Options = {"max_size": 2, "reset_timeout": 0.2, "close_timeout": 0.2, "open_timeout": 0.5}
    async with respool.open_pool(PostgresAdapter(server.url), **options) as pool:
        await serves(pool)
        server.pause()
        for _ in range(2):
            with trio.move_on_after(0.05) as scope:
                async with pool.acquire() as connection:
                    await connection.execute("SELECT 1")
            assert scope.cancelled_caught
            assert trio.current_time() - scope.deadline < AT_ONCE
        await trio.sleep(0.5)  # every limit passes
        server.resume()
        await serves(pool)


@pytest.mark.parametrize("polite", [False, True])
async def test_cut_off_in_the_middle_of_an_answer(server: PostgresServer, polite: bool) -> None:
    proxy = FaultProxy(server.host, server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        async with respool.open_pool(PostgresAdapter(proxy.redirect(server.url)), max_size=2) as pool:
            await serves(pool)
            for length in range(0, 80, 7):
                proxy.fault = Fault(cut_to_client=length, polite=polite)
                with pytest.raises(e.OperationalError):
                    async with pool.acquire() as connection:
                        await connection.execute("SELECT repeat('x', 100)")
                proxy.fault = PASS
                await serves(pool)
            proxy.reset_all()
            await serves(pool)
        nursery.cancel_scope.cancel()


async def test_cancelled_while_the_network_is_gone(server: PostgresServer) -> None:
    proxy = FaultProxy(server.host, server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        adapter = PostgresAdapter(proxy.redirect(server.url))
        async with respool.open_pool(adapter, max_size=2, reset_timeout=0.2, close_timeout=0.2) as pool:
            await serves(pool)
            proxy.fault = Fault(silent=True)
            with trio.move_on_after(0.05) as scope:
                async with pool.acquire() as connection:
                    await connection.execute("SELECT 1")
            assert scope.cancelled_caught
            assert trio.current_time() - scope.deadline < AT_ONCE
            await trio.sleep(0.5)
            proxy.fault = PASS
            await serves(pool)
        nursery.cancel_scope.cancel()


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
