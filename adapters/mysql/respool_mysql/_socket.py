"""What PyMySQL takes for a blocking socket, while Trio does the waiting.

PyMySQL's code runs in a greenlet. Where it would block, :func:`wait` hands the greenlet's parent (the coroutine that
`Connection` drives it from) something to await, and returns what came of it. Nothing else in the package switches
out of a greenlet.

A socket is its own read buffer as well: one ``recv`` takes whatever has arrived, and packets are parsed where they lie.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from greenlet import getcurrent

CHUNK = 65536  # bytes asked of the kernel at a time: some thousand rows, and one scheduling point


def wait(async_fn: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
    """Have the coroutine that drives this greenlet await ``async_fn(argument)``; its value or exception is ours."""
    parent = getcurrent().parent
    assert parent is not None, "bug: MySQL I/O outside a connection's greenlet"
    return parent.switch((async_fn, argument))


class Socket:
    """A connected, non-blocking socket with the few methods PyMySQL calls, and a buffer to parse packets in."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        self.fileno = raw.fileno()
        self.timeout: float | None = None
        self.data = b""  # what was received
        self.at = 0  # how much of it has been used
        self.sending = False  # a packet is half sent: the server cannot be asked anything any more
        self._poll = select.poll()
        self._poll.register(self.fileno, select.POLLIN)

    def settimeout(self, seconds: float | None) -> None:
        """Limit each wait from now on, as ``socket.settimeout`` does."""
        self.timeout = seconds

    def makefile(self, mode: str) -> Socket:
        """Return the socket itself: it is buffered already."""
        assert mode == "rb"
        return self

    def close(self) -> None:
        """Close at once."""
        self.raw.close()

    def is_quiet(self) -> bool:
        """Whether nothing has arrived that nobody asked for, not even the end of the stream."""
        return self.at == len(self.data) and not self._poll.poll(0)

    def need(self, size: int) -> None:
        """Return when `size` unused bytes are in the buffer, or raise EOFError when they never will be."""
        missing = size - (len(self.data) - self.at)
        if missing <= 0:
            return
        parts = [self.data[self.at :]]
        while missing > 0:
            part = self.recv(max(CHUNK, min(missing, 16 * CHUNK)))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
        self.data, self.at = b"".join(parts), 0

    def recv(self, size: int) -> bytes:
        """Wait until something has arrived, always, so that every read is a checkpoint; empty at the end."""
        while True:
            self._wait(trio.lowlevel.wait_readable)
            try:
                return self.raw.recv(size)
            except BlockingIOError:
                continue

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Room is nearly always there, so try before waiting."""
        self.sending = True
        sent = self._send_some(data)
        while sent < len(data):
            self._wait(trio.lowlevel.wait_writable)
            sent += self._send_some(memoryview(data)[sent:])
        self.sending = False

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self.raw.send(data)
        except BlockingIOError:
            return 0

    def send_now(self, data: bytes) -> None:
        """Send a goodbye without waiting; whether it arrives does not matter to anybody here."""
        with contextlib.suppress(OSError):
            self.raw.send(data)

    def _wait(self, ready: Callable[[int], Awaitable[None]]) -> None:
        if self.timeout is None:
            wait(ready, self.fileno)
        else:
            wait(_within(self.timeout, ready), self.fileno)


def _within(seconds: float, ready: Callable[[int], Awaitable[None]]) -> Callable[[int], Awaitable[None]]:
    async def wait_within(fileno: int) -> None:
        with trio.move_on_after(seconds) as scope:
            await ready(fileno)
        if scope.cancelled_caught:
            raise TimeoutError("timed out")  # what a blocking socket says, and PyMySQL quotes

    return wait_within


class TLSSocket(Socket):
    """The same over TLS. Made by `TLSContext.wrap_socket` in the middle of PyMySQL's handshake."""

    def __init__(self, plain: Socket, context: ssl.SSLContext, server_hostname: str) -> None:
        super().__init__(plain.raw)
        self.timeout = plain.timeout
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._until_done(self._tls.do_handshake)

    def is_quiet(self) -> bool:
        """Whether nothing has arrived that nobody asked for."""
        return super().is_quiet() and not self._incoming.pending and not self._tls.pending()

    def recv(self, size: int) -> bytes:
        """Return what arrives next, deciphered; empty at the end."""
        try:
            return self._until_done(lambda: self._tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        self._until_done(lambda: self._tls.write(data))

    def send_now(self, data: bytes) -> None:
        """Send a goodbye without waiting."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
            super().send_now(self._outgoing.read())

    def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                value = step()
            except ssl.SSLWantReadError:
                self._flush()
                received = super().recv(CHUNK)
                self._incoming.write(received) if received else self._incoming.write_eof()
            else:
                self._flush()
                return value

    def _flush(self) -> None:
        if self._outgoing.pending:
            super().sendall(self._outgoing.read())


class TLSContext:
    """An `ssl.SSLContext` whose ``wrap_socket`` understands `Socket`: all that PyMySQL asks of its context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, plain: Socket, server_hostname: str) -> TLSSocket:
        """Do the TLS handshake. What had been received in the clear stays behind, unbelieved."""
        return TLSSocket(plain, self._context, server_hostname)
