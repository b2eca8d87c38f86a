"""A pool of connections to a real MariaDB that fails in every way it can."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import trio
from pymysql import err
from pymysql.constants import CLIENT
from respool_mysql import Connection, MySQLAdapter, SSCursor, connect

import respool
from tests.adapters.asking import every_resource_works, value
from tests.adapters.mysql.scripted import Client, error, packets, result, scripted
from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.servers import MariaDBServer


async def number(connection: Connection, i: int) -> None:
    assert await value(connection, "SELECT %s + SLEEP(0.02)", i) == i


async def serves(pool: respool.Pool[Connection]) -> None:
    await every_resource_works(pool, number, err.MySQLError)


async def until_unclean(adapter: MySQLAdapter, connection: Connection) -> None:
    """What the server does to an idle connection has been noticed."""
    with trio.fail_after(10):
        while adapter.is_clean(connection):  # noqa: ASYNC110  another process's doing
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("options", "first"),
    [
        ({"autocommit": True}, ["SET NAMES utf8mb4"]),
        ({"autocommit": None}, ["SET NAMES utf8mb4"]),
        ({}, ["SET NAMES utf8mb4", "SET AUTOCOMMIT = 0"]),
    ],
)
async def test_nothing_is_sent_that_nobody_asked_for(options: Any, first: list[str]) -> None:
    """Neither for a connection nor for a lease, by the server's own log: a proxy may multiplex for ever."""
    with MariaDBServer(settings={"general_log": "1", "log_output": "TABLE"}) as server:
        async with respool.open_pool(MySQLAdapter(server.url, **options), max_size=1) as pool:
            for i in range(3):
                async with pool.acquire() as connection:
                    mine = connection.thread_id()
                    await connection.execute("SELECT %s", (i,))
                    async with connection.cursor(SSCursor) as stream:
                        await stream.execute("SELECT 'streamed'")
                        assert await stream.fetchall() == [("streamed",)]
        async with await connect(server.url) as observer:
            log = "SELECT argument FROM mysql.general_log WHERE thread_id = %s AND command_type <> 'Connect'"
            cursor = await observer.execute(log, (mine,))
            sent = [argument async for (argument,) in cursor]
    asked = [[f"SELECT {i}", "SELECT 'streamed'"] for i in range(3)]
    assert sent == [*first, *itertools.chain(*asked), ""]  # the last is the goodbye


async def leave_transaction(connection: Connection) -> None:
    await connection.begin()
    await connection.execute("INSERT INTO traces VALUES (1)")


async def leave_read_only_transaction(connection: Connection) -> None:
    await connection.execute("START TRANSACTION READ ONLY")
    await connection.execute("SELECT * FROM traces")


async def leave_failed_statement(connection: Connection) -> None:
    """Nothing but the error was said, and yet a transaction is open."""
    with pytest.raises(err.ProgrammingError):
        await connection.execute("CALL begin_and_fail()")


async def leave_autocommit(connection: Connection) -> None:
    await connection.autocommit(False)
    await connection.execute("INSERT INTO traces VALUES (1)")


async def leave_database(connection: Connection) -> None:
    await connection.select_db("mysql")


async def leave_charset(connection: Connection) -> None:
    await connection.set_character_set("latin1")


async def leave_results(connection: Connection) -> None:
    await connection.execute("SELECT 1; SELECT 2; SELECT 3")


async def leave_stream(connection: Connection) -> None:
    cursor = connection.cursor(SSCursor)
    await cursor.execute("SELECT seq FROM seq_1_to_1000000; SELECT 2")
    await cursor.fetchone()


async def leave_rows_of_a_short_stream(connection: Connection) -> None:
    cursor = connection.cursor(SSCursor)
    await cursor.execute("SELECT 1 UNION SELECT 2")
    await cursor.fetchone()


@pytest.mark.parametrize(
    "leave",
    [
        leave_transaction,
        leave_read_only_transaction,
        leave_failed_statement,
        leave_autocommit,
        leave_database,
        leave_charset,
        leave_results,
        leave_stream,
        leave_rows_of_a_short_stream,
    ],
)
async def test_no_borrower_meets_anothers_traces(server: MariaDBServer, leave: Any) -> None:
    """The same connection, as it was when it was opened."""
    async with await connect(server.url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS traces (a INT)")
        await connection.execute("DROP PROCEDURE IF EXISTS begin_and_fail")
        await connection.execute(
            "CREATE PROCEDURE begin_and_fail() BEGIN START TRANSACTION; INSERT INTO traces VALUES (1); "
            "SELECT * FROM no_such_table; END"
        )
    adapter = MySQLAdapter(server.url, autocommit=True, client_flag=CLIENT.MULTI_STATEMENTS)
    async with respool.open_pool(adapter, max_size=1) as pool:
        async with pool.acquire() as connection:
            number = connection.thread_id()
            await leave(connection)
        async with pool.acquire() as connection:
            assert connection.thread_id() == number
            query = "SELECT CONCAT_WS(' ', DATABASE(), @@autocommit, @@in_transaction, @@character_set_client, 'ü')"
            assert await value(connection, query) == "test ON 0 utf8mb4 ü"
            assert await value(connection, "SELECT COUNT(*) FROM traces") == 0
        assert not any(pool.statistics().discards.values())


async def test_reset_session_clears_what_only_the_server_knows(server: MariaDBServer) -> None:
    """By COM_RESET_CONNECTION; and what PyMySQL had set on connecting is set again."""
    adapter = MySQLAdapter(
        server.url + "?reset_session=true", autocommit=True, sql_mode="ANSI", init_command="SET @mine = 7"
    )
    async with respool.open_pool(adapter, max_size=1) as pool:
        async with pool.acquire() as connection:
            number = connection.thread_id()
            await connection.execute("SET @theirs = 1, time_zone = '+05:00'")
            await connection.execute("CREATE TEMPORARY TABLE theirs (a INT)")
            assert await value(connection, "SELECT GET_LOCK('theirs', 0)") == 1
            await connection.execute("USE mysql")
        async with pool.acquire() as connection:
            assert connection.thread_id() == number
            query = "SELECT CONCAT_WS(' ', @theirs, @mine, @@time_zone, @@sql_mode LIKE '%ANSI%', DATABASE())"
            assert await value(connection, query) == b"7 SYSTEM 1 test"
            assert await value(connection, "SELECT IS_FREE_LOCK('theirs')") == 1
            with pytest.raises(err.ProgrammingError):
                await connection.execute("SELECT * FROM theirs")


async def test_an_uncommitted_change_is_not_kept(server: MariaDBServer) -> None:
    """PyMySQL's default, autocommit off: what nobody commits is rolled back at the end of the lease."""
    async with respool.open_pool(MySQLAdapter(server.url), max_size=1) as pool:
        async with pool.acquire() as connection:
            await connection.execute("CREATE OR REPLACE TABLE uncommitted (a INT)")
            await connection.execute("INSERT INTO uncommitted VALUES (1)")
        async with pool.acquire() as connection:
            assert await value(connection, "SELECT COUNT(*) FROM uncommitted") == 0


async def test_restarted_server(fresh_mariadb_server: MariaDBServer) -> None:
    """Idle connections that the server closed are noticed before they are lent: no borrower gets an error."""
    server = fresh_mariadb_server
    async with respool.open_pool(MySQLAdapter(server.url, autocommit=True), max_size=3, min_size=3) as pool:
        await serves(pool)
        await server.restart_async()
        for i in range(6):
            async with pool.acquire() as connection:
                assert await value(connection, "SELECT %s", i) == i


async def test_wait_timeout(server: MariaDBServer) -> None:
    """The server ends an idle connection, with an error nobody asked for: it is discarded, never lent."""
    adapter = MySQLAdapter(server.url, autocommit=True, init_command="SET SESSION wait_timeout = 1")
    async with respool.open_pool(adapter, max_size=1) as pool:
        async with pool.acquire() as connection:
            number = connection.thread_id()
        await until_unclean(adapter, connection)
        async with pool.acquire() as connection:
            assert connection.thread_id() != number
            assert await value(connection, "SELECT 1") == 1


async def test_kill_of_an_idle_connection(server: MariaDBServer, observer: Connection) -> None:
    adapter = MySQLAdapter(server.url, autocommit=True)
    async with respool.open_pool(adapter, max_size=1) as pool:
        async with pool.acquire() as connection:
            number = connection.thread_id()
        await observer.kill(number)
        await until_unclean(adapter, connection)  # KILL is answered before it is carried out
        async with pool.acquire() as connection:
            assert connection.thread_id() != number
            assert await value(connection, "SELECT 1") == 1


async def test_max_connections() -> None:
    """1040 passes: whoever waits gets a connection as soon as the server has one."""
    with MariaDBServer(settings={"max_connections": "10"}) as server:
        async with respool.open_pool(MySQLAdapter(server.url, autocommit=True), max_size=2) as pool:
            others = []
            with pytest.raises(err.OperationalError, match="Too many connections"):
                while True:
                    others.append(await connect(server.url))
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def _() -> None:
                    async with pool.acquire() as connection:
                        assert await value(connection, "SELECT 1") == 1

                await trio.sleep(0.2)
                for other in others:
                    await other.aclose()


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5, 60, 200])
async def test_cut_in_the_middle_of_a_packet(server: MariaDBServer, after: int) -> None:
    """Wherever a reply ends, PyMySQL's error comes, and the pool goes on with another connection."""
    proxy = FaultProxy(server.host, server.port)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        async with respool.open_pool(MySQLAdapter(proxy.redirect(server.url), autocommit=True), max_size=1) as pool:
            async with pool.acquire():
                pass
            proxy.fault = Fault(cut_to_client=after)
            with pytest.raises(err.OperationalError) as caught:
                async with pool.acquire() as connection:
                    await connection.execute("SELECT REPEAT('x', 300)")
            assert caught.value.args[0] in (2006, 2013)
            proxy.fault = PASS
            async with pool.acquire() as connection:
                assert await value(connection, "SELECT 1") == 1
        nursery.cancel_scope.cancel()


async def test_a_wrong_password_fails_at_once(server: MariaDBServer) -> None:
    adapter = MySQLAdapter(host=server.host, port=server.port, user="nobody", password="s3cret")
    async with respool.open_pool(adapter) as pool:
        with pytest.raises(respool.OpenFailed) as caught, trio.fail_after(5):
            async with pool.acquire():
                pass
        assert isinstance(caught.value.__cause__, err.OperationalError)
        assert caught.value.__cause__.args[0] == 1045
        assert "s3cret" not in str(caught.value)


async def test_a_server_that_became_read_only_retires_every_connection(server: MariaDBServer) -> None:
    """1290, as after a failover: not only the connection that met it."""
    async with respool.open_pool(MySQLAdapter(server.url, autocommit=True), max_size=3) as pool:
        await serves(pool)
        opened = pool.statistics().opened
        with pytest.raises(err.OperationalError):
            async with pool.acquire():
                raise err.OperationalError(
                    1290,
                    "The MariaDB server is running with the --read-only option so it cannot execute this statement",
                )
        await serves(pool)
        assert pool.statistics().opened == opened + 3


async def test_a_reply_byte_by_byte() -> None:
    """However slowly a result arrives, it is the same."""

    async def script(client: Client) -> None:
        await client.welcome()
        for kind in range(3):
            await client.command()
            whole = packets(result(("ü", None), ("", "x" * 200), ("c", "d")))
            for i in range(0, len(whole), 1 + 6 * kind):
                await client.stream.send_all(whole[i : i + 1 + 6 * kind])
                await trio.lowlevel.checkpoint()
        await client.command()

    async with scripted(script) as port:
        connection = await connect(host="127.0.0.1", port=port, user="me", autocommit=True)
        for kind in (None, SSCursor, None):
            async with connection.cursor(kind) as cursor:
                await cursor.execute("SELECT")
                assert list(await cursor.fetchall()) == [("ü", None), ("", "x" * 200), ("c", "d")]
        connection.close()


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_error_instead_of_the_next_row(streaming: bool) -> None:
    """Rows before it are handed out by a streaming cursor; then the error comes; then the next query works."""

    async def script(client: Client) -> None:
        await client.welcome()
        await client.command()
        whole = result(("a",), ("b",))
        await client.send(*whole[:-1], error(1317, "Query execution was interrupted"))
        await client.command()
        await client.send(whole[0], error(1038, "Out of sort memory"))
        await client.command()
        await client.send(*whole)
        await client.command()

    async with scripted(script) as port:
        connection = await connect(host="127.0.0.1", port=port, user="me", autocommit=True)
        async with connection.cursor(SSCursor if streaming else None) as cursor:
            if streaming:
                await cursor.execute("SELECT")
                assert await cursor.fetchmany(2) == [("a",), ("b",)]
                with pytest.raises(err.OperationalError, match="interrupted"):
                    await cursor.fetchone()
            else:
                with pytest.raises(err.OperationalError, match="interrupted"):
                    await cursor.execute("SELECT")
            with pytest.raises(err.OperationalError, match="Out of sort memory"):
                await cursor.execute("SELECT")
            await cursor.execute("SELECT")
            assert list(await cursor.fetchall()) == [("a",), ("b",)]
        connection.close()


async def test_packets_out_of_order_end_the_connection() -> None:
    """PyMySQL's error, and nothing more is believed."""

    async def script(client: Client) -> None:
        await client.welcome()
        await client.command()
        await client.stream.send_all(packets(result(("not yours",)), 5))
        await client.command()

    async with scripted(script) as port:
        connection = await connect(host="127.0.0.1", port=port, user="me", autocommit=True)
        with pytest.raises(err.InternalError, match="got 5 expected 1"):
            await connection.execute("SELECT 1")
        assert connection.closed


async def test_a_reply_nobody_asked_for_is_not_taken_for_an_answer() -> None:
    """Bytes that arrive while a connection is idle: it is not clean, and reset refuses it."""

    async def script(client: Client) -> None:
        await client.welcome()
        await client.stream.send_all(packets(result(("not yours",)), 1))
        await client.command()

    async with scripted(script) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", autocommit=True)
        connection = await adapter.open()
        await until_unclean(adapter, connection)
        with pytest.raises(err.MySQLError):
            await adapter.reset(connection)
        connection.close()


async def test_a_server_that_asks_for_a_file_gets_none() -> None:
    """Unless ``local_infile`` says so. The connection is closed, because the server waits for the file."""
    received = []

    async def script(client: Client) -> None:
        await client.welcome()
        await client.command()
        await client.send(b"\xfb/etc/passwd")
        received.append(await client.receive())

    async with scripted(script) as port:
        connection = await connect(host="127.0.0.1", port=port, user="me", autocommit=True)
        with pytest.raises(err.OperationalError, match="local_infile"):
            await connection.execute("SELECT 1")
        assert connection.closed
    assert received in ([], [b""])


@pytest.mark.parametrize("kind", [None, SSCursor])
async def test_a_transaction_begun_by_reading_is_ended(server: MariaDBServer, kind: Any) -> None:
    """With autocommit off a SELECT begins one; only the packet behind its last row says so."""
    async with respool.open_pool(MySQLAdapter(server.url), max_size=1) as pool:
        async with pool.acquire() as connection:
            await connection.execute("CREATE OR REPLACE TABLE read_only (a INT)")
            await connection.execute("INSERT INTO read_only VALUES (1)")
            await connection.commit()
            async with connection.cursor(kind) as cursor:
                await cursor.execute("SELECT a FROM read_only")
                assert [row async for row in cursor] == [(1,)]
            assert connection.get_transaction_status()
        async with pool.acquire() as connection:
            assert await value(connection, "SELECT @@in_transaction") == 0
