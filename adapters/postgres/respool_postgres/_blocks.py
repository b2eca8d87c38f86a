"""psycopg's transactions, server-side cursors and pipelines, for tasks that are cancelled inside their blocks.

psycopg ends these blocks by talking to the server. A cancelled task must leave at once instead: it notes on the
connection what remains to be done, and whoever uses the connection next does that first.

A block may also outlive its borrower's lease. `restore`, which gives the connection a new lock, has ended it by then:
what it would end now is the next borrower's.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

import trio
from psycopg import AsyncConnection, AsyncPipeline, AsyncServerCursor, AsyncTransaction
from psycopg import errors as e
from psycopg.rows import Row

if TYPE_CHECKING:
    from typing import Self

    from psycopg.abc import PQGen

    from ._connection import Connection

__all__ = ["Debt", "Pipeline", "ServerCursor", "Transaction"]


class Debt(Protocol):
    """A block that its task left without ending it."""

    def settle(self) -> PQGen[Any]:
        """End it."""


class Transaction(AsyncTransaction):
    """psycopg's transaction block. Left by a cancelled task, it is rolled back when the connection is next used."""

    __module__ = "respool_postgres"

    async def __aenter__(self) -> Self:
        self._lock = self._conn.lock
        try:
            return await super().__aenter__()
        except trio.Cancelled:
            self._leave()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        if self._conn.lock is not self._lock:
            return self._end_too_late(exc_val)
        try:
            return await super().__aexit__(exc_type, exc_val, exc_tb)
        except trio.Cancelled:
            self._leave()
            raise

    def _end_too_late(self, exc_val: BaseException | None) -> bool:
        self.status = self.Status.FAILED
        if exc_val is None:
            raise e.ProgrammingError("the transaction block has outlived its borrower's lease, and was rolled back")
        return False

    def _leave(self) -> None:
        if self.status is self.Status.ACTIVE:  # begun, and its end not begun
            cast("Connection[Any]", self._conn).owe(self)

    def settle(self) -> PQGen[bool]:
        """Roll back, as if the block had been left with an error."""
        interrupted = e.QueryCanceled("the transaction block was interrupted")
        return self._exit_gen(type(interrupted), interrupted, None)


class ServerCursor(AsyncServerCursor[Row]):
    """psycopg's server-side cursor. Left by a cancelled task, it is closed when the connection is next used."""

    __module__ = "respool_postgres"
    __slots__ = ("_lock",)

    def __init__(self, connection: AsyncConnection[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self._lock = connection.lock

    async def close(self) -> None:
        """Close the cursor, here and on the server."""
        if self._conn.lock is not self._lock:
            self._close()
            return
        try:
            await super().close()
        except trio.Cancelled:
            if not self.closed:
                self._close()
                cast("Connection[Any]", self._conn).owe(self)
            raise

    def settle(self) -> PQGen[None]:
        """Close it on the server, if it is still there."""
        self._described = False  # has psycopg look first
        return self._close_gen()


class Pipeline(AsyncPipeline):
    """psycopg's pipeline block. Left by a cancelled task, its results are thrown away before the next use."""

    __module__ = "respool_postgres"

    interrupted = False
    """Whether results have been lost, so that the rest cannot be told apart any more."""

    def __init__(self, connection: Connection[Any], **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._entered_under: object = connection.lock

    def forget(self) -> None:
        """Start again with nothing sent and nothing expected."""
        self.command_queue.clear()
        self.result_queue.clear()
        self.interrupted = False

    def _exit_gen(self) -> PQGen[None]:
        # psycopg's own fetches in a `finally`, and so cannot be abandoned.
        if self._outlived():
            raise e.ProgrammingError("the pipeline block has outlived its borrower's lease: its results are lost")
        if self.interrupted:
            return
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
        except e.Error:
            yield from self._fetch_gen(flush=True)
            raise
        yield from self._fetch_gen(flush=True)

    def _exit(self, exc: BaseException | None) -> None:
        if self.interrupted or self._outlived() or isinstance(sys.exception(), trio.Cancelled):
            self.level -= 1
        else:
            super()._exit(exc)

    def _outlived(self) -> bool:
        return self._conn.lock is not self._entered_under
