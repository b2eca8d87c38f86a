"""psycopg's asynchronous connection on Trio.

psycopg's methods build a generator of the protocol's steps, take ``self.lock``, and hand it to ``self.wait``. So only
`wait`, the lock and `connect` are to be replaced; cursors, COPY, prepared statements, two-phase commit and the rest are
psycopg's own.

What is ours to add is cancellation. psycopg on asyncio keeps a cancelled task until the server has stopped its query.
Here it leaves at once, and the connection remembers what is unfinished:

- a query, a COPY, a stream: libpq says so itself (its transaction status is ACTIVE);
- the beginning or the end of a transaction on its way to the server: its generator is kept, to be driven to its end;
- blocks that were left without being ended: transactions to be rolled back, cursors to be closed;
- a pipeline that lost its results; a cancel request not answered yet.

`recover` settles all that. The next exchange on the connection calls it before anything else, and so does a pool before
it lends the connection to anybody.
"""

from __future__ import annotations

import logging
import select
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import trio
from psycopg import AsyncConnection, AsyncCursor, Notify, pq
from psycopg import errors as e
from psycopg._connection_base import BaseConnection
from psycopg._server_cursor_base import ServerCursorMixin
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import make_conninfo, timeout_from_conninfo
from psycopg.rows import Row
from psycopg.transaction import BaseTransaction
from psycopg.waiting import Ready, Wait

from respool.lowlevel import SocketWatch

from ._addresses import check_places, connection_attempts, without_secrets
from ._blocks import Debt, Pipeline, ServerCursor, Transaction
from ._cancelling import CancelRequest
from ._draining import drain, drain_pipeline
from ._settings import Settings
from ._waiting import READ_OR_WRITE, ExchangeLock, readiness, run_unconnected, surplus, wait_for

if TYPE_CHECKING:
    from typing import Self, TypeVar

    from psycopg.abc import AdaptContext, ConnDict, ConnParam, PQGen
    from psycopg.pq.abc import PGconn
    from psycopg.rows import AsyncRowFactory

    RV = TypeVar("RV")

__all__ = ["MAX_RESULT_SIZE", "Connection"]

logger = logging.getLogger("respool.postgres")

_WAIT_R = Wait.R
_READY_R = Ready.R
_IDLE = pq.TransactionStatus.IDLE
_ACTIVE = pq.TransactionStatus.ACTIVE
_INTRANS = pq.TransactionStatus.INTRANS
_COPYING = (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT)

_ENDINGS = frozenset(
    function.__code__
    for function in (
        BaseConnection._commit_gen,
        BaseConnection._rollback_gen,
        BaseConnection._tpc_prepare_gen,
        BaseConnection._tpc_finish_gen,
        BaseTransaction._enter_gen,
        BaseTransaction._exit_gen,
        ServerCursorMixin._close_gen,
    )
)
"""Exchanges that recovery lets finish, instead of cancelling them: stopped half way, they leave a transaction whose
state nobody knows. They are short, or, as a COMMIT with much to check, what the caller asked for."""

MAX_RESULT_SIZE = 1 << 30  # bytes of a result that is read whole

_BUSY_SECONDS = 0.001
_LONG = 4  # turns of waiting after which an exchange is weighed, and again after as many
_UNASKED = 64  # buffers of 16 KiB, full of what nobody asked for, that are read before a connection is given up
_FIRST_PATIENCE = 0.05


class Connection(AsyncConnection[Row]):
    """A connection to PostgreSQL: psycopg's `AsyncConnection <psycopg.AsyncConnection>`, waiting on Trio.

    Everything psycopg documents works here. A task cancelled in the middle of an operation leaves at once; the next
    operation on the connection, whoever's it is, first stops the query that was left on the server and throws its
    results away.

    Methods are checkpoints, except that rows which have already arrived are handed out by `Copy.read`, `Cursor.stream`
    and inside a pipeline with a scheduling point every millisecond only, and that fetching from a result which is
    complete is not one at all: it is psycopg's own code, and does no I/O.
    """

    __module__ = "respool_postgres"

    _pipeline: Pipeline | None

    used = False
    """Whether there has been any exchange since `restore`."""

    max_result_size = MAX_RESULT_SIZE
    """Bytes of a result that is read whole, over TCP on Linux. One that is streamed may be longer. May be changed."""

    def __init__(self, pgconn: PGconn, *args: Any, **kwargs: Any) -> None:
        super().__init__(pgconn, *args, **kwargs)
        self.server_cursor_factory = ServerCursor
        self.lock: ExchangeLock = ExchangeLock()  # type: ignore[assignment]
        self._watch = SocketWatch(pgconn.socket)
        self._either_poll = select.poll()
        self._either_poll.register(pgconn.socket, READ_OR_WRITE)
        self._last_scheduled = 0.0
        self._ending: tuple[PQGen[Any], Wait] | None = None
        self._owed: list[Debt] = []
        self._cancel_request: CancelRequest | None = None
        self._listened = False
        self._settings = Settings(self)

    # Connecting and closing

    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[AsyncCursor[Row]] | None = None,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect, as `psycopg.AsyncConnection.connect` does, with the same arguments.

        Names are resolved by Trio; each address is tried for ``connect_timeout`` seconds. If it is cancelled, nothing
        stays open.

        Raises:
          psycopg.OperationalError: no attempt succeeded. If there were several, its ``__cause__`` is the group of
            their errors.
          psycopg.ProgrammingError: the connection string is not valid.
        """
        try:
            params = await cls._get_connection_params(conninfo, **kwargs)
            check_places(conninfo, params)
        except e.ProgrammingError as error:
            raise e.ProgrammingError(f"invalid connection string: {without_secrets(error, conninfo)}") from None
        connection = await cls._connect_first(await connection_attempts(params), timeout_from_conninfo(params))
        connection._autocommit = bool(autocommit)
        if row_factory:
            connection.row_factory = row_factory
        if cursor_factory:
            connection.cursor_factory = cursor_factory
        if context:
            connection._adapters = AdaptersMap(context.adapters)
        connection.prepare_threshold = prepare_threshold
        connection.keep_settings()
        return connection

    @classmethod
    async def _connect_first(cls, attempts: list[ConnDict], timeout: float) -> Self:
        failures: list[tuple[str, e.Error]] = []
        for attempt in attempts:
            where = ", ".join(f"{name}: {attempt.get(name)!r}" for name in ("host", "port", "hostaddr"))
            try:
                with trio.fail_after(timeout):
                    return await run_unconnected(cls._connect_gen(make_conninfo("", **attempt)))
            except trio.TooSlowError:
                failures.append((where, e.ConnectionTimeout("connection timeout expired")))
            except e.Error as error:
                failures.append((where, error))
        last = failures[-1][1]
        if len(failures) == 1:
            raise last
        lines = [str(last), "Multiple connection attempts failed. All failures were:"]
        lines += [f"- {where}: {error}" for where, error in failures]
        group = ExceptionGroup("connection attempts", [error for _, error in failures])
        raise type(last)("\n".join(lines), pgconn=last.pgconn) from group

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection at once, even in the middle of an exchange. Other tasks waiting on it get an error."""
        if not self.closed:
            self._watch.close()
        await super().close()
        self.pgconn.finish()
        self._forget_debts()
        await trio.lowlevel.checkpoint()

    # Waiting

    async def wait(self, gen: PQGen[RV], interval: float = 0.0, timeout: float | None = None) -> RV:
        """Drive a generator of the protocol's steps to its end, and return its value. psycopg's methods call this.

        Interrupted, it leaves the generator where it is: see `recover`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        lock = self.lock
        if lock.fresh:
            lock.fresh = False
            self.used = True
            if self._unsettled():
                await self.recover()
        fd = self.pgconn.socket  # a closed connection says so here, before the generator finds another reason
        try:
            wants = next(gen)
        except StopIteration as done:
            result: RV = done.value
            await self._schedule_others()
            return result
        if timeout is None:
            return await self._run(gen, wants, fd)
        with trio.move_on_after(timeout):
            return await self._run(gen, wants, fd, patient=False)
        raise e._WaitTimeout("wait timeout expired")

    async def _run(self, gen: PQGen[RV], wants: Wait, fd: int, *, patient: bool = True) -> RV:
        """Drive a generator on from its first request. Not `patient`: take data that is here, whatever time it is."""
        waited = False
        ready: int
        turns = 0
        start: int | None = None
        try:
            while True:
                turns += 1
                if turns % _LONG == 0:
                    start = self._weigh(start, fd)
                try:
                    if patient and wants == _WAIT_R:
                        await self._watch.wait_readable()
                        ready, waited = _READY_R, True
                    # A socket is nearly always writable: asking costs a tenth of waiting.
                    elif not (ready := readiness(self._either_poll, wants)):
                        ready, waited = await wait_for(fd, wants), True
                    elif self._was_busy():
                        if patient:
                            await trio.lowlevel.checkpoint()
                        else:
                            await trio.lowlevel.cancel_shielded_checkpoint()
                        waited = True
                except (OSError, trio.ClosedResourceError) as error:
                    raise e.OperationalError("the connection is closed") from error
                except BaseException:
                    self._interrupted(gen, wants)
                    raise
                wants = gen.send(ready)
        except StopIteration as done:
            result: RV = done.value
        if not waited:
            await self._schedule_others()
        return result

    def _weigh(self, start: int | None, fd: int) -> int:
        """Drop the connection if the server has sent too much since there was the surplus `start`, and return that.

        libpq keeps without limit what arrives for a result. It is counted net of what was sent, because an executemany
        of any length may be answered row by row, and is not kept.
        """
        now = surplus(fd)
        if start is None:
            return now
        if now - start <= self.max_result_size:
            return start
        self._watch.close()
        self.pgconn.finish()
        raise e.OperationalError(
            f"the result is longer than max_result_size ({self.max_result_size} bytes): use a server-side cursor or "
            "stream() to read it in parts, or raise the limit"
        )

    async def _schedule_others(self) -> None:
        """Let other tasks run if an operation did not have to wait, but not for every row that is already here."""
        if self.pgconn.transaction_status != _ACTIVE or self._was_busy():
            await trio.lowlevel.cancel_shielded_checkpoint()

    def _was_busy(self) -> bool:
        """Whether it is time to let other tasks run. Says so once in a while only."""
        now = time.monotonic()
        if now - self._last_scheduled < _BUSY_SECONDS:
            return False
        self._last_scheduled = now
        return True

    def _interrupted(self, gen: PQGen[Any], wants: Wait) -> None:
        if self._pipeline is not None:
            self._pipeline.interrupted = True
        elif getattr(gen, "gi_code", None) in _ENDINGS:
            self._ending = (gen, wants)

    # Recovering

    def owe(self, block: Debt) -> None:
        """Note that a cancelled task left `block`, which must be ended before anything else. Inner ones come first."""
        self._owed.append(block)

    def _unsettled(self) -> bool:
        """Whether something is left over from an exchange that is over for everybody but the server."""
        return bool(self._owed or self._ending or self._cancel_request) or self._abandoned()

    def _abandoned(self) -> bool:
        """Whether nobody waits any more for what the server is doing, or for what it still has to send."""
        if self.pgconn.pipeline_status:
            return self._pipeline is None or self._pipeline.level == 0 or self._pipeline.interrupted
        return self.pgconn.transaction_status == _ACTIVE

    async def recover(self) -> None:
        """Settle what interrupted tasks left: stop their queries, throw away the results, roll back their blocks.

        May be interrupted itself, and goes on where it was when it is called again. It returns only when every cancel
        request has been answered or has failed, so that none of them can hit a later query.

        Raises:
          psycopg.OperationalError: the connection is lost, or the server cannot be asked to stop a query.
        """
        if self.closed:
            self._forget_debts()
            return
        if self._cancel_request is not None:
            await self._outlast()
        if self._ending is not None:
            await self._finish(*self._ending)
        if self._abandoned():
            await self._stop()
        while self._owed:
            await self._finish(self._owed.pop(0).settle(), None)

    def _forget_debts(self) -> None:
        self._owed.clear()
        self._ending = None
        if self._cancel_request is not None:
            self._cancel_request.close()
            self._cancel_request = None

    async def _finish(self, gen: PQGen[Any], wants: Wait | None) -> None:
        """Drive a transaction's beginning or end to its own end. Whom its failure concerned has left."""
        self._ending = None
        try:
            await self._run(gen, next(gen) if wants is None else wants, self.pgconn.socket)
        except StopIteration:
            pass
        except e.Error as error:
            logger.warning("%s: the end of a transaction that its task did not wait for failed: %s", self, error)

    async def _stop(self) -> None:
        """Have the server stop what it is doing, and read all that it still sends.

        A request may come too early, before the server has read the query it is to stop; then it is made again.
        """
        patience = _FIRST_PATIENCE
        while True:
            if self.pgconn.transaction_status == _ACTIVE:
                await self._cancel()
            with trio.move_on_after(patience):
                await self._drain()
                return
            patience *= 2

    async def _drain(self) -> None:
        pipeline = self._pipeline
        if not self.pgconn.pipeline_status:
            await self._run_from_start(drain(self.pgconn))
        else:
            await self._run_from_start(drain_pipeline(self.pgconn))
            if pipeline is not None:
                pipeline.forget()
            if pipeline is None or pipeline.level == 0:
                self.pgconn.exit_pipeline_mode()
                self._pipeline = None
        # Some of what was sent may have been prepared, or dropped what others prepared: nobody saw the results.
        self._prepared.clear()

    async def _run_from_start(self, gen: PQGen[RV]) -> RV:
        try:
            wants = next(gen)
        except StopIteration as done:
            return cast("RV", done.value)
        return await self._run(gen, wants, self.pgconn.socket)

    async def _cancel(self) -> None:
        request, self._cancel_request = self._cancel_request or CancelRequest(self.pgconn), None
        try:
            await request.acknowledged()
        except trio.Cancelled:
            self._cancel_request = request
            raise

    async def _outlast(self) -> None:
        """Wait until a request that somebody gave up on is over. Whom its failure concerned has left."""
        try:
            await self._cancel()
        except e.OperationalError as error:
            logger.info("%s: a cancel request that its task did not wait for failed: %s", self, error)

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:
        """Ask the server to stop the operation under way, and wait until it has taken note. Blocks nothing.

        Raises:
          psycopg.errors.CancellationTimeout: that took longer than `timeout` seconds (0: wait for ever).
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._should_cancel():
            return
        with trio.move_on_after(timeout or float("inf")):
            await self._cancel()
            return
        raise e.CancellationTimeout("cancellation timeout expired")

    # For the next borrower

    async def ping(self) -> None:
        """Make one round trip, outside of any transaction. Does not count as a use."""
        used = self.used
        async with self.lock:
            await self.wait(self._exec_command(b"SELECT 1"))
        self.used = used

    async def run(self, statement: str) -> None:
        """Run one statement outside of any transaction, whatever `autocommit` is: ``DISCARD ALL`` needs that."""
        async with self.lock:
            await self.wait(self._exec_command(statement.encode()))
            self._prepared.clear()

    def is_clean(self) -> bool:
        """Whether the next borrower would find the connection as the first one did. Asks the kernel, not the server."""
        pgconn = self.pgconn
        return (
            pgconn.transaction_status == _IDLE
            and not pgconn.pipeline_status
            and not (self._owed or self._ending or self._cancel_request)
            and not self.lock.locked()
            and self._tpc is None
            and not self._num_transactions
            and not self._heard()
            and self._settings.are_those_of(self)
            and not self._watch.is_readable()
        )

    async def restore(self) -> bool:
        """Make the connection clean: recover, roll back, stop listening, and set its attributes as they were kept.

        Session state on the server stays as it is. Whoever still holds an iterator or a block of the last borrower's
        can do no harm with it; that cannot be said of a COPY whose block is still open.

        Returns:
          whether an idle transaction had been left open.

        Raises:
          psycopg.OperationalError: the connection is lost, or a COPY block is still open.
        """
        self._check_connection_ok()
        if self.lock.locked() and self._is_copying():
            raise e.OperationalError("a COPY block has outlived its borrower's lease: it could copy for the next one")
        left_open = self.pgconn.transaction_status == _INTRANS and not self._owed
        self.lock = ExchangeLock()
        self._pipeline = None
        await self.recover()
        self._num_transactions = 0
        self._tpc = None
        if self.pgconn.transaction_status != _IDLE:
            await self.wait(self._rollback_gen())
        await self.wait(self._prepared.maintain_gen(self))
        await self._stop_listening()
        self._settings.restore(self)
        self.used = False
        return left_open

    def _is_copying(self) -> bool:
        if self.pgconn.is_busy():
            return False
        result = self.pgconn.get_result()  # which libpq repeats for as long as the COPY lasts
        return result is not None and result.status in _COPYING

    async def _stop_listening(self) -> None:
        """Take whatever arrived unasked. Notifications were for the last borrower, so no more shall come."""
        for _ in range(_UNASKED):
            if not self._watch.is_readable():
                break
            self.pgconn.consume_input()
            self._forget_notifications()
        else:
            raise e.OperationalError("the server does not stop saying what nobody asked for")
        if self._heard():
            await self.wait(self._exec_command(b"UNLISTEN *"))
        self._forget_notifications()
        self._notifies_backlog = deque()
        self._listened = False

    def _forget_notifications(self) -> None:
        while self.pgconn.notifies():
            self._listened = True

    def _heard(self) -> bool:
        """Whether anybody has listened to notifications, as far as can be seen from here."""
        self._listened = self._listened or bool(self._notifies_backlog) or self.pgconn.notifies() is not None
        return self._listened

    def keep_settings(self) -> None:
        """Let `restore` set the connection's attributes to what they are now."""
        self._settings = Settings(self)

    # Blocks

    @asynccontextmanager
    async def transaction(
        self,
        savepoint_name: str | None = None,
        force_rollback: bool = False,
    ) -> AsyncIterator[Transaction]:
        """Open a transaction block. If its task is cancelled, it is rolled back when the connection is next used."""
        transaction = Transaction(self, savepoint_name, force_rollback)
        if self._pipeline:
            async with self.pipeline(), transaction, self.pipeline():
                yield transaction
        else:
            async with transaction:
                yield transaction

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """Open a pipeline block."""
        async with self.lock:
            self._check_connection_ok()
            if self._pipeline is None:
                self._pipeline = Pipeline(self)
            pipeline = self._pipeline
        try:
            async with pipeline:
                yield pipeline
        finally:
            self._forget_pipeline(pipeline)

    @asynccontextmanager
    async def _pipeline_nolock(self) -> AsyncIterator[Pipeline]:
        self._pipeline = pipeline = Pipeline(self, _no_lock=True)
        try:
            async with pipeline:
                yield pipeline
        finally:
            self._forget_pipeline(pipeline)

    def _forget_pipeline(self, pipeline: Pipeline) -> None:
        if pipeline.level == 0 and self._pipeline is pipeline:
            self._pipeline = None

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> AsyncGenerator[Notify]:
        """Yield notifications as they come. Leave it with `contextlib.aclosing`, like any async generator on Trio."""
        self._listened = True
        return super().notifies(timeout=timeout, stop_after=stop_after)

    def add_notify_handler(self, callback: Any) -> None:
        """Have `callback` called with each notification received."""
        self._listened = True
        super().add_notify_handler(callback)
