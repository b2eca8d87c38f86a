"""redis-py's commands, with redis-py's return values, because they are redis-py's."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import redis
import redis.asyncio
import trio
from redis.exceptions import DataError, NoScriptError, ResponseError
from respool_redis import Connection, RedisAdapter

# Each is run by redis-py itself and by us; the results must be equal.
SCRIPTS: list[list[tuple[Any, ...]]] = [
    [("set", "k", "v"), ("get", "k"), ("get", "none"), ("getdel", "k"), ("exists", "k")],
    [("set", "k", 1.5), ("incrbyfloat", "k", 0.1), ("append", "k", b"\xff"), ("strlen", "k"), ("type", "k")],
    [("mset", {"a": 1, "b": 2}), ("mget", "a", "b", "c"), ("incr", "a"), ("delete", "a", "b"), ("dbsize",)],
    [
        ("hset", "h", None, None, {"a": 1, "b": "2"}),
        ("hgetall", "h"),
        ("hmget", "h", "a", "c"),
        ("hincrby", "h", "a", 2),
    ],
    [("rpush", "l", 1, 2, 3), ("lrange", "l", 0, -1), ("lpop", "l", 2), ("blpop", "l", 1), ("lpop", "l")],
    [("sadd", "s", 1, 2), ("smembers", "s"), ("sismember", "s", 1), ("smismember", "s", [1, 9]), ("spop", "s", 5)],
    [("zadd", "z", {"a": 1, "b": 2.5}), ("zrange", "z", 0, -1, False, True), ("zscore", "z", "b"), ("zpopmin", "z")],
    [
        ("zadd", "z", {"a": 1}),
        ("zrangebyscore", "z", 0, 9, None, None, True),
        ("bzpopmax", "z", 1),
        ("zmscore", "z", ["a"]),
    ],
    [("xadd", "x", {"f": "v"}, "1-1"), ("xrange", "x"), ("xread", {"x": 0}), ("xlen", "x"), ("xinfo_stream", "x")],
    [("xadd", "x", {"f": "v"}, "1-1"), ("xgroup_create", "x", "g", 0), ("xreadgroup", "g", "me", {"x": ">"})],
    [
        ("geoadd", "g", [13.36, 38.11, "Palermo"]),
        ("geopos", "g", "Palermo"),
        ("geosearch", "g", "Palermo", None, None, "km", 9),
    ],
    [("pfadd", "p", 1, 2), ("pfcount", "p"), ("setbit", "b", 7, 1), ("bitcount", "b"), ("getrange", "b", 0, 0)],
    [("set", "k", "v", 100), ("ttl", "k"), ("expire", "k", 50), ("persist", "k"), ("rename", "k", "kk"), ("keys",)],
    [("eval", "return {1, 'two', redis.call('ping')}", 0), ("script_load", "return 1"), ("script_exists", "0" * 40)],
    [("config_get", "maxmemory"), ("config_set", "maxmemory", "0"), ("client_getname",), ("client_no_touch", "x")],
    [("lpush", "a", 1), ("incr", "a"), ("nosuchcommand",), ("execute_command", "get"), ("execute_command", "GeT", "a")],
    [("acl_whoami",), ("acl_getuser", "default"), ("command_count",), ("object", "encoding", "none"), ("echo", "hi")],
    [
        ("set", "k", "v"),
        ("dump", "k"),
        ("scan", 0),
        ("sort", "none"),
        ("lcs", "a", "b"),
        ("function_list",),
        ("time_",),
    ],
]


def outcome(client: Any, name: str, args: Any) -> Any:
    try:
        return getattr(client, name)(*args)
    except (redis.RedisError, AttributeError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script[0][0])
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}], ids=str)
async def test_values_are_those_of_redis_py(url: str, script: list[tuple[Any, ...]], options: dict[str, Any]) -> None:
    """The same calls give the same values, or the same errors, whatever the protocol."""
    theirs = redis.Redis.from_url(url, **options)
    expected = [outcome(theirs, name, args) for name, *args in script]
    theirs.flushall()
    theirs.close()
    ours = await RedisAdapter(url, **options).open()
    for (name, *args), value in zip(script, expected, strict=True):
        try:
            actual = await getattr(ours, name)(*args)
        except (redis.RedisError, AttributeError, TypeError) as error:
            actual = type(error)
        assert (name, actual) == (name, value)
    ours.close_now()


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
    assert [item async for item in conn.hscan_iter("h")] == [(b"a", b"1")]
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


async def test_modules(conn: Connection) -> None:
    """Their command classes work on our connection; this server just lacks the modules."""
    with pytest.raises(ResponseError, match="unknown command"):
        await conn.json().get("k")
    with pytest.raises(ResponseError, match="unknown command"):
        await conn.ft().search("q")
    with pytest.raises(ResponseError, match="unknown command"):
        await conn.ts().get("k")
    with pytest.raises(ResponseError, match="unknown command"):
        await conn.bf().add("k", 1)


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
