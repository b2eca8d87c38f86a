"""A cancelled caller leaves at once, and its reply reaches nobody."""

from __future__ import annotations

from typing import Any

import pytest
import redis
import trio
from redis.exceptions import ConnectionError, TimeoutError
from respool_redis import Connection, NotSent, RedisAdapter

import respool
from respool.testing import cancel_everywhere
from tests.fault_proxy import PASS, Fault, FaultProxy


async def pipeline(conn: Connection) -> None:
    async with conn.pipeline() as pipe:
        pipe.echo("theirs")
        pipe.incr("k")
        await pipe.execute()


async def test_the_next_command_gets_its_own_reply(conn: Connection) -> None:
    """Wherever the one before was cancelled."""

    async def check() -> None:
        assert await conn.echo("mine") == b"mine"

    report = await cancel_everywhere(lambda: conn.echo("theirs"), check=check)
    assert report.cancelled
    report = await cancel_everywhere(lambda: pipeline(conn), check=check)
    assert report.cancelled
    await conn.make_clean()
    assert conn.is_clean


async def test_an_abandoned_reply_is_dropped_by_reset(url: str, proxy: FaultProxy) -> None:
    """The connection survives its borrower's time-out."""
    async with respool.open_pool(proxy.redirect(url), max_size=1) as pool:
        async with pool.acquire() as conn:
            first = await conn.client_id()
        proxy.fault = Fault(latency=0.05)
        with trio.move_on_after(0.02) as scope:
            async with pool.acquire() as conn:
                await conn.echo("theirs")
        assert scope.cancelled_caught
        async with pool.acquire() as conn:
            assert await conn.echo("mine") == b"mine"
            assert await conn.client_id() == first


async def test_a_cancelled_blocking_command_leaves_at_once(url: str, other: Connection) -> None:
    """The server forgets it at once, so an element pushed afterwards stays where it is."""
    async with respool.open_pool(url, max_size=1) as pool:
        with trio.move_on_after(0.05) as scope:
            async with pool.acquire() as conn:
                await conn.blpop("queue", 0)
        assert scope.cancelled_caught
        with trio.fail_after(20):
            async with pool.acquire() as conn:  # there is only one
                assert await conn.ping()
        await other.rpush("queue", "element")
        assert await other.lrange("queue", 0, -1) == [b"element"]


async def test_an_element_taken_for_nobody_is_told(
    url: str, other: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Popped, on its way, and its caller gone: it cannot be put back, but it is not lost in silence."""
    told: list[Any] = []
    adapter = RedisAdapter(url, orphaned=lambda commands, replies: told.append((commands, replies)))
    conn = await adapter.open()
    with trio.move_on_after(0.05):
        await conn.blpop("queue", 0)
    await other.rpush("queue", "element")
    await adapter.reset(conn)
    assert await conn.echo("mine") == b"mine"
    conn.close_now()
    assert told == [((("BLPOP", "queue", 0),), [[b"queue", b"element"]])]


async def test_a_warning_names_the_command_only(
    url: str, other: Connection, proxy: FaultProxy, caplog: pytest.LogCaptureFixture
) -> None:
    await other.rpush("queue", "secret")
    conn = await RedisAdapter(proxy.redirect(url)).open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await conn.lpop("queue")
    assert await other.llen("queue") == 1  # it was not even sent
    proxy.fault = Fault(latency=0.05)
    with trio.move_on_after(0.02):
        await conn.lpop("queue")
    await conn.make_clean()
    assert caplog.messages == ["a cancelled LPOP had already taken something, which is lost"]
    conn.close_now()


async def test_nothing_taken_is_nothing_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    conn = await RedisAdapter(url).open()
    with trio.move_on_after(0.05):
        await conn.blpop("queue", 0)
    await conn.make_clean()
    assert caplog.messages == []
    assert conn.is_clean
    conn.close_now()


async def test_too_much_for_nobody_is_not_read(url: str, proxy: FaultProxy) -> None:
    """Beyond some limit a new connection is cheaper than the replies."""
    conn = await RedisAdapter(proxy.redirect(url)).open()
    await conn.set("k", b"x" * 1_000_000)
    proxy.fault = Fault(latency=0.05)
    with trio.move_on_after(0.02):
        await conn.mget(["k"] * 4)
    with pytest.raises(ConnectionError, match="too much"):
        await conn.make_clean()
    conn.close_now()


async def test_a_giant_reply_for_nobody_stays_with_the_server(url: str, other: Connection) -> None:
    """Who has gone has nothing read into memory: what the kernel does not take waits in the server."""
    conn = await RedisAdapter(url).open()
    number = str(await conn.client_id())
    await conn.set("k", b"x" * 1_000_000)
    await other.client_pause(60_000, all=False)  # so that it is still to come when its caller leaves
    with trio.move_on_after(0.05) as scope:
        pipe = conn.pipeline(transaction=False)
        pipe.incr("held back")
        pipe.mget(["k"] * 50)
        await pipe.execute()
    assert scope.cancelled_caught
    await other.client_unpause()
    with trio.fail_after(20):
        while int((await other.client_list(client_id=[number]))[0]["omem"]) < 30_000_000:  # noqa: ASYNC110
            await trio.sleep(0.01)
    conn.close_now()


async def test_socket_timeout_as_in_redis_py(url: str, proxy: FaultProxy) -> None:
    conn = await RedisAdapter(proxy.redirect(url), socket_timeout=0.05).open()
    proxy.fault = Fault(silent=True)
    with pytest.raises(TimeoutError, match=r"no reply within 0.05 s"):
        await conn.ping()
    proxy.fault = PASS
    assert await conn.echo("mine") == b"mine"
    conn.close_now()


async def test_commands_never_sent_say_so(conn: Connection) -> None:
    conn.close_now()
    with pytest.raises(NotSent):
        await conn.set("k", "v")
    assert issubclass(NotSent, redis.ConnectionError)
