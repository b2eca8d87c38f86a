"""What users of PyMySQL and aiomysql know, against a real MariaDB."""

from __future__ import annotations

import contextvars
import gc
import tracemalloc
import warnings
import weakref
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from types import coroutine
from typing import Any

import pymysql
import pymysql.cursors
import pytest
import trio
from greenlet import getcurrent, greenlet
from pymysql import err
from pymysql.constants import CLIENT, FIELD_TYPE
from respool_mysql import Connection, Cursor, DictCursor, SSCursor, SSDictCursor, connect

from tests.servers import MariaDBServer

VALUES = """
    SELECT 1, -2.5e0, CAST('3.140' AS DECIMAL(5,3)), 'grüße', x'00ff', NULL, DATE '2024-02-29', TIME '-25:06:17.5',
    TIMESTAMP '2024-02-29 23:59:58.000123', TIMESTAMP '2024-02-29 23:59:58', CAST('' AS CHAR), b'101'
"""


async def test_rows_are_those_of_pymysql(server: MariaDBServer, connection: Connection) -> None:
    """Every type, description, row count: the same as the driver beneath has them."""
    with pymysql.connect(host=server.host, port=server.port, user="respool") as peer, peer.cursor() as theirs:
        theirs.execute(VALUES)
        async with connection.cursor() as ours:
            for _ in range(2):  # the second time the column definitions are known
                assert await ours.execute(VALUES) == 1
                assert await ours.fetchall() == theirs._rows
                assert ours.description == theirs.description
                assert (ours.rowcount, ours.warning_count) == (theirs.rowcount, theirs.warning_count)


@pytest.mark.parametrize("text", ["0000-00-00 00:00:00", "2024-00-10 00:00:00"])
async def test_dates_that_are_none_stay_text(connection: Connection, text: str) -> None:
    """As in PyMySQL."""
    await connection.execute("SET sql_mode=''")
    await connection.execute("CREATE TEMPORARY TABLE t (moment DATETIME, day DATE)")
    await connection.execute("INSERT INTO t VALUES (%s, %s)", (text, text[:10]))
    assert await (await connection.execute("SELECT moment, day FROM t")).fetchone() == (text, text[:10])


@pytest.mark.parametrize("size", [0, 250, 251, 65_535, 65_536, 2**24 - 20, 2**24 - 5, 2**24 + 3])
async def test_values_of_every_length(connection: Connection, size: int) -> None:
    """Including those that take more than one packet, each way."""
    await connection.execute("SET GLOBAL max_allowed_packet = 64 * 1024 * 1024")
    async with await connect(f"mysql://respool@{connection._wire.host}:{connection._wire.port}/test") as fresh:
        cursor = await fresh.execute("SELECT %s, 7, REPEAT('x', %s), NULL, 8", ("a" * size, size))
        row = await cursor.fetchone()
        assert row == ("a" * size, 7, "x" * size, None, 8)


async def test_arguments_by_position_by_name_and_many(connection: Connection) -> None:
    await connection.execute("CREATE TEMPORARY TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b TEXT)")
    async with connection.cursor() as cursor:
        assert (
            await cursor.executemany("INSERT INTO t (a, b) VALUES (%s, %s)", [(i, f"'{i}%") for i in range(500)]) == 500
        )
        assert await cursor.executemany("UPDATE t SET b = %s WHERE a = %s", [("x", 1), ("y", 2)]) == 2
        assert await cursor.execute("SELECT b FROM t WHERE a IN %s ORDER BY a", ((0, 1, 2, 3),)) == 4
        assert [row async for row in cursor] == [("'0%",), ("x",), ("y",), ("'3%",)]
        await cursor.execute("INSERT INTO t (a) VALUES (%(value)s)", {"value": 1000})
        assert cursor.lastrowid == connection.insert_id() == 501
        assert cursor.mogrify("SELECT %s", ("o'clock",)) == r"SELECT 'o\'clock'"
        query: Any = b"SELECT 1"  # PyMySQL takes it, too
        assert await cursor.execute(query) == 1


async def test_fetching_and_scrolling(connection: Connection) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT seq FROM seq_1_to_10")
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(2) == ((2,), (3,))
        cursor.arraysize = 3
        assert await cursor.fetchmany() == ((4,), (5,), (6,))
        await cursor.scroll(-2)
        assert cursor.rownumber == 4
        await cursor.scroll(8, mode="absolute")
        assert await cursor.fetchall() == ((9,), (10,))
        assert await cursor.fetchone() is None
        with pytest.raises(IndexError):
            await cursor.scroll(10)


@pytest.mark.parametrize(
    ("given", "kind", "row"),
    [
        (None, Cursor, (1, 2)),
        (DictCursor, DictCursor, {"a": 1, "b": 2}),
        (SSCursor, SSCursor, (1, 2)),
        (SSDictCursor, SSDictCursor, {"a": 1, "b": 2}),
        (pymysql.cursors.DictCursor, DictCursor, {"a": 1, "b": 2}),
        (pymysql.cursors.SSCursor, SSCursor, (1, 2)),
    ],
)
async def test_cursor_classes(connection: Connection, given: Any, kind: type[Any], row: Any) -> None:
    """Ours, and PyMySQL's by their own names."""
    async with connection.cursor(given) as cursor:
        assert isinstance(cursor, kind)
        await cursor.execute("SELECT 1 AS a, 2 AS b")
        assert await cursor.fetchone() == row
        assert await cursor.fetchone() is None


async def test_a_users_own_cursor_class_of_pymysqls(server: MariaDBServer) -> None:
    class Upper(pymysql.cursors.DictCursorMixin, pymysql.cursors.SSCursor):  # type: ignore[misc]
        def _conv_row(self, row: Any) -> Any:
            return row and {name.upper(): value for name, value in super()._conv_row(row).items()}

        def execute(self, query: Any, args: Any = None) -> Any:
            return super().execute(query.replace("one", "1"), args)

    async with await connect(server.url, cursorclass=Upper) as connection:
        cursor = await connection.execute("SELECT one AS a")
        assert await cursor.fetchall() == [{"A": 1}]


async def test_a_cursor_class_that_is_none(connection: Connection) -> None:
    with pytest.raises(TypeError, match="cursor class"):
        connection.cursor(dict)


async def test_code_written_for_aiomysql(connection: Connection) -> None:
    """``await conn.cursor()``, and every method awaited."""
    cursor = await connection.cursor(DictCursor)
    await connection.begin()
    await cursor.execute("SELECT 42 AS answer")
    assert await cursor.fetchone() == {"answer": 42}
    await connection.commit()
    await connection.query("DO 1")
    await cursor.close()
    with pytest.raises(err.ProgrammingError, match="Cursor closed"):
        await cursor.execute("SELECT 1")


async def test_errors_are_those_of_pymysql(connection: Connection) -> None:
    """Class, number and text; and the connection goes on."""
    with pytest.raises(err.ProgrammingError) as caught:
        await connection.execute("SELEC 1")
    assert caught.value.args[0] == 1064
    assert caught.value.sqlstate == "42000"
    await connection.execute("CREATE TEMPORARY TABLE t (id INT PRIMARY KEY)")
    with pytest.raises(err.IntegrityError):
        await connection.execute("INSERT INTO t VALUES (1), (1)")
    with pytest.raises(err.ProgrammingError, match="not enough arguments"):
        await connection.execute("SELECT %s, %s", (1,))
    with pytest.raises(err.ProgrammingError, match="execute"):
        await connection.cursor().fetchone()
    assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_several_statements_and_results(server: MariaDBServer) -> None:
    async with await connect(server.url, client_flag=CLIENT.MULTI_STATEMENTS) as connection:
        for kind in (Cursor, SSCursor):
            async with connection.cursor(kind) as cursor:
                await cursor.execute("SELECT 1; SELECT 2 UNION SELECT 3; DO 0; SELECT 4")
                results = [list(await cursor.fetchall())]
                while await cursor.nextset():
                    results.append(list(await cursor.fetchall()))
                assert results == [[(1,)], [(2,), (3,)], [], [(4,)]]
            async with connection.cursor(kind) as cursor:
                await cursor.execute("SELECT 1; SELECT 2")
            assert await (await connection.execute("SELECT 5")).fetchall() == ((5,),)


async def test_closing_a_cursor_tells_of_an_error_in_a_later_statement(server: MariaDBServer) -> None:
    async with await connect(server.url, client_flag=CLIENT.MULTI_STATEMENTS) as connection:
        cursor = await connection.execute("SELECT 1; SELEC 2")
        with pytest.raises(err.ProgrammingError):
            await cursor.close()
        assert await (await connection.execute("SELECT 5")).fetchall() == ((5,),)


async def test_stored_procedures(connection: Connection) -> None:
    await connection.execute("DROP PROCEDURE IF EXISTS twice")
    await connection.execute(
        "CREATE PROCEDURE twice(IN n INT, OUT m INT) BEGIN SELECT n; SET m = 2 * n; SELECT 'two'; END"
    )
    async with connection.cursor() as cursor:
        assert await cursor.callproc("twice", (21, 0)) == (21, 0)
        assert await cursor.fetchall() == ((21,),)
        assert await cursor.nextset()
        assert await cursor.fetchall() == (("two",),)
        assert await cursor.nextset()
        assert await cursor.nextset() is None
        await cursor.execute("SELECT @_twice_1")
        assert await cursor.fetchone() == (42,)


async def test_transactions(connection: Connection, observer: Connection) -> None:
    async def rows() -> Any:
        return await (await observer.execute("SELECT a FROM transactions ORDER BY a")).fetchall()

    await connection.execute("CREATE OR REPLACE TABLE transactions (a INT)")
    async with connection.transaction():
        await connection.execute("INSERT INTO transactions VALUES (1)")
        assert connection.get_transaction_status()
        assert await rows() == ()
    assert not connection.get_transaction_status()
    with pytest.raises(ZeroDivisionError):
        async with connection.transaction():
            await connection.execute("INSERT INTO transactions VALUES (2)")
            raise ZeroDivisionError
    async with connection.transaction():
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute("INSERT INTO transactions VALUES (3)")
                raise ZeroDivisionError
        async with connection.transaction():
            await connection.execute("INSERT INTO transactions VALUES (4)")
    assert await rows() == ((1,), (4,))
    await connection.begin()
    await connection.execute("DELETE FROM transactions")
    await connection.rollback()
    assert await rows() == ((1,), (4,))
    await connection.autocommit(False)
    assert not connection.get_autocommit()
    await connection.execute("DELETE FROM transactions")
    await connection.commit()
    assert await rows() == ()


async def test_an_error_of_the_server_ends_a_transaction_block(connection: Connection) -> None:
    await connection.execute("CREATE TEMPORARY TABLE t (id INT PRIMARY KEY)")
    with pytest.raises(err.IntegrityError):
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.execute("INSERT INTO t VALUES (1)")
    assert await (await connection.execute("SELECT * FROM t")).fetchall() == ()


async def test_streaming_takes_little_memory(connection: Connection) -> None:
    """100,000 rows pass through; never more than a few thousand are here."""
    async with connection.cursor(SSCursor) as cursor:
        await cursor.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_100000")
        await cursor.fetchone()
        gc.collect()
        tracemalloc.start()
        try:
            total = 1
            async for number, _ in cursor:
                total += number
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert total == 100_000 * 100_001 // 2
    assert peak < 2_000_000


async def test_streaming_fetches(connection: Connection) -> None:
    async with connection.cursor(SSCursor) as cursor:
        await cursor.execute("SELECT seq FROM seq_1_to_50000")
        assert await cursor.fetchmany(3) == [(1,), (2,), (3,)]
        await cursor.scroll(20_000)
        assert await cursor.fetchone() == (20_004,)
        with pytest.raises(err.NotSupportedError):
            await cursor.scroll(-1)
        assert len(await cursor.fetchall()) == 50_000 - 20_004
        assert await cursor.fetchmany(3) == ()
        assert await cursor.fetchone() is None


async def test_other_tasks_run_while_a_large_result_arrives(connection: Connection) -> None:
    """Each read from the socket lets them."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await trio.lowlevel.checkpoint()
            ticks += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        cursor = await connection.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_20000")
        nursery.cancel_scope.cancel()
    assert cursor.rowcount == 20_000
    assert ticks > 10


async def test_an_abandoned_streaming_cursor_is_not_met_by_the_next_query(connection: Connection) -> None:
    """Left in its own block, half read; no warning, and no rows of it."""
    for _ in range(2):
        async with connection.cursor(SSCursor) as cursor:
            await cursor.execute("SELECT seq FROM seq_1_to_3000000")
            await cursor.fetchone()
        assert await (await connection.execute("SELECT 'next'")).fetchall() == (("next",),)


async def test_a_result_given_up_says_so(connection: Connection) -> None:
    """A new query ends the first one's rows; to go on fetching is an error, not an early end."""
    cursor = connection.cursor(SSCursor)
    await cursor.execute("SELECT seq FROM seq_1_to_300000")
    await cursor.fetchone()
    await connection.execute("SELECT 1")
    with pytest.raises(err.ProgrammingError, match="rest of this result is gone"):
        await cursor.fetchone()


async def test_a_streaming_cursor_may_be_forgotten(server: MariaDBServer) -> None:
    """Garbage collection neither reads from the network nor warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection = await connect(server.url)
        cursor = connection.cursor(pymysql.cursors.SSDictCursor)
        await cursor.execute("SELECT seq FROM seq_1_to_300000")
        await cursor.fetchone()
        del cursor
        gc.collect()
        connection.close()
        del connection
        gc.collect()


async def test_a_value_that_does_not_convert_costs_one_result(server: MariaDBServer) -> None:
    """The converter's error is raised where its row is; the connection is in step afterwards."""

    def picky(text: str) -> int:
        if text == "700":
            raise ArithmeticError(text)
        return int(text)

    conv = {**pymysql.converters.conversions, FIELD_TYPE.LONGLONG: picky}
    async with await connect(server.url, conv=conv) as connection:
        with pytest.raises(ArithmeticError):
            await connection.execute("SELECT seq FROM seq_1_to_100000")
        assert await (await connection.execute("SELECT 'next'")).fetchall() == (("next",),)
        async with connection.cursor(SSCursor) as cursor:
            await cursor.execute("SELECT seq FROM seq_1_to_1000")
            assert await cursor.fetchmany(699) == [(i,) for i in range(1, 700)]
            with pytest.raises(ArithmeticError):
                await cursor.fetchone()
            assert await cursor.fetchone() == (701,)


@pytest.mark.parametrize("cursor_class", [Cursor, DictCursor, SSCursor])
async def test_many_rows_are_those_of_pymysql(
    server: MariaDBServer, connection: Connection, cursor_class: type[Any]
) -> None:
    """Read column by column: NULLs anywhere, values of every length, and results of one column."""
    queries = [
        "SELECT seq, IF(seq % 3, NULL, CONCAT('n', seq)), REPEAT('x', seq), NOW() - INTERVAL seq DAY FROM seq_1_to_600",
        "SELECT CAST(seq AS DECIMAL(9,2)), 'always' FROM seq_1_to_600",
        "SELECT IF(seq % 2, NULL, seq) FROM seq_1_to_9000",
    ]
    kinds = {Cursor: pymysql.cursors.Cursor, DictCursor: pymysql.cursors.DictCursor, SSCursor: pymysql.cursors.SSCursor}
    arguments = {"host": server.host, "port": server.port, "user": "respool", "database": "test"}
    with pymysql.connect(**arguments, cursorclass=kinds[cursor_class]) as peer, peer.cursor() as theirs:
        now = "SET timestamp = 1709251199"
        theirs.execute(now)
        await connection.execute(now)
        async with connection.cursor(cursor_class) as ours:
            for query in queries:
                theirs.execute(query)
                await ours.execute(query)
                assert list(await ours.fetchall()) == list(theirs.fetchall())


async def test_a_statement_without_rows_says_what_pymysqls_says(server: MariaDBServer, connection: Connection) -> None:
    """Numbers of every length in the packet that answers it; the text of an UPDATE; warnings; errors."""
    statements: list[tuple[str, Any]] = [
        ("SET sql_mode = ''", None),
        ("CREATE TEMPORARY TABLE t (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(3))", None),
        ("INSERT INTO t (a, b) VALUES (%s, %s)", (1, "too long")),
        ("INSERT INTO t (id) VALUES (%s)", [70_000]),
        ("INSERT INTO t (id) VALUES (%s)", [2**24]),
        ("INSERT INTO t (id) VALUES (%s)", (2**63,)),
        ("INSERT INTO t (a) SELECT seq FROM seq_1_to_300", None),
        ("UPDATE t SET a = a + %s", (1,)),
        ("UPDATE t SET a = %(a)s", {"a": 7}),
        ("INSERT INTO t (id) VALUES (%s)", (1,)),
        ("UPDATE t SET a = %s", (1, 2)),
        ("DELETE FROM t", None),
    ]
    names = ("rowcount", "lastrowid", "warning_count", "description")
    with pymysql.connect(host=server.host, port=server.port, user="respool", database="test") as peer:
        for statement, args in statements:
            with peer.cursor() as theirs:
                async with connection.cursor() as ours:
                    expected = met = None
                    try:
                        theirs.execute(statement, args)
                    except pymysql.MySQLError as exc:
                        expected = repr(exc)
                    try:
                        await ours.execute(statement, args)
                    except pymysql.MySQLError as exc:
                        met = repr(exc)
                    assert met == expected
                    said = [getattr(ours, name) for name in names]
                    assert said == [getattr(theirs, name, None) for name in names], statement
            if expected is None:
                assert (connection.insert_id(), connection.affected_rows()) == (peer.insert_id(), peer.affected_rows())


async def test_a_converter_that_raises_stop_iteration_ends_no_result(server: MariaDBServer) -> None:
    """It is an error like any other, also where rows are read by column."""

    def picky(text: str) -> int:
        return next(number for number in [int(text)] if number != 301)

    conv = {**pymysql.converters.conversions, FIELD_TYPE.LONGLONG: picky}
    async with await connect(server.url, conv=conv) as connection:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await connection.execute("SELECT seq FROM seq_1_to_1000")


async def test_converters_and_encoders_see_the_tasks_context(server: MariaDBServer) -> None:
    """A context variable set in the task is seen by code that runs inside the driver, at every command."""
    unit: contextvars.ContextVar[int] = contextvars.ContextVar("unit")
    conv = {**pymysql.converters.conversions, FIELD_TYPE.LONG: lambda text: int(text) * unit.get()}
    async with await connect(server.url, conv=conv) as connection:
        for value in (10, 100):
            unit.set(value)
            assert await (await connection.execute("SELECT 2")).fetchone() == (2 * value,)


async def test_use_unicode_off(server: MariaDBServer) -> None:
    async with await connect(server.url, use_unicode=False) as connection:
        assert await (await connection.execute("SELECT 'ü', 1")).fetchone() == ("ü".encode(), 1)


async def test_charsets(server: MariaDBServer) -> None:
    async with await connect(server.url, charset="latin1") as connection:
        assert await (await connection.execute("SELECT 'ü', HEX('ü')")).fetchone() == ("ü", "FC")
        await connection.set_character_set("utf8mb4", "utf8mb4_bin")
        cursor = await connection.execute("SELECT 'ü', HEX('ü'), @@collation_connection")
        assert await cursor.fetchone() == ("ü", "C3BC", "utf8mb4_bin")
        await connection.set_charset("latin1")
        assert connection.character_set_name() == "latin1"
        assert await (await connection.execute("SELECT 'ü', HEX('ü')")).fetchone() == ("ü", "FC")


async def test_the_session_is_prepared_as_asked(server: MariaDBServer) -> None:
    async with await connect(server.url, sql_mode="ANSI", init_command="SET @x = 5", autocommit=None) as connection:
        cursor = await connection.execute("SELECT @@sql_mode LIKE '%ANSI%', @x, @@autocommit")
        assert await cursor.fetchone() == (1, 5, 1)


async def test_connecting_sends_no_more_than_pymysql(server: MariaDBServer) -> None:
    """SET NAMES, and autocommit when it differs from the server's: nothing that would defeat a multiplexing proxy."""
    async with await connect(server.url, autocommit=True) as connection:
        cursor = await connection.execute("SHOW SESSION STATUS LIKE 'Com_set_option'")
        assert await cursor.fetchone() == ("Com_set_option", "1")


async def test_everything_else_a_connection_has(
    server: MariaDBServer, connection: Connection, observer: Connection
) -> None:
    await connection.ping()
    assert connection.get_host_info() == f"socket {server.host}:{server.port}"
    assert "MariaDB" in connection.get_server_info()
    assert connection.get_proto_info() == 10
    assert connection.escape("o'clock") == r"'o\'clock'"
    assert connection.affected_rows() >= 0
    await connection.execute("SELECT CAST('x' AS INT)")
    (warning,) = await connection.show_warnings()
    assert warning[1] == 1292
    await connection.select_db("mysql")
    assert await (await connection.execute("SELECT DATABASE()")).fetchone() == ("mysql",)
    await observer.kill(connection.thread_id())
    with pytest.raises(err.OperationalError) as caught:
        await connection.execute("SELECT 1")
    assert caught.value.args[0] in (2006, 2013)
    assert connection.closed
    with pytest.raises(err.Error, match="Already closed"):
        await connection.ping()
    with pytest.raises(err.InterfaceError):
        await connection.execute("SELECT 1")


async def test_one_task_at_a_time(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.execute, "SELECT SLEEP(1000)")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task"):
            await connection.execute("SELECT 1")
        nursery.cancel_scope.cancel()
    assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_nobody_comes_between_while_a_connection_is_recovered(connection: Connection) -> None:
    """Not even in the moments in which another connection is waited for, to kill over."""
    with trio.move_on_after(0.05):
        await connection.execute("SELECT SLEEP(1000)")
    recovered = trio.Event()

    async def go_on() -> None:
        assert await (await connection.execute("SELECT 1")).fetchone() == (1,)
        recovered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        await trio.testing.wait_all_tasks_blocked()
        while not recovered.is_set():
            with pytest.raises(trio.BusyResourceError):
                await connection.execute("SELECT 2")
            await trio.sleep(0.002)


async def test_tasks_may_run_in_greenlets_of_their_own(server: MariaDBServer) -> None:
    """As under greenback: the connection's greenlet returns to whichever of them has switched to it."""

    @coroutine
    def in_a_greenlet(async_fn: Callable[[], Awaitable[None]]) -> Generator[Any, Any, None]:
        here = getcurrent()

        def run() -> None:
            steps = async_fn().__await__()
            answer = None
            with suppress(StopIteration):
                while True:
                    answer = here.switch(steps.send(answer))

        portal = greenlet(run)
        trap = portal.switch()
        while not portal.dead:
            trap = portal.switch((yield trap))

    async with await connect(server.url) as connection:

        async def use() -> None:
            await connection.ping()
            assert await (await connection.execute("SELECT REPEAT('x', 100000)")).fetchone() == ("x" * 100_000,)

        await in_a_greenlet(use)
        await use()
        await in_a_greenlet(use)


async def test_closing_under_another_task_wakes_it(connection: Connection) -> None:
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await connection.execute("SELECT SLEEP(10)")

        await trio.testing.wait_all_tasks_blocked()
        connection.close()
    assert connection.closed


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("padding", [0, 100_000], ids=["short", "long"])
async def test_closing_under_another_task_leaves_nothing(server: MariaDBServer, padding: int, cancelled: bool) -> None:
    """Its greenlet was left waiting for another command, or in the middle of one, and never freed."""

    async def use_and_close() -> weakref.ref[Any]:
        connection = await connect(server.url)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def _() -> None:
                with suppress(trio.ClosedResourceError):
                    await connection.execute(f"SELECT SLEEP(10) -- {padding * 'x'}")

            await trio.testing.wait_all_tasks_blocked(0.01)
            if cancelled:
                nursery.cancel_scope.cancel()
            connection.close()
        return weakref.ref(connection._wire)

    wire = await use_and_close()
    gc.collect()
    assert wire() is None


class ClosesAsTheReplyArrives(trio.abc.Instrument):
    """Closes a connection under a task at the moment when what it waits for has come, before it has run."""

    def __init__(self, connection: Connection, victim: trio.lowlevel.Task) -> None:
        self.connection = connection
        self.victim = victim

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.victim:
            self.connection.close()


async def test_closing_under_another_task_whose_reply_has_just_arrived(connection: Connection) -> None:
    """It is told the same; it was told of an attribute that nothing has. A pool that ends does that."""
    tasks: list[trio.lowlevel.Task] = []

    async def execute() -> None:
        tasks.append(trio.lowlevel.current_task())
        with pytest.raises(trio.ClosedResourceError):
            await connection.execute("SELECT SLEEP(0.1)")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(execute)
        await trio.testing.wait_all_tasks_blocked()
        instrument = ClosesAsTheReplyArrives(connection, *tasks)
        trio.lowlevel.add_instrument(instrument)
    trio.lowlevel.remove_instrument(instrument)
    assert connection.closed


async def test_load_data_local(server: MariaDBServer, connection: Connection, tmp_path: Path) -> None:
    """Only when asked for; a file larger than one packet arrives whole."""
    file = tmp_path / "numbers"
    file.write_text("".join(f"{i}\n" for i in range(300_000)))
    query = f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE numbers"
    with pytest.raises(err.MySQLError):
        await connection.execute(query)
    async with await connect(server.url, local_infile=True) as loader:
        await loader.execute("CREATE TEMPORARY TABLE numbers (n INT)")
        assert (await loader.execute(query)).rowcount == 300_000
        assert await (await loader.execute("SELECT SUM(n) FROM numbers")).fetchone() == (Decimal(sum(range(300_000))),)
        with pytest.raises(err.OperationalError, match="Can't open file"):
            await loader.execute("LOAD DATA LOCAL INFILE '/nowhere' INTO TABLE numbers")
        assert await (await loader.execute("SELECT COUNT(*) FROM numbers")).fetchone() == (300_000,)


async def test_read_timeout(server: MariaDBServer) -> None:
    """PyMySQL's error, and like PyMySQL's its connection is closed."""
    async with await connect(server.url, read_timeout=0.1) as connection:
        with pytest.raises(err.OperationalError, match="timed out") as caught:
            await connection.execute("SELECT SLEEP(10)")
        assert caught.value.args[0] == 2013
        assert connection.closed


async def test_write_timeout(server: MariaDBServer) -> None:
    """A server that takes nothing in any more."""
    with MariaDBServer() as stuck:
        async with await connect(stuck.url, write_timeout=0.1, max_allowed_packet=2**30) as connection:
            stuck.pause()
            with pytest.raises(err.OperationalError, match="timed out") as caught:
                await connection.execute("SELECT %s", ("x" * 30_000_000,))
            stuck.resume()
        assert caught.value.args[0] == 2006


async def test_a_connect_that_nobody_answers_times_out() -> None:
    with trio.socket.socket() as deaf:
        await deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        host, port = deaf.getsockname()
        with pytest.raises(err.OperationalError, match=r"Can't connect to MySQL server on '127.0.0.1' \(timed out\)"):
            await connect(host=host, port=port, connect_timeout=0.1)


async def test_a_refused_connect_says_why() -> None:
    with trio.socket.socket() as reserved:
        await reserved.bind(("127.0.0.1", 0))
        with pytest.raises(err.OperationalError, match="Connection refused") as caught:
            await connect(host="127.0.0.1", port=reserved.getsockname()[1])
    assert caught.value.args[0] == 2003
    assert isinstance(caught.value.original_exception, ConnectionRefusedError)


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(err.OperationalError) as caught:
        await connect(host="no-such-host.invalid")
    assert caught.value.args[0] == 2003


async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(err.OperationalError, match="Can't connect"):
        await connect(unix_socket=str(tmp_path / "none"))


async def test_an_idle_connection_keeps_nobodys_arguments_alive(connection: Connection) -> None:
    """What was sent is forgotten as soon as it is answered."""

    class Argument(str):  # noqa: SLOT000  a weak reference needs its dictionary
        pass

    argument = Argument("x")
    alive = weakref.ref(argument)
    await connection.execute("SELECT %s", (argument,))
    del argument
    gc.collect()
    assert alive() is None
