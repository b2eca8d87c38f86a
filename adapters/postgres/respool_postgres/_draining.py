"""Reading to its end what nobody waits for any more, on the level of libpq.

psycopg's own interrupted generators are not driven on for this: they would send their next command, and the parameters
of an ``executemany`` may never end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import errors as e
from psycopg import pq
from psycopg.generators import fetch, send
from psycopg.waiting import Wait

if TYPE_CHECKING:
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn

__all__ = ["drain", "drain_pipeline"]

_ACTIVE = pq.TransactionStatus.ACTIVE


def drain(pgconn: PGconn) -> PQGen[None]:
    """End any COPY and throw away all results. May be abandoned at any point and begun again."""
    yield from send(pgconn)
    while (result := (yield from fetch(pgconn))) is not None:
        if result.status == pq.ExecStatus.COPY_IN:
            yield from _abort_copy_in(pgconn)
        elif result.status == pq.ExecStatus.COPY_OUT:
            yield from _skip_copy_out(pgconn)
        elif result.status == pq.ExecStatus.COPY_BOTH:
            raise e.OperationalError("a replication stream was interrupted: the connection cannot be used again")


def _abort_copy_in(pgconn: PGconn) -> PQGen[None]:
    while pgconn.put_copy_end(b"the task that was copying has been interrupted") == 0:
        while not (yield Wait.W):
            continue
    yield from send(pgconn)


def _skip_copy_out(pgconn: PGconn) -> PQGen[None]:
    while (length := pgconn.get_copy_data(1)[0]) >= 0:
        if length == 0:
            while not (yield Wait.R):
                continue
            pgconn.consume_input()


def drain_pipeline(pgconn: PGconn) -> PQGen[None]:
    """Throw away all results of a pipeline, up to a synchronisation point of our own. May be begun again."""
    pgconn.pipeline_sync()
    yield from send(pgconn)
    while True:
        result = yield from fetch(pgconn)
        if result is not None and result.status == pq.ExecStatus.PIPELINE_SYNC and pgconn.transaction_status != _ACTIVE:
            return
