"""Redis connections as a pool's resources."""

from __future__ import annotations

import ssl
from typing import Any, Self

import attrs
from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, ResponseError

from respool.abc import Adapter, Verdict

from ._connection import Connection, log_orphans
from ._settings import Settings
from ._wire import Orphaned

__all__ = ["RedisAdapter"]


@attrs.frozen(init=False)
class RedisAdapter(Adapter[Connection]):
    """Opens connections to one Redis server.

    ::

        async with respool.open_pool(RedisAdapter("redis://localhost/0")) as pool:
            async with pool.acquire() as conn:
                await conn.set("key", "value")

    Args:
      url: redis-py's URL forms: ``redis://``, ``rediss://`` (TLS), ``unix://``.
      orphaned: told of replies that came after their caller had been cancelled: the commands as a sequence of argument
        tuples, and either their replies or the `redis.ConnectionError` because of which none came. By default a warning
        is logged if such a command takes things away from the server (``BLPOP``, ``LPOP``, ``GETDEL``, ...).
      options: redis-py's connection settings by name. What the URL says wins, as in redis-py.

    Raises:
      ValueError, TypeError: a setting is wrong, unknown, or belongs to the pool.
    """

    settings: Settings
    orphaned: Orphaned

    def __init__(self, url: str = "redis://", *, orphaned: Orphaned = log_orphans, **options: Any) -> None:
        self.__attrs_init__(settings=Settings.from_url(url, **options), orphaned=orphaned)

    @classmethod
    def from_url(cls, url: str) -> Self:
        """For `respool.open_pool` with a URL."""
        return cls(url)

    @property
    def name(self) -> str:
        return f"{self.settings.where}/{self.settings.db}"

    async def open(self) -> Connection:
        return await Connection.open(self.settings, self.orphaned)

    async def close(self, resource: Connection) -> None:
        resource.close_now()

    async def validate(self, resource: Connection) -> None:
        await resource.ping()

    async def reset(self, resource: Connection) -> None:
        await resource.make_clean()

    def is_clean(self, resource: Connection) -> bool:
        return resource.is_clean

    def verdict(self, error: BaseException) -> Verdict:
        """Say what an error means; a half-done exchange or a broken connection is left for `is_clean` to tell."""
        if isinstance(error, (ReadOnlyError, BusyLoadingError)):
            return Verdict.DISCARD | Verdict.RETIRE  # no longer the master, or restarted
        if isinstance(error, AuthenticationError):
            return Verdict.DISCARD | Verdict.PERMANENT
        if isinstance(error, ResponseError) or isinstance(error.__cause__, ssl.SSLCertVerificationError):
            return Verdict.PERMANENT  # counts where a connection was to be opened
        return Verdict.KEEP
