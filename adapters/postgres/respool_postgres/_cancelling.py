"""Asking the server to stop a query, without blocking and without a thread.

PostgreSQL's cancel request is a connection of its own, which names the query's connection by a number and a secret. The
server closes it once it has signalled the process concerned. Until then the request may hit whatever that process does
next, so nobody may send a query before (PgBouncer #717 and #245 are what happens otherwise).
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import TYPE_CHECKING

from psycopg import capabilities, generators, pq
from psycopg import errors as e
from psycopg.pq.misc import find_libpq_full_path
from psycopg.waiting import Wait

from ._waiting import wait_for

if TYPE_CHECKING:
    from psycopg.abc import PQGenConn
    from psycopg.pq.abc import PGconn

__all__ = ["CancelRequest"]

_CANCEL_REQUEST_CODE = 80877102
_FIRST_LIBPQ_WITH_ANOTHER_KEY = 170000


class CancelRequest:
    """One cancel request on its way. A task interrupted while it waits for the answer leaves it to the next one."""

    def __init__(self, pgconn: PGconn) -> None:
        self._exchange = _with_libpq(pgconn) if capabilities.has_cancel_safe() else _by_hand(pgconn)
        self._wants: tuple[int, Wait] | None = None

    async def acknowledged(self) -> None:
        """Wait until the server has acted on the request.

        Raises:
          psycopg.OperationalError: it could not be delivered.
        """
        try:
            if self._wants is None:
                self._wants = next(self._exchange)
            while True:
                fd, wants = self._wants
                self._wants = self._exchange.send(await wait_for(fd, wants))
        except StopIteration:
            return
        except OSError as error:
            raise e.OperationalError(f"the cancel request failed: {error}") from error

    def close(self) -> None:
        """Give up waiting for the answer."""
        self._exchange.close()


def _with_libpq(pgconn: PGconn) -> PQGenConn[None]:
    """Libpq 17 and later: non-blocking, and encrypted if the connection is."""
    cancel_conn = pgconn.cancel_conn()
    cancel_conn.start()
    yield from generators.cancel(cancel_conn)


def _by_hand(pgconn: PGconn) -> PQGenConn[None]:
    """Older ones only have PQcancel, which blocks. It sends this very packet, likewise in the clear."""
    packet = struct.pack("!iiii", 16, _CANCEL_REQUEST_CODE, *_cancel_key(pgconn))
    with socket.socket(fileno=os.dup(pgconn.socket)) as connected:
        family, server = connected.family, connected.getpeername()
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect_ex(server)
        yield sock.fileno(), Wait.W
        if refused := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(refused, os.strerror(refused))
        sock.sendall(packet)
        yield sock.fileno(), Wait.R
        sock.recv(1)  # the end of the stream is the answer


class _PGcancel(ctypes.Structure):
    """How ``struct pg_cancel`` begins in every libpq before 17. No new one can differ: 17 and later are not asked."""

    _fields_ = (
        ("address", ctypes.c_uint64 * 16),  # struct sockaddr_storage
        ("address_length", ctypes.c_uint32),
        ("_aligned", ctypes.c_uint32),
        ("backend_pid", ctypes.c_int32),
        ("backend_key", ctypes.c_int32),
    )


def _cancel_key(pgconn: PGconn) -> tuple[int, int]:
    """The number and the secret that name `pgconn` in a cancel request. libpq shows them nowhere else."""
    libpq = ctypes.CDLL(find_libpq_full_path() or "libpq.so.5")
    if not (libpq.PQlibVersion() == pq.version() < _FIRST_LIBPQ_WITH_ANOTHER_KEY):
        raise e.NotSupportedError(
            "cannot cancel a query without blocking: psycopg's libpq is older than 17 and is not the system's libpq. "
            "Install psycopg[binary], or a libpq 17 or later"
        )
    libpq.PQgetCancel.argtypes = [ctypes.c_void_p]
    libpq.PQgetCancel.restype = ctypes.POINTER(_PGcancel)
    libpq.PQfreeCancel.argtypes = [ctypes.POINTER(_PGcancel)]
    cancel = libpq.PQgetCancel(pgconn.pgconn_ptr)  # type: ignore[attr-defined]
    if not cancel:
        raise e.OperationalError("the connection is closed")
    try:
        pid, key = cancel.contents.backend_pid, cancel.contents.backend_key
    finally:
        libpq.PQfreeCancel(cancel)
    if pid != pgconn.backend_pid:
        raise e.NotSupportedError(f"libpq {pq.version()} keeps its cancel key in an unknown place")
    return pid, key
