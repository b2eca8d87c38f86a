"""The everyday client: many tasks, one connection, no reply for anybody else."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from redis.exceptions import ConnectionError, ReadOnlyError, ResponseError, WatchError
from respool_redis import Connection, NotSent, Redis, RedisAdapter, open_redis

import respool
from respool.testing import cancel_everywhere
from tests.adapters.redis.slots import use_all
from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.servers import RedisServer


async def test_a_hundred_thousand_commands_cancelled_at_random(url: str) -> None:
    """Not one wrong reply, not one lost connection."""
    tasks, each = 100, 1000
    counts = {"done": 0, "cancelled": 0, "refused": 0}

    async with open_redis(url, max_size=5) as redis:
        await redis.mset({f"key:{n}": f"value:{n}" for n in range(100)})

        async def plain(source: Redis | Connection, n: int, token: str) -> None:
            assert await source.echo(token) == token.encode()
            assert await source.get(f"key:{n}") == b"value:%d" % n

        async def piped(source: Redis | Connection, n: int, token: str) -> None:
            pipe = source.pipeline(transaction=n % 2 == 0)
            pipe.echo(token)
            pipe.get(f"key:{n}")
            assert await pipe.execute() == [token.encode(), b"value:%d" % n]

        async def alone(source: Redis, n: int, token: str) -> None:
            async with source.pool.acquire() as connection:
                await random.choice([plain, piped])(connection, n, token)

        async def watched(source: Redis, n: int, token: str) -> None:
            async with source.pipeline() as pipe:
                await pipe.watch(f"key:{n}")
                assert await pipe.get(f"key:{n}") == b"value:%d" % n
                pipe.multi()
                pipe.echo(token)
                assert await pipe.execute() == [token.encode()]

        async def blocked(source: Redis, n: int, token: str) -> None:
            assert await source.blpop(f"none:{token}", 0.001) is None

        async def user(number: int) -> None:
            chance = random.Random(number)
            kinds: list[Any] = [plain, plain, plain, plain, piped, piped, alone]
            for turn in range(each // 2):
                kind = (
                    watched if chance.random() < 0.01 else blocked if chance.random() < 0.01 else chance.choice(kinds)
                )
                try:
                    with trio.move_on_after(chance.expovariate(1 / 0.02)) as scope:
                        await kind(redis, chance.randrange(100), f"{number}:{turn}")
                except respool.PoolOverloaded:  # the pool foresees that the time will not be enough
                    counts["refused"] += 2
                else:
                    counts["cancelled" if scope.cancelled_caught else "done"] += 2

        async with trio.open_nursery() as nursery:
            for number in range(tasks):
                nursery.start_soon(user, number)

        assert sum(counts.values()) == tasks * each
        assert min(counts["done"], counts["cancelled"]) > tasks * each / 100
        holders = await use_all(redis.pool, 5)
        assert await redis.dbsize() == 100
    assert all(holder.is_broken for holder in holders)


async def test_tasks_share_one_connection(url: str) -> None:
    async with open_redis(url) as redis, trio.open_nursery() as nursery:

        async def one(n: int) -> None:
            assert await redis.echo(str(n)) == str(n).encode()

        for n in range(500):
            nursery.start_soon(one, n)
        await trio.testing.wait_all_tasks_blocked()
        assert redis.pool.statistics().size == 1


async def test_scripts_are_the_servers_and_not_a_connections(url: str) -> None:
    """So a lock, which loads its script when it is released for the first time, needs no connection of its own."""
    async with open_redis(url) as redis, trio.open_nursery() as nursery:
        await redis.script_flush()

        async def locked(n: int) -> None:
            async with redis.lock(f"lock {n}"):
                pass

        for n in range(20):
            nursery.start_soon(locked, n)
        await trio.testing.wait_all_tasks_blocked(0.05)
        sha = await redis.script_load("return 1")
        assert await redis.script_exists(sha) == [True]
        assert redis.pool.statistics().size == 1


OWN: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    "blocking": lambda r: r.blpop("none", 0.01),
    "blocking stream": lambda r: r.xread({"none": "$"}, block=10),
    "select": lambda r: r.select(1),
    "client name": lambda r: r.client_setname("x"),
    "script debugger": lambda r: r.execute_command("script", "debug", "no"),
    "resp": lambda r: r.execute_command("hello", 2),
    "pipeline that selects": lambda r: r.pipeline().execute_command("SELECT", 1).execute(),
}


@pytest.mark.parametrize("command", OWN)
async def test_commands_that_would_disturb_others_go_alone(url: str, command: str) -> None:
    """And leave nothing behind."""
    async with open_redis(url, client_name="ours", max_size=2) as redis:
        await redis.set("k", "v")
        used = await redis.get("k")
        await OWN[command](redis)
        assert redis.pool.statistics().size == 2
        for _ in range(3):
            async with redis.client() as connection:
                assert await connection.client_getname() == "ours"
                assert await connection.get("k") == used


async def test_ordinary_commands_do_not(url: str) -> None:
    async with open_redis(url, max_size=2) as redis:
        await redis.set("k", 1)
        async with redis.pipeline() as pipe:
            pipe.incr("k")
            await pipe.execute()
        await redis.xread({"none": "0"})
        assert redis.pool.statistics().size == 1


async def test_a_waiting_blocking_command_keeps_nobody_waiting(url: str) -> None:
    async with open_redis(url) as redis, trio.open_nursery() as nursery:

        async def wait() -> None:
            assert await redis.blpop("queue", 60) == (b"queue", b"element")

        nursery.start_soon(wait)
        await trio.sleep(0.05)
        with trio.fail_after(20):
            await redis.rpush("queue", "element")


async def test_a_transaction_that_lost_its_race(url: str) -> None:
    async with open_redis(url) as redis:
        async with redis.pipeline() as pipe:
            await pipe.watch("k")
            await redis.set("k", "somebody else's")
            pipe.multi()
            pipe.set("k", "mine")
            with pytest.raises(WatchError):
                await pipe.execute()

        async def increment(pipe: Any) -> None:
            value = int(await pipe.get("n") or 0)
            pipe.multi()
            pipe.set("n", value + 1)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(redis.transaction, increment, "n")
        assert await redis.get("n") == b"5"


async def test_a_cancelled_caller_disturbs_nobody(url: str) -> None:
    async with open_redis(url) as redis:

        async def check() -> None:
            assert await redis.echo("mine") == b"mine"

        report = await cancel_everywhere(lambda: redis.echo("theirs"), check=check)
        assert report.cancelled
        assert redis.pool.statistics().size == 1


async def test_a_broken_connection_fails_those_who_were_served_by_it(url: str, proxy: FaultProxy) -> None:
    """And nobody else: commands never sent go over another."""
    async with open_redis(proxy.redirect(url)) as redis:
        await redis.set("k", "v")
        proxy.fault = Fault(silent=True)
        errors = []

        async def ask() -> None:
            with pytest.raises(ConnectionError) as caught:
                await redis.get("k")
            errors.append(type(caught.value))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
            await trio.sleep(0.05)
            proxy.fault = PASS
            proxy.reset_all()
        assert len(errors) == 20
        assert NotSent not in errors
        assert await redis.get("k") == b"v"


async def test_an_idle_connection_that_was_closed_is_replaced_unnoticed(url: str, other: Connection) -> None:
    async with open_redis(url) as redis:
        await redis.set("k", "v")
        for _ in range(3):
            await other.client_kill_filter(_type="normal", skipme=True)
            assert await redis.get("k") == b"v"


async def test_the_shared_connection_is_only_lent(url: str) -> None:
    """An idle client holds no lease, so the pool can retire, shrink and validate."""
    async with open_redis(url) as redis:
        await redis.ping()
        assert redis.pool.statistics().lent == 1
        with trio.fail_after(5):
            while redis.pool.statistics().lent:  # noqa: ASYNC110  # real time passes on the server's side too
                await trio.sleep(0.05)
        assert await redis.ping()


async def test_one_connection_is_enough_for_all_kinds(url: str) -> None:
    """The shared one is given back for a command that needs it alone."""
    async with open_redis(url, max_size=1) as redis:
        with trio.fail_after(10):
            assert await redis.ping()
            assert await redis.blpop("none", 0.01) is None
            assert await redis.ping()


async def test_a_demoted_master_is_left(url: str, other: Connection) -> None:
    async with open_redis(url) as redis:
        await redis.set("k", 1)
        async with redis.client() as idle:
            pass
        await other.replicaof("127.0.0.1", "1")
        try:
            with pytest.raises(ReadOnlyError):
                await redis.set("k", 2)
        finally:
            await other.replicaof("NO", "ONE")
        assert await redis.set("k", 3)
        with trio.fail_after(5):
            while not idle.is_broken:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_errors_are_the_pools_when_there_is_no_connection(proxy: FaultProxy) -> None:
    proxy.refuse()
    async with open_redis(f"redis://127.0.0.1:{proxy.port}", acquire_timeout=0.2) as redis:
        with pytest.raises(respool.PoolTimeout) as caught:
            await redis.ping()
        assert "refused" in str(caught.value.__cause__)


async def test_it_waits_for_a_server_that_comes_up_late(proxy: FaultProxy) -> None:
    proxy.refuse()
    async with open_redis(f"redis://127.0.0.1:{proxy.port}") as redis, trio.open_nursery() as nursery:
        nursery.start_soon(redis.ping)
        nursery.start_soon(redis.ping)
        await trio.sleep(0.05)
        proxy.listen()


async def test_after_its_block_it_says_so(url: str) -> None:
    async with open_redis(url) as redis:
        await redis.ping()
    with pytest.raises(respool.PoolClosed):
        await redis.ping()
    with pytest.raises(respool.PoolClosed):
        await redis.blpop("none", 1)


async def test_the_users_error_comes_as_it_is(url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_redis(url) as redis:
            await redis.ping()
            raise ZeroDivisionError
    with trio.move_on_after(0.05) as scope:
        async with open_redis(url) as redis:
            await redis.blpop("none", 0)
    assert scope.cancelled_caught


async def test_options_find_their_way(url: str) -> None:
    async with open_redis(url, max_size=3, name="cache", decode_responses=True) as redis:
        assert redis.pool.limits.max_size == 3
        assert redis.pool.name == "cache"
        assert await redis.echo("hi") == "hi"
    async with open_redis(RedisAdapter(url), max_size=3) as redis:
        assert await redis.echo("hi") == b"hi"
    with pytest.raises(TypeError, match="belong to the adapter"):
        async with open_redis(RedisAdapter(url), decode_responses=True):
            pass
    with pytest.raises(TypeError, match="max_size"):
        async with open_redis(url, max_connections=3):
            pass


async def test_a_slow_server_pushes_back(url: str, proxy: FaultProxy) -> None:
    """Callers wait before they add to a long backlog, so memory does not grow with the wait."""
    async with open_redis(proxy.redirect(url)) as redis:
        await redis.ping()
        proxy.fault = Fault(silent=True)
        value = b"x" * 100_000
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                for n in range(300):
                    nursery.start_soon(redis.set, f"k{n}", value)
                await trio.sleep(0.3)
                assert redis._share is not None
                assert redis._share.connection is not None
                assert redis._share.connection._wire._backlog < 1_200_000
                await trio.sleep_forever()
        proxy.fault = PASS
        with trio.fail_after(10):
            assert await redis.echo("mine") == b"mine"
        assert await redis.dbsize() < 300  # what was never sent was withdrawn


async def test_a_command_that_was_sent_is_not_repeated(url: str, proxy: FaultProxy) -> None:
    """Its reply is cut off, and the server has done what it says: once."""
    async with open_redis(proxy.redirect(url)) as redis:
        await redis.set("n", 0)
        proxy.fault = Fault(cut_to_client=1)
        with pytest.raises(ConnectionError) as caught:
            await redis.incr("n")
        assert not isinstance(caught.value, NotSent)
        proxy.fault = PASS
        assert await redis.get("n") == b"1"


async def test_commands_never_sent_are_sent_on_another_connection(url: str, proxy: FaultProxy) -> None:
    """They stood behind one that was sent in part when the connection broke."""
    outcomes: dict[str, Any] = {}

    async with open_redis(proxy.redirect(url)) as redis:

        async def put(key: str, value: bytes) -> None:
            try:
                outcomes[key] = await redis.set(key, value)
            except ConnectionError as error:
                outcomes[key] = type(error)

        await redis.ping()
        proxy.fault = Fault(silent=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put, "large", bytes(50_000_000))
            await trio.testing.wait_all_tasks_blocked(0.05)
            for number in range(20):
                nursery.start_soon(put, f"small:{number}", b"v")
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert outcomes == {}
            proxy.fault = PASS
            proxy.reset_all()
        assert outcomes.pop("large") is ConnectionError
        assert outcomes == {f"small:{number}": True for number in range(20)}
        assert await redis.dbsize() == 20


@pytest.mark.parametrize(
    "blow", ["kill", "pause", "restart", "client kill", "client pause", "maxclients", "cut replies"]
)
async def test_it_outlives_its_server(fresh_redis_server: RedisServer, blow: str, nursery: trio.Nursery) -> None:
    """Whatever happens in between: afterwards it serves, with right replies and all its connections."""
    server = fresh_redis_server
    proxy = FaultProxy(server.host, server.port)
    await nursery.start(proxy.serve)
    wrong = []

    async with open_redis(proxy.redirect(server.url), max_size=4) as redis:

        async def user(number: int) -> None:
            turn = 0
            while True:
                turn += 1
                token = f"{number}:{turn}"
                try:
                    with trio.move_on_after(0.5):
                        if number % 5:
                            reply = await redis.echo(token)
                        else:
                            async with redis.client() as connection:
                                reply = await connection.echo(token)
                        if reply != token.encode():
                            wrong.append((token, reply))
                except (ConnectionError, ResponseError, respool.PoolError):
                    await trio.sleep(0.01)

        async with trio.open_nursery() as users:
            for number in range(20):
                users.start_soon(user, number)
            await trio.sleep(0.2)
            await strike(server, proxy, redis, blow)
            await trio.sleep(0.3)
            users.cancel_scope.cancel()
        await use_all(redis.pool, 4)
        assert await redis.echo("mine") == b"mine"
    assert wrong == []


async def strike(server: RedisServer, proxy: FaultProxy, redis: Redis, blow: str) -> None:
    match blow:
        case "kill":
            server.kill()
            await trio.sleep(0.1)
            await trio.to_thread.run_sync(server.start)
        case "restart":
            await trio.to_thread.run_sync(server.stop)
            await trio.to_thread.run_sync(server.start)
        case "pause":
            server.pause()
            await trio.sleep(0.7)
            server.resume()
        case "client kill":
            for _ in range(10):
                await redis.client_kill_filter(_type="normal", skipme=True)
                await trio.sleep(0.02)
        case "client pause":
            await redis.client_pause(700)
            await trio.sleep(0.8)
        case "maxclients":
            async with redis.client() as connection:
                await connection.config_set("maxclients", 1)
                await connection.client_kill_filter(_type="normal", skipme=True)
                await trio.sleep(0.5)
                await connection.config_set("maxclients", 100)
        case "cut replies":
            for length in range(1, 20):
                proxy.fault = Fault(cut_to_client=length)
                await trio.sleep(0.01)
            proxy.fault = PASS
