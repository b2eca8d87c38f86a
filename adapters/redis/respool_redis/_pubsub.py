"""Connections that listen: publish/subscribe and MONITOR. Messages and methods are redis-py's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

import redis.asyncio.client
import trio
from redis.asyncio.client import MonitorCommandInfo
from redis.exceptions import ConnectionError, PubSubError, RedisError
from redis.typing import EncodableT

from ._hold import Hold

if TYPE_CHECKING:
    from ._commands import RedisCommands
    from ._connection import Connection

__all__ = ["Monitor", "PubSub"]


class Stream(AsyncIterator[Any]):
    """What an async generator would give, without its need to be closed when a loop is left early."""

    def __init__(self, following: Callable[[], Awaitable[Any]]) -> None:
        self._following = following

    async def __anext__(self) -> Any:
        return await self._following()

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()


class PubSub(redis.asyncio.client.PubSub):
    """Subscriptions, on a connection of their own.

    ::

        async with redis.pubsub() as ps:
            await ps.subscribe("news")
            async for message in ps:
                ...

    The connection is taken with the first subscription. If it breaks while listening, another is taken and everything
    is subscribed again; what was published in between is not delivered, as Redis keeps nothing for absent subscribers.
    """

    def __init__(self, source: RedisCommands, *, ignore_subscribe_messages: bool = False) -> None:
        self._hold = Hold(source)
        self._reconnecting = trio.Lock()
        self.encoder = source.get_encoder()
        self.ignore_subscribe_messages = ignore_subscribe_messages
        self._forget()

    def _forget(self) -> None:
        self.channels: dict[Any, Any] = {}
        self.patterns: dict[Any, Any] = {}
        self.shard_channels: dict[Any, Any] = {}
        self.pending_unsubscribe_channels: set[Any] = set()
        self.pending_unsubscribe_patterns: set[Any] = set()
        self.pending_unsubscribe_shard_channels: set[Any] = set()

    def __del__(self) -> None:
        """Nothing: whoever lent the connection sees to it."""

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.listen()

    def listen(self) -> AsyncIterator[Any]:
        """Messages, until there are no subscriptions any more."""
        return Stream(self._following)

    async def _following(self) -> Any:
        while self.subscribed:
            message = await self.get_message(timeout=None)
            if message is not None:
                return message
        raise StopAsyncIteration

    @property
    def connection(self) -> Connection | None:  # type: ignore[override]
        """The connection used now."""
        return self._hold.connection

    async def aclose(self) -> None:
        """Drop all subscriptions, and the connection with them."""
        self._forget()
        await self._hold.let_go()

    close = reset = aclose

    async def connect(self) -> None:
        """Take a connection if there is none that works, and subscribe again to what was subscribed."""
        connection = self._hold.connection
        if connection is not None and not connection.is_broken:
            return
        async with self._reconnecting:
            await self._hold.let_go()
            connection = await self._hold.take()
            if connection.is_broken:
                raise ConnectionError("the connection is closed, and was not lent by a pool that has others")
            await self._subscribe_again(connection)

    async def _subscribe_again(self, connection: Connection) -> None:
        self.pending_unsubscribe_channels.clear()
        self.pending_unsubscribe_patterns.clear()
        self.pending_unsubscribe_shard_channels.clear()
        for command, names in (
            ("SUBSCRIBE", self.channels),
            ("PSUBSCRIBE", self.patterns),
            ("SSUBSCRIBE", self.shard_channels),
        ):
            if names:
                await connection.send_command(command, *names)

    async def execute_command(self, *args: EncodableT) -> None:
        """Send a subscribing command. Its confirmation comes as a message."""
        await self.connect()
        assert self._hold.connection is not None
        await self._hold.connection.send_command(*args)

    async def parse_response(self, block: bool = True, timeout: float | None = 0) -> Any:
        """The next message as Redis sends it; None if there is none within `timeout` seconds and `block` is false."""
        if self._hold.connection is None:
            raise RuntimeError("pubsub connection not set: did you forget to call subscribe() or psubscribe()?")
        if block or timeout is None:
            return await self._next()
        message = self._hold.connection.read_response_nowait()
        if message is None and timeout > 0:
            with trio.move_on_after(timeout):
                return await self._next()
        return message

    async def _next(self) -> Any:
        while True:
            await self.connect()
            assert self._hold.connection is not None
            try:
                return await self._hold.connection.read_response()
            except ConnectionError:
                if not self._hold.connection.is_broken:
                    raise

    async def check_health(self) -> None:
        """Nothing: keepalive and `ping` see to it."""

    async def run(
        self,
        *,
        exception_handler: Callable[[BaseException, PubSub], Any] | None = None,
        poll_timeout: float = 1.0,
        pubsub: PubSub | None = None,
    ) -> None:
        """Call the handlers that were registered with the subscriptions, until cancelled.

        Raises:
          redis.PubSubError: a subscription has no handler.
        """
        for name, handler in {**self.channels, **self.patterns}.items():
            if handler is None:
                raise PubSubError(f"Channel or pattern {name!r} has no handler registered")
        while True:
            try:
                await (pubsub or self).get_message(ignore_subscribe_messages=True, timeout=None)
            except Exception as error:
                if exception_handler is None:
                    raise
                result = exception_handler(error, self)
                if isinstance(result, Awaitable):
                    await result


class Monitor(redis.asyncio.client.Monitor):
    """Every command the server is given, by anybody: ``async with redis.monitor() as m: await m.next_command()``."""

    def __init__(self, source: RedisCommands) -> None:
        self._hold = Hold(source)

    @property
    def connection(self) -> Connection | None:  # type: ignore[override]
        """The connection used now."""
        return self._hold.connection

    async def connect(self) -> None:
        """Take a connection if there is none."""
        await self._hold.take()

    async def __aenter__(self) -> Self:
        connection = await self._hold.take()
        await connection.send_command("MONITOR")
        if await connection.read_response() not in {b"OK", "OK"}:
            raise RedisError("MONITOR failed")
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self._hold.let_go(error)

    def listen(self) -> AsyncIterator[MonitorCommandInfo]:
        """Commands, without end."""
        return Stream(self.next_command)
