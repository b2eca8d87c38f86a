"""The master, wherever it is, according to real Sentinels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import redis
import trio
from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError, TimeoutError
from respool_redis import RedisAdapter, Sentinel, open_redis

import respool
from tests.servers import RedisServer


class Watched:
    """A master, a replica of it, and a Sentinel that decides alone."""

    def __init__(self) -> None:
        self.master = RedisServer()
        self.replica = RedisServer(settings={"replicaof": f"{self.master.host} {self.master.port}"})
        self.sentinel_server = RedisServer(
            sentinel=True,
            settings={
                "sentinel": [
                    f"monitor ours {self.master.host} {self.master.port} 1",
                    "down-after-milliseconds ours 300",
                    "failover-timeout ours 3000",
                ]
            },
        )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """A port where nobody is, and then the Sentinel."""
        return [(self.master.host, 1), (self.sentinel_server.host, self.sentinel_server.port)]


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    with ExitStack() as stack:
        for server in (watched.master, watched.replica, watched.sentinel_server):
            await trio.to_thread.run_sync(stack.enter_context, server)
        with redis.Redis.from_url(watched.sentinel_server.url) as client, trio.fail_after(20):
            while not await trio.to_thread.run_sync(client.execute_command, "SENTINEL REPLICAS", "ours"):  # noqa: ASYNC110
                await trio.sleep(0.05)
        yield watched


async def test_the_master_is_followed_after_a_failover(watched: Watched) -> None:
    sentinel = Sentinel(watched.addresses)
    async with open_redis(sentinel.master_for("ours", client_name="app"), acquire_timeout=20) as redis:
        assert redis.pool.name == "ours/0"
        await redis.set("k", "before")
        async with redis.client() as connection:
            assert connection.connection_pool.port == watched.master.port
        assert await redis.wait(1, 5000) >= 0
        watched.master.kill()
        with trio.fail_after(30):
            while True:
                try:
                    await redis.set("k", "after")
                    break
                except (ConnectionError, ReadOnlyError, respool.PoolError):
                    await trio.sleep(0.05)
        async with redis.client() as connection:
            assert connection.connection_pool.port == watched.replica.port
            assert await connection.get("k") == b"after"


async def test_the_master_is_followed_when_it_is_demoted(watched: Watched) -> None:
    """A planned failover: the old master goes on, as a replica, and no connection to it is lent any more."""
    sentinel = Sentinel(watched.addresses)
    async with open_redis(sentinel.master_for("ours"), acquire_timeout=20) as redis:
        await redis.set("k", "before")
        async with redis.client() as old:
            assert old.connection_pool.port == watched.master.port
        with trio.fail_after(30):
            while True:
                try:
                    await Sentinel(watched.addresses[1:]).execute_command("SENTINEL FAILOVER", "ours")
                    break
                except ResponseError:  # the replica is not in step yet
                    await trio.sleep(0.1)
            while True:
                try:
                    await redis.set("k", "after")
                    async with redis.client() as new:
                        if new.connection_pool.port == watched.replica.port:
                            break
                except (ConnectionError, ReadOnlyError, respool.PoolError):
                    pass
                await trio.sleep(0.05)
        assert await redis.get("k") == b"after"
        assert old.is_broken


async def test_replicas(watched: Watched) -> None:
    """Reads go to a replica; to the master if there is none."""
    sentinel = Sentinel(watched.addresses)
    async with open_redis(sentinel.replica_for("ours")) as redis:
        async with redis.client() as connection:
            assert connection.connection_pool.port == watched.replica.port
        with pytest.raises(ReadOnlyError):
            await redis.set("k", "v")
        watched.replica.kill()
        with trio.fail_after(10):
            async with redis.client() as connection:
                assert connection.connection_pool.port == watched.master.port


async def test_sentinels_that_do_not_know(watched: Watched) -> None:
    sentinel = Sentinel(watched.addresses)
    with pytest.raises(MasterNotFoundError, match=r"No master found for 'theirs'.*Sentinel 127.0.0.1:1>"):
        await sentinel.master_for("theirs").open()
    with pytest.raises(MasterNotFoundError):
        await Sentinel(watched.addresses, min_other_sentinels=1).master_for("ours").open()


async def test_a_silent_sentinel_is_passed_over(watched: Watched) -> None:
    watched.sentinel_server.pause()
    sentinel = Sentinel(watched.addresses[1:], socket_timeout=0.1)
    with trio.fail_after(5), pytest.raises(MasterNotFoundError, match="Timeout"):
        await sentinel.discover_master("ours")
    watched.sentinel_server.resume()
    assert await sentinel.discover_master("ours") == (watched.master.host, watched.master.port)


async def test_a_sentinel_behind_the_times_is_not_believed(watched: Watched) -> None:
    """The server itself is asked whether it is the master."""
    watched.sentinel_server.pause()
    demoted = await RedisAdapter(watched.master.url).open()
    adapter = Sentinel(watched.addresses).master_for("ours")
    await demoted.replicaof(watched.replica.host, str(watched.replica.port))
    with pytest.raises(ConnectionError, match="is not the master"):
        await adapter._open_at((watched.master.host, watched.master.port))
    demoted.close_now()
    watched.sentinel_server.resume()


def test_sentinels_are_needed() -> None:
    with pytest.raises(ValueError, match="at least one Sentinel"):
        Sentinel([])
    assert repr(Sentinel([("a", 1), ("b", 2)])) == "<Sentinels a:1, b:2>"


async def test_commands_to_all_or_one(watched: Watched) -> None:
    sentinel = Sentinel(watched.addresses[1:])
    assert await sentinel.execute_command("PING") is True
    assert await sentinel.execute_command("PING", once=True, return_responses=True) == [True]
    with pytest.raises((ConnectionError, TimeoutError)):
        await Sentinel(watched.addresses).execute_command("PING")
