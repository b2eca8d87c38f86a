"""Redis Sentinel: ask where the master is each time a connection is opened.

Questions, and what to make of the answers, are redis-py's. A failover needs nothing more: the old master closes its
connections when it is demoted, or refuses to write, which retires them all; and new ones go where the Sentinels say.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import redis.asyncio.sentinel
import trio
from redis.asyncio.sentinel import MasterNotFoundError, SlaveNotFoundError
from redis.commands import AsyncSentinelCommands
from redis.exceptions import ConnectionError, TimeoutError

from ._adapter import RedisAdapter
from ._commands import RedisCommands
from ._connection import Connection, log_orphans
from ._settings import Settings
from ._wire import Commands, Orphaned

__all__ = ["Sentinel", "SentinelAdapter"]

_TIMEOUT = 1.0  # seconds one Sentinel may take to answer before the next is asked


class _Node(RedisCommands, AsyncSentinelCommands):  # type: ignore[misc]  # as in redis-py
    """One Sentinel, reached anew for each question."""

    async def _exchange(self, commands: Commands, decode: Sequence[bool]) -> list[Any]:
        timeout = self.connection_pool.socket_timeout or _TIMEOUT
        with trio.move_on_after(timeout):
            connection = await Connection.open(attrs.evolve(self.connection_pool, socket_timeout=None))
            try:
                return await connection._exchange(commands, decode)
            finally:
                connection.close_now()
        raise TimeoutError(f"Timeout reading from {self.connection_pool.where}: no answer within {timeout} s")

    def _own_connection(self) -> AbstractAsyncContextManager[Connection]:
        raise TypeError("a Sentinel answers questions: pipelines and subscriptions are for the servers it watches")

    def __repr__(self) -> str:
        return f"<Sentinel {self.connection_pool.where}>"


class Sentinel(redis.asyncio.sentinel.Sentinel):
    """Some Sentinels, and adapters for the services they watch.

    ::

        sentinel = Sentinel([("10.0.0.1", 26379), ("10.0.0.2", 26379)])
        async with open_redis(sentinel.master_for("mymaster", db=1)) as redis:
            await redis.set("key", "value")

    Args:
      sentinels: their addresses. Asked in order, the one that knew last time first.
      min_other_sentinels: how many others a Sentinel must know of before it is believed.
      sentinel_kwargs: connection settings for the Sentinels. ``socket_timeout`` is how long one may take, by default
        one second.
      force_master_ip: an address to use instead of the one the Sentinels name, whose port is still used.
      connection_kwargs: connection settings for the services.
    """

    def __init__(
        self,
        sentinels: Iterable[tuple[str, int]],
        min_other_sentinels: int = 0,
        sentinel_kwargs: Mapping[str, Any] | None = None,
        force_master_ip: str | None = None,
        **connection_kwargs: Any,
    ) -> None:
        if sentinel_kwargs is None:
            sentinel_kwargs = {name: value for name, value in connection_kwargs.items() if name.startswith("socket_")}
        self.sentinels: list[Any] = [
            _Node(Settings.from_options(host=host, port=port, **sentinel_kwargs)) for host, port in sentinels
        ]
        if not self.sentinels:
            raise ValueError("at least one Sentinel is needed to ask")
        self.min_other_sentinels = min_other_sentinels
        self.connection_kwargs = connection_kwargs
        self._force_master_ip = force_master_ip

    def __repr__(self) -> str:
        return f"<Sentinels {', '.join(node.connection_pool.where for node in self.sentinels)}>"

    async def execute_command(
        self, *args: Any, once: bool = False, return_responses: bool = False, **options: Any
    ) -> Any:
        """Send a command to all Sentinels, or to one of them. True if all agree; or the answers."""
        nodes = [random.choice(self.sentinels)] if once else self.sentinels  # noqa: S311
        answers = [await node.execute_command(*args, **options) for node in nodes]
        return answers if return_responses else all(answers)

    def master_for(self, service_name: str, **options: Any) -> SentinelAdapter:  # type: ignore[override]
        """An adapter for connections to the master of a service, wherever it is at the time."""
        return SentinelAdapter(self, service_name, is_master=True, **options)

    def slave_for(self, service_name: str, **options: Any) -> SentinelAdapter:  # type: ignore[override]
        """An adapter for connections to the replicas of a service, spread over them; the master if there are none."""
        return SentinelAdapter(self, service_name, is_master=False, **options)

    def replica_for(self, service_name: str, **options: Any) -> SentinelAdapter:  # type: ignore[override]
        """The same as `slave_for`."""
        return self.slave_for(service_name, **options)

    async def aclose(self) -> None:
        """Nothing is open."""
        await trio.lowlevel.checkpoint()


@attrs.frozen(init=False)
class SentinelAdapter(RedisAdapter):  # type: ignore[override]  # more fields
    """Opens connections to whatever server the Sentinels name. Made by `Sentinel.master_for` and its like."""

    sentinel: Sentinel
    service_name: str
    is_master: bool

    def __init__(
        self,
        sentinel: Sentinel,
        service_name: str,
        *,
        is_master: bool,
        orphaned: Orphaned = log_orphans,
        **options: Any,
    ) -> None:
        settings = Settings.from_options(**{**sentinel.connection_kwargs, **options})
        self.__attrs_init__(settings, orphaned, sentinel, service_name, is_master)

    @property
    def name(self) -> str:
        return f"{self.service_name}/{self.settings.db}"

    async def open(self) -> Connection:
        if self.is_master:
            return await self._open_at(await self.sentinel.discover_master(self.service_name))
        return await self._open_replica()

    async def _open_replica(self) -> Connection:
        replicas = list(await self.sentinel.discover_slaves(self.service_name))
        random.shuffle(replicas)
        for address in replicas:
            try:
                return await self._open_at(address)
            except ConnectionError:
                continue  # the Sentinels have not noticed yet
        try:
            return await self._open_at(await self.sentinel.discover_master(self.service_name))
        except MasterNotFoundError:
            raise SlaveNotFoundError(f"No slave found for {self.service_name!r}") from None

    async def _open_at(self, address: Any) -> Connection:
        host, port = address
        connection = await Connection.open(attrs.evolve(self.settings, host=host, port=port), self.orphaned)
        if self.is_master:
            await _expect_master(connection)
        return connection


async def _expect_master(connection: Connection) -> None:
    """Sentinels may be behind the times: ask the server itself, as Redis's guidelines for clients demand."""
    try:
        role = (await connection.execute_command("ROLE"))[0]
        if role not in {b"master", "master"}:
            raise ConnectionError(f"{connection.connection_pool.where} is not the master: the Sentinels are behind")
    except BaseException:
        connection.close_now()
        raise
