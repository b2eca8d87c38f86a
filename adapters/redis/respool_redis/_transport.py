"""A connected socket, plain or TLS, with operations that never wait.

The connection above decides who waits, and for what; this only ever takes what the kernel gives at once. That is what
lets any number of tasks share one socket without a task or a lock of its own, and lets a cancelled caller leave at
once with every byte accounted for. TLS is the standard library's, run in memory (``ssl.MemoryBIO``) for the same
reason: a cancelled ``SSLStream.send_all`` would leave the stream unusable.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

import trio
from redis.exceptions import ConnectionError

from respool.lowlevel import SocketWatch

from ._settings import Settings

__all__ = ["ClosedByServer", "TlsTransport", "Transport", "connect"]

_RECORDS = 1 << 16  # plain bytes encrypted at one time, so that a huge value is not held twice


class ClosedByServer(ConnectionError):
    """The server has closed the connection in good order: everything it had to say has arrived."""

    def __init__(self, message: str = "Connection closed by server.") -> None:
        super().__init__(message)


class Transport:
    """A plain TCP or Unix socket."""

    unflushed = False
    """Whether bytes that `send` has accepted still wait for room in the kernel."""

    def __init__(self, sock: socket.socket, read_size: int) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.watch = SocketWatch(sock)
        self._buffer = bytearray(read_size)
        self._view = memoryview(self._buffer)
        self._closed = False

    def flush(self) -> None:
        """Hand on what `send` has accepted, as far as there is room."""

    def send(self, data: bytes | memoryview) -> int:
        """Take as much of `data` as there is room for, and say how much."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionError(f"Error while writing to socket: {error.strerror or error}") from error

    def receive(self) -> memoryview | None:
        """Whatever has arrived; valid until the next call. None if nothing has.

        Raises:
          redis.ConnectionError: the server closed the connection, or the network did.
        """
        try:
            count = self.socket.recv_into(self._buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ConnectionError(f"Error while reading from socket: {error.strerror or error}") from error
        if not count:
            raise ClosedByServer
        return self._view[:count]

    def is_quiet(self) -> bool:
        """Whether the peer is there and has said nothing since the last `receive`."""
        return not self._closed and not self.watch.is_readable()

    async def wait_readable(self) -> None:
        """Wait until `receive` may have something to say, or somebody calls `nudge` or `close`."""
        try:
            await self.watch.wait_readable()
        except trio.ClosedResourceError:
            return  # the caller looks at its state again

    async def wait_writable(self) -> None:
        """Wait until `send` may have room, or somebody calls `nudge` or `close`."""
        try:
            await trio.lowlevel.wait_writable(self.socket)
        except trio.ClosedResourceError:
            return

    def nudge(self) -> None:
        """Make whoever waits on the socket look again."""
        if not self._closed:
            self.watch.interrupt()

    def shut_writing(self) -> None:
        """Tell the server that nothing more will come, and go on listening."""
        with contextlib.suppress(OSError):  # not connected any more: reading will say so
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Free the socket. May be called twice."""
        if not self._closed:
            self.watch.close()
            self._closed = True
            self.socket.close()


class TlsTransport(Transport):
    """The same over TLS."""

    def __init__(self, sock: socket.socket, read_size: int, context: ssl.SSLContext, hostname: str) -> None:
        super().__init__(sock, read_size)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._ciphertext = memoryview(b"")

    async def handshake(self) -> None:
        """Agree on keys and check the server's certificate."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush_patiently()
                await self.wait_readable()
                self._fill()
            else:
                return await self._flush_patiently()

    async def _flush_patiently(self) -> None:
        self.flush()
        while self.unflushed:
            await self.wait_writable()
            self.flush()

    def send(self, data: bytes | memoryview) -> int:
        self.flush()
        if self.unflushed:
            return 0
        accepted = self._tls.write(memoryview(data)[:_RECORDS])
        self.flush()
        return accepted

    def receive(self) -> memoryview | None:
        # All of it: what stayed behind in memory would not make the socket readable again.
        plain = bytearray()
        while True:
            data = self._decrypt()
            if data:
                plain += data
            elif plain:
                return memoryview(plain)
            elif data is not None:
                raise ClosedByServer
            elif not self._fill():
                return None

    def _decrypt(self) -> bytes | None:
        """One record. None if there is none complete; nothing if there will be no more."""
        try:
            return self._tls.read(_RECORDS)
        except ssl.SSLWantReadError:
            self.flush()  # reading may have had something to answer: a key update
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise ConnectionError(f"TLS failed: {error.reason or error}") from error

    def is_quiet(self) -> bool:
        return super().is_quiet() and not self._incoming.pending and not self._tls.pending()

    def _fill(self) -> bool:
        """Bring ciphertext in from the socket. False if there is none."""
        data = super().receive()
        if data is None:
            return False
        self._incoming.write(data)
        return True

    def flush(self) -> None:
        while self._ciphertext or self._outgoing.pending:
            if not self._ciphertext:
                self._ciphertext = memoryview(self._outgoing.read())
            sent = super().send(self._ciphertext)
            self._ciphertext = self._ciphertext[sent:]
            if not sent:
                break
        self.unflushed = bool(self._ciphertext)


async def connect(settings: Settings) -> Transport:
    """Connect to the server that `settings` name, including TLS but nothing of Redis yet.

    Raises:
      redis.ConnectionError: the server cannot be reached, or its certificate is not good (then ``__cause__`` is an
        `ssl.SSLCertVerificationError`).
    """
    try:
        sock = await _connect_socket(settings)
    except OSError as error:
        raise ConnectionError(f"Error connecting to {settings.where}: {_reason(error)}") from error
    try:
        if settings.tls is None:
            return Transport(sock, settings.socket_read_size)
        return await _secure(sock, settings)
    except BaseException:
        sock.close()
        raise


async def _connect_socket(settings: Settings) -> socket.socket:
    """Let Trio resolve the name and race the addresses, then take the plain socket out of its hands."""
    if settings.path is not None:
        stream = await trio.open_unix_socket(settings.path)
        return socket.socket(fileno=stream.socket.detach())
    stream = await trio.open_tcp_stream(settings.host, settings.port)
    sock = socket.socket(fileno=stream.socket.detach())
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if settings.socket_keepalive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in settings.socket_keepalive_options.items():
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except BaseException:
        sock.close()
        raise
    return sock


async def _secure(sock: socket.socket, settings: Settings) -> TlsTransport:
    assert settings.tls is not None
    # The first call reads certificates from files; it keeps the context for the next ones.
    context = settings.tls.context
    if context is None:
        context = await trio.to_thread.run_sync(settings.tls.get)
    transport = TlsTransport(sock, settings.socket_read_size, context, settings.host)
    try:
        await transport.handshake()
    except ssl.SSLError as error:
        raise ConnectionError(f"Error connecting to {settings.where}: {error.reason or error}") from error
    return transport


def _reason(error: OSError) -> str:
    """The text of `error`, or those of the attempts Trio's happy eyeballs made."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        return "; ".join(str(member) for member in cause.exceptions)
    return error.strerror or str(error)
