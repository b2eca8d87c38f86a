"""Everything psycopg's asynchronous connections and cursors can do, on Trio and against a real server."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import aclosing
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
import psycopg.types.composite
import pytest
import trio
from psycopg import IsolationLevel, sql
from psycopg import errors as e
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row, dict_row, namedtuple_row, scalar_row
from psycopg.types.json import Jsonb
from respool_postgres import Connection

from tests.adapters.asking import value
from tests.servers import PostgresServer


async def numbers(connection: Connection[Any], count: int = 0) -> None:
    await connection.execute("CREATE TEMP TABLE number (i int PRIMARY KEY)")
    await connection.execute("INSERT INTO number SELECT generate_series(1, %s)", (count,))


async def test_client_cursor(connection: Connection) -> None:
    cursor = connection.cursor()
    assert await (await cursor.execute("SELECT generate_series(1, 5)")).fetchone() == (1,)
    assert await cursor.fetchmany(2) == [(2,), (3,)]
    await cursor.scroll(-1)
    assert [row async for row in cursor] == [(3,), (4,), (5,)]
    assert cursor.rowcount == 5
    assert cursor.description is not None
    await cursor.close()
    with pytest.raises(e.InterfaceError, match="the cursor is closed"):
        await cursor.execute("SELECT 1")


@pytest.mark.parametrize("factory", [psycopg.AsyncClientCursor, psycopg.AsyncRawCursor])
async def test_other_cursors(server: PostgresServer, factory: Any) -> None:
    async with await Connection.connect(server.url, cursor_factory=factory) as connection:
        query = "SELECT $1::int" if factory is psycopg.AsyncRawCursor else "SELECT %s"
        assert await (await connection.execute(query, [7])).fetchall() == [(7,)]


async def test_several_results(connection: Connection) -> None:
    cursor = await connection.execute("SELECT 1; SELECT 2; SELECT 3")
    assert [await result.fetchall() async for result in cursor.results()] == [[(1,)], [(2,)], [(3,)]]
    await cursor.set_result(0)
    assert await cursor.fetchone() == (1,)
    assert cursor.nextset()


@pytest.mark.parametrize("binary", [False, True])
async def test_types_both_ways(connection: Connection, binary: bool) -> None:
    values = [
        1,
        2**40,
        1.5,
        Decimal("1.10"),
        "café",
        b"\x00\xff",
        True,
        None,
        date(2024, 2, 29),
        [1, 2],
        Jsonb({"a": [1]}),
    ]
    cursor = await connection.execute(
        "SELECT %s, %s, %s, %s, %s::text, %s, %s, %s::int, %s, %s, %s", values, binary=binary
    )
    assert await cursor.fetchone() == (*values[:-1], {"a": [1]})


async def test_server_side_cursor(connection: Connection) -> None:
    async with connection.transaction(), connection.cursor("large", scrollable=True) as cursor:
        cursor.itersize = 10
        await cursor.execute("SELECT generate_series(1, 1000)")
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(3) == [(2,), (3,), (4,)]
        await cursor.scroll(990, mode="absolute")
        assert len(await cursor.fetchall()) == 10
        await cursor.scroll(0, mode="absolute")
        assert [row[0] async for row in cursor] == list(range(1, 1001))


async def test_server_side_cursor_with_hold(connection: Connection) -> None:
    async with connection.cursor("held", withhold=True) as cursor:
        await cursor.execute("SELECT generate_series(1, 5)")
        assert len(await cursor.fetchall()) == 5


async def test_executemany(connection: Connection) -> None:
    await numbers(connection)
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO number VALUES (%s)", [(i,) for i in range(5000)])
        assert cursor.rowcount == 5000
        await cursor.executemany("SELECT %s + 1", [(1,), (2,)], returning=True)
        assert [await result.fetchone() async for result in cursor.results()] == [(2,), (3,)]


async def test_executemany_with_more_than_the_socket_buffers_hold(connection: Connection) -> None:
    """Sending waits for the server to read, and for the server's own answers to be read."""
    async with connection.cursor() as cursor:
        await cursor.executemany("SELECT %s::text", [("x" * 100_000,)] * 200, returning=True)
        assert sum([len((await result.fetchall())[0][0]) async for result in cursor.results()]) == 20_000_000


async def test_parameters_that_fail(connection: Connection) -> None:
    """Their error is theirs, also if it looks like a socket's."""
    await numbers(connection)

    def parameters() -> Iterator[tuple[int]]:
        yield (1,)
        raise FileNotFoundError("theirs")

    for prepare in (numbers_in_a_pipeline, insert_many):
        with pytest.raises(FileNotFoundError, match="theirs"):
            await prepare(connection, parameters())
        assert await value(connection, "SELECT 1") == 1


async def insert_many(connection: Connection, parameters: Iterator[tuple[int]]) -> None:
    await connection.cursor().executemany("INSERT INTO number VALUES (%s)", parameters)


async def numbers_in_a_pipeline(connection: Connection, parameters: Iterator[tuple[int]]) -> None:
    async with connection.pipeline():
        before = await connection.execute("SELECT 'before'")
        try:
            await connection.cursor().executemany("SELECT %s", parameters, returning=True)
        finally:
            assert await before.fetchone() == ("before",)


async def test_a_large_query_and_a_large_result(connection: Connection) -> None:
    text = "x" * 10_000_000
    assert await value(connection, "SELECT %s::text", text) == text


async def test_stream(connection: Connection) -> None:
    cursor = connection.cursor()
    assert [row[0] async for row in cursor.stream("SELECT generate_series(1, %s)", [10_000])] == list(range(1, 10_001))


async def test_stream_in_chunks(connection: Connection) -> None:
    """What libpq 17 brought, or psycopg's own error."""
    rows = connection.cursor().stream("SELECT generate_series(1, 1000)", size=100)
    if psycopg.pq.version() >= 170000:
        assert len([row async for row in rows]) == 1000
    else:
        with pytest.raises(e.NotSupportedError):
            await anext(rows)


async def test_stream_left_early(connection: Connection) -> None:
    """The query is stopped, and the connection goes on."""
    async with aclosing(connection.cursor().stream("SELECT generate_series(1, 100000000)")) as rows:  # type: ignore[type-var]
        async for row in rows:
            assert row == (1,)
            break
    assert await value(connection, "SELECT 2") == 2


@pytest.mark.parametrize("form", ["TEXT", "BINARY"])
async def test_copy_both_ways(connection: Connection, form: str) -> None:
    await numbers(connection)
    cursor = connection.cursor()
    async with cursor.copy(sql.SQL("COPY number FROM STDIN (FORMAT {})").format(sql.SQL(form))) as copy:
        copy.set_types(["int4"])
        for i in range(20_000):
            await copy.write_row([i])
    assert cursor.rowcount == 20_000
    async with cursor.copy(sql.SQL("COPY number TO STDOUT (FORMAT {})").format(sql.SQL(form))) as copy:
        copy.set_types(["int4"])
        assert [row[0] async for row in copy.rows()] == list(range(20_000))


async def test_copy_of_blocks(connection: Connection) -> None:
    await connection.execute("CREATE TEMP TABLE line (content text)")
    async with connection.cursor().copy("COPY line FROM STDIN") as copy:
        for _ in range(300):
            await copy.write("x" * 99_999 + "\n")
    received = bytearray()
    async with connection.cursor().copy("COPY line TO STDOUT") as copy:
        async for block in copy:
            received += block
    assert len(received) == 30_000_000


async def test_copy_ended_by_an_error(connection: Connection) -> None:
    await numbers(connection)
    with pytest.raises(ZeroDivisionError):
        async with connection.cursor().copy("COPY number FROM STDIN") as copy:
            await copy.write_row([1])
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with connection.cursor().copy("COPY (SELECT generate_series(1, 10000000)) TO STDOUT") as copy:
            await copy.read()
            raise ZeroDivisionError
    with pytest.raises(e.UniqueViolation):
        async with connection.cursor().copy("COPY number FROM STDIN") as copy:
            await copy.write("1\n1\n")
    assert await value(connection, "SELECT count(*) FROM number") == 0


async def test_pipeline(connection: Connection) -> None:
    async with connection.pipeline() as pipeline:
        cursors = [await connection.execute("SELECT %s::int", (i,)) for i in range(500)]
        await pipeline.sync()
        assert [await cursor.fetchone() for cursor in cursors] == [(i,) for i in range(500)]
        async with connection.transaction(), connection.pipeline():
            await connection.execute("SELECT 1")
        late = await connection.execute("SELECT 'late'")
    assert await late.fetchone() == ("late",)
    assert connection.is_clean()


async def test_pipeline_with_an_error(connection: Connection) -> None:
    with pytest.raises(e.DivisionByZero):
        async with connection.pipeline():
            await connection.execute("SELECT 1/0")
            await connection.execute("SELECT 1")
    assert await value(connection, "SELECT 1") == 1


async def test_prepared_statements(connection: Connection) -> None:
    for i in range(10):
        assert await value(connection, "SELECT %s::int", i) == i
    assert await value(connection, "SELECT count(*) FROM pg_prepared_statements") == 1
    cursor = await connection.execute("SELECT 'at once'", prepare=True)
    assert await cursor.fetchone() == ("at once",)
    assert await value(connection, "SELECT count(*) FROM pg_prepared_statements") == 2
    connection.prepared_max = 1
    for i in range(7):
        await connection.execute("SELECT %s::text", (str(i),))
    assert await value(connection, "SELECT count(*) FROM pg_prepared_statements") < 3


async def test_transactions(server: PostgresServer) -> None:
    async with await Connection.connect(server.url) as connection:
        await numbers(connection)
        await connection.commit()
        await connection.execute("INSERT INTO number VALUES (1)")
        await connection.rollback()
        async with connection.transaction():
            await connection.execute("INSERT INTO number VALUES (2)")
            with pytest.raises(e.DivisionByZero):
                async with connection.transaction("inner"):
                    await connection.execute("INSERT INTO number VALUES (3)")
                    await connection.execute("SELECT 1/0")
            async with connection.transaction() as inner:
                await connection.execute("INSERT INTO number VALUES (4)")
                raise psycopg.Rollback(inner)
            async with connection.transaction(force_rollback=True):
                await connection.execute("INSERT INTO number VALUES (5)")
            async with connection.transaction():
                await connection.execute("INSERT INTO number VALUES (6)")
        cursor = await connection.execute("SELECT i FROM number ORDER BY i")
        assert await cursor.fetchall() == [(2,), (6,)]


async def test_own_block_commits_or_rolls_back_and_closes(server: PostgresServer) -> None:
    async with await Connection.connect(server.url) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS committed (i int)")
    assert connection.closed
    with pytest.raises(ZeroDivisionError):
        async with await Connection.connect(server.url) as connection:
            await connection.execute("INSERT INTO committed VALUES (1)")
            raise ZeroDivisionError
    async with await Connection.connect(server.url) as connection:
        assert await value(connection, "SELECT count(*) FROM committed") == 0


async def test_transaction_settings(connection: Connection) -> None:
    await connection.set_isolation_level(IsolationLevel.SERIALIZABLE)
    await connection.set_read_only(True)
    await connection.set_deferrable(True)
    async with connection.transaction():
        assert await value(connection, "SHOW transaction_isolation") == "serializable"
        assert await value(connection, "SHOW transaction_read_only") == "on"
        assert await value(connection, "SHOW transaction_deferrable") == "on"
        with pytest.raises(e.ProgrammingError, match="can't change 'autocommit' now"):
            await connection.set_autocommit(False)
    await connection.set_autocommit(False)
    assert not connection.autocommit


async def test_notifications(connection: Connection, server: PostgresServer) -> None:
    await connection.execute("LISTEN channel")

    async def notify() -> None:
        async with await Connection.connect(server.url, autocommit=True) as other:
            for i in range(3):
                await other.execute("SELECT pg_notify('channel', %s)", [str(i)])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(notify)
        async with aclosing(connection.notifies(stop_after=3)) as notifications:
            received = [notification.payload async for notification in notifications]
    assert received == ["0", "1", "2"]


async def test_notifications_for_a_time(connection: Connection) -> None:
    await connection.execute("LISTEN channel")
    assert [_ async for _ in connection.notifies(timeout=0.02)] == []
    await connection.execute("NOTIFY channel, 'own'")
    assert [n.payload async for n in connection.notifies(timeout=0)] == ["own"]


async def test_notifications_that_are_here_need_no_time(connection: Connection, server: PostgresServer) -> None:
    """Also to a task that has been busy for so long that it is time to let others run."""
    await connection.execute("LISTEN channel")
    async with await Connection.connect(server.url, autocommit=True) as other:
        await other.execute("NOTIFY channel, 'theirs'")
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(connection.fileno())
    busy_until = trio.current_time() + 0.005
    while trio.current_time() < busy_until:
        pass
    assert [n.payload async for n in connection.notifies(timeout=0)] == ["theirs"]


async def test_handlers(connection: Connection) -> None:
    notices: list[str | None] = []
    notifications: list[str] = []
    connection.add_notice_handler(lambda diagnostic: notices.append(diagnostic.message_primary))
    connection.add_notify_handler(lambda notification: notifications.append(notification.payload))
    await connection.execute("DO $$ BEGIN RAISE NOTICE 'noted'; END $$")
    await connection.execute("LISTEN channel")
    await connection.execute("NOTIFY channel, 'notified'")
    assert (notices, notifications) == (["noted"], ["notified"])


async def test_two_phase_commit(server: PostgresServer) -> None:
    async with await Connection.connect(server.url) as connection:
        await connection.execute("CREATE TABLE two_phase (i int)")
        await connection.commit()
        for action in ("commit", "rollback"):
            xid = connection.xid(1, f"global-{action}", "branch")
            await connection.tpc_begin(xid)
            await connection.execute("INSERT INTO two_phase VALUES (1)")
            await connection.tpc_prepare()
            async with await Connection.connect(server.url) as other:
                assert [found.gtrid for found in await other.tpc_recover()] == [xid.gtrid]
            await getattr(connection, f"tpc_{action}")()
        assert await connection.tpc_recover() == []
        assert await value(connection, "SELECT count(*) FROM two_phase") == 1


class Item(NamedTuple):
    name: str


async def test_row_factories(server: PostgresServer) -> None:
    async with await Connection.connect(server.url, row_factory=dict_row) as connection:
        assert await (await connection.execute("SELECT 1 AS a")).fetchone() == {"a": 1}
        item = await connection.cursor(row_factory=class_row(Item)).execute("SELECT 'x' AS name")
        assert await item.fetchone() == Item("x")
        named = await connection.cursor(row_factory=namedtuple_row).execute("SELECT 1 AS a")
        assert (await named.fetchone()).a == 1  # type: ignore[union-attr]
        scalar = await connection.cursor(row_factory=scalar_row).execute("SELECT 1")
        assert await scalar.fetchone() == 1


async def test_adapters(connection: Connection) -> None:
    class Shout(psycopg.adapt.Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode().upper()

    connection.adapters.register_loader("text", Shout)
    assert await value(connection, "SELECT 'loud'::text") == "LOUD"
    info = await psycopg.types.TypeInfo.fetch(connection, "int4")
    assert info is not None
    assert info.oid == 23


async def test_composite_and_enum_types(connection: Connection) -> None:
    await connection.execute("CREATE TYPE pg_temp.pair AS (a int, b text)")
    info = await psycopg.types.composite.CompositeInfo.fetch(connection, "pair")
    assert info is not None
    psycopg.types.composite.register_composite(info, connection)
    assert (await value(connection, "SELECT (1, 'x')::pair")).b == "x"


async def test_errors_are_psycopgs(connection: Connection) -> None:
    with pytest.raises(e.UndefinedTable) as caught:
        await connection.execute("SELECT * FROM none_such")
    assert caught.value.sqlstate == "42P01"
    assert connection.info.transaction_status == TransactionStatus.IDLE


async def test_cancel_from_another_task(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(e.QueryCanceled):
                await connection.execute("SELECT pg_sleep(10)")

        await trio.testing.wait_all_tasks_blocked(0.01)
        await connection.cancel_safe()
    assert await value(connection, "SELECT 1") == 1


async def test_tasks_take_turns_on_one_connection(connection: Connection) -> None:
    """First come, first served, as with psycopg."""
    order: list[int] = []

    async def one(i: int) -> None:
        order.append(await value(connection, "SELECT %s::int", i))

    async with trio.open_nursery() as nursery:
        for i in range(20):
            nursery.start_soon(one, i)
            await trio.testing.wait_all_tasks_blocked()
    assert order == list(range(20))


async def test_an_operation_inside_another_is_an_error_and_not_a_hang(connection: Connection) -> None:
    rows = connection.cursor().stream("SELECT generate_series(1, 3)")
    async with aclosing(rows):  # type: ignore[type-var]
        async for _ in rows:
            with pytest.raises(RuntimeError, match="already has an operation open"):
                await connection.execute("SELECT 1")


async def test_every_operation_is_a_checkpoint(connection: Connection) -> None:
    with trio.testing.assert_checkpoints():
        await connection.execute("SELECT 1")
    with trio.testing.assert_checkpoints():
        await connection.commit()
    with trio.testing.assert_checkpoints():
        await connection.set_autocommit(True)
    with trio.testing.assert_checkpoints():
        await connection.close()


async def test_rows_that_are_here_do_not_starve_other_tasks(connection: Connection) -> None:
    """Who works for two milliseconds on each row lets others run after each."""
    turns, turns_by_row = 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        async with connection.cursor().copy("COPY (SELECT generate_series(1, 100)) TO STDOUT") as copy:
            async for _ in copy.rows():
                turns_by_row.append(turns)
                time.sleep(0.002)  # noqa: ASYNC251 - that is the point
        nursery.cancel_scope.cancel()
    assert len(turns_by_row) == 100
    assert turns_by_row[-1] - turns_by_row[0] > 90


async def test_no_work_is_begun_by_a_task_that_is_already_cancelled(connection: Connection) -> None:
    await numbers(connection)
    with trio.CancelScope() as scope:
        scope.cancel()
        await connection.execute("INSERT INTO number VALUES (1)")
    assert scope.cancelled_caught
    assert await value(connection, "SELECT count(*) FROM number") == 0


async def test_closing_wakes_whoever_waits(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(e.OperationalError, match="the connection is closed"):
                await connection.execute("SELECT pg_sleep(10)")

        await trio.testing.wait_all_tasks_blocked(0.01)
        await connection.close()
    with pytest.raises(e.OperationalError, match="the connection is closed"):
        await connection.execute("SELECT 1")


async def test_settings_of_a_closed_connection(connection: Connection) -> None:
    """The error is that it is closed, not that its transaction is in an unknown state."""
    await connection.close()
    for change in (connection.set_autocommit(False), connection.set_read_only(True), connection.set_deferrable(True)):
        with pytest.raises(e.OperationalError, match="the connection is closed"):
            await change


async def test_wait_takes_psycopgs_own_generators(connection: Connection) -> None:
    connection.pgconn.send_query(b"SELECT 5")
    (result,) = await connection.wait(psycopg.generators.execute(connection.pgconn), timeout=math.inf)
    assert result.get_value(0, 0) == b"5"
