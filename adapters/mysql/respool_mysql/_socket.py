"""A MySQL connection's socket: awaited natively, and what PyMySQL takes for a blocking one.

PyMySQL's code that may have to wait runs in a greenlet. Where it would block, :func:`wait` hands the greenlet's parent
(the coroutine that `Connection` drives it from) something to await, and returns what came of it. Nothing else in the
package switches out of a command.

A socket is its own read buffer as well: one ``recv`` takes whatever has arrived, and packets are parsed where they lie.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from greenlet import getcurrent
from trio.lowlevel import wait_writable

from respool.lowlevel import SocketWatch

CHUNK = 65536  # bytes asked of the kernel at a time: some thousand rows, and one scheduling point


class NotHereError(Exception):
    """More is needed than has arrived, and it may not be waited for: see `Socket.may_wait`."""


def wait(async_fn: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
    """Have the coroutine that drives this greenlet await ``async_fn(argument)``; its value or exception is ours.

    If that is cancelled it may be awaited once more: it must take up where it left off, or not be resumed at all.
    """
    parent = getcurrent().parent
    assert parent is not None, "bug: MySQL I/O outside a connection's greenlet"
    return parent.switch((async_fn, argument))


class Socket:
    """A connected, non-blocking socket, and a buffer to parse packets in.

    It is either awaited, or called from the greenlet by the names that PyMySQL has for it.
    """

    def __init__(self, raw: socket.socket, read_timeout: float | None, write_timeout: float | None) -> None:
        self.raw = raw
        self.read_timeout = read_timeout  # seconds for each wait, as of a blocking socket
        self.write_timeout = write_timeout
        self.data = b""  # what was received
        self.at = 0  # how much of it has been used
        self.received = 0  # bytes so far, in total
        self.may_wait = True  # whether `need` may; it can only in the greenlet
        self.sending = False  # a packet is half sent: the server cannot be asked anything any more
        self.watch = SocketWatch(raw)
        self._direct = read_timeout is None  # whether nothing is between it and the kernel

    @property
    def unused(self) -> int:
        """How many bytes the buffer holds."""
        return len(self.data) - self.at

    # -- Awaited ------------------------------------------------------------------------------------------------

    async def ask(self, packet: bytes) -> None:
        """Send a packet, and wait until a reply has begun to arrive: `send_all` and `gather`, in fewer steps."""
        if self._direct:
            self.sending = True
            try:
                sent = self.raw.send(packet)
            except BlockingIOError:
                sent = 0
            if sent < len(packet):
                await self.send_all(packet[sent:])
            self.sending = False
            await self.watch.wait_readable()
            try:
                part = self.raw.recv(CHUNK)
            except BlockingIOError:
                part = b""
            self.received += len(part)
            self.data, self.at = self.data[self.at :] + part, 0
            if len(part) > 4:
                return
        else:
            await self.send_all(packet)
        await self.gather(5)

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`. Room is nearly always there, so try before waiting."""
        self.sending = True
        sent = self._send_some(data)
        while sent < len(data):
            await _within(self.write_timeout, wait_writable, self.raw)
            sent += self._send_some(memoryview(data)[sent:])
        self.sending = False

    async def receive(self, size: int) -> bytes:
        """Wait until something has arrived, always, so that every read is a checkpoint; empty at the end."""
        while True:
            if self.read_timeout is None:
                await self.watch.wait_readable()
            else:
                await _within(self.read_timeout, self.watch.wait_readable)
            try:
                return self.raw.recv(size)
            except BlockingIOError:
                continue

    async def gather(self, size: int) -> None:
        """Return when `size` unused bytes are in the buffer, or raise EOFError when they never will be."""
        rest = self.data[self.at :]
        missing = size - len(rest)
        parts = [rest] if rest else []
        try:
            while missing > 0:
                part = await self.receive(CHUNK if missing < CHUNK else min(missing, 16 * CHUNK))
                if not part:
                    raise EOFError
                parts.append(part)
                missing -= len(part)
                self.received += len(part)
        finally:  # what has arrived stays, whoever has lost interest in it
            self.data, self.at = b"".join(parts), 0

    # -- In the greenlet ----------------------------------------------------------------------------------------

    def settimeout(self, seconds: float | None) -> None:
        """Do nothing: the time-outs are known from the beginning."""

    def makefile(self, mode: str) -> Socket:
        """Return the socket itself: it is buffered already."""
        assert mode == "rb"
        return self

    def sendall(self, data: bytes) -> None:
        """Send all of `data`."""
        wait(self.send_all, data)

    def need(self, size: int) -> None:
        """Return when `size` unused bytes are in the buffer, or raise EOFError when they never will be."""
        if self.unused < size:
            if not self.may_wait:
                raise NotHereError
            wait(self.gather, size)

    # -- Without waiting ----------------------------------------------------------------------------------------

    def is_quiet(self) -> bool:
        """Whether nothing has arrived that nobody asked for, not even the end of the stream."""
        return self.at == len(self.data) and not self.watch.is_readable()

    def send_now(self, data: bytes) -> None:
        """Send a goodbye without waiting; whether it arrives does not matter to anybody here."""
        with contextlib.suppress(OSError):
            self.raw.send(data)

    def close(self) -> None:
        """Close at once."""
        self.raw.close()

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self.raw.send(data)
        except BlockingIOError:
            return 0


async def _within(seconds: float | None, ready: Callable[..., Awaitable[None]], *args: object) -> None:
    if seconds is None:
        await ready(*args)
        return
    with trio.move_on_after(seconds) as scope:
        await ready(*args)
    if scope.cancelled_caught:
        raise TimeoutError("timed out")  # what a blocking socket says, and PyMySQL quotes


class TLSSocket(Socket):
    """The same over TLS. Made by `TLSContext.wrap_socket` in the middle of PyMySQL's handshake."""

    def __init__(self, plain: Socket, context: ssl.SSLContext, server_hostname: str) -> None:
        super().__init__(plain.raw, plain.read_timeout, plain.write_timeout)
        self._direct = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        wait(self._until_done, self._tls.do_handshake)

    def is_quiet(self) -> bool:
        """Whether nothing has arrived that nobody asked for."""
        return super().is_quiet() and not self._incoming.pending and not self._tls.pending()

    async def receive(self, size: int) -> bytes:
        """Return what arrives next, deciphered; empty at the end."""
        try:
            received: bytes = await self._until_done(lambda: self._tls.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        return received

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._until_done(lambda: self._tls.write(data))

    def send_now(self, data: bytes) -> None:
        """Send a goodbye without waiting."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
            super().send_now(self._outgoing.read())

    async def _until_done(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                value = step()
            except ssl.SSLWantReadError:
                await self._flush()
                received = await super().receive(CHUNK)
                self._incoming.write(received) if received else self._incoming.write_eof()
            else:
                await self._flush()
                return value

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await super().send_all(self._outgoing.read())


class TLSContext:
    """An `ssl.SSLContext` whose ``wrap_socket`` understands `Socket`: all that PyMySQL asks of its context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context

    def wrap_socket(self, plain: Socket, server_hostname: str) -> TLSSocket:
        """Do the TLS handshake. What had been received in the clear stays behind, unbelieved."""
        return TLSSocket(plain, self._context, server_hostname)
