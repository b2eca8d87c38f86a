"""A MySQL connection for Trio: PyMySQL's commands, run in the connection's greenlet, or without it.

A command is a synchronous function of PyMySQL's. In the greenlet it runs until it would block, hands out what to await
(`respool_mysql._socket`), and goes on when that has happened. One greenlet a connection is kept for its whole life,
because starting one costs ten times as much as switching to it.

A short query, which is nearly all that anybody sends, does without: `Connection.exchange` sends it and awaits the reply
itself, and once all of that is here PyMySQL's code has nothing to wait for.

When the awaiting task is cancelled, the greenlet, if there is one at work, stays where it is: half way through a reply.
The task leaves at once. Before the connection is used again, normally by the pool's ``reset``, `Connection.recover`
reads on to the reply's end, with the help of ``KILL QUERY`` if the server takes long about it.
"""

from __future__ import annotations

import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Self, TypeVar, overload

import attrs
import pymysql.cursors
import trio
from greenlet import getcurrent, greenlet
from pymysql import err
from pymysql.constants import CR, ER
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._cursors import Args, Cursor, cursor_class
from ._wire import IN_TRANSACTION, WATCHED, Wire

logger = logging.getLogger("respool.mysql")

GRACE = 0.1
"""Seconds a reply left half read may still take before KILL QUERY: most queries end by themselves, and sooner."""

RECOVERY_LIMIT = 5.0
"""Seconds until a connection is given up whose query neither ends nor can be killed."""

C = TypeVar("C", bound=Cursor[Any])
R = TypeVar("R")


@attrs.frozen
class _Unfinished:
    """A command the greenlet is in the middle of, and what it asks to be awaited."""

    command: Callable[..., Any]
    async_fn: Callable[[Any], Awaitable[Any]] | None
    argument: Any


async def _at_once(job: Any) -> Any:
    """What a greenlet without a command waits for: the next one, and it is here."""
    return job


def _serve(job: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
    """Run one command after the other, for as long as none raises; then the greenlet is dead and replaced."""
    me = getcurrent()
    while True:
        command, args = job
        answer = None, command(*args)
        del command, args, job  # an idle connection keeps nobody's arguments alive
        assert me.parent is not None
        job = me.parent.switch(answer)


class Connection:
    """A connection to MySQL or MariaDB, as `MySQLAdapter` opens it.

    It has the methods of PyMySQL's connection, those that talk to the server being asynchronous, and raises PyMySQL's
    exceptions (`pymysql.err`). Code written for aiomysql runs with next to no change.

    One task may use a connection at a time; a second one gets `trio.BusyResourceError`. A task that is cancelled
    leaves at once, whatever it was waiting for; see `recover` for what happens to its query.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._cursor_class = cursor_class(wire.cursorclass)
        self._greenlet: greenlet | None = None
        self._busy = False
        self._unfinished: _Unfinished | None = None  # what the greenlet is stuck in
        self._undo: str | None = None  # what an abandoned transaction block still has to roll back
        self._depth = 0

    @classmethod
    async def open(cls, wire: Wire) -> Connection:
        """Connect `wire`."""
        self = cls(wire)
        with trio.move_on_after(wire.connect_timeout) as scope:
            try:
                await self._do(wire.connect)
            except BaseException:
                self.close()
                raise
        if scope.cancelled_caught:
            message = f"Can't connect to MySQL server on {wire.host!r} (timed out)"
            raise err.OperationalError(CR.CR_CONN_HOST_ERROR, message)
        return self

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<{type(self).__name__} {state} {self.get_host_info()!r} at {id(self):#x}>"

    # -- Running a command --------------------------------------------------------------------------------------

    async def run(self, command: Callable[..., R], *args: Any) -> R:
        """Run one of the driver's synchronous commands, after putting right what a cancelled one left."""
        await self.prepare()
        with self._exclusively():
            return await self._do(command, *args)

    async def prepare(self) -> None:
        """Get ready for a command: put right what a cancelled one left."""
        await checkpoint_if_cancelled()
        if self.awry:
            await self.recover()

    @property
    def awry(self) -> bool:
        """Whether `recover` is to be called before anything is asked of the server."""
        wire = self._wire
        result = wire._result
        return (
            self._busy
            or self._unfinished is not None
            or self._undo is not None
            or wire._reply_pending
            or (result is not None and result.unbuffered_active)
        )

    async def query(self, sql: str) -> None:
        """Execute `sql` as it is, without a cursor: for a statement that returns no rows."""
        await self.prepare()
        await self.exchange(sql)

    async def exchange(self, sql: str | bytes, *, unbuffered: bool = False) -> None:
        """Send a query and read its result, for a cursor. To be preceded by `prepare`.

        Outside the greenlet, as switching there and back twice takes a quarter of the time all this takes; but long
        queries, and results that do not arrive all at once, cost much more than that anyway, and are left to it.
        """
        wire = self._wire
        data = sql.encode(wire.encoding) if isinstance(sql, str) else sql
        self._busy = True
        try:
            packet = wire.begin_query(data)
            if packet is None:
                await self._do(wire.query, data, unbuffered)
                return
            try:
                await wire._sock.ask(packet)
            except (EOFError, OSError) as exc:
                raise wire.lost(exc) from exc
            if not wire.take_result(unbuffered):
                await self._do(wire.finish_result, unbuffered)
        except Exception:
            wire.give_up_if_lost()
            raise
        finally:
            self._end_use()

    async def fetch(self, result: Any) -> None:
        """Wait for more rows of an unbuffered result. May be cancelled and called again: no row is lost."""
        await checkpoint_if_cancelled()
        stuck = self._unfinished
        if stuck is not None and stuck.command != result.fetch:
            await self.recover()
            return
        with self._exclusively():
            if stuck is not None:
                await self._drive(stuck)
                return
            wire = self._wire
            if not wire.has_packet():
                try:
                    await wire._sock.gather(wire._sock.unused + 1)
                except (EOFError, OSError) as exc:
                    raise wire.lost(exc) from exc
            if not result.take_arrived():
                await self._do(result.fetch)

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        if self._busy:
            raise _busy()
        self._busy = True
        try:
            yield
        finally:
            self._end_use()

    def _end_use(self) -> None:
        """Let others use the connection; or finish what `close`, if it was called meanwhile, could not."""
        self._busy = False
        if self._wire._sock is None:
            self.close()

    async def _do(self, command: Callable[..., R], *args: Any) -> R:
        """Run `command` in the greenlet."""
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = greenlet(_serve)
        result: R = await self._drive(_Unfinished(command, _at_once, (command, args)))
        return result

    async def _drive(self, unfinished: _Unfinished) -> Any:
        """Await what the greenlet asks for until its command is done."""
        worker = self._greenlet
        assert worker is not None
        worker.gr_context = contextvars.copy_context()
        worker.parent = getcurrent()
        async_fn, value = unfinished.async_fn, unfinished.argument
        try:
            while async_fn is not None:
                try:
                    value = await async_fn(value)
                except Exception as exc:  # noqa: BLE001  it is raised in the greenlet, and comes back from there
                    async_fn, value = worker.throw(exc)
                else:
                    async_fn, value = worker.switch(value)
        except BaseException:
            if worker.dead:
                self._unfinished = None
                self._wire.give_up_if_lost()
            else:
                self._unfinished = _Unfinished(unfinished.command, async_fn, value)
            raise
        self._unfinished = None
        return value

    # -- After a cancelled or abandoned command -----------------------------------------------------------------

    async def recover(self) -> None:
        """Bring to its end whatever a cancelled task, or an abandoned cursor, left half done.

        Called by itself before the next command, and by the pool. The rule:

        1. A command that had not been sent completely is not completed: the connection is closed, and the server
           forgets what it had received. The same goes for a file being sent by ``LOAD DATA LOCAL``.
        2. What is left of the reply is read and thrown away, for `GRACE` seconds.
        3. Then ``KILL QUERY`` is sent over another connection, opened for this to the very address this one is
           connected to, and only if the server there confirms that it knows this connection: behind a proxy the
           same number may be a stranger's. Reading goes on until the server has ended its reply, and then it
           is asked for something else, so that a kill that came too late cannot hit the next query.
        4. What an abandoned `transaction` block had begun is rolled back.

        Raises:
          pymysql.err.Error: if that takes longer than `RECOVERY_LIMIT` seconds, or cannot be done. The connection
            is closed then.
        """
        if self._busy:
            raise _busy()
        try:
            with self._exclusively(), trio.move_on_after(RECOVERY_LIMIT) as scope:
                await self._recover()
        except Exception:
            self.close()
            raise
        if scope.cancelled_caught:
            self.close()
            raise _lost(f"a cancelled query neither ended nor could be killed within {RECOVERY_LIMIT} s")

    async def _recover(self) -> None:
        wire = self._wire
        if wire.mid_sentence:
            raise _lost("a task was cancelled while its command was being sent")
        if self._unfinished is not None or wire.unread:
            wire.forbidden = True
            try:
                await self._end_reply()
            finally:
                wire.forbidden = False
        if self._undo is not None:
            try:
                await self._do(wire.query, self._undo)
            except err.OperationalError as exc:
                if exc.args[0] != ER.SP_DOES_NOT_EXIST:  # the savepoint had been released just before
                    raise
            self._undo = None

    async def _end_reply(self) -> None:
        with trio.move_on_after(GRACE):
            await self._discard_reply()
            return
        killed = await self._kill_query()
        await self._discard_reply()
        if killed:
            self._wire.forbidden = False
            await self._do(self._wire.settle)

    async def _discard_reply(self) -> None:
        if self._unfinished is not None:
            try:
                await self._drive(self._unfinished)
            except Exception as exc:
                if self.closed:
                    raise
                logger.debug("a cancelled command ended in %s", type(exc).__name__)
        await self._do(self._wire.finish_reply)

    async def _kill_query(self) -> bool:
        async with self._wire.killers:
            try:
                side = await Connection.open(self._wire.side_door())
            except err.Error as exc:
                logger.warning("no connection to send KILL QUERY over: %s", exc)
                return False
            try:
                killed = await side._do(side._wire.kill_query_of, self._wire)
                await side.aclose()  # the server has forgotten it before the next one may be opened
                return killed
            finally:
                side.close()

    async def restore(self, *, reset_session: bool = False) -> None:
        """Recover, and undo what the last borrower left in the session: what the pool's ``reset`` does.

        That is a transaction, the autocommit mode, a database chosen with `select_db` and a character set chosen with
        `set_character_set`. With `reset_session` it is all the session's state, by COM_RESET_CONNECTION.
        """
        self._undo = None  # one rollback will do for all
        if self._unfinished is not None or self._wire.unread:
            await self.recover()
        with self._exclusively():
            await self._do(self._wire.tidy, reset_session)

    def is_clean(self) -> bool:
        """Whether nothing is left to read or to undo, and the server has not closed the connection."""
        wire = self._wire
        result = wire._result
        return (
            not self._busy
            and self._unfinished is None
            and self._undo is None
            and wire._sock is not None
            and not wire._reply_pending  # as in `Wire.unread`, but this is asked for each lease
            and (result is None or not (result.unbuffered_active or result.has_next))
            and not wire._status_unknown
            and wire.server_status & WATCHED == wire.home_status
            and not wire.moved
            and wire._sock.is_quiet()
        )

    @property
    def used(self) -> bool:
        """Whether a command has been sent since the session was last put in order."""
        return self._wire.used

    # -- Closing ------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the connection has been closed, by either side."""
        return not self._wire.open

    def close(self) -> None:
        """Close at once, saying goodbye if the server can be expected to listen. Closing twice is harmless."""
        self._wire.hang_up(polite=self._unfinished is None and not self._busy)
        if self._greenlet is not None and not self._busy:
            self._greenlet.parent = getcurrent()
            self._greenlet.throw()
            self._greenlet = self._unfinished = None

    async def aclose(self) -> None:
        """Say goodbye, wait until the server has closed its side, and close. When cancelled, close at once."""
        try:
            if self.is_clean():
                with self._exclusively():
                    await self._do(self._wire.say_goodbye)
        finally:
            self.close()
        await checkpoint()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    # -- PyMySQL's connection -----------------------------------------------------------------------------------

    @overload
    def cursor(self, cursor: None = None) -> Cursor[Any]: ...
    @overload
    def cursor(self, cursor: type[C]) -> C: ...
    @overload
    def cursor(self, cursor: type[pymysql.cursors.Cursor]) -> Cursor[Any]: ...

    def cursor(self, cursor: type[Any] | None = None) -> Any:
        """Make a cursor: `Cursor`, `DictCursor`, `SSCursor`, `SSDictCursor`, or a class of PyMySQL's.

        Use it in ``async with``. ``await conn.cursor()`` works as well, as in aiomysql.
        """
        return self._cursor_class(self) if cursor is None else cursor_class(cursor)(self)

    async def execute(self, query: str, args: Args = None) -> Cursor[Any]:
        """Execute `query` with a new cursor, and return the cursor, as psycopg's connections do."""
        cursor = self.cursor()
        await cursor.execute(query, args)
        return cursor

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit what the block does if it ends, roll it back if it raises. Blocks may be nested: savepoints.

        A block that is cancelled is left at once; it is rolled back before the connection is next used.
        """
        name = f"respool_{self._depth}"
        begin, commit, undo = (
            (f"SAVEPOINT {name}", f"RELEASE SAVEPOINT {name}", f"ROLLBACK TO SAVEPOINT {name}")
            if self._depth
            else ("BEGIN", "COMMIT", "ROLLBACK")
        )
        self._depth += 1
        try:
            await self.query(begin)
            yield
            await self.query(commit)
        except BaseException as exc:
            self._undo = undo
            if not self.closed and not isinstance(exc, (trio.Cancelled, GeneratorExit)):
                await self._roll_back_now()
            raise
        finally:
            self._depth -= 1

    async def _roll_back_now(self) -> None:
        try:
            await self.run(bool)  # any command would do: what is to be undone is undone first
        except err.Error as exc:
            logger.warning("a transaction could not be rolled back, the connection is closed: %s", exc)

    async def begin(self) -> None:
        """Begin a transaction."""
        await self.run(self._wire.begin)

    async def commit(self) -> None:
        """Commit the transaction."""
        await self.run(self._wire.commit)

    async def rollback(self) -> None:
        """Roll the transaction back."""
        await self.run(self._wire.rollback)

    async def autocommit(self, value: bool) -> None:
        """Switch autocommit on or off. Sends nothing if that is how it is."""
        await self.run(self._wire.autocommit, value)

    async def ping(self) -> None:
        """Ask the server whether it is there. Raises if not: a connection never reconnects by itself."""
        await self.run(self._wire.ping)

    async def select_db(self, db: str) -> None:
        """Change the current database. A pool changes it back."""
        await self.run(self._wire.select_db, db)

    async def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Send ``SET NAMES``. A pool changes it back."""
        await self.run(self._wire.set_character_set, charset, collation)

    async def set_charset(self, charset: str) -> None:
        """Do what `set_character_set` does, under the name aiomysql has for it."""
        await self.set_character_set(charset)

    async def show_warnings(self) -> tuple[tuple[Any, ...], ...]:
        """Return the rows of ``SHOW WARNINGS``."""
        return await self.run(self._wire.show_warnings)

    async def kill(self, thread_id: int) -> None:
        """Send ``KILL``: end another connection, by its `thread_id`."""
        await self.run(self._wire.kill, thread_id)

    def get_autocommit(self) -> bool:
        """Whether autocommit is on, by the last status the server sent."""
        return self._wire.get_autocommit()

    def get_transaction_status(self) -> bool:
        """Whether a transaction is open, by the last status the server sent."""
        return bool(self._wire.server_status & IN_TRANSACTION)

    def escape(self, obj: object, mapping: Any = None) -> str:
        """Turn a value into SQL text. Prefer passing arguments to `execute`."""
        return self._wire.escape(obj, mapping)

    def thread_id(self) -> int:
        """Return the number the server knows this connection by."""
        return int(self._wire.thread_id())

    def insert_id(self) -> int:
        """Return the AUTO_INCREMENT value the last command generated, or 0."""
        return int(self._wire.insert_id() or 0)

    def affected_rows(self) -> int:
        """Return how many rows the last command changed, or returned."""
        return int(self._wire.affected_rows())

    def character_set_name(self) -> str:
        """Return the name of the connection's character set."""
        return self._wire.charset

    def get_host_info(self) -> str:
        """Return how the connection goes: ``socket HOST:PORT``, or a Unix socket."""
        return self._wire.host_info

    def get_proto_info(self) -> int:
        """Return the version of the protocol."""
        return int(self._wire.get_proto_info())

    def get_server_info(self) -> str:
        """Return the server's version, as it says it."""
        return str(self._wire.get_server_info())


def _busy() -> trio.BusyResourceError:
    return trio.BusyResourceError("another task is using this MySQL connection")


def _lost(reason: str) -> err.OperationalError:
    return err.OperationalError(CR.CR_SERVER_LOST, f"Lost connection to MySQL server during query ({reason})")
