"""A response, as the user meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from ._errors import ProtocolError
from ._headers import Headers

if TYPE_CHECKING:
    from ._connection import Connection
    from ._parser import ResponseParser
    from ._socket import Wire

__all__ = ["Response", "UpgradedStream"]


class Response:
    """The answer to one request. Iterate over it for the body as it arrives, or `aread` it whole.

    The body is exactly what the server sent: no content coding (gzip) is undone. Reading it is how the connection
    becomes fit for another exchange: a body left unread ends it, unless all of it had already arrived.
    """

    # Slots, and those that are not set yet are dealt with by `__getattr__`: that takes a third of a property's time.
    __slots__ = ("_connection", "_parser", "_partly_read", "_read", "content", "headers", "status_code")

    status_code: int
    """The status code: 101, or 200 and above. Interim responses are dealt with before you see one."""
    headers: Headers
    """The header fields."""
    content: bytes
    """The whole body, once `aread` has read it. Raises `RuntimeError` before that."""

    def __init__(self, connection: Connection, parser: ResponseParser) -> None:
        self._connection = connection
        self._parser = parser
        self._read = self._partly_read = False
        self.status_code = parser.status_code

    if not TYPE_CHECKING:  # or type checkers believe that every name is there

        def __getattr__(self, name: str) -> Any:
            if name == "headers":
                self.headers = headers = Headers(self._parser.fields)
                return headers
            if name == "content":
                raise RuntimeError("the response's body has not been read: await response.aread() first")
            raise AttributeError(f"a Response has no {name!r}", name=name, obj=self)

    @property
    def reason_phrase(self) -> str:
        """What followed the status code. Decoration: may be empty or say anything."""
        return self._parser.reason.decode("latin-1")

    @property
    def http_version(self) -> str:
        """``"HTTP/1.1"`` or ``"HTTP/1.0"``."""
        return self._parser.http_version

    @property
    def trailers(self) -> Headers:
        """Fields sent after a chunked body. Empty until the body has been read to its end."""
        return Headers(self._parser.trailers)

    @property
    def text(self) -> str:
        """`content` as text, in the charset its ``Content-Type`` names, UTF-8 otherwise."""
        _, _, charset = self.headers.get("content-type", "").lower().partition("charset=")
        encoding = charset.partition(";")[0].strip(" \"'")
        try:
            return self.content.decode(encoding or "utf-8", "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")

    async def aread(self) -> bytes:
        """Read the body to its end and return it; `content` has it afterwards.

        Raises as `receive_some` does, and `RuntimeError` if part of the body has been received already. Memory is the
        body's size: `ProtocolError` if that is more than ``max_body_size``. Iterate instead where it may be.
        """
        await trio.lowlevel.checkpoint()
        return await self.read_to_end()

    async def read_to_end(self) -> bytes:
        """As `aread`, a checkpoint only where there is something to wait for."""
        if not self._read:
            if self._partly_read:
                raise RuntimeError("part of the body has been received already: go on with receive_some or iteration")
            if not self.take_if_arrived():
                await self._receive_the_rest()
                self._read = True
                # What follows an upgrade is not HTTP: see `stream`.
                self.content = b"" if self._parser.upgraded else self._parser.take_body()
        return self.content

    def take_if_arrived(self) -> bool:
        """As `read_to_end`, if that need not wait, which is the answer."""
        parser = self._parser
        if not parser.complete or self._connection._upload is not None:
            return False
        self._read = True
        self.content = parser.take_body()
        return True

    async def _receive_the_rest(self) -> None:
        parser, connection = self._parser, self._connection
        received = sum(map(len, parser.body))
        while not (parser.complete or parser.upgraded):
            if received + parser.announced > connection.max_body_size:
                raise ProtocolError(
                    f"the response's body is longer than max_body_size ({connection.max_body_size} bytes): "
                    "read it in pieces"
                )
            data = await connection._receive()
            received += len(data)
            connection._feed(parser, data)
        if parser.complete:
            await connection._finish_upload(parser)

    @property
    def is_upgraded(self) -> bool:
        """The connection no longer speaks HTTP: see `stream`."""
        return self._parser.upgraded

    def __aiter__(self) -> Response:
        return self

    async def __anext__(self) -> bytes:
        piece = await self.receive_some()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def receive_some(self) -> bytes:
        """The next piece of the body as it arrived, up to 64 KiB; ``b""`` at its end.

        Raises:
          ServerDisconnected: the server went away before the end.
          ProtocolError: the body breaks HTTP, or bytes followed its end.
          ReadTimeout: the server was silent for the request's `read_timeout`.
        """
        if self._parser.body or self._parser.complete:
            await trio.lowlevel.checkpoint()
        return await self._next()

    async def _next(self) -> bytes:
        parser = self._parser
        if parser.upgraded:
            return b""
        while not parser.body:
            if parser.complete:
                if self._connection._upload is not None:
                    await self._connection._finish_upload(parser)
                return b""
            self._connection._feed(parser, await self._connection._receive())
        self._partly_read = True
        return parser.take_body()

    @property
    def stream(self) -> UpgradedStream:
        """The raw connection after ``101 Switching Protocols``, or a success to ``CONNECT``: no longer HTTP.

        It begins with whatever arrived behind the response's head. The connection is never lent again afterwards.
        """
        if not self._parser.upgraded:
            raise RuntimeError(f"the server answered {self.status_code}: the connection still speaks HTTP")
        return UpgradedStream(self._connection.wire, self._parser.take_body())

    def __repr__(self) -> str:
        return f"<Response {self.status_code}>"  # the rest is what the server likes to say


class UpgradedStream(trio.abc.Stream):
    """A connection that has left HTTP, as a Trio stream: one task may send while another receives."""

    def __init__(self, wire: Wire, received: bytes) -> None:
        self._wire = wire
        self._received = received
        self._sending = False

    @property
    def unread(self) -> bytes:
        """What has arrived already: `receive_some` returns it first."""
        return self._received

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything."""
        self._check_open()
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            await self._wire.send_all(memoryview(data).cast("B"))
        except OSError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the peer takes more."""
        self._check_open()
        await trio.lowlevel.wait_writable(self._wire.socket)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What arrives next, ``b""`` at the end of the stream."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError(f"max_bytes must be >= 1, not {max_bytes}")
        self._check_open()
        if self._received:
            await trio.lowlevel.checkpoint()
        else:
            try:
                self._received = await self._wire.receive()
            except OSError as error:
                raise trio.BrokenResourceError(str(error)) from error
        data, self._received = self._received[:max_bytes], b"" if max_bytes is None else self._received[max_bytes:]
        return data

    async def aclose(self) -> None:
        """Free the socket, at once."""
        self._wire.close(politely=True)
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._wire.closed:
            raise trio.ClosedResourceError("this stream was closed")
