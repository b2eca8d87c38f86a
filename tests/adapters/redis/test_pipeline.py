"""Pipelines: redis-py's semantics, errors in the middle included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError, ResponseError, WatchError
from respool_redis import Connection, Redis, open_redis

from respool.testing import cancel_everywhere

QUEUES: dict[str, list[tuple[Any, ...]]] = {
    "all is well": [("set", "k", 1), ("incr", "k"), ("hset", "h", "f", "v"), ("hgetall", "h"), ("get", "none")],
    "wrong type": [("lpush", "l", 1), ("incr", "l"), ("lrange", "l", 0, -1)],
    "unknown command": [("set", "k", 1), ("execute_command", "nonsense"), ("get", "k")],
    "wrong arity": [("set", "k", 1), ("execute_command", "get"), ("get", "k")],
    "never decoded": [("set", "k", "v"), ("touch", "k")],
    "nothing": [],
}


@pytest.fixture(params=["connection", "client"])
async def source(request: pytest.FixtureRequest, url: str, conn: Connection) -> AsyncIterator[Any]:
    if request.param == "connection":
        yield conn
    else:
        async with open_redis(url) as client:
            yield client


def described(outcome: Any) -> Any:
    return [type(item) if isinstance(item, Exception) else item for item in outcome]


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize("raise_on_error", [True, False])
async def test_results_are_those_of_redis_py(
    url: str, source: Redis | Connection, queue: str, transaction: bool, raise_on_error: bool
) -> None:
    theirs = redis.Redis.from_url(url)
    pipes: list[Any] = [theirs.pipeline(transaction=transaction), source.pipeline(transaction=transaction)]
    outcomes: list[Any] = []
    for pipe in pipes:
        for name, *args in QUEUES[queue]:
            getattr(pipe, name)(*args)
        assert len(pipe) == len(QUEUES[queue])
        try:
            result = pipe.execute(raise_on_error)
            outcomes.append(described(await result if pipe is pipes[1] else result))
        except RedisError as error:
            outcomes.append(type(error))
        assert len(pipe) == 0
        if pipe is pipes[0]:
            theirs.flushall()
    theirs.close()
    assert outcomes[1] == outcomes[0]


async def test_an_error_names_its_command_and_nothing_else(source: Redis | Connection) -> None:
    """Unlike redis-py's, which repeats the arguments: the text ends up in logs."""
    pipe = source.pipeline()
    pipe.set("k", "secret")
    pipe.lpush("k", "hunter2")
    with pytest.raises(ResponseError, match=r"^Command # 2 \(LPUSH\) of pipeline caused error: WRONGTYPE") as caught:
        await pipe.execute()
    assert "hunter2" not in str(caught.value)


async def test_watch(source: Redis | Connection, other: Connection) -> None:
    async with source.pipeline() as pipe:
        await pipe.watch("k")
        assert await pipe.get("k") is None  # at once
        pipe.multi()
        pipe.set("k", "mine")
        assert await pipe.execute() == [True]
        await pipe.watch("k")
        await other.set("k", "theirs")
        pipe.multi()
        pipe.set("k", "mine")
        with pytest.raises(WatchError):
            await pipe.execute()
        assert await other.get("k") == b"theirs"
        await pipe.watch("k")
        await pipe.unwatch()
        await other.set("k", "theirs again")
        pipe.set("k", "mine")
        assert await pipe.execute() == [True]


async def test_what_cannot_be_done(source: Redis | Connection) -> None:
    async with source.pipeline() as pipe:
        pipe.multi()
        with pytest.raises(RedisError, match="nested"):
            pipe.multi()
        with pytest.raises(RedisError, match="WATCH after a MULTI"):
            await pipe.watch("k")
    async with source.pipeline() as pipe:
        pipe.set("k", 1)
        with pytest.raises(RedisError, match="already been issued"):
            pipe.multi()


async def test_leaving_forgets(source: Redis | Connection, conn: Connection) -> None:
    """Queued commands, and watched keys."""
    async with source.pipeline() as pipe:
        await pipe.watch("k")
        pipe.multi()
        pipe.set("k", 1)
    assert await conn.get("k") is None
    assert conn.is_clean


async def test_a_connection_lost_while_watching(url: str, other: Connection) -> None:
    """Nothing was executed: somebody who watches tries again, as after any lost race."""
    async with open_redis(url) as client:
        async with client.pipeline() as pipe:
            await pipe.watch("k")
            await other.client_kill_filter(_type="normal", skipme=True)
            assert pipe._hold.connection is not None
            with pytest.raises((WatchError, redis.ConnectionError)):
                await pipe.get("k")
        assert await client.transaction(lambda pipe: pipe.multi(), "k") == []


async def test_cancelled_anywhere(source: Redis | Connection) -> None:
    async def operation() -> None:
        async with source.pipeline() as pipe:
            await pipe.watch("k")
            pipe.multi()
            pipe.incr("k")
            await pipe.execute()

    async def check() -> None:
        assert await source.echo("mine") == b"mine"

    assert (await cancel_everywhere(operation, check=check)).cancelled


async def test_scripts_in_a_pipeline(source: Redis | Connection) -> None:
    double = source.register_script("return ARGV[1] * 2")
    await source.script_flush()
    async with source.pipeline() as pipe:
        await double(args=[3], client=pipe)  # type: ignore[arg-type]
        pipe.echo("hi")
        assert await pipe.execute() == [6, b"hi"]
