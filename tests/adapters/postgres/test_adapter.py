"""What a pool asks of the adapter, hook by hook."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import psycopg
import pytest
import trio
from psycopg import errors as e
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, TupleRow, dict_row
from respool_postgres import Connection, PostgresAdapter

import respool
from respool.abc import Verdict
from respool.testing import check_adapter
from tests.adapters.asking import value
from tests.servers import PgBouncerServer, PostgresServer


@asynccontextmanager
async def opened(adapter: PostgresAdapter[Any]) -> AsyncIterator[Connection[Any]]:
    connection = await adapter.open()
    try:
        yield connection
    finally:
        await adapter.close(connection)


async def test_contract(server: PostgresServer) -> None:
    """Everything a pool relies on, with every hook cancelled everywhere and the server cut off everywhere."""

    async def use(connection: Connection) -> None:
        async with connection.transaction():
            await connection.execute("SELECT 'theirs', pg_sleep(0.002)")

    async def check(connection: Connection) -> None:
        assert await value(connection, "SELECT 'mine'") == "mine"

    report = await check_adapter(
        lambda host, port: PostgresAdapter(f"postgresql://postgres@{host}:{port}/postgres"),
        server=(server.host, server.port),
        use=use,
        check=check,
    )
    assert report.recovered > report.discarded


# What it is


def test_names_and_reprs_hold_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PGHOST", "PGPORT", "PGDATABASE"):
        monkeypatch.delenv(variable, raising=False)
    adapter = PostgresAdapter("postgresql://app:hunter2@db.example:6432/shop?sslmode=require", password="hunter3")
    assert adapter.name == "db.example:6432/shop"
    assert repr(adapter) == "<PostgresAdapter db.example:6432/shop>"
    assert PostgresAdapter("host=a,b port=1,2 dbname=shop").name == "a:1,b:2/shop"
    assert PostgresAdapter("host=/run/postgresql user=app").name == "/run/postgresql:5432/app"


def test_adapters_are_values(server: PostgresServer) -> None:
    assert PostgresAdapter(server.url) == PostgresAdapter(server.url)
    assert PostgresAdapter(server.url) != PostgresAdapter(server.url, autocommit=False)


def test_bad_settings_are_refused_at_once_and_not_repeated() -> None:
    with pytest.raises(TypeError, match="neither psycopg nor libpq has an option 'hots'"):
        PostgresAdapter("host=x", hots="y")
    for conninfo in ("postgresql://app:hunter2@[::1/shop", "host=x hunter2", "password='hunter2"):
        with pytest.raises(ValueError, match="invalid connection string") as caught:
            PostgresAdapter(conninfo)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None
    with pytest.raises(ValueError, match="sslmode"):
        PostgresAdapter("sslmode=perhaps")
    with pytest.raises(ValueError, match="bad value for connect_timeout"):
        PostgresAdapter("postgresql://db.example/shop?connect_timeout=soon")


def test_an_unknown_option_is_named_unless_it_could_be_a_piece_of_a_password() -> None:
    for conninfo in ("postgresql://app:hunter2@db.example/shop?hots=y", "host=x hots=y"):
        with pytest.raises(ValueError, match="neither psycopg nor libpq has an option 'hots'"):
            PostgresAdapter(conninfo)
    for conninfo in (
        "postgresql://app:hun/shop?ter2=y@db.example",
        "postgresql://db.example/shop?password=hun&ter2=y",
        "host=x password=hun ter2=y",
    ):
        with pytest.raises(ValueError, match="invalid connection string") as caught:
            PostgresAdapter(conninfo)
        assert "ter2" not in str(caught.value)


async def test_url_through_the_entry_point(server: PostgresServer) -> None:
    async with respool.open_pool(server.url) as pool, pool.acquire() as connection:
        assert await value(connection, "SELECT 1") == 1
        assert connection.autocommit


async def test_types_of_rows_reach_the_borrower(server: PostgresServer) -> None:
    tuples: PostgresAdapter[TupleRow] = PostgresAdapter(server.url)
    dicts: PostgresAdapter[DictRow] = PostgresAdapter(server.url, row_factory=dict_row)
    async with respool.open_pool(dicts) as pool, pool.acquire() as connection:
        assert await (await connection.execute("SELECT 1 AS a")).fetchone() == {"a": 1}
    assert tuples.name == dicts.name


# Opening


async def test_password_is_asked_for_at_every_open() -> None:
    asked: list[str] = []

    async def ask() -> str:
        await trio.lowlevel.checkpoint()
        asked.append("asked")
        return "throw-away"

    with PostgresServer(authentication="scram-sha-256") as server:
        url = f"postgresql://postgres@{server.host}:{server.port}/postgres"
        for password in (ask, ask, lambda: "throw-away", "throw-away"):
            async with opened(PostgresAdapter(url, password=password)) as connection:
                assert await value(connection, "SELECT 1") == 1
    assert asked == ["asked", "asked"]


async def test_permanent_errors_fail_waiters_at_once() -> None:
    with PostgresServer(authentication="scram-sha-256") as server:
        url = f"postgresql://postgres@{server.host}:{server.port}"
        failures: dict[str, PostgresAdapter[Any]] = {
            "password authentication failed": PostgresAdapter(f"{url}/postgres", password="wrong"),
            'database "none" does not exist': PostgresAdapter(f"{url}/none", password="throw-away"),
            "no password supplied": PostgresAdapter(f"{url}/postgres"),
        }
        for message, adapter in failures.items():
            with trio.fail_after(5):
                async with respool.open_pool(adapter) as pool:
                    with pytest.raises(respool.OpenFailed) as caught:
                        async with pool.acquire():
                            pass
            assert message in str(caught.value.__cause__)


async def test_a_password_function_may_know_better_the_next_time() -> None:
    """A token that has just expired is not a reason to give up."""
    passwords = iter(["stale", "throw-away"])
    with PostgresServer(authentication="scram-sha-256") as server:
        url = f"postgresql://postgres@{server.host}:{server.port}/postgres"
        adapter = PostgresAdapter(url, password=lambda: next(passwords))
        async with respool.open_pool(adapter) as pool, pool.acquire() as connection:
            assert await value(connection, "SELECT 1") == 1


async def test_configure(server: PostgresServer) -> None:
    async def configure(connection: Connection) -> None:
        await connection.execute("SET application_name = 'configured'")
        connection.prepare_threshold = 2

    async with opened(PostgresAdapter(server.url, configure=configure)) as connection:
        assert await value(connection, "SHOW application_name") == "configured"
        assert connection.is_clean()


@pytest.mark.parametrize("name", ["password", "configure", "reset_session"])
def test_what_cannot_be_called_is_refused_at_once_and_not_repeated(name: str) -> None:
    options: dict[str, Any] = {name: b"hunter2"}
    with pytest.raises(TypeError, match=f"^{name} must be a .*function, not bytes$"):
        PostgresAdapter("host=x", **options)


async def test_what_is_not_async_and_should_be_is_told_by_name(server: PostgresServer) -> None:
    not_async: Any = lambda _: None  # noqa: E731
    with pytest.raises(TypeError, match=r"^configure must be an async function; it returned NoneType"):
        await PostgresAdapter(server.url, configure=not_async).open()
    async with respool.open_pool(PostgresAdapter(server.url, configure=not_async)) as pool:
        with pytest.raises(respool.OpenFailed, match="configure must be an async function"):
            await pool.acquire().__aenter__()
    adapter = PostgresAdapter(server.url, reset_session=not_async)
    async with opened(adapter) as connection:
        await connection.execute("SELECT 1")
        with pytest.raises(TypeError, match=r"^reset_session must be an async function; it returned NoneType"):
            await adapter.reset(connection)


async def test_configure_may_not_leave_a_transaction_open(server: PostgresServer) -> None:
    async def configure(connection: Connection) -> None:
        await connection.execute("SET application_name = 'configured'")

    with pytest.raises(e.ProgrammingError, match="configure left a transaction open"):
        await PostgresAdapter(server.url, configure=configure, autocommit=False).open()


# Clean or not


async def test_is_clean_asks_nobody(server: PostgresServer) -> None:
    """How long it takes is measured by ``make bench ARGS=postgres.is-clean``."""
    adapter = PostgresAdapter(server.url)
    async with opened(adapter) as connection:
        server.pause()
        try:
            assert adapter.is_clean(connection)
        finally:
            server.resume()


async def test_not_clean(server: PostgresServer) -> None:
    """An open transaction, a COPY, a stream, a pipeline, a listener, and anything changed."""
    adapter = PostgresAdapter(server.url)
    async with opened(adapter) as connection, opened(adapter) as other:

        async def begin() -> None:
            await connection.execute("BEGIN")

        async def fail() -> None:
            with pytest.raises(e.UndefinedTable):
                await connection.execute("BEGIN; SELECT * FROM none_such")

        async def copy_by_mistake() -> None:
            with pytest.raises(e.ProgrammingError, match="COPY"):
                await connection.execute("COPY pg_class TO STDOUT")

        async def stream() -> None:
            left.append(connection.cursor().stream("SELECT generate_series(1, 10)"))
            await anext(left[-1])

        async def pipeline() -> None:
            left.append(connection.pipeline())
            await left[-1].__aenter__()
            await connection.execute("SELECT 1")

        async def empty_pipeline() -> None:
            left.append(connection.pipeline())
            await left[-1].__aenter__()

        async def block_ended_by_hand() -> None:
            left.append(connection.transaction())
            await left[-1].__aenter__()
            await connection.execute("ROLLBACK")

        async def listen() -> None:
            await connection.execute("LISTEN theirs")
            connection.add_notify_handler(print)

        async def listen_and_iterate() -> None:
            await connection.execute("LISTEN theirs")
            async with aclosing(connection.notifies(timeout=0)) as notifications:
                async for _ in notifications:
                    pass

        async def hear_oneself() -> None:
            await connection.execute("LISTEN theirs")
            await connection.execute("NOTIFY theirs")

        async def hear() -> None:
            await connection.execute("LISTEN theirs")
            await other.execute("NOTIFY theirs")
            with trio.fail_after(5):
                await trio.lowlevel.wait_readable(connection.fileno())

        async def tpc() -> None:
            connection._autocommit = False
            await connection.tpc_begin("theirs")

        async def tpc_prepared() -> None:
            await connection.set_autocommit(False)
            await connection.tpc_begin("theirs")
            await connection.tpc_prepare()
            connection._autocommit = True

        async def rows() -> None:
            connection.row_factory = dict_row

        async def read_only() -> None:
            await connection.set_read_only(True)

        async def threshold() -> None:
            connection.prepare_threshold = None

        async def handler() -> None:
            connection.add_notice_handler(print)

        async def types() -> None:
            connection.adapters.register_loader("int4", psycopg.types.string.TextLoader)

        left: list[Any] = []
        for leave in (
            begin,
            fail,
            copy_by_mistake,
            stream,
            pipeline,
            empty_pipeline,
            block_ended_by_hand,
            listen,
            listen_and_iterate,
            hear_oneself,
            hear,
            tpc,
            tpc_prepared,
            rows,
            read_only,
            threshold,
            handler,
            types,
        ):
            assert adapter.is_clean(connection)
            await leave()
            assert not adapter.is_clean(connection), leave.__name__
            await adapter.reset(connection)
            assert adapter.is_clean(connection), leave.__name__
            assert await value(connection, "SELECT 1") == 1
            assert await value(connection, "SELECT count(*) FROM pg_listening_channels()") == 0
        await connection.tpc_rollback("theirs")
        rows_left, *blocks_left = left
        await rows_left.aclose()
        for block in blocks_left:
            with pytest.raises(e.ProgrammingError, match="block has outlived its borrower's lease"):
                await block.__aexit__(None, None, None)
        assert adapter.is_clean(connection)


async def test_a_closed_peer_is_not_clean(server: PostgresServer) -> None:
    adapter = PostgresAdapter(server.url)
    async with opened(adapter) as connection, opened(adapter) as other:
        await other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        assert not adapter.is_clean(connection)
        with pytest.raises(e.OperationalError):
            await adapter.reset(connection)
        assert not adapter.is_clean(connection)


async def test_an_open_transaction_is_rolled_back_and_told_once(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with respool.open_pool(PostgresAdapter(server.url, autocommit=False)) as pool:
        for _ in range(3):
            async with pool.acquire() as connection:
                await connection.execute("CREATE TABLE lost (i int)")
    told = [record for record in caplog.records if record.name == "respool.postgres"]
    assert len(told) == 1
    assert "left a transaction open: rolled back" in told[0].getMessage()
    assert told[0].levelno == logging.WARNING


@pytest.mark.parametrize("kind", ["statement", "function"])
async def test_session_state_is_reset_if_asked_for(server: PostgresServer, kind: str) -> None:
    calls: list[str] = []

    async def configure(connection: Connection) -> None:
        calls.append("configure")
        await connection.execute("SET application_name = 'configured'")

    async def discard(connection: Connection) -> None:
        calls.append("reset")
        await connection.execute("RESET search_path; DROP TABLE IF EXISTS pg_temp.theirs")

    reset_session = "DISCARD ALL" if kind == "statement" else discard
    adapter = PostgresAdapter(server.url, configure=configure, reset_session=reset_session)
    async with respool.open_pool(adapter, max_size=1) as pool:
        for _ in range(2):
            async with pool.acquire() as connection:
                assert await value(connection, "SHOW application_name") == "configured"
                assert await value(connection, "SELECT to_regclass('pg_temp.theirs')") is None
                await connection.execute("CREATE TEMP TABLE theirs (i int)")
                await connection.execute("SET search_path = 'nowhere'")
                for _ in range(10):
                    await connection.execute("SELECT 'prepared'", prepare=True)
        async with pool.acquire():
            pass  # not used: nothing to reset
        assert pool.statistics().opened == 1
    assert calls == (["configure"] * 3 if kind == "statement" else ["configure", "reset", "reset"])


async def test_unused_connections_are_clean_without_a_reset(server: PostgresServer) -> None:
    adapter = PostgresAdapter(server.url, reset_session="DISCARD ALL")
    async with opened(adapter) as connection:
        assert adapter.is_clean(connection)
        await connection.execute("SELECT 1")
        assert not adapter.is_clean(connection)


async def test_what_an_adapter_keeps_for_the_next_borrower(server: PostgresServer) -> None:
    """Settings of the connection come back; settings of the server's session do not, unless asked for."""
    adapter = PostgresAdapter(server.url)
    async with opened(adapter) as connection:
        connection.row_factory = dict_row
        await connection.set_autocommit(False)
        await connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        connection.prepared_max = None
        await connection.execute("SET application_name = 'theirs'")
        await connection.commit()
        await adapter.reset(connection)
        assert connection.autocommit
        assert connection.isolation_level is None
        assert connection.prepared_max == 100
        async with connection.transaction():
            assert await value(connection, "SHOW transaction_isolation") == "read committed"
        assert await value(connection, "SHOW application_name") == "theirs"


async def test_notifications_of_the_last_borrower_do_not_reach_the_next(server: PostgresServer) -> None:
    adapter = PostgresAdapter(server.url)
    async with opened(adapter) as connection, opened(adapter) as other:
        await connection.execute("LISTEN theirs")
        await connection.execute("NOTIFY theirs, 'secret'")
        await adapter.reset(connection)
        await other.execute("NOTIFY theirs, 'secret too'")
        async with aclosing(connection.notifies(timeout=0.05)) as notifications:
            assert [notification async for notification in notifications] == []


# Validating and closing


async def test_validate_makes_a_round_trip(server: PostgresServer) -> None:
    for autocommit in (True, False):
        adapter = PostgresAdapter(server.url, autocommit=autocommit)
        async with opened(adapter) as connection, opened(PostgresAdapter(server.url)) as other:
            await adapter.validate(connection)
            assert connection.info.transaction_status == TransactionStatus.IDLE
            await other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
            with pytest.raises(e.OperationalError):
                await adapter.validate(connection)


async def test_validate_wants_a_primary_where_one_was_asked_for(fresh_postgres_server: PostgresServer) -> None:
    server = fresh_postgres_server
    await server.stop_async()
    (server.data / "standby.signal").touch()
    await server.start_async()
    async with opened(PostgresAdapter(server.url)) as connection:
        for wanted in ("any", "standby"):
            await PostgresAdapter(server.url, target_session_attrs=wanted).validate(connection)
        for wanted in ("primary", "read-write"):
            with pytest.raises(e.OperationalError, match="in_hot_standby is on"):
                await PostgresAdapter(server.url, target_session_attrs=wanted).validate(connection)


async def test_validate_wants_a_session_that_can_write_where_one_was_asked_for(server: PostgresServer) -> None:
    async with opened(PostgresAdapter(server.url)) as connection:
        await connection.execute("SET default_transaction_read_only = on")
        await PostgresAdapter(server.url, target_session_attrs="primary").validate(connection)
        with pytest.raises(e.OperationalError, match="default_transaction_read_only is on"):
            await PostgresAdapter(server.url, target_session_attrs="read-write").validate(connection)


async def test_close_stops_a_running_query(server: PostgresServer) -> None:
    """The server would not notice that nobody is there any more before the query ends."""
    adapter = PostgresAdapter(server.url)
    connection = await adapter.open()
    backend = connection.info.backend_pid
    with trio.move_on_after(0.05):
        await connection.execute("SELECT pg_sleep(60)")
    await adapter.close(connection)
    async with opened(adapter) as watcher:
        query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
        with trio.fail_after(5):
            while await value(watcher, query, backend):  # noqa: ASYNC110  # another process's doing
                await trio.sleep(0.01)


# Verdicts


def error(sqlstate: str) -> e.Error:
    return e.lookup(sqlstate)("told")


@pytest.mark.parametrize(
    ("sqlstate", "verdict"),
    [
        ("57P01", Verdict.DISCARD | Verdict.RETIRE),
        ("57P02", Verdict.DISCARD | Verdict.RETIRE),
        ("57P03", Verdict.DISCARD | Verdict.RETIRE),
        ("08006", Verdict.DISCARD),
        ("28P01", Verdict.DISCARD | Verdict.PERMANENT),
        ("28000", Verdict.DISCARD | Verdict.PERMANENT),
        ("3D000", Verdict.DISCARD | Verdict.PERMANENT),
        ("25006", Verdict.KEEP),
        ("23505", Verdict.KEEP),
        ("57014", Verdict.KEEP),
        ("40001", Verdict.KEEP),
    ],
)
def test_verdict_on_sqlstates(sqlstate: str, verdict: Verdict) -> None:
    assert PostgresAdapter("host=x").verdict(error(sqlstate)) == verdict


def test_verdict_on_a_primary_that_became_read_only() -> None:
    for wanted in ("read-write", "primary"):
        adapter = PostgresAdapter("host=x", target_session_attrs=wanted)
        assert adapter.verdict(error("25006")) == Verdict.DISCARD | Verdict.RETIRE


@pytest.mark.parametrize(
    ("failure", "verdict"),
    [
        (e.OperationalError("server closed the connection unexpectedly"), Verdict.DISCARD),
        (e.OperationalError("connection failed: Connection refused"), Verdict.DISCARD),
        (e.OperationalError('FATAL:  role "x" does not exist'), Verdict.DISCARD | Verdict.PERMANENT),
        (e.OperationalError('FATAL:  no pg_hba.conf entry for host "x"'), Verdict.DISCARD | Verdict.PERMANENT),
        (e.PipelineAborted("pipeline aborted"), Verdict.KEEP),
        (e.ProgrammingError("the last operation didn't produce a result"), Verdict.KEEP),
        (ValueError("the borrower's own"), Verdict.KEEP),
    ],
)
def test_verdict_on_errors_without_sqlstate(failure: Exception, verdict: Verdict) -> None:
    assert PostgresAdapter("host=x").verdict(failure) == verdict


def test_several_hosts_fail_for_good_only_if_all_do() -> None:
    refused, unreachable = e.OperationalError('role "x" does not exist'), e.OperationalError("Connection refused")
    for attempts, verdict in (
        ([refused, refused], Verdict.DISCARD | Verdict.PERMANENT),
        ([refused, unreachable], Verdict.DISCARD),
    ):
        failure = e.OperationalError("Multiple connection attempts failed")
        failure.__cause__ = ExceptionGroup("connection attempts", attempts)
        assert PostgresAdapter("host=x").verdict(failure) == verdict


# Behind PgBouncer


async def test_pgbouncer_in_session_mode(server: PostgresServer) -> None:
    with PgBouncerServer(server, mode="session") as bouncer:
        await use_behind(PostgresAdapter(bouncer.url))


async def test_pgbouncer_in_transaction_mode(server: PostgresServer) -> None:
    """Statements prepared on one server connection are unknown on the next, so none may be prepared."""
    with PgBouncerServer(server, mode="transaction", settings={"default_pool_size": "2"}) as bouncer:
        await use_behind(PostgresAdapter(bouncer.url, prepare_threshold=None))


async def use_behind(adapter: PostgresAdapter[Any]) -> None:
    async with respool.open_pool(adapter, max_size=8) as pool:

        async def use(i: int) -> None:
            async with pool.acquire() as connection:
                for _ in range(8):
                    assert await value(connection, "SELECT %s::int", i) == i
                async with connection.transaction():
                    assert await value(connection, "SELECT %s::int", i) == i

        async def time_out() -> None:
            with trio.move_on_after(0.05):
                async with pool.acquire() as connection:
                    await connection.execute("SELECT pg_sleep(60)")

        async with trio.open_nursery() as nursery:
            for i in range(30):
                nursery.start_soon(use, i)
                nursery.start_soon(time_out)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for i in range(8):
                    nursery.start_soon(use, i)
        statistics = pool.statistics()
        assert statistics.opened <= 8
        assert sum(statistics.discards.values()) == 0
