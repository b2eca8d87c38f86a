"""CLIENT PAUSE: a server that takes commands and answers none of them for a while, as in a planned failover."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from redis.exceptions import TimeoutError
from respool_redis import Connection, Redis, RedisAdapter, open_redis

from tests.adapters.redis.slots import use_all
from tests.servers import RedisServer

LONG = 60_000  # milliseconds: much longer than any test; `resume` ends it


@pytest.fixture
async def admin(fresh_redis_server: RedisServer) -> AsyncIterator[Connection]:
    """Of a server that is nobody else's. While only writes are paused it can look, and end the pause."""
    connection = await RedisAdapter(fresh_redis_server.url).open()
    yield connection
    await connection.client_unpause()
    connection.close_now()


@pytest.fixture
async def client(fresh_redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(fresh_redis_server.url, max_size=3) as client:
        yield client


async def paused_for(admin: Connection, waiting: int) -> None:
    """Wait until so many clients' commands are held back."""
    with trio.fail_after(20):
        while (await admin.info("clients"))["blocked_clients"] < waiting:  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_commands_wait_and_none_is_lost(admin: Connection, client: Redis) -> None:
    """On the shared connection and on leases, piped and not: all are answered when the pause is over, each its own."""
    async with client.client():  # so that there are two
        assert await client.ping()
    done: list[int] = []

    async def shared(number: int) -> None:
        assert await client.incr(f"shared:{number}") == 1
        done.append(number)

    async def leased(number: int) -> None:
        async with client.client() as connection, connection.pipeline() as pipe:
            pipe.incr(f"leased:{number}")
            pipe.echo(str(number))
            assert await pipe.execute() == [1, str(number).encode()]
        done.append(number)

    await admin.client_pause(LONG, all=False)  # of writes
    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(shared, number)
            nursery.start_soon(leased, number)
        await paused_for(admin, 2)
        assert done == []
        assert await admin.dbsize() == 0
        await admin.client_unpause()
    assert sorted(done) == sorted([*range(50), *range(50)])
    assert await admin.dbsize() == 100


async def test_reads_go_on_if_only_writes_are_paused(admin: Connection, client: Redis) -> None:
    """But not behind a write: Redis answers a connection's commands in order."""
    await client.set("k", "v")
    await admin.client_pause(LONG, all=False)
    async with trio.open_nursery() as nursery:
        with trio.fail_after(20):
            assert await client.get("k") == b"v"
        nursery.start_soon(client.incr, "n")
        await paused_for(admin, 1)
        with trio.move_on_after(0.05) as scope:
            await client.get("k")
        assert scope.cancelled_caught
        await admin.client_unpause()


TIMEOUTS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "shared": lambda r: r.incr("k"),
    "piped": lambda r: r.pipeline().incr("k").echo("x").execute(),
    "blocking": lambda r: r.blpop("none", 30),
    "watching": lambda r: r.transaction(lambda pipe: (pipe.multi(), pipe.incr("k")), "k"),
}


@pytest.mark.parametrize("what", TIMEOUTS)
async def test_a_timeout_works_and_nothing_is_lost_by_it(admin: Connection, client: Redis, what: str) -> None:
    """The caller leaves at once; its late reply reaches nobody, and the pool has all its connections again."""
    assert await client.ping()
    await admin.client_pause(LONG, all=False)
    await admin.config_set("maxclients", 5)  # ours may not grow beyond three, and the admin's two
    with trio.move_on_after(0.05) as scope:
        await TIMEOUTS[what](client)
    assert scope.cancelled_caught
    await admin.client_unpause()
    for number in range(20):
        assert await client.echo(str(number)) == str(number).encode()
    await use_all(client.pool, 3)  # the shared connection is given back within a second


async def test_redis_pys_own_timeout(admin: Connection, fresh_redis_server: RedisServer) -> None:
    async with open_redis(fresh_redis_server.url, socket_timeout=0.05) as client:
        await admin.client_pause(LONG, all=False)
        with pytest.raises(TimeoutError, match=r"no reply within 0.05 s"):
            await client.incr("k")
        await admin.client_unpause()
        assert await client.echo("mine") == b"mine"


async def test_a_server_paused_altogether_is_waited_for(
    admin: Connection, client: Redis, fresh_redis_server: RedisServer
) -> None:
    """Even connecting: the pool's open ends at its time limit and is tried again."""
    await admin.client_pause(300)
    async with open_redis(fresh_redis_server.url, open_timeout=0.1, max_size=1) as late:
        with trio.fail_after(20):
            assert await late.echo("mine") == b"mine"
            assert await client.echo("mine") == b"mine"
    assert late.pool.statistics().size == 0
