"""The everyday client: commands of any number of tasks on one connection, and others where a command needs its own.

Which connection is shared, and for how long, is the pool's business like everything else: a task of the client's holds
an ordinary lease on it. A lease for each command would cost more than the command. Instead the lease ends after a
second, or when the connection breaks, or is refused something for good; the next command begins another. So age limits,
retirement, draining and the pool's own numbers all work as they do for every lease.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any

import trio
from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, RedisError

import respool

from ._adapter import RedisAdapter
from ._commands import RedisCommands
from ._connection import Connection
from ._session import blocks, command_name, disturbs, is_noted
from ._wire import Commands, NotSent

__all__ = ["Redis", "open_redis"]

_TURN = 1.0  # seconds after which the shared connection is given back to the pool, and taken again if it is needed
_TRIES = 3  # connections that may break under a command before it was ever sent


class _Share:
    """One lease on the shared connection, and who uses it."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.users = 0
        self.refusal: Exception | None = None  # why there is no connection
        self.error: RedisError | None = None  # what ended its use
        self.ready = trio.Event()  # there is a connection, or a refusal
        self.over = trio.Event()  # nobody is to join any more
        self.unused = trio.Event()  # and everybody has gone

    def end(self, error: RedisError | None = None) -> None:
        self.error = self.error or error
        self.over.set()
        if not self.users:
            self.unused.set()

    def left(self) -> None:
        """The last of the users has left."""
        if self.over.is_set():
            self.unused.set()


class Redis(RedisCommands):
    """Every redis-py command, for any number of tasks. Made by `open_redis`.

    Commands are written together and share a connection. Those that would disturb others take one of their own from
    the pool by themselves, for just that command: blocking ones, and those about the connection itself, like
    ``CLIENT SETNAME`` or ``SELECT`` (whose effect therefore ends with them). Pipelines are sent whole on the shared
    connection; one that watches keys has its own until it is executed or reset; `pubsub` and `monitor` have their own.

    A command whose connection breaks before it was sent is sent on another. One that was sent is not repeated: its
    caller gets a `redis.ConnectionError`, and decides.
    """

    def __init__(self, pool: respool.Pool[Connection], adapter: RedisAdapter, nursery: trio.Nursery) -> None:
        super().__init__(adapter.settings)
        self.pool = pool
        """The pool, for leases (``async with redis.pool.acquire() as conn``) and statistics."""
        self._nursery = nursery
        self._share: _Share | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Redis over {self.pool!r}>"

    def client(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of one's own for the length of a block: a lease, under redis-py's name."""
        return self._own_connection()

    async def _exchange(self, commands: Commands, decode: Sequence[bool]) -> list[Any]:
        if (len(commands) > 1 or _may_disturb(commands[0][0])) and _disturbs(commands):
            async with self._own_connection() as connection:
                return await connection._exchange(commands, decode)
        tries = 0
        while True:
            share = self._share
            if share is None or share.connection is None or not (share.users or share.connection.is_usable):
                share = await self._join()
            assert share.connection is not None
            share.users += 1
            try:
                replies = await share.connection._exchange_unnoted(commands, decode)
                break
            except ConnectionError as error:
                self._end(share, error)
                tries += 1
                if not isinstance(error, NotSent) or tries == _TRIES:
                    raise
            finally:
                share.users -= 1
                if not share.users:
                    share.left()
        if isinstance(replies[-1], Exception):
            self._judge(share, replies)
        return replies

    def _judge(self, share: _Share, replies: list[Any]) -> None:
        """End the share if the server says that it is not, or not any more, the one to ask."""
        for reply in replies:
            if isinstance(reply, (ReadOnlyError, BusyLoadingError)):
                self._end(share, reply)

    async def _join(self) -> _Share:
        """Wait for a connection that commands can share."""
        share = self._share
        if share is not None and share.connection is not None:
            self._end(share)  # it was idle, and the peer has gone
            share = None
        if share is None:
            if self._closed:
                raise respool.PoolClosed("this Redis client's block has ended")
            share = self._share = _Share()
            self._nursery.start_soon(self._keep, share, name=f"respool {self.pool.name}: shared connection")
        await share.ready.wait()
        if share.connection is None:
            raise share.refusal or respool.PoolClosed("this Redis client's block has ended")
        return share

    async def _keep(self, share: _Share) -> None:
        """Hold the lease for as long as `share` lasts."""
        try:
            async with self.pool.acquire() as connection:
                share.connection = connection
                share.ready.set()
                with trio.move_on_after(_TURN):
                    await share.over.wait()
                self._end(share)
                await share.unused.wait()
                if share.error is not None:
                    raise share.error  # for the pool to judge; its user has got it already
        except (respool.PoolError, RedisError) as error:
            share.refusal = error
        finally:
            self._end(share)
            share.ready.set()

    def _end(self, share: _Share, error: RedisError | None = None) -> None:
        share.end(error)
        if self._share is share:
            self._share = None

    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        return self.pool.acquire()

    def _close(self) -> None:
        self._closed = True
        if self._share is not None:
            self._end(self._share)


@asynccontextmanager
async def open_redis(url: str | RedisAdapter = "redis://", **options: Any) -> AsyncIterator[Redis]:
    """Open the everyday client for the length of an ``async with`` block.

    ::

        async with open_redis("redis://localhost/0", max_size=20) as redis:
            await redis.set("key", "value")

    Args:
      url: redis-py's URL forms; or an adapter, such as `Sentinel.master_for` makes.
      options: the pool's options (`respool.Limits`), and with a URL the connection settings of `RedisAdapter`.

    Raises:
      TypeError, ValueError: an option, or the URL, is not what it should be.
    """
    pool_options: Any = {name: options.pop(name) for name in list(options) if name in respool.Options.__annotations__}
    if isinstance(url, RedisAdapter):
        if options:
            raise TypeError(f"settings like {next(iter(options))!r} belong to the adapter, which is given already")
        adapter = url
    else:
        adapter = RedisAdapter(url, **options)
    error_of_block: BaseException | None = None
    async with respool.open_pool(adapter, **pool_options) as pool:
        async with trio.open_nursery() as nursery:
            redis = Redis(pool, adapter, nursery)
            try:
                yield redis
            except BaseException as error:  # noqa: BLE001  # raised again outside the nursery, which would group it
                error_of_block = error
            redis._close()
            nursery.cancel_scope.deadline = trio.current_time() + pool.limits.drain_timeout
        if error_of_block is not None:
            raise error_of_block


@lru_cache(maxsize=1024)
def _may_disturb(name: str | bytes) -> bool:
    """Whether a command that begins like this may need a connection of its own."""
    return is_noted(name) or blocks((name,)) or command_name((name,)) in {"XREAD", "XREADGROUP"}


def _disturbs(commands: Commands) -> bool:
    """Whether others on the same connection would feel `commands`. A whole transaction is over before they would."""
    if commands[0] == ("MULTI",) and commands[-1] == ("EXEC",):
        commands = commands[1:-1]
    return any(_may_disturb(args[0]) and disturbs(args) for args in commands)
