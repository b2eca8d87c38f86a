"""Connected non-blocking sockets under Trio: opening them, TLS or not, and waiting for them.

The standard library's sockets rather than `trio.socket` and `trio.SSLStream`: an exchange then costs one wait instead
of four checkpoints, whether bytes are waiting can be asked without waiting, and OpenSSL reads and writes the socket
itself instead of passing everything through two buffers in Python.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from respool.lowlevel import SocketWatch

from ._errors import ProtocolError

__all__ = ["BLOCKED", "Wire", "open_tcp", "open_unix"]

BLOCKED: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a non-blocking socket raises instead of waiting."""

_RECEIVE_SIZE: Final = 65536
_SEND_SIZE: Final = 262144  # bounds how long one send may keep the event loop

# Of Linux's struct tcp_info: tcpi_bytes_acked, which counts the SYN too, tcpi_bytes_sent and tcpi_bytes_retrans.
_TCP_INFO: Final = struct.Struct("=120x Q 72x QQ")

_Wait: TypeAlias = Callable[[socket.socket], Awaitable[None]]


async def open_tcp(host: str, port: int) -> socket.socket:
    """Connect by TCP, to the first of the host's addresses that answers (Happy Eyeballs, by Trio)."""
    stream = await trio.open_tcp_stream(host, port)
    return _non_blocking(socket.socket(fileno=stream.socket.detach()))


async def open_unix(path: str) -> socket.socket:
    """Connect to a Unix socket."""
    stream = await trio.open_unix_socket(path)
    return _non_blocking(socket.socket(fileno=stream.socket.detach()))


def _non_blocking(sock: socket.socket) -> socket.socket:
    sock.setblocking(False)
    return sock


class Wire:
    """A connected socket. Owns it from its construction: close it with `close`."""

    __slots__ = ("_sock", "_tls", "_watch", "drained")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tls: ssl.SSLSocket | None = None
        self._watch = SocketWatch(sock)
        self.drained = True
        """The last receive emptied the kernel's buffer, so the next had better wait first."""

    async def start_tls(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Shake hands. Raises `ssl.SSLError`, `OSError`, or `ProtocolError` if the server insists on HTTP/2."""
        self._tls = context.wrap_socket(
            self._sock, server_hostname=server_hostname, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
        self._sock = self._tls  # wrap_socket has detached the plain one
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(self._sock)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(self._sock)
        if self._tls.selected_alpn_protocol() not in (None, "http/1.1"):
            raise ProtocolError(f"the server chose {self._tls.selected_alpn_protocol()!r} over 'http/1.1' (ALPN)")

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for its names and options."""
        return self._sock

    @property
    def closed(self) -> bool:
        """It was closed on our side."""
        return self._sock.fileno() < 0

    def is_quiet(self) -> bool:
        """The peer is still there and has sent nothing. Does not wait."""
        if not self._watch.is_readable():
            return self._tls is None or self._tls.pending() == 0
        return self._tls is not None and self._only_tls_records()

    def _only_tls_records(self) -> bool:
        """What arrived was TLS's own business (session tickets, mostly), nothing for us."""
        assert self._tls is not None
        try:
            self._tls.recv(1)
        except BLOCKED:
            return True
        except OSError:
            return False
        return False

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what fits now and say how much that was. Raises one of `BLOCKED`, or `OSError`."""
        return self._sock.send(data if len(data) <= _SEND_SIZE else data[:_SEND_SIZE])

    def unacknowledged(self) -> int:
        """How many bytes were sent and not acknowledged by the peer's TCP. 0 where the system does not say."""
        if sys.platform != "linux":
            return 0
        try:
            info = self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            acknowledged, sent, repeated = _TCP_INFO.unpack(info)
        except (OSError, struct.error):
            return 0  # a Unix socket, one that is closed, or a kernel before 4.19
        return int(sent) - int(repeated) - int(acknowledged) + 1

    def receive_nowait(self) -> bytes | None:
        """What has arrived, ``b""`` at the end of the stream, ``None`` if nothing has. Raises `OSError`."""
        try:
            data = self._sock.recv(_RECEIVE_SIZE)
        except BLOCKED:
            self.drained = True
            return None
        self.drained = self._tls is None and len(data) < _RECEIVE_SIZE
        return data

    def receive_if_any(self) -> bytes | None:
        """As `receive_nowait`, cheaper where usually nothing has arrived."""
        if self._tls is None and not self._watch.is_readable():
            return None
        return self.receive_nowait()

    def receive_if_likely(self) -> bytes | None:
        """As `receive_nowait`, at no cost where it has proved vain lately."""
        data = self._watch.read_if_likely(self._sock.recv, _RECEIVE_SIZE)
        if data is not None:
            self.drained = self._tls is None and len(data) < _RECEIVE_SIZE
        return data

    def ready(self) -> Awaitable[None]:
        """Wait until something has arrived, which it may have: always a checkpoint, and before anything is read."""
        if self.drained:
            return self._watch.wait_readable()  # the caller awaits it
        return trio.lowlevel.checkpoint()  # noqa: ASYNC105

    async def receive(self) -> bytes:
        """What arrives next, ``b""`` at the end of the stream. Always a checkpoint. Raises `OSError`."""
        while True:
            await self.ready()
            if (data := self.receive_nowait()) is not None:
                return data

    async def send_all(self, data: memoryview) -> None:
        """Send everything. Always a checkpoint. Raises `OSError`."""
        await trio.lowlevel.checkpoint()
        while data:
            try:
                data = data[self.send_nowait(data) :]
            except BLOCKED:
                await trio.lowlevel.wait_writable(self._sock)

    async def wait_readable_or_writable(self) -> None:
        """Wait for whichever comes first."""
        try:
            async with trio.open_nursery() as nursery:

                async def watch(wait: _Wait) -> None:
                    # Closed under us by another task: the caller's next send says so.
                    with contextlib.suppress(trio.ClosedResourceError):
                        await wait(self._sock)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch, trio.lowlevel.wait_readable)
                nursery.start_soon(watch, trio.lowlevel.wait_writable)
        except BaseExceptionGroup:
            # Only cancellation can have come out of these tasks, and users of a connection must not meet a group:
            # a cancelled scope stays cancelled, so it can be met again as the plain exception.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise

    def close(self, *, politely: bool) -> None:
        """Free the socket, at once. Politely: TLS says goodbye first, if that can be done without waiting."""
        if self.closed:
            return
        self._watch.close()
        if politely and self._tls is not None:
            with contextlib.suppress(OSError, ValueError):  # goodbye is a courtesy: nobody may be listening
                self._tls.unwrap()
        self._sock.close()
