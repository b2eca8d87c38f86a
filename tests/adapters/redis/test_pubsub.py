"""Connections that listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from redis.exceptions import ConnectionError, PubSubError
from respool_redis import Connection, Redis, RedisAdapter, open_redis

from respool.testing import cancel_everywhere


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def client(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Redis]:
    async with open_redis(url, protocol=request.param, max_size=4) as client:
        yield client


async def test_the_story(client: Redis) -> None:
    async with client.pubsub() as ps:
        await ps.subscribe("news", "weather")
        await ps.psubscribe("s*")
        kinds = [(await ps.get_message(timeout=5))["type"] for _ in range(3)]
        assert kinds == ["subscribe", "subscribe", "psubscribe"]
        assert await client.publish("news", "hi") == 1
        assert await client.publish("sport", "goal") == 1
        messages = []
        async for message in ps:
            messages.append((message["type"], message["channel"], message["data"]))
            if len(messages) == 2:
                break
        assert messages == [("message", b"news", b"hi"), ("pmessage", b"sport", b"goal")]
        await ps.unsubscribe("weather")
        assert (await ps.get_message(timeout=5))["type"] == "unsubscribe"
        await ps.ping("there?")
        assert (await ps.get_message(timeout=5)) == {
            "type": "pong",
            "pattern": None,
            "channel": None,
            "data": b"there?",
        }
        assert await ps.get_message() is None
        assert await ps.get_message(timeout=0.01) is None
        await ps.unsubscribe()
        await ps.punsubscribe()
        assert [m["type"] async for m in ps.listen()] == ["unsubscribe", "punsubscribe"]
        assert not ps.subscribed


async def test_a_message_that_is_there_is_returned_without_waiting(client: Redis) -> None:
    async with client.pubsub(ignore_subscribe_messages=True) as ps:
        await ps.subscribe("news")
        await client.publish("news", "hi")
        await trio.sleep(0.05)
        received = [await ps.get_message() for _ in range(2)]
        assert [m and m["data"] for m in received] == [None, b"hi"]  # the confirmation was ignored


async def test_its_connection_is_clean_afterwards(client: Redis) -> None:
    """Even with messages on their way, and nothing is thrown away."""
    async with client.pubsub() as ps:
        await ps.subscribe("news")
        await client.publish("news", "x" * 10_000)
    with trio.fail_after(5):
        while client.pool.statistics().resetting:  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert client.pool.statistics().size == 2
    async with client.client() as connection:
        assert await connection.echo("mine") == b"mine"


async def test_it_subscribes_again_after_a_reconnect(client: Redis, other: Connection) -> None:
    async with client.pubsub(ignore_subscribe_messages=True) as ps:
        await ps.subscribe("news")
        await ps.psubscribe("s*")
        await ps.get_message(timeout=5)
        await ps.get_message(timeout=5)
        await other.client_kill_filter(_type="pubsub")
        async with trio.open_nursery() as nursery:

            async def publish() -> None:
                while not await other.publish("sport", "goal"):  # noqa: ASYNC110
                    await trio.sleep(0.01)

            nursery.start_soon(publish)
            with trio.fail_after(5):
                async for message in ps:
                    assert message["data"] == b"goal"
                    break


async def test_a_subscriber_that_does_not_listen_pushes_back(client: Redis, other: Connection) -> None:
    """Messages wait in the server, which limits them, and not in our memory; nothing is lost below that limit."""
    async with client.pubsub(ignore_subscribe_messages=True) as ps:
        await ps.subscribe("news")
        assert ps.connection is not None
        for number in range(25):
            await client.publish("news", b"%02d" % number + bytes(1_000_000))
        with trio.fail_after(20):
            while sum(int(each["omem"]) for each in await other.client_list(_type="pubsub")) < 10_000_000:  # noqa: ASYNC110
                await trio.sleep(0.01)
        heard: list[int] = []
        with trio.fail_after(20):
            while len(heard) < 25:
                message = await ps.get_message(timeout=None)
                heard += [int(message["data"][:2])] if message else []
        assert heard == list(range(25))


async def test_handlers(client: Redis) -> None:
    heard: list[Any] = []

    async def hear(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(message["data"])

    async with client.pubsub() as ps:
        await ps.subscribe(news=hear)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ps.run)
            with trio.fail_after(5):
                while not heard:
                    await client.publish("news", "hi")
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        await ps.subscribe("unheard")
        with pytest.raises(PubSubError, match="no handler"):
            await ps.run()
    assert heard[0] == b"hi"


async def test_waiting_for_a_message_can_be_cancelled_anywhere(client: Redis) -> None:
    """No message is lost by it."""
    async with client.pubsub(ignore_subscribe_messages=True) as ps:
        await ps.subscribe("news")
        await ps.get_message(timeout=5)
        received: list[bytes] = []

        async def prepare() -> None:
            await client.publish("news", "hi")

        async def operation(_: None) -> None:
            message = await ps.get_message(timeout=None)
            received.append(message["data"])

        async def check(_: None) -> None:
            while (message := await ps.get_message(timeout=0.05)) is not None:
                received.append(message["data"])
            assert received == [b"hi"]
            received.clear()

        assert (await cancel_everywhere(operation, prepare=prepare, check=check)).cancelled


async def test_on_a_connection_of_ones_own(url: str, other: Connection) -> None:
    """It is the connection itself that listens, and nothing replaces it."""
    conn = await RedisAdapter(url).open()
    async with conn.pubsub() as ps:
        await ps.subscribe("news")
        assert (await ps.get_message(timeout=5))["type"] == "subscribe"
        assert not conn.is_clean
        await other.client_kill_filter(_type="pubsub")
        with pytest.raises(ConnectionError):
            await ps.get_message(timeout=5)
    conn.close_now()


async def test_before_subscribing(client: Redis) -> None:
    async with client.pubsub() as ps:
        with pytest.raises(RuntimeError, match="did you forget"):
            await ps.get_message()
    with pytest.raises(TypeError, match="push_handler_func"):
        client.pubsub(push_handler_func=print)


async def test_monitor(client: Redis) -> None:
    async with client.monitor() as monitor:
        await client.set("k", "v")
        with trio.fail_after(5):
            async for command in monitor.listen():
                if command["command"] == "SET k v":
                    break
        assert command["db"] == 0
        assert command["client_type"] == "tcp"
    async with client.client() as connection:
        assert await connection.echo("mine") == b"mine"
