"""How a pool opens, validates, resets and closes connections to MySQL and MariaDB."""

from __future__ import annotations

from typing import Any, Self, Unpack

import attrs
import trio
from pymysql.charset import charset_by_name

from respool.abc import Adapter, Verdict

from ._arguments import Arguments, from_url
from ._connection import Connection
from ._verdicts import verdict
from ._wire import MAX_RESULT_SIZE, Wire

__all__ = ["MySQLAdapter"]


@attrs.frozen(init=False, repr=False, eq=False)
class MySQLAdapter(Adapter[Connection]):
    """Opens `Connection` objects for a pool.

    Option files and certificates are read once, here; nothing connects before the pool asks for it.

    Args:
      url: ``mysql://user:password@host:port/database?charset=utf8mb4``. After the question mark may stand any argument
        of `pymysql.connect` whose value is text, a number or a truth value.
      reset_session: send COM_RESET_CONNECTION after every lease that used its connection: a round trip that clears
        session variables, user locks and temporary tables. Without it, a pool undoes what the server or PyMySQL
        reports: open transactions, the autocommit mode, `select_db`, `set_character_set`.
      max_result_size: bytes of a result that is read whole. One that is streamed may be longer.
      arguments: those of `pymysql.connect`, with the same meanings and defaults. ``connect_timeout`` is for all of
        connecting, not only for TCP.

    Raises:
      TypeError, ValueError, NotImplementedError, OSError: for arguments that cannot work.
    """

    reset_session: bool
    _template: Wire

    def __init__(
        self,
        url: str = "",
        *,
        reset_session: bool = False,
        max_result_size: int = MAX_RESULT_SIZE,
        **arguments: Unpack[Arguments],
    ) -> None:
        if not isinstance(url, str):
            raise TypeError(f"the URL must be a str, not {type(url).__name__}: is an environment variable missing?")
        merged: Any = {**from_url(url), **arguments} if url else arguments
        reset_session = merged.pop("reset_session", reset_session)
        max_result_size = merged.pop("max_result_size", max_result_size)
        if max_result_size < 1:
            raise ValueError(f"max_result_size must be a number of bytes >= 1, not {max_result_size}")
        if "charset" in merged and charset_by_name(merged["charset"]) is None:
            raise ValueError("PyMySQL does not know that charset")
        self.__attrs_init__(reset_session=reset_session, template=Wire(**merged))
        self._template.max_result_size = max_result_size

    @classmethod
    def from_url(cls, url: str) -> Self:
        """An adapter for a ``mysql://`` or ``mariadb://`` URL."""
        return cls(url)

    @property
    def name(self) -> str:
        """``host:port/database``."""
        return self._template.name

    def __repr__(self) -> str:
        return f"<MySQLAdapter {self.name}>"

    async def open(self) -> Connection:
        """Connect."""
        return await Connection.open(self._template.copy())

    async def close(self, connection: Connection) -> None:
        """Say goodbye, so that the server has closed its side as well; without further ado if cancelled."""
        await connection.aclose()

    async def validate(self, connection: Connection) -> None:
        """Ping."""
        await connection.ping()

    async def reset(self, connection: Connection) -> None:
        """Stop a query half done, roll back, and undo changes to the session."""
        await connection.restore(reset_session=self.reset_session)

    def is_clean(self, connection: Connection) -> bool:
        """Whether no reply, transaction or change to the session is left, and the server has not closed."""
        return connection.is_clean() and not (self.reset_session and connection.used)

    def verdict(self, error: BaseException) -> Verdict:
        """What MySQL's error numbers say; everything else says nothing about a connection."""
        return verdict(error)


async def connect(url: str = "", **arguments: Unpack[Arguments]) -> Connection:
    """Open one connection, without a pool: `MySQLAdapter` with the same arguments, and its ``open``."""
    adapter = await trio.to_thread.run_sync(lambda: MySQLAdapter(url, **arguments))
    return await adapter.open()
