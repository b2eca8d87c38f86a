"""What is special about some of redis-py's commands. What they return is compared in test_every_command.py."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import redis
import redis.asyncio
import trio
from redis.exceptions import DataError, NoScriptError
from respool_redis import Connection, RedisAdapter


def test_nothing_that_redis_py_has_is_missing() -> None:
    """Every public method of ``redis.asyncio.Redis`` exists, but for those that manage redis-py's own pool."""
    pool_business = {
        "auto_close_connection_pool",
        "from_pool",
        "from_url",
        "get_retry",
        "set_retry",
        "initialize",
        "client",
    }
    not_offered = {
        "himport_discard",
        "himport_discard_all",
        "himport_prepare",
        "himport_registry",
        "keyspace_notifications",
    }
    theirs = {name for name, _ in inspect.getmembers(redis.asyncio.Redis) if not name.startswith("_")}
    sentinel = {name for name in theirs if name.startswith("sentinel")}
    assert theirs - set(dir(Connection)) == pool_business - {"auto_close_connection_pool"} | not_offered | sentinel | {
        "close",
        "parse_response",
    }


async def test_iterators(conn: Connection) -> None:
    await conn.mset({f"k{i}": i for i in range(100)})
    await conn.hset("h", mapping={"a": "1"})
    await conn.zadd("z", {"a": 1})
    assert {key async for key in conn.scan_iter("k*", count=7)} == {b"k%d" % i for i in range(100)}
    await conn.sadd("s", "m")
    assert [item async for item in conn.hscan_iter("h")] == [(b"a", b"1")]
    assert [item async for item in conn.sscan_iter("s")] == [b"m"]
    assert [item async for item in conn.zscan_iter("z")] == [(b"a", 1.0)]


async def test_scripts_are_sent_when_the_server_lacks_them(conn: Connection) -> None:
    double = conn.register_script("return ARGV[1] * 2")
    assert await double(args=[21]) == 42
    await conn.script_flush()
    with pytest.raises(NoScriptError):
        await conn.evalsha(double.sha, 0, 1)
    assert await double(args=[4]) == 8
    await conn.script_flush()
    pipe = conn.pipeline()
    await double(args=[5], client=pipe)  # type: ignore[arg-type]
    assert await pipe.execute() == [10]


async def test_arguments_as_in_redis_py(conn: Connection) -> None:
    """str, bytes, bytearray, memoryview, int and float; for others an error that says so."""
    await conn.mset({"a": "ä", "b": b"b", "c": bytearray(b"c"), "d": memoryview(b"d"), "e": 1, "f": 0.1})
    assert await conn.mget(list("abcdef")) == ["ä".encode(), b"b", b"c", b"d", b"1", b"0.1"]
    for wrong in (None, True, [1]):
        with pytest.raises(DataError, match=r"Invalid input of type: .* Convert to a"):
            await conn.set("k", wrong)  # type: ignore[arg-type]
    assert await conn.ping()


async def test_encodings(url: str) -> None:
    latin = await RedisAdapter(url, encoding="latin-1", decode_responses=True).open()
    await latin.set("k", "ä")
    assert await latin.get("k") == "ä"
    assert await latin.strlen("k") == 1
    strict = await RedisAdapter(url, decode_responses=True).open()
    with trio.fail_after(5):
        with pytest.raises(UnicodeDecodeError):
            await strict.get("k")
        assert await strict.ping()  # only that one reply could not be read
        assert isinstance(await strict.dump("k"), bytes)  # never decoded
    latin.close_now()
    strict.close_now()


async def test_listening_commands_are_refused_with_advice(conn: Connection) -> None:
    """SUBSCRIBE has no reply to wait for."""
    with pytest.raises(DataError, match=r"use pubsub\(\) instead"):
        await conn.execute_command("subscribe", "news")
    with pytest.raises(DataError, match=r"use monitor\(\) instead"):
        await conn.execute_command("MONITOR")
    assert conn.is_clean


async def test_response_callbacks(conn: Connection, other: Connection) -> None:
    async def shout(reply: bytes, **options: Any) -> bytes:
        await trio.lowlevel.checkpoint()
        return reply.upper()

    conn.set_response_callback("get", lambda reply, **_: reply.decode())
    conn.set_response_callback("ECHO", shout)
    await conn.set("k", "v")
    assert await conn.get("k") == "v"
    assert await conn.echo("hi") == b"HI"
    assert await other.get("k") == b"v"
    await conn.make_clean()
    assert await conn.get("k") == b"v"


async def test_a_module_of_ones_own(conn: Connection) -> None:
    class Greeter:
        async def greet(self, name: str) -> Any:
            return await conn.echo(f"hello {name}")

    conn.load_external_module("greeter", Greeter())
    assert await conn.greeter.greet("you") == b"hello you"  # type: ignore[attr-defined]


async def test_a_command_built_step_by_step(conn: Connection) -> None:
    client: Any = conn
    builder = client.bitfield("b")
    assert await builder.set("u8", 0, 255).get("u4", 0).incrby("u8", 0, 1, overflow="FAIL").execute() == [0, 15, None]


async def test_lock(conn: Connection, other: Connection) -> None:
    lock = conn.lock("l", timeout=10)
    async with lock:
        assert await lock.locked()
        assert await lock.owned()
        assert not await other.lock("l", blocking_timeout=0.01).acquire()
        assert await lock.extend(5)
    assert not await lock.locked()


async def test_a_cancelled_holder_gives_its_lock_back(conn: Connection, other: Connection) -> None:
    with trio.move_on_after(0.05):
        async with conn.lock("l"):
            await trio.sleep_forever()
    assert await other.exists("l") == 0
