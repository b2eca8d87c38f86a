"""Cancelled anywhere, a task leaves at once; nobody ever meets what it left."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from pymysql import err
from respool_mysql import Connection, MySQLAdapter, SSCursor, _connection, connect

import respool
from respool.testing import cancel_everywhere
from tests.adapters.asking import value
from tests.adapters.mysql.scripted import OK, Client, error, packets, result, scripted
from tests.servers import MariaDBServer


async def running(observer: Connection, text: str) -> int:
    """How many connections the server is working for on a query with `text` in it."""
    cursor = await observer.execute("SHOW FULL PROCESSLIST")
    return sum(text in (row[7] or "") and row[0] != observer.thread_id() for row in await cursor.fetchall())


async def until_none_is_running(observer: Connection, text: str) -> None:
    with trio.fail_after(5):
        while await running(observer, text):
            await observer.execute("DO SLEEP(0.01)")


async def test_a_cancelled_query_is_killed_and_its_connection_lives(
    connection: Connection, observer: Connection
) -> None:
    """The task leaves at once; the next command of the same borrower finds the connection in order."""
    number = connection.thread_id()
    with trio.fail_after(30):  # not a thousand, however busy the machine
        with trio.move_on_after(0.1):
            await connection.execute("SELECT SLEEP(1000)")
        assert not connection.is_clean()
        assert await value(connection, "SELECT 'next'") == "next"
    assert connection.thread_id() == number
    assert not await running(observer, "SLEEP(1000)")


async def test_a_short_query_is_not_killed(
    connection: Connection, observer: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ends within the time of grace ends by itself: no extra connection for it."""
    monkeypatch.setattr(_connection, "GRACE", 4)  # seconds, which is long on a busy machine as well
    before = await value(
        observer, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Connections'"
    )
    with trio.move_on_after(0.01):
        await connection.execute("SELECT SLEEP(0.05)")
    assert await value(connection, "SELECT 'next'") == "next"
    after = await value(
        observer, "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'Connections'"
    )
    assert after == before


@pytest.mark.parametrize("kind", ["execute", "executemany", "stream", "transaction", "procedure"])
async def test_cancelled_everywhere(server: MariaDBServer, connection: Connection, kind: str) -> None:
    """At every point, and the next question gets its own answer on the same connection."""
    await connection.execute("CREATE OR REPLACE TEMPORARY TABLE t (a INT)")

    async def operation(connection: Connection) -> None:
        if kind == "execute":
            await connection.execute("SELECT SLEEP(0.002), 'theirs'")
        elif kind == "executemany":
            await connection.cursor().executemany("UPDATE t SET a = %s", [(1,), (2,), (3,)])
        elif kind == "stream":
            async with connection.cursor(SSCursor) as cursor:
                await cursor.execute("SELECT seq, REPEAT('x', 50) FROM seq_1_to_5000")
                async for _ in cursor:
                    pass
        elif kind == "transaction":
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (2)")
        else:
            await connection.set_character_set("utf8mb4")
            await connection.autocommit(False)
            await connection.autocommit(True)
            await connection.select_db("test")
            await connection.show_warnings()

    async def prepare() -> Connection:
        return connection

    async def check(connection: Connection) -> None:
        assert await value(connection, "SELECT 'mine'") == "mine"
        assert not connection.get_transaction_status()

    report = await cancel_everywhere(operation, prepare=prepare, check=check)
    assert report.points >= 2


async def test_connecting_cancelled_everywhere_leaves_nothing_open(server: MariaDBServer, observer: Connection) -> None:
    async def operation() -> None:
        connection = await MySQLAdapter(server.url).open()
        connection.close()

    async def check() -> None:
        with trio.fail_after(5):
            while int(await value(observer, "SELECT COUNT(*) FROM information_schema.PROCESSLIST")) > 1:
                await observer.execute("DO SLEEP(0.001)")

    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = trio.current_time() + 60
        report = await cancel_everywhere(operation, check=check)
    assert report.points > 5


async def test_the_rest_of_executemany_is_not_executed(connection: Connection) -> None:
    """A cancelled series of statements ends with the one that was under way."""
    await connection.execute("CREATE TEMPORARY TABLE t (a INT)")
    await connection.execute("INSERT INTO t VALUES (0)")
    with trio.move_on_after(0.1):
        await connection.cursor().executemany("UPDATE t SET a = a + 1 + SLEEP(%s)", [(0,), (0.15,), (0,), (0,)])
    assert await value(connection, "SELECT a FROM t") == 2


async def test_a_fetch_that_timed_out_can_be_repeated() -> None:
    """Streaming on after a time-out: not one row is lost."""
    asked = trio.Event()

    async def script(client: Client) -> None:
        await client.welcome()
        await client.command()
        whole = packets(result(*((str(i),) for i in range(5))))
        await client.stream.send_all(whole[:46])
        await asked.wait()
        for i in range(46, len(whole), 3):
            await client.stream.send_all(whole[i : i + 3])
            await trio.sleep(0.01)
        await client.command()

    async with scripted(script) as port:
        connection = await connect(host="127.0.0.1", port=port, user="me", autocommit=True)
        rows: list[Any] = []
        timeouts = 0
        async with connection.cursor(SSCursor) as cursor:
            await cursor.execute("SELECT")
            while True:
                with trio.move_on_after(0.005) as scope:
                    asked.set()
                    if (row := await cursor.fetchone()) is None:
                        break
                    rows.append(row[0])
                timeouts += scope.cancelled_caught
        assert rows == ["0", "1", "2", "3", "4"]
        assert timeouts > 5
        connection.close()


async def test_a_query_cut_off_while_it_was_being_sent_is_not_executed(fresh_mariadb_server: MariaDBServer) -> None:
    """The server gets no second half; the connection is closed."""
    server = fresh_mariadb_server
    async with await connect(server.url, autocommit=True) as observer:
        await observer.execute("SET GLOBAL max_allowed_packet = 64 * 1024 * 1024")
        await observer.execute("CREATE TABLE big (a LONGBLOB)")
        connection = await connect(server.url, autocommit=True)
        server.pause()
        with trio.move_on_after(0.1):
            await connection.execute("INSERT INTO big VALUES (%s)", ("x" * 30_000_000,))
        with pytest.raises(err.OperationalError, match="while its command was being sent"):
            await connection.execute("SELECT 1")
        assert connection.closed
        server.resume()
        await until_none_is_running(observer, "INSERT INTO big")
        assert await value(observer, "SELECT COUNT(*) FROM big") == 0


async def test_a_cancelled_load_data_local_loads_nothing(server: MariaDBServer, tmp_path: Path) -> None:
    """A file cut off half way is not taken for the whole."""
    file = tmp_path / "numbers"
    file.write_bytes(b"1\n" * 30_000_000)
    async with await connect(server.url, local_infile=True, autocommit=True) as connection:
        await connection.execute("CREATE OR REPLACE TABLE loaded (n INT)")
        with trio.move_on_after(0.3):
            await connection.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE loaded")
        adapter = MySQLAdapter(server.url)
        assert not adapter.is_clean(connection)
        with pytest.raises(err.OperationalError, match="being sent"):
            await adapter.reset(connection)
    async with await connect(server.url) as observer:
        await until_none_is_running(observer, "LOAD DATA")
        assert await value(observer, "SELECT COUNT(*) FROM loaded") == 0


async def test_an_abandoned_transaction_is_rolled_back_before_the_next_command(connection: Connection) -> None:
    """Cancelled somewhere in its block, not in a query."""
    await connection.execute("CREATE OR REPLACE TEMPORARY TABLE t (a INT)")
    with trio.move_on_after(0.1):
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            await trio.sleep_forever()
    assert not connection.is_clean()
    assert await value(connection, "SELECT COUNT(*) FROM t") == 0
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (2)")
        with trio.move_on_after(0.1):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (3)")
                await trio.sleep_forever()
    assert await (await connection.execute("SELECT a FROM t")).fetchall() == ((2,),)


async def stranger(client: Client) -> None:
    """Takes no notice of anything, and says that connection 1 comes from somewhere else."""
    await client.welcome()
    while command := await client.command():
        assert "KILL" not in command
        if command == "SHOW PROCESSLIST":
            await client.send(*result(("1", "me", "10.0.0.1:5000", None, "Query", "1", "", "SELECT 1")))


async def test_a_stranger_with_the_same_number_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind a proxy or a load balancer: the connection is given up instead, in time."""
    monkeypatch.setattr(_connection, "RECOVERY_LIMIT", 0.5)
    async with scripted(stranger) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", autocommit=True)
        connection = await adapter.open()
        with trio.move_on_after(0.05):
            await connection.execute("SELECT SLEEP(1000)")
        with pytest.raises(err.OperationalError, match="neither ended nor could be killed"):
            await adapter.reset(connection)
        assert connection.closed


async def test_no_connection_left_to_kill_with(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is full: the reply may still come, and does."""
    monkeypatch.setattr(_connection, "GRACE", 0.05)

    async def script(client: Client) -> None:
        if client.number > 1:
            await client.stream.send_all(packets([error(1040, "Too many connections")], 0))
            return
        await client.welcome()
        await client.command()
        await trio.sleep(0.3)
        await client.send(*result(("late",)))
        while (command := await client.command()) != "SELECT 2":
            assert command
            await client.send(OK)
        await client.send(*result(("right",)))

    async with scripted(script) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", autocommit=True)
        connection = await adapter.open()
        with trio.move_on_after(0.05):
            await connection.execute("SELECT 1")
        with caplog.at_level(logging.WARNING, "respool.mysql"):
            await adapter.reset(connection)
        assert "Too many connections" in caplog.text
        assert await value(connection, "SELECT 2") == "right"
        connection.close()


async def test_a_kill_that_comes_late_hits_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """KILL QUERY was accepted after the reply had left: the server applies it to what comes next, which is ours."""
    monkeypatch.setattr(_connection, "GRACE", 0.05)
    killed = trio.Event()
    seen = []
    port_of_victim = 0

    async def script(client: Client) -> None:
        nonlocal port_of_victim
        await client.welcome()
        if client.number == 1:
            stream = client.stream
            assert isinstance(stream, trio.SocketStream)
            port_of_victim = stream.socket.getpeername()[1]
            await client.command()
            await killed.wait()
            await client.send(*result(("not killed",)))
            pending = True
            while command := await client.command():
                seen.append(command)
                if pending:
                    await client.send(error(1317, "Query execution was interrupted"))
                elif command.startswith("SELECT"):
                    await client.send(*result(("mine",)))
                else:
                    await client.send(OK)
                pending = False
        else:
            assert await client.command() == "SHOW PROCESSLIST"
            await client.send(*result(("1", "me", f"localhost:{port_of_victim}", None, "Query", "1", "", "SELECT 1")))
            assert await client.command() == "KILL QUERY 1"
            await client.send(OK)
            killed.set()

    async with scripted(script) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", autocommit=True)
        connection = await adapter.open()
        with trio.move_on_after(0.05):
            await connection.execute("SELECT 1")
        await adapter.reset(connection)
        assert adapter.is_clean(connection)
        assert await value(connection, "SELECT 2") == "mine"
        assert seen[0].startswith("DO ")
        connection.close()


async def test_one_connection_at_a_time_is_opened_to_kill(fresh_mariadb_server: MariaDBServer) -> None:
    """A mass time-out is no connection storm: the server counts one more at a time, or two.

    Two, because it closes its side of a connection a moment before it counts it out.
    """
    server = fresh_mariadb_server
    async with (
        await connect(server.url, autocommit=True) as observer,
        respool.open_pool(MySQLAdapter(server.url, autocommit=True), max_size=8) as pool,
    ):

        async def impatient() -> None:
            async with pool.acquire() as connection:
                with trio.move_on_after(0.2):
                    await connection.execute("SELECT SLEEP(1001)")

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(impatient)
        async with AsyncExitStack() as leases:  # all of them at once, when all have been recovered
            for _ in range(8):
                await leases.enter_async_context(pool.acquire())
            statistics = pool.statistics()
        assert statistics.opened == 8
        assert not any(statistics.discards.values())
        cursor = await observer.execute("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")
        ((_, most),) = await cursor.fetchall()
        assert 8 + 1 + 1 <= int(most) <= 8 + 1 + 2


async def test_200_timed_out_queries(server: MariaDBServer, observer: Connection) -> None:
    """None runs on, no answer goes astray, no connection is lost."""
    async with respool.open_pool(MySQLAdapter(server.url, autocommit=True), max_size=10) as pool:

        async def borrower(i: int) -> None:
            with trio.move_on_after(0.003 * (i % 40)):
                async with pool.acquire() as connection:
                    assert await value(connection, "SELECT %s", i) == i
                    assert await value(connection, "SELECT %s + SLEEP(0.01)", -i) == -i

        async with trio.open_nursery() as nursery:
            for i in range(200):
                nursery.start_soon(borrower, i)
        for _ in range(20):
            async with pool.acquire() as connection:
                assert await value(connection, "SELECT 'mine'") == "mine"
        assert pool.statistics().opened == 10
    await until_none_is_running(observer, "SLEEP")
