"""PyMySQL's four cursors, awaiting where theirs block.

Each holds one of PyMySQL's, which runs in the connection's greenlet whenever it needs the server. Rows that have
arrived already are handed out without it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pymysql.cursors
from trio.lowlevel import checkpoint_if_cancelled

if TYPE_CHECKING:
    from typing import Self

    from ._connection import Connection
    from ._wire import Wire

Row = TypeVar("Row")
Args = Sequence[Any] | Mapping[str, Any] | None


class _Cursor(pymysql.cursors.Cursor):
    """PyMySQL's, with fewer steps on the way of every query."""

    # What `__init__` sets, set once for all.
    warning_count = 0
    description = None
    rownumber = 0
    rowcount = -1
    arraysize = 1
    lastrowid = None
    _executed = None
    _result = None
    _rows = None

    def __init__(self, connection: Wire) -> None:
        self.connection = connection


class _Quiet:
    """Keeps PyMySQL's unbuffered cursors from reading off the socket when they are garbage collected."""

    def __del__(self) -> None:
        pass


class _DictCursor(_Cursor, pymysql.cursors.DictCursor):
    pass


class _SSCursor(_Cursor, _Quiet, pymysql.cursors.SSCursor):
    pass


class _SSDictCursor(_Cursor, _Quiet, pymysql.cursors.SSDictCursor):
    pass


class Cursor(Generic[Row]):
    """Executes queries and hands out their rows, as tuples. All rows are fetched by `execute`.

    The methods are those of `pymysql.cursors.Cursor`, and so are their results and exceptions. `execute` and its like
    are checkpoints. Fetching rows that are here already notices a cancellation but does not let other tasks run.
    """

    driver_class: Any = _Cursor
    _unbuffered = False
    _custom = False  # whether `driver_class` is somebody else's, whose `execute` may do whatever it likes

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor = self.driver_class(connection._wire)

    def __await__(self) -> Generator[Any, Any, Self]:
        """Return the cursor itself, because in aiomysql ``await conn.cursor()`` makes one."""
        return self
        yield

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        result = self._cursor._result
        if exc_type is None and result is not None and result.has_next and self._has_more():
            await self.close()
        self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Row:
        row = await self.fetchone()
        if row is None:
            raise StopAsyncIteration
        return row

    async def close(self) -> None:
        """Close the cursor. Results of further statements that have not been asked for are fetched first.

        Rows of an unbuffered result are not: the connection gets rid of them before its next command.
        """
        await checkpoint_if_cancelled()
        if self._cursor.connection is not None and self._has_more():
            await self._connection.run(self._cursor.close)
        self._leave()

    def _leave(self) -> None:
        self._cursor.connection = None

    @property
    def connection(self) -> Connection | None:
        """The connection; None when the cursor is closed."""
        return None if self._cursor.connection is None else self._connection

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """One tuple per column, as PEP 249 has it; None after a statement that returns no rows."""
        return self._cursor.description

    @property
    def rowcount(self) -> int:
        """Rows returned or changed by the last statement; -1 before the first."""
        return self._cursor.rowcount

    @property
    def rownumber(self) -> int:
        """Index of the row that is fetched next."""
        return self._cursor.rownumber

    @property
    def lastrowid(self) -> int | None:
        """AUTO_INCREMENT value the last statement generated."""
        return getattr(self._cursor, "lastrowid", None)

    @property
    def warning_count(self) -> int:
        """Warnings the last statement caused; see `Connection.show_warnings`."""
        return self._cursor.warning_count

    @property
    def arraysize(self) -> int:
        """Rows `fetchmany` fetches unless told otherwise."""
        return self._cursor.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._cursor.arraysize = value

    @property
    def max_stmt_length(self) -> int:
        """Longest statement, in bytes, that `executemany` makes of several rows."""
        return self._cursor.max_stmt_length

    @max_stmt_length.setter
    def max_stmt_length(self, value: int) -> None:
        self._cursor.max_stmt_length = value

    def mogrify(self, query: str, args: Args = None) -> str:
        """Return the SQL that `execute` would send."""
        return self._cursor.mogrify(query, args)

    async def execute(self, query: str, args: Args = None) -> int:
        """Execute a statement; return how many rows it returned or changed.

        ``%s`` in it stands for the next of a sequence of arguments, ``%(name)s`` for one of a mapping.
        """
        connection, driver = self._connection, self._cursor
        if driver.connection is None or self._custom or (driver._result is not None and self._has_more()):
            return await connection.run(driver.execute, query, args)
        await checkpoint_if_cancelled()
        if connection.awry:
            await connection.recover()
        if type(args) is tuple or type(args) is list:
            query = connection._wire.bind(query, args)
        elif args is not None:
            query = driver._mogrify(query, args)
        if driver._executed is None:  # and there is nothing else to clear
            driver.rowcount = 0
        else:
            driver._clear_result()
        await connection.exchange(query, unbuffered=self._unbuffered)
        driver._do_get_result()
        driver._executed = query
        return driver.rowcount

    async def executemany(self, query: str, args: Iterable[Any]) -> int | None:
        """Execute a statement once for each of `args`; an INSERT or REPLACE, for as many at a time as fit."""
        return await self._connection.run(self._cursor.executemany, query, args)

    async def callproc(self, procname: str, args: Sequence[Any] = ()) -> Sequence[Any]:
        """Call a stored procedure. Output parameters are then in ``@_procname_0`` and so on."""
        return await self._connection.run(self._cursor.callproc, procname, args)

    async def nextset(self) -> bool | None:
        """Go to the next statement's result; None if there is none."""
        return await self._connection.run(self._cursor.nextset)

    async def fetchone(self) -> Row | None:
        """Return the next row; None at the end."""
        await checkpoint_if_cancelled()
        return self._cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> Sequence[Row]:
        """Return the next `size` rows, or `arraysize`; fewer at the end."""
        await self._arrival(size or self.arraysize)
        return self._cursor.fetchmany(size)

    async def fetchall(self) -> Sequence[Row]:
        """Return all rows there still are."""
        await self._arrival(math.inf)
        return self._cursor.fetchall()

    async def scroll(self, value: int, mode: str = "relative") -> None:
        """Move by `value` rows, or to row number `value` if `mode` is ``"absolute"``."""
        await self._arrival(value if mode == "relative" else value - self.rownumber)
        self._cursor.scroll(value, mode)

    async def _arrival(self, rows: float) -> None:
        """Return when `rows` rows are here, or all that ever will."""
        await checkpoint_if_cancelled()

    def _has_more(self) -> bool:
        result = self._cursor._result
        return result is not None and bool(result.has_next) and result is self._connection._wire._result


class DictCursor(Cursor[dict[str, Any]]):
    """`Cursor` whose rows are dicts."""

    driver_class = _DictCursor


class SSCursor(Cursor[Row]):
    """Reads rows from the server as they are fetched: results of any size, in little memory.

    Nothing else can be done on the connection meanwhile; a new statement gives up the rest of this one's rows.
    """

    driver_class = _SSCursor
    _unbuffered = True

    async def fetchone(self) -> Row | None:
        """Return the next row; None at the end."""
        result = self._cursor._result
        if result is not None and result.ready:
            await checkpoint_if_cancelled()
        else:
            await self._arrival(1)
        return self._cursor.fetchone()

    async def _arrival(self, rows: float) -> None:
        result = self._cursor._result
        if not self._streaming() or len(result.ready) >= rows:
            await checkpoint_if_cancelled()
            return
        while result.unbuffered_active and len(result.ready) < rows:
            await self._connection.fetch(result)

    def _leave(self) -> None:
        if self._streaming():
            self._cursor._result.thrown_away = True
        super()._leave()

    def _streaming(self) -> bool:
        result = self._cursor._result
        return result is not None and result.unbuffered_active and not result.thrown_away


class SSDictCursor(SSCursor[dict[str, Any]]):
    """`SSCursor` whose rows are dicts."""

    driver_class = _SSDictCursor


_OURS: dict[Any, type[Cursor[Any]]] = {
    pymysql.cursors.Cursor: Cursor,
    pymysql.cursors.DictCursor: DictCursor,
    pymysql.cursors.SSCursor: SSCursor,
    pymysql.cursors.SSDictCursor: SSDictCursor,
}


def cursor_class(wanted: type[Any]) -> type[Cursor[Any]]:
    """Return the class of ours for one of ours or PyMySQL's, or for one derived from them."""
    if wanted in _OURS:
        return _OURS[wanted]
    if issubclass(wanted, Cursor):
        return wanted
    if not issubclass(wanted, pymysql.cursors.Cursor):
        raise TypeError(f"a cursor class of respool_mysql or pymysql.cursors is needed, not {wanted!r}")
    base: Any = SSCursor if issubclass(wanted, pymysql.cursors.SSCursor) else Cursor
    driver_class = type(wanted.__name__, (_Quiet, wanted), {})
    ours = _OURS[wanted] = type(wanted.__name__, (base,), {"driver_class": driver_class, "_custom": True})
    return ours
