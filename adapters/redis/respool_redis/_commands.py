"""redis-py's command methods over whatever can exchange commands for replies.

The methods themselves, what they send, and what they make of the replies are redis-py's: its asynchronous command
classes need nothing but an ``execute_command``, and its response callbacks are plain functions.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, cast

import hiredis
import redis.asyncio
import trio
from redis._parsers import Encoder
from redis._parsers.response_callbacks import get_response_callbacks
from redis.client import EMPTY_RESPONSE, NEVER_DECODE, CaseInsensitiveDict
from redis.commands import AsyncCoreCommands, AsyncRedisModuleCommands
from redis.commands.core import AsyncScript
from redis.event import EventDispatcher
from redis.exceptions import ConnectionError, ResponseError, WatchError
from redis.typing import EncodableT, KeyT, ScriptTextT

from ._settings import Settings
from ._wire import ONE, ONE_RAW, Commands

if TYPE_CHECKING:
    from ._connection import Connection
    from ._lock import Lock
    from ._pipeline import Pipeline
    from ._pubsub import Monitor, PubSub

__all__ = ["Packer", "RedisCommands", "callbacks"]


class RedisCommands(AsyncRedisModuleCommands, AsyncCoreCommands):  # type: ignore[misc]  # so does redis-py's own
    """Every command method of ``redis.asyncio.Redis``, with its arguments and its return values."""

    _is_async_client: Literal[True] = True
    _event_dispatcher = EventDispatcher()

    def __init__(self, settings: Settings) -> None:
        self.connection_pool = settings  # where redis-py's own code looks for settings
        self.response_callbacks = callbacks(settings.protocol, settings.legacy_responses)

    @abstractmethod
    def _exchange(self, commands: Commands, decode: Sequence[bool]) -> Awaitable[list[Any]]:
        """Send `commands` together and return a reply for each flag in `decode`."""

    @abstractmethod
    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection nobody else uses, for the length of a block."""

    async def execute_command(self, *args: EncodableT, **options: Any) -> Any:
        """Send one command and return its reply, as redis-py would hand it out.

        Raises:
          redis.ResponseError: the server refused the command.
          redis.ConnectionError: the connection broke. A `NotSent` says that it did before the command was sent.
          redis.DataError: an argument is not str, bytes, int or float.
        """
        replies = await self._exchange((args,), ONE_RAW if NEVER_DECODE in options else ONE)
        value = self._interpret(args[0], options, replies[0])
        if type(value) in _PLAIN:
            return value
        return await value if hasattr(value, "__await__") else value

    def _interpret(self, name: Any, options: dict[str, Any], reply: Any) -> Any:
        """What redis-py's response callback for the command makes of `reply`; errors are raised."""
        if type(reply) not in _PLAIN:
            if isinstance(reply, Exception):
                if isinstance(reply, ResponseError) and EMPTY_RESPONSE in options:
                    return options[EMPTY_RESPONSE]
                raise reply
            if isinstance(reply, list) and reply and isinstance(reply[0], ConnectionError):
                raise reply[0]
        callback = dict.get(self.response_callbacks, name.upper())
        if callback is None:
            return reply
        if options:
            for internal in _INTERNAL_OPTIONS:
                options.pop(internal, None)
        return callback(reply, **options)

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """Have `callback` turn the replies to `command` into the values returned."""
        if self.response_callbacks is callbacks(self.connection_pool.protocol, self.connection_pool.legacy_responses):
            self.response_callbacks = CaseInsensitiveDict(self.response_callbacks)
        self.response_callbacks[command] = callback

    def load_external_module(self, funcname: str, func: Any) -> None:
        """Attach a module's command class as the attribute `funcname`, as in redis-py."""
        setattr(self, funcname, func)

    def get_encoder(self) -> Encoder:
        """How str becomes bytes and back."""
        return self.connection_pool.get_encoder()

    def get_connection_kwargs(self) -> Mapping[str, Any]:
        """The settings under redis-py's names."""
        return self.connection_pool.connection_kwargs

    def register_script(self, script: ScriptTextT) -> AsyncScript:  # type: ignore[override]  # as in redis-py
        """A callable that runs a Lua script by its digest, and sends the script where the server lacks it."""
        return AsyncScript(cast("redis.asyncio.Redis", self), script)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Queue commands, then send them together: ``async with redis.pipeline() as pipe``.

        With `transaction` they are wrapped in MULTI and EXEC: nothing of others happens between them.
        """
        from ._pipeline import Pipeline  # noqa: PLC0415, a pipeline has these commands too

        return Pipeline(self, transaction=transaction)

    async def transaction(
        self,
        func: Callable[[Pipeline], Any | Awaitable[Any]],
        *watches: KeyT,
        shard_hint: str | None = None,
        value_from_callable: bool = False,
        watch_delay: float | None = None,
    ) -> Any:
        """Watch keys, call `func` with a pipeline, execute it; all over again if a watched key has changed."""
        async with self.pipeline() as pipe:
            while True:
                try:
                    if watches:
                        await pipe.watch(*watches)
                    value = func(pipe)
                    if inspect.isawaitable(value):
                        value = await value
                    results = await pipe.execute()
                except WatchError:
                    if watch_delay:
                        await trio.sleep(watch_delay)
                else:
                    return value if value_from_callable else results

    def lock(
        self,
        name: KeyT,
        timeout: float | None = None,
        sleep: float = 0.1,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        lock_class: type[Lock] | None = None,
        thread_local: bool = True,
        raise_on_release_error: bool = True,
    ) -> Lock:
        """redis-py's distributed lock: ``async with redis.lock("name", timeout=10)``. Seconds throughout."""
        from ._lock import Lock  # noqa: PLC0415, as in pipeline

        return (lock_class or Lock)(
            cast("redis.asyncio.Redis", self),
            name,
            timeout=timeout,
            sleep=sleep,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            thread_local=thread_local,
            raise_on_release_error=raise_on_release_error,
        )

    def pubsub(self, *, ignore_subscribe_messages: bool = False, **unsupported: Any) -> PubSub:
        """Listen to channels: ``async with redis.pubsub() as ps: await ps.subscribe("news")``."""
        from ._pubsub import PubSub  # noqa: PLC0415, as in pipeline

        if unsupported:
            raise TypeError(f"pubsub() does not take {', '.join(unsupported)}")
        return PubSub(self, ignore_subscribe_messages=ignore_subscribe_messages)

    def monitor(self) -> Monitor:
        """Watch every command the server is given: ``async with redis.monitor() as m: async for c in m.listen()``."""
        from ._pubsub import Monitor  # noqa: PLC0415, as in pipeline

        return Monitor(self)


# redis-py chooses a module's callbacks by asking whether its client is one of these, and reads its settings if so.
redis.asyncio.Redis.register(RedisCommands)  # type: ignore[type-abstract]

_PLAIN = frozenset({bytes, str, int, bool, float, type(None)})  # neither an error, nor to be awaited: most replies
_INTERNAL_OPTIONS = (NEVER_DECODE, EMPTY_RESPONSE, "keys")


@cache
def callbacks(protocol: int | None, legacy_responses: bool) -> CaseInsensitiveDict:
    """redis-py's callbacks for a protocol. Shared: `RedisCommands.set_response_callback` copies before it writes."""
    functions: dict[str, Any] = get_response_callbacks(user_protocol=protocol, legacy_responses=legacy_responses)
    return CaseInsensitiveDict(functions)


class Packer:
    """Turns commands into the form Redis reads. A name like ``"CONFIG GET"`` becomes two arguments."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._native = encoder.encoding.lower() in {"utf-8", "utf8"} and encoder.encoding_errors == "strict"

    def pack(self, args: tuple[Any, ...]) -> bytes:
        """Pack one command.

        Raises:
          redis.DataError: an argument is not str, bytes, int or float.
        """
        name = args[0]
        if (" " if isinstance(name, str) else b" ") in name:
            args = (*name.split(), *args[1:])
        if self._native:
            try:
                return hiredis.pack_command(args)  # type: ignore[no-any-return]
            except TypeError:
                pass  # a bytearray, which the encoder takes; or a mistake, which it explains
        encoded = [bytes(self._encoder.encode(arg)) for arg in args]  # type: ignore[no-untyped-call]
        return hiredis.pack_command(tuple(encoded))  # type: ignore[arg-type, no-any-return]

    def pack_all(self, commands: Commands) -> bytes:
        """Pack commands one after the other."""
        if len(commands) == 1:
            return self.pack(commands[0])
        return b"".join([self.pack(args) for args in commands])
