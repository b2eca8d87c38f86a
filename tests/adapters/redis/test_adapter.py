"""Redis connections as a pool's resources."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    ResponseError,
    TimeoutError,
)
from respool_redis import Connection, RedisAdapter

import respool
from respool.abc import Verdict
from respool.testing import check_adapter
from tests.fault_proxy import FaultProxy
from tests.servers import RedisServer


async def test_contract(redis_server: RedisServer) -> None:
    """Everything a pool relies on, with every fault, wherever it is cancelled."""

    async def use(connection: Connection) -> None:
        await connection.select(3)
        async with connection.pipeline() as pipe:
            await pipe.watch("k")
            pipe.multi()
            pipe.set("k", "theirs")
            pipe.get("k")
            await pipe.execute()
        await connection.get("k")

    async def check(connection: Connection) -> None:
        assert await connection.echo("mine") == b"mine"
        assert await connection.get("k") is None

    await check_adapter(
        lambda host, port: RedisAdapter(f"redis://{host}:{port}/0", client_name="mine"),
        server=(redis_server.host, redis_server.port),
        use=use,
        check=check,
    )


TRACES: dict[str, Callable[[Connection], Awaitable[Any]]] = {
    "another database": lambda c: c.select(3),
    "another database, in a transaction": lambda c: c.pipeline().execute_command("SELECT", 3).execute(),
    "watched keys": lambda c: c.execute_command("WATCH", "k"),
    "watched keys, not unwatched inside MULTI": lambda c: c.pipeline().execute_command("WATCH", "k"),
    "an open transaction": lambda c: c.execute_command("multi"),
    "RESP2": lambda c: c.execute_command("HELLO", 2),
    "no replies": lambda c: c.client_reply("OFF"),
    "a skipped reply": lambda c: c.client_reply("SKIP"),
    "a client name": lambda c: c.client_setname("somebody"),
    "key tracking": lambda c: c.client_tracking_on(),
    "another user": lambda c: c.auth("secret", "somebody"),
    "no database": lambda c: c.execute_command(b"reset"),
    "a script debugger": lambda c: c.execute_command("SCRIPT", "DEBUG", "NO"),
    "read-only on replicas": lambda c: c.readonly(),
}


@pytest.mark.parametrize("trace", TRACES)
async def test_traces_are_noticed_and_undone(url: str, other: Connection, trace: str) -> None:
    """Whatever a borrower did to the session, the next one gets it as it was opened."""
    await other.acl_setuser("somebody", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    adapter = RedisAdapter(url.removesuffix("/0"), db=5, client_name="ours")
    conn = await adapter.open()
    assert adapter.is_clean(conn)
    try:
        await TRACES[trace](conn)
    except ResponseError:
        assert trace == "read-only on replicas"  # this server is no cluster; it might have been
    assert not adapter.is_clean(conn)
    await adapter.reset(conn)
    assert adapter.is_clean(conn)
    info = await conn.client_info()
    assert (info["db"], info["name"], info["user"], info["multi"]) == (5, "ours", "default", -1)
    assert info["resp"] == "3"
    assert info["flags"] == "N"
    conn.close_now()


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.get("k"),
        lambda c: c.pipeline().execute_command("INCR", "k").execute(),
        lambda c: c.transaction(lambda pipe: (pipe.multi(), pipe.set("k", 1)), "k"),
        lambda c: c.execute_command("SELECT", "0"),
        lambda c: c.execute_command("client", "id"),
        lambda c: c.client_list(),
        lambda c: c.client_reply("ON"),
        lambda c: c.script_exists("0" * 40),
    ],
)
async def test_ordinary_use_leaves_no_trace(conn: Connection, use: Callable[[Connection], Awaitable[Any]]) -> None:
    """What needs no cleaning costs none."""
    await use(conn)
    assert conn.is_clean


async def test_replies_that_were_switched_off_are_not_waited_for(conn: Connection) -> None:
    with trio.fail_after(5):
        assert await conn.client_reply("SKIP") is None
        assert await conn.set("k", 1) is None
        assert await conn.get("k") == b"1"
        assert await conn.client_reply("OFF") is None
        assert await conn.set("k", 2) is None
        pipe = conn.pipeline(transaction=False)
        pipe.incr("k")
        pipe.incr("k")
        assert await pipe.execute() == [None, None]
        assert await conn.client_reply("ON") == b"OK"
        assert await conn.get("k") == b"4"


async def test_a_peer_that_has_gone_is_noticed(url: str, conn: Connection, other: Connection) -> None:
    """Synchronously, and by `reset`."""
    adapter = RedisAdapter(url)
    await other.client_kill_filter(_id=str(await conn.client_id()))
    await trio.lowlevel.wait_readable(conn._wire._transport.socket)
    assert not conn.is_clean
    with pytest.raises(ConnectionError, match="closed by server"):
        await adapter.reset(conn)
    await adapter.close(conn)
    await adapter.close(conn)


async def test_bytes_nobody_asked_for_are_noticed(conn: Connection, other: Connection) -> None:
    """RESP3 pushes: harmless, and gone after a reset."""
    await conn.client_tracking_on()
    await conn.get("k")
    await other.set("k", 1)
    await conn.make_clean()
    assert conn.is_clean
    assert await conn.get("k") == b"1"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ReadOnlyError("You can't write against a read only replica."), Verdict.DISCARD | Verdict.RETIRE),
        (BusyLoadingError("Redis is loading the dataset in memory"), Verdict.DISCARD | Verdict.RETIRE),
        (AuthenticationError("invalid username-password pair"), Verdict.DISCARD | Verdict.PERMANENT),
        (ResponseError("DB index is out of range"), Verdict.PERMANENT),
        (ConnectionError("Connection closed by server."), Verdict.KEEP),
        (TimeoutError("Timeout reading from socket"), Verdict.KEEP),
        (ValueError("the borrower's own affair"), Verdict.KEEP),
    ],
)
def test_verdicts(error: Exception, verdict: Verdict) -> None:
    assert RedisAdapter().verdict(error) == verdict


def test_a_bad_certificate_is_permanent() -> None:
    error = ConnectionError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError()
    assert RedisAdapter().verdict(error) == Verdict.PERMANENT


async def test_a_wrong_password_fails_at_once(redis_server: RedisServer) -> None:
    url = f"redis://nobody:hunter2@{redis_server.host}:{redis_server.port}"
    async with respool.open_pool(url) as pool:
        with trio.fail_after(5), pytest.raises(respool.OpenFailed) as caught:
            async with pool.acquire():
                pass
    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert "hunter2" not in repr(pool) + str(caught.value) + repr(RedisAdapter(url)) + RedisAdapter(url).name


async def test_a_database_that_does_not_exist_fails_at_once(url: str) -> None:
    with pytest.raises(ResponseError, match="out of range"):
        await RedisAdapter(url.removesuffix("0") + "999").open()


async def test_too_many_clients_is_transient(fresh_redis_server: RedisServer) -> None:
    """The pool tries again, and serves as soon as the server has room."""
    greedy = await RedisAdapter(fresh_redis_server.url).open()
    await greedy.config_set("maxclients", 1)
    with pytest.raises(ConnectionError):
        await RedisAdapter(fresh_redis_server.url).open()
    async with respool.open_pool(fresh_redis_server.url) as pool, trio.open_nursery() as nursery:

        async def borrow() -> None:
            async with pool.acquire(timeout=10) as conn:
                assert await conn.ping()

        nursery.start_soon(borrow)
        await trio.sleep(0.05)
        await greedy.config_set("maxclients", 100)
    greedy.close_now()


async def test_a_demoted_master_retires_the_generation(url: str, other: Connection) -> None:
    """One READONLY, and every connection opened before goes."""
    async with respool.open_pool(RedisAdapter(url), max_size=2) as pool:
        async with pool.acquire() as first, pool.acquire() as second:
            pass
        await other.replicaof("127.0.0.1", "1")
        with pytest.raises(ReadOnlyError):
            async with pool.acquire() as conn:
                await conn.set("k", "v")
        await other.replicaof("NO", "ONE")
        async with pool.acquire() as conn:
            assert await conn.set("k", "v")
        assert first.is_broken
        assert second.is_broken


async def test_password_and_name_are_not_told(url: str, conn: Connection) -> None:
    adapter = RedisAdapter("redis://me:hunter2@example.com:7000/3?client_name=x")
    assert adapter.name == "example.com:7000/3"
    assert "hunter2" not in repr(adapter)
    assert repr(conn) == f"<Connection to {RedisAdapter(url).name}, open>"
    conn.close_now()
    assert "closed" in repr(conn)


def test_adapters_are_values() -> None:
    assert RedisAdapter("redis://localhost/1") == RedisAdapter("redis://localhost", db=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RedisAdapter().settings = None  # type: ignore[misc, assignment]


async def test_unreachable_is_said_with_the_address(proxy: FaultProxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionError, match=rf"127\.0\.0\.1:{proxy.port}.*refused"):
        await RedisAdapter(f"redis://127.0.0.1:{proxy.port}").open()
