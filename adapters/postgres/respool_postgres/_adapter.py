"""How a pool opens, validates, resets and closes connections to PostgreSQL."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, overload

import attrs
from psycopg import errors as e
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, timeout_from_conninfo
from psycopg.rows import Row, TupleRow

import respool
from respool.abc import Adapter, Verdict

from ._addresses import check_places, effective, without_secrets
from ._connection import MAX_RESULT_SIZE, Connection

if TYPE_CHECKING:
    from psycopg import AsyncCursor
    from psycopg.abc import AdaptContext, ConnParam
    from psycopg.rows import AsyncRowFactory

__all__ = ["PostgresAdapter"]

logger = logging.getLogger("respool.postgres")

Password: TypeAlias = str | Callable[[], str | Awaitable[str]]

_SHUTTING_DOWN = ("57P01", "57P02", "57P03")
_READ_ONLY = "25006"
_MUST_BE_OFF = {
    "primary": (b"in_hot_standby",),
    "read-write": (b"in_hot_standby", b"default_transaction_read_only"),
}
"""What the server reports of itself, by itself, and may not report where these are asked for."""
_WRONG_PASSWORD = ("28P01", "28000")
_NO_SUCH_DATABASE = "3D000"

_REFUSED = re.compile(
    r'password authentication failed|authentication failed for user|role ".*" (does not exist|is not permitted)'
    r"|no pg_hba\.conf entry|no such user"
)
_UNKNOWN_DATABASE = re.compile(r'database ".*" does not exist|no such database')


@attrs.frozen(init=False, repr=False)
class PostgresAdapter(Adapter[Connection[Row]], Generic[Row]):
    """Opens `Connection` objects for a pool.

    Takes what `psycopg.AsyncConnection.connect` takes. One default differs: ``autocommit`` is true, because the end of
    a borrower's block does not commit; use ``async with connection.transaction():`` for what belongs together. With
    ``autocommit=False`` what a block has not committed is rolled back at its end; the first time, a warning says so.

    Args:
      conninfo: a connection string or URL, in any form libpq knows.
      password: a string, or a function, asynchronous or not, asked at every open: for tokens that expire.
      configure: an asynchronous function called with each new connection, and again after `reset_session`
        has discarded what it set.
      reset_session: how to undo what a borrower did to the session on the server. None: only open transactions,
        LISTEN and the connection's attributes are undone. A statement, such as ``"DISCARD ALL"``, or an asynchronous
        function called with the connection: a round trip after every lease that used the connection.
      max_result_size: bytes of a result that is read whole, over TCP on Linux. One that is streamed may be longer.
      options: further parameters of libpq, such as ``host`` or ``sslmode``.

    Raises:
      ValueError, TypeError: the connection string cannot be read, or libpq has no such option.
    """

    conninfo: str
    password: Password | None
    configure: Callable[[Connection[Row]], Awaitable[None]] | None
    reset_session: str | Callable[[Connection[Row]], Awaitable[None]] | None
    max_result_size: int
    options: Mapping[str, Any]
    _name: str
    _must_be_off: tuple[bytes, ...]
    _told: list[str] = attrs.field(factory=list, eq=False)

    @overload
    def __init__(
        self: PostgresAdapter[TupleRow],
        conninfo: str = "",
        *,
        autocommit: bool = True,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: None = None,
        cursor_factory: type[AsyncCursor[Any]] | None = None,
        password: Password | None = None,
        configure: Callable[[Connection[TupleRow]], Awaitable[None]] | None = None,
        reset_session: str | Callable[[Connection[TupleRow]], Awaitable[None]] | None = None,
        max_result_size: int = MAX_RESULT_SIZE,
        **options: ConnParam,
    ) -> None: ...

    @overload
    def __init__(
        self,
        conninfo: str = "",
        *,
        row_factory: AsyncRowFactory[Row],
        autocommit: bool = True,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        cursor_factory: type[AsyncCursor[Any]] | None = None,
        password: Password | None = None,
        configure: Callable[[Connection[Row]], Awaitable[None]] | None = None,
        reset_session: str | Callable[[Connection[Row]], Awaitable[None]] | None = None,
        max_result_size: int = MAX_RESULT_SIZE,
        **options: ConnParam,
    ) -> None: ...

    def __init__(
        self,
        conninfo: str = "",
        *,
        autocommit: bool = True,
        password: Password | None = None,
        configure: Callable[[Connection[Any]], Awaitable[None]] | None = None,
        reset_session: str | Callable[[Connection[Any]], Awaitable[None]] | None = None,
        max_result_size: int = MAX_RESULT_SIZE,
        **options: Any,
    ) -> None:
        if not isinstance(conninfo, str):
            raise TypeError(
                f"the URL must be a str, not {type(conninfo).__name__}: is an environment variable missing?"
            )
        if max_result_size < 1:
            raise ValueError(f"max_result_size must be a number of bytes >= 1, not {max_result_size}")
        _check_callable("password", password, or_str=True)
        _check_callable("configure", configure)
        _check_callable("reset_session", reset_session, or_str=True)
        known = _parameters(conninfo, {name: options[name] for name in options.keys() - _PSYCOPG_OPTIONS})
        self.__attrs_init__(
            conninfo=conninfo,
            password=password,
            configure=configure,
            reset_session=reset_session,
            max_result_size=max_result_size,
            options={"autocommit": autocommit, **options},
            name=_name_of(known),
            must_be_off=_MUST_BE_OFF.get(known.get("target_session_attrs", ""), ()),
        )

    @classmethod
    def from_url(cls, url: str) -> PostgresAdapter[TupleRow]:
        """An adapter for a ``postgresql://`` URL. libpq's parameters may follow the question mark."""
        return PostgresAdapter(url)

    @property
    def name(self) -> str:
        """``host:port/database``."""
        return self._name

    def __repr__(self) -> str:
        return f"<PostgresAdapter {self._name}>"

    async def open(self) -> Connection[Row]:
        """Connect, and call `configure`."""
        options = dict(self.options)
        if self.password is not None:
            options["password"] = await _ask(self.password)
        connection: Connection[Row] = await Connection.connect(self.conninfo, **options)
        connection.max_result_size = self.max_result_size
        try:
            await self._configure(connection)
            connection.keep_settings()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _configure(self, connection: Connection[Row]) -> None:
        if self.configure is None:
            return
        await _awaitable(self.configure(connection), "configure")
        if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            raise e.ProgrammingError("configure left a transaction open: commit it, or use autocommit")

    async def close(self, resource: Connection[Row]) -> None:
        """Stop a query that is still running, as it would run on without us, and close the connection."""
        status = resource.pgconn.transaction_status
        if status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
            self._tell_of_open_transaction()  # the pool ends before it came to a reset
        try:
            if status == pq.TransactionStatus.ACTIVE:
                await resource.cancel_safe()
        except e.Error as error:
            logger.debug("%s: could not stop the query before closing: %s", self._name, error)
        finally:
            await resource.close()

    def _tell_of_open_transaction(self) -> None:
        level = logging.DEBUG if self._told else logging.WARNING
        self._told.append("open transaction")
        logger.log(
            level,
            "%s: a borrower left a transaction open: rolled back. Commit it, or use 'async with "
            "connection.transaction()'; this is told once",
            self._name,
        )

    async def validate(self, resource: Connection[Row]) -> None:
        """One round trip. Where a primary was asked for, the server must not have become a standby, or read-only."""
        await resource.ping()
        for parameter in self._must_be_off:
            if resource.pgconn.parameter_status(parameter) == b"on":
                raise e.OperationalError(f"the server cannot be written to any more: {parameter.decode()} is on")

    async def reset(self, resource: Connection[Row]) -> None:
        """Stop what was interrupted, roll back, put attributes back, and do what `reset_session` says."""
        used = resource.used
        if await resource.restore():
            self._tell_of_open_transaction()
        if self.reset_session is None or not used:
            return
        if isinstance(self.reset_session, str):
            await resource.run(self.reset_session)
            await self._configure(resource)
        else:
            await _awaitable(self.reset_session(resource), "reset_session")
        await resource.restore()

    def is_clean(self, resource: Connection[Row]) -> bool:
        """Whether nothing is under way, open, unread or changed. Does not talk to the server."""
        return resource.is_clean() and not (self.reset_session is not None and resource.used)

    def verdict(self, error: BaseException) -> Verdict:
        """By SQLSTATE. The server names none when it refuses a connection: then by its (English) message."""
        if isinstance(error, NotAwaitable):
            return Verdict.DISCARD | Verdict.PERMANENT
        if not isinstance(error, e.Error):
            return Verdict.KEEP
        if isinstance(error.__cause__, ExceptionGroup):  # several hosts were tried
            return reduce(and_, map(self.verdict, error.__cause__.exceptions))
        if error.sqlstate is None:
            return self._verdict_by_message(error)
        return self._verdict_by_sqlstate(error, error.sqlstate)

    def _verdict_by_sqlstate(self, error: e.Error, sqlstate: str) -> Verdict:
        if sqlstate in _SHUTTING_DOWN:
            return Verdict.DISCARD | Verdict.RETIRE
        if sqlstate == _READ_ONLY and self._must_be_off:
            return Verdict.DISCARD | Verdict.RETIRE
        if sqlstate == _NO_SUCH_DATABASE or (sqlstate in _WRONG_PASSWORD and not callable(self.password)):
            return Verdict.DISCARD | Verdict.PERMANENT
        if sqlstate.startswith("08") or error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
            return Verdict.DISCARD
        return Verdict.KEEP

    def _verdict_by_message(self, error: e.Error) -> Verdict:
        if not isinstance(error, e.OperationalError) or isinstance(error, e.PipelineAborted):
            return Verdict.KEEP
        refused = _REFUSED.search(str(error)) or (error.pgconn is not None and error.pgconn.needs_password)
        if _UNKNOWN_DATABASE.search(str(error)) or (refused and not callable(self.password)):
            return Verdict.DISCARD | Verdict.PERMANENT
        return Verdict.DISCARD


_PSYCOPG_OPTIONS = frozenset({"prepare_threshold", "context", "row_factory", "cursor_factory"})


def _parameters(conninfo: str, options: dict[str, ConnParam]) -> dict[str, str]:
    """Every connection parameter in effect."""
    names = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    if unknown := sorted(options.keys() - names):
        hint = "; the pool's options are for open_pool" if set(unknown) & set(respool.Options.__annotations__) else ""
        raise TypeError(f"neither psycopg nor libpq has an option {', '.join(map(repr, unknown))}{hint}")
    try:
        given = conninfo_to_dict(conninfo, **options)
        timeout_from_conninfo(given)
        params = effective(given)
        check_places(conninfo, params)
    except e.Error as error:
        raise ValueError(f"invalid connection string: {without_secrets(error, conninfo)}") from None
    return params


def _name_of(params: dict[str, str]) -> str:
    hosts = (params.get("host") or params.get("hostaddr") or "localhost").split(",")
    ports = params.get("port", "5432").split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    where = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return f"{where}/{params.get('dbname') or params.get('user', '')}"


def _check_callable(name: str, given: object, *, or_str: bool = False) -> None:
    """A mistake told at once, which would otherwise look like a server that fails. The value may be a secret."""
    if given is None or callable(given) or (or_str and isinstance(given, str)):
        return
    raise TypeError(f"{name} must be a {'str or a ' if or_str else ''}function, not {type(given).__name__}")


class NotAwaitable(TypeError):
    """A function that is to be awaited is not an async one. No retry mends that."""


def _awaitable(returned: Awaitable[None], name: str) -> Awaitable[None]:
    if not inspect.isawaitable(returned):
        raise NotAwaitable(f"{name} must be an async function; it returned {type(returned).__name__}, not an awaitable")
    return returned


async def _ask(password: Password) -> str:
    if isinstance(password, str):
        return password
    answer = password()
    return await answer if inspect.isawaitable(answer) else answer
