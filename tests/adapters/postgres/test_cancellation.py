"""What happens to a connection whose task is cancelled in the middle of something."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any

import pytest
import trio
from psycopg import errors as e
from psycopg.pq import PipelineStatus, TransactionStatus
from respool_postgres import Connection
from respool_postgres._cancelling import CancelRequest

from respool.testing import cancel_everywhere
from tests.adapters.asking import value
from tests.servers import PostgresServer

AT_ONCE = 30  # seconds, however busy the machine: much less than the 60 that queries take here


async def interrupt(operation: Callable[[], Awaitable[object]], *, after: float = 0.03) -> None:
    """Cancel `operation` after some seconds, which it is expected to outlast, and expect it to leave at once."""
    with trio.move_on_after(after) as scope:
        await operation()
    assert scope.cancelled_caught
    assert trio.current_time() - scope.deadline < AT_ONCE


async def is_running(server: PostgresServer, backend: int) -> bool:
    async with await Connection.connect(server.url) as watcher:
        state = await value(watcher, "SELECT state FROM pg_stat_activity WHERE pid = %s", backend)
        return bool(state == "active")


async def expect_usable(connection: Connection) -> None:
    """What a pool's reset and the next borrower do."""
    await connection.restore()
    assert connection.is_clean()
    assert await value(connection, "SELECT 'mine'") == "mine"
    assert connection.info.transaction_status == TransactionStatus.IDLE


async def test_the_next_operation_recovers_by_itself(connection: Connection, server: PostgresServer) -> None:
    backend = connection.info.backend_pid
    await interrupt(lambda: connection.execute("SELECT pg_sleep(60)"))
    assert not connection.is_clean()
    assert await value(connection, "SELECT 'mine'") == "mine"
    assert connection.info.backend_pid == backend
    assert not await is_running(server, backend)


async def test_leaves_at_once_when_the_server_is_frozen(fresh_postgres_server: PostgresServer) -> None:
    connection = await Connection.connect(fresh_postgres_server.url, autocommit=True)
    fresh_postgres_server.pause()
    await interrupt(lambda: connection.execute("SELECT 1"))
    await interrupt(lambda: connection.execute("SELECT 2"), after=0.3)  # inside the recovery
    fresh_postgres_server.resume()
    assert await value(connection, "SELECT 'mine'") == "mine"
    await connection.close()


async def test_a_cancel_request_that_comes_too_early_is_made_again(connection: Connection) -> None:
    """A server process that is stopped gets the signal before it reads the query, and ignores it."""
    os.kill(connection.info.backend_pid, signal.SIGSTOP)
    await interrupt(lambda: connection.execute("SELECT pg_sleep(60)"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.recover)
        await trio.sleep(0.5)  # for the first request to be answered
        os.kill(connection.info.backend_pid, signal.SIGCONT)
    assert await value(connection, "SELECT 'mine'") == "mine"


async def test_an_interrupted_recovery_goes_on(connection: Connection) -> None:
    """Also one that waits for the answer to its cancel request: that request must not hit a later query."""

    async def prepare() -> None:
        await interrupt(lambda: connection.execute("SELECT pg_sleep(60)"), after=0.005)

    async def check() -> None:
        assert await value(connection, "SELECT 'mine'") == "mine"

    report = await cancel_everywhere(lambda _: connection.recover(), prepare=prepare, check=lambda _: check())
    assert report.cancelled >= 2


class LostRequest(CancelRequest):
    """Its way to the server breaks while it waits for the answer."""

    async def acknowledged(self) -> None:
        self.close()
        raise e.OperationalError("cut off")


async def test_a_lost_cancel_request_is_no_error_of_the_next_operation(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever made it has been told already that it got no answer. Neither can it hit anything any more."""
    caplog.set_level(logging.INFO, logger="respool.postgres")
    connection._cancel_request = LostRequest(connection.pgconn)
    assert await value(connection, "SELECT 'mine'") == "mine"
    assert "a cancel request that its task did not wait for failed: cut off" in caplog.text


async def test_a_cancel_request_under_way_cannot_hit_the_next_query(fresh_postgres_server: PostgresServer) -> None:
    """Whoever gave up waiting for its answer leaves it to the next operation. The postmaster is what answers."""
    server = fresh_postgres_server
    # Without TLS, so that the request is sent before the postmaster has said a word.
    connection = await Connection.connect(server.url, autocommit=True, sslmode="disable")
    os.kill(server.process_id, signal.SIGSTOP)
    with pytest.raises(e.CancellationTimeout):
        await connection.cancel_safe(timeout=0.1)
    assert not connection.is_clean()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            assert await value(connection, "SELECT 'mine' FROM pg_sleep(0.5)") == "mine"

        await trio.sleep(0.2)
        os.kill(server.process_id, signal.SIGCONT)
    await connection.close()


async def query(connection: Connection) -> None:
    await connection.execute("SELECT 'theirs', pg_sleep(0.002)")


async def prepared(connection: Connection) -> None:
    await connection.execute("SELECT 'theirs'", prepare=True)


async def transaction(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES (1)")
        async with connection.transaction():
            await connection.execute("INSERT INTO kept VALUES (1)")


async def implicit_transaction(connection: Connection) -> None:
    await connection.set_autocommit(False)
    await connection.execute("INSERT INTO kept VALUES (1)")
    await connection.commit()


async def server_cursor(connection: Connection) -> None:
    async with connection.transaction(), connection.cursor("large") as cursor:
        await cursor.execute("SELECT generate_series(1, 100)")
        await cursor.fetchmany(10)


async def many(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany("SELECT %s", [("theirs",)] * 10, returning=True)


async def stream(connection: Connection) -> None:
    async with aclosing(connection.cursor().stream("SELECT generate_series(1, 10)")) as rows:  # type: ignore[type-var]
        async for _ in rows:
            pass


async def copy_in(connection: Connection) -> None:
    async with connection.cursor().copy("COPY kept FROM STDIN") as copy:
        for _ in range(10):
            await copy.write_row([1])


async def copy_out(connection: Connection) -> None:
    async with connection.cursor().copy("COPY (SELECT generate_series(1, 10)) TO STDOUT") as copy:
        async for _ in copy.rows():
            pass


async def pipeline(connection: Connection) -> None:
    async with connection.pipeline() as pipeline:
        cursor = await connection.execute("SELECT 'theirs'")
        await connection.execute("SELECT 'theirs too'", prepare=True)
        await pipeline.sync()
        await cursor.fetchone()
        async with connection.transaction():
            await connection.execute("INSERT INTO kept VALUES (1)")


async def two_phases(connection: Connection) -> None:
    await connection.set_autocommit(False)
    await connection.tpc_begin("global")
    await connection.execute("INSERT INTO kept VALUES (1)")
    await connection.tpc_prepare()
    await connection.tpc_rollback()


async def two_phases_to_the_end(connection: Connection) -> None:
    await connection.set_autocommit(False)
    await connection.tpc_begin("global")
    await connection.execute("INSERT INTO kept VALUES (1)")
    await connection.tpc_prepare()
    await connection.tpc_commit()


async def listen(connection: Connection) -> None:
    await connection.execute("LISTEN theirs")
    await connection.execute("NOTIFY theirs")
    async with aclosing(connection.notifies(stop_after=1)) as notifications:
        async for _ in notifications:
            pass


OPERATIONS = [
    query,
    prepared,
    transaction,
    implicit_transaction,
    server_cursor,
    many,
    stream,
    copy_in,
    copy_out,
    pipeline,
    two_phases,
    two_phases_to_the_end,
    listen,
]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancelled_anywhere(
    connection: Connection, operation: Callable[[Connection], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is cancelled wherever, the same connection serves the next borrower, and nothing is half done."""
    backend = connection.info.backend_pid
    await connection.execute("CREATE TEMP TABLE kept (i int)")
    if operation in (two_phases, two_phases_to_the_end):  # which PostgreSQL does not do with temporary tables
        await connection.execute("DROP TABLE kept; CREATE TABLE IF NOT EXISTS kept (i int)")

    async def check() -> None:
        await expect_usable(connection)
        for found in await connection.tpc_recover():
            await connection.tpc_rollback(found)

    report = await cancel_everywhere(lambda: operation(connection), check=check)
    assert report.cancelled > 0
    assert caplog.records == []
    assert connection.info.backend_pid == backend


async def test_abandoned_parameters_are_not_asked_for(connection: Connection) -> None:
    asked = 0

    def parameters() -> Any:
        nonlocal asked
        while True:
            asked += 1
            yield (asked, 0.001)

    async def insert() -> None:
        async with connection.cursor() as cursor:
            await cursor.executemany("SELECT %s, pg_sleep(%s)", parameters())

    await interrupt(insert)
    before = asked
    await expect_usable(connection)
    assert asked == before


async def test_a_transaction_block_is_undone(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE kept (i int)")

    async def block() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO kept VALUES (1)")
            await trio.sleep_forever()

    await interrupt(block)
    assert await value(connection, "SELECT count(*) FROM kept") == 0
    assert connection.info.transaction_status == TransactionStatus.IDLE


async def test_an_inner_transaction_block_is_undone_and_the_outer_goes_on(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE kept (i int)")

    async def block() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO kept VALUES (2)")
            async with connection.transaction():
                await connection.execute("INSERT INTO kept SELECT 3 FROM pg_sleep(60)")

    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES (1)")
        await interrupt(block)
        await connection.execute("INSERT INTO kept VALUES (4)")
    cursor = await connection.execute("SELECT i FROM kept ORDER BY i")
    assert await cursor.fetchall() == [(1,), (4,)]


async def test_a_server_side_cursor_is_closed(connection: Connection) -> None:
    async def read() -> None:
        async with connection.cursor("held", withhold=True) as cursor:
            await cursor.execute("SELECT 1")
            await trio.sleep_forever()

    await interrupt(read)
    assert not connection.is_clean()
    assert await value(connection, "SELECT count(*) FROM pg_cursors WHERE name = 'held'") == 0


async def test_a_commit_under_way_is_finished(server: PostgresServer, connection: Connection) -> None:
    """It is not stopped: nobody would know what became of the transaction."""
    await connection.execute("DROP TABLE IF EXISTS checked; CREATE TABLE checked (i int)")
    await connection.execute(
        "CREATE OR REPLACE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$"
    )
    await connection.execute(
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slowly()"
    )

    with trio.CancelScope() as scope:
        async with connection.transaction():
            await connection.execute("INSERT INTO checked VALUES (1)")
            scope.deadline = trio.current_time() + 0.1
    assert scope.cancelled_caught
    assert await value(connection, "SELECT count(*) FROM checked") == 1
    assert connection.info.transaction_status == TransactionStatus.IDLE


async def test_a_commit_nobody_waited_for_is_told_if_it_fails(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    await connection.execute(
        "CREATE TEMP TABLE parent (i int PRIMARY KEY);"
        "CREATE TEMP TABLE child (i int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )
    await connection.execute("BEGIN; INSERT INTO child VALUES (1)")
    os.kill(connection.info.backend_pid, signal.SIGSTOP)
    await interrupt(connection.commit)
    os.kill(connection.info.backend_pid, signal.SIGCONT)
    with caplog.at_level(logging.WARNING):
        assert await value(connection, "SELECT count(*) FROM child") == 0
    assert "violates foreign key constraint" in caplog.text


async def test_a_pipeline_goes_on_without_what_it_lost(connection: Connection) -> None:
    async with connection.pipeline():
        lost = await connection.execute("SELECT pg_sleep(60)")
        await interrupt(lost.fetchone)
        with trio.fail_after(30):  # not sixty: the query has been stopped
            assert await value(connection, "SELECT 'mine'") == "mine"
    assert connection.info.pipeline_status == PipelineStatus.OFF
    assert await value(connection, "SELECT 'mine'") == "mine"


async def test_statements_prepared_in_a_lost_pipeline_are_prepared_again(connection: Connection) -> None:
    """Nobody knows which of them the server got to."""

    async def prepare() -> None:
        async with connection.pipeline():
            await connection.execute("SELECT pg_sleep(60)")
            cursor = await connection.execute("SELECT 'mine'", prepare=True)
            await cursor.fetchone()

    await interrupt(prepare)
    cursor = await connection.execute("SELECT 'mine'", prepare=True)
    assert await cursor.fetchone() == ("mine",)


async def test_a_copy_under_way_is_undone(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE kept (i int)")

    async def copy() -> None:
        async with connection.cursor().copy("COPY kept FROM STDIN") as copy:
            await copy.write_row([1])
            await trio.sleep_forever()

    await interrupt(copy)
    assert await value(connection, "SELECT count(*) FROM kept") == 0


async def test_a_large_query_that_the_server_does_not_read(connection: Connection) -> None:
    """Half sent, it must be sent to its end before the connection can be used again."""
    os.kill(connection.info.backend_pid, signal.SIGSTOP)
    await interrupt(lambda: connection.execute("SELECT length(%s)", ("x" * 20_000_000,)), after=0.5)
    os.kill(connection.info.backend_pid, signal.SIGCONT)
    assert await value(connection, "SELECT 'mine'") == "mine"


async def test_an_iterator_left_behind_cannot_hurt_the_next_borrower(connection: Connection) -> None:
    theirs = connection.cursor().stream("SELECT generate_series(1, 1000000)")
    await anext(theirs)
    await expect_usable(connection)
    async with connection.cursor().copy("COPY (SELECT generate_series(1, 10000)) TO STDOUT") as copy:
        await copy.read()
        with trio.CancelScope() as scope:
            scope.cancel()  # as Trio does with an async generator that nobody holds any more
            await theirs.aclose()  # type: ignore[attr-defined]
        assert connection.lock.locked()
        assert len([row async for row in copy.rows()]) == 9999
    assert await value(connection, "SELECT 'mine'") == "mine"


@pytest.mark.parametrize("failed", [False, True])
async def test_a_block_left_behind_cannot_end_the_next_borrowers_transaction(
    connection: Connection, failed: bool
) -> None:
    await connection.execute("CREATE TEMP TABLE kept (i int)")
    theirs = connection.transaction()
    await theirs.__aenter__()
    await connection.execute("INSERT INTO kept VALUES (1)")
    await expect_usable(connection)
    async with connection.transaction():
        await connection.execute("INSERT INTO kept VALUES (2)")
        if failed:
            assert not await theirs.__aexit__(ValueError, ValueError("theirs"), None)
        else:
            with pytest.raises(e.ProgrammingError, match="outlived its borrower's lease"):
                await theirs.__aexit__(None, None, None)
        assert connection.info.transaction_status == TransactionStatus.INTRANS
        assert await value(connection, "SELECT count(*) FROM kept") == 1
    assert connection.is_clean()


async def test_a_cursor_left_behind_cannot_fail_the_next_borrowers_transaction(connection: Connection) -> None:
    await connection.execute("BEGIN")
    theirs = connection.cursor("theirs")
    await theirs.execute("SELECT 1")
    await expect_usable(connection)
    async with connection.transaction():
        await theirs.close()
        assert await value(connection, "SELECT 'mine'") == "mine"
    assert theirs.closed


@pytest.mark.parametrize("failed", [False, True])
async def test_a_pipeline_left_behind_cannot_end_the_next_borrowers(
    connection: Connection, failed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = connection.pipeline()
    await theirs.__aenter__()
    await connection.execute("SELECT 'theirs'")
    await expect_usable(connection)
    async with connection.pipeline():
        cursor = await connection.execute("SELECT 'mine'")
        if failed:
            assert not await theirs.__aexit__(ValueError, ValueError("theirs"), None)
            assert "outlived its borrower's lease" in caplog.text
        else:
            with pytest.raises(e.ProgrammingError, match="outlived its borrower's lease"):
                await theirs.__aexit__(None, None, None)
        assert connection.info.pipeline_status == PipelineStatus.ON
        assert await cursor.fetchone() == ("mine",)
    assert connection.is_clean()


@pytest.mark.parametrize("statement", ["COPY kept FROM STDIN", "COPY (SELECT generate_series(1, 100000)) TO STDOUT"])
async def test_a_connection_with_a_copy_block_left_open_is_not_lent_again(
    connection: Connection, statement: str
) -> None:
    """Its writes and its end would go into the COPY of the next borrower, and its reads would take from it."""
    await connection.execute("CREATE TEMP TABLE kept (i int)")
    theirs = connection.cursor().copy(statement)
    await theirs.__aenter__()
    with pytest.raises(e.OperationalError, match="COPY block has outlived its borrower's lease"):
        await connection.restore()
    await connection.close()
    with suppress(e.OperationalError):  # only the end of writing needs a connection
        await theirs.__aexit__(None, None, None)


async def test_own_block_closes_when_it_is_cancelled(server: PostgresServer) -> None:
    with trio.move_on_after(0.03):
        async with await Connection.connect(server.url) as connection:
            await connection.execute("SELECT pg_sleep(60)")
    assert connection.closed


async def test_the_server_may_die_while_a_query_is_left(fresh_postgres_server: PostgresServer) -> None:
    connection = await Connection.connect(fresh_postgres_server.url, autocommit=True)
    await interrupt(lambda: connection.execute("SELECT pg_sleep(60)"))
    fresh_postgres_server.kill()
    with pytest.raises(e.OperationalError):
        await connection.execute("SELECT 1")
    await connection.close()
