"""One keep-alive HTTP/1.1 connection: one exchange at a time, streamed both ways.

There is no background task and no nursery around the user's block. Everything an exchange waits for, it waits for in
`Connection._receive`, which goes on sending the request's body for as long as the response has not arrived, and again
whenever more of the response is asked for. So a response that comes early is seen early, and a server that answers
while it is still reading (an echo, a transformation) does not deadlock.

The connection is *clean* only between exchanges, and only after one whose request was sent to its end and whose
response ended exactly where it should. Any other way out (an exception, a cancellation, a body left unread) leaves it
unclean for good: nobody can tell where the next response would begin.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import trio

from ._errors import NotReusable, ProtocolError, ReadTimeout, ServerDisconnected, WriteTimeout
from ._parser import MAX_BODY_SIZE, MAX_HEADER_SIZE, ResponseParser
from ._request import Body, HeaderInput, Outgoing, write_request
from ._response import Response
from ._socket import BLOCKED, Wire
from ._upload import Upload

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Connection", "Progress", "RequestContext", "check_seconds"]

_EXPECT_SECONDS: Final = 1.0
"""How long to wait for ``100 Continue`` before sending anyway (RFC 9110, 10.1.1; curl's figure)."""

_HEAD_SECONDS: Final = 30.0
"""Longest time from a response's first byte to the end of its head: servers write heads in one piece."""

_KEEP_ALIVE_MARGIN: Final = 1.0
"""Seconds by which a connection is given up before the server's ``Keep-Alive: timeout``, to lose fewer races."""


class Connection:
    """A connected HTTP/1.1 client socket.

    `HTTPAdapter` opens them. Use one from one task at a time::

        async with connection.request("POST", "/path", headers={"Accept": "text/plain"}, body=b"...") as response:
            async for chunk in response:
                ...
    """

    def __init__(
        self,
        wire: Wire,
        host: bytes,
        open_wire: Callable[[], Awaitable[Wire]],
        *,
        max_header_size: int = MAX_HEADER_SIZE,
        max_body_size: int = MAX_BODY_SIZE,
    ) -> None:
        self.wire = wire
        """The socket underneath."""
        self._host = host
        self._open_wire = open_wire
        self._max_header_size = max_header_size
        self.max_body_size = max_body_size
        """Bytes a body may have that is read whole."""
        self.exchanges = 0
        """Requests begun since the connection was opened, or renewed."""
        self._closed = False  # for good
        self._just_read = False  # see `_vouch`
        self._clean = True  # implies that the wire is open
        self._expires: float | None = None
        # Of the exchange under way, or the last one:
        self._upload: Upload | None = None
        """What is still to be sent, for as long as we mean to send it."""
        self._read_timeout = self._write_timeout = math.inf
        self._progress: Progress | None = None
        self._close = False  # the request asked for the connection to end with it
        self._sent = 0  # bytes
        self._sent_whole = self._answered = False

    def is_clean(self) -> bool:
        """Between exchanges, the server still there and silent, its ``Keep-Alive: timeout`` not over. Never waits."""
        if not self._clean or (self._expires is not None and trio.current_time() >= self._expires):
            return False
        if self._just_read:
            self._just_read = False
            return True
        return self.wire.is_quiet()

    def _vouch(self) -> None:
        """Tell `is_clean` that it need not ask the socket this time, because it has been read to its end just now.

        For a caller who has not waited since then. Only where the server is known to keep connections alive: one that
        does not, and does not say so, has closed this one by now.
        """
        self._just_read = self.exchanges > 1 and self.wire.drained

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: HeaderInput = None,
        body: Body = None,
        read_timeout: float = math.inf,
        write_timeout: float = math.inf,
    ) -> RequestContext:
        """Send a request; ``async with`` it to get the `Response` as soon as its head is in.

        ``Host``, and ``Content-Length`` or ``Transfer-Encoding: chunked``, are added where `headers` does not have
        them. A body that is an iterable or an asynchronous iterable is sent as it yields, no faster than the server
        takes it. With ``Expect: 100-continue`` the body waits for the server's word, at most a second.

        Args:
          method: ``"GET"``, in capitals as the server expects it.
          target: path and query, percent-encoded.
          headers: a mapping, or pairs where names may repeat.
          body: bytes, text, or an iterable or asynchronous iterable of bytes.
          read_timeout: seconds the server may be silent while its response is waited for.
          write_timeout: seconds the server may take nothing of the request.

        Raises, at once:
          InvalidRequest: the request is yours to mend.
          ValueError: a timeout is no number of seconds.

        Raises, on entering the block:
          ServerDisconnected: the server went away. Its `sent` and `answered` say how far things had got.
          ProtocolError: the server's response cannot be trusted.
          ReadTimeout, WriteTimeout: also `trio.TooSlowError`.
          NotReusable: an earlier exchange on this connection is still under way, or did not end where it should.
        """
        check_seconds(read_timeout=read_timeout, write_timeout=write_timeout)
        outgoing = write_request(method, target, self._host, headers, body)
        request = RequestContext(outgoing, read_timeout, write_timeout)
        request.connection = self
        return request

    async def renew(self) -> None:
        """Close the socket and connect anew, in the same place: whatever held this connection holds a fresh one.

        Raises as opening does, and leaves the connection closed then; `trio.ClosedResourceError` if it was closed
        meanwhile.
        """
        self.wire.close(politely=False)
        wire = await self._open_wire()
        if self._closed:
            wire.close(politely=True)
            raise trio.ClosedResourceError("this connection was closed")
        self.wire = wire
        self._upload = None
        self.exchanges = 0
        self._clean = True
        self._expires = None

    async def aclose(self) -> None:
        """Free the socket, at once. Closing twice is allowed."""
        self._closed = True
        self.wire.close(politely=self._clean)
        self._clean = False
        await trio.lowlevel.checkpoint()

    # One exchange

    async def _begin(self, request: RequestContext) -> Response:
        """Send `request` and read the head of its response."""
        progress = request.progress
        try:
            if progress is not None:
                await progress.sending()
            self._start(request)
            if progress is not None and self._sent_whole:
                await progress.sent()
            if request.outgoing.expect_continue:
                await self._wait_for_continue(request)
            return await self._answer(request)
        except BaseException:
            if request.upload is not None:
                await request.upload.aclose()
            raise

    def _start(self, request: RequestContext) -> None:
        """Begin an exchange, and send the request if it is small: such a one nearly always fits the socket's buffer.

        Never waits, so it may be called on behalf of a task whose turn is yet to come.
        """
        if not self._clean:
            self._refuse()
        outgoing = request.outgoing
        self._clean = self._answered = False
        self._sent = 0
        self.exchanges += 1
        self._close = outgoing.close
        self._read_timeout = request.read_timeout
        self._write_timeout = request.write_timeout
        self._progress = request.progress
        request.parser = ResponseParser(outgoing.method, self._max_header_size)
        if (outgoing.body is not None or not outgoing.idempotent) and self.exchanges > 1 and not self.wire.is_quiet():
            # It could perhaps not be repeated, once begun; and whoever returned the connection may have vouched for it.
            raise self._disconnected("the server closed the connection, or spoke unasked, before the request was sent")
        if outgoing.body is None:
            self._send_at_once(outgoing.wire)
        else:
            self._sent_whole = False
            request.upload = self._upload = Upload(outgoing)

    async def _answer(self, request: RequestContext) -> Response:
        """The response to a request that was started."""
        parser = request.parser
        assert parser is not None, "bug: the request was not started"
        while not parser.status_code:
            if not parser.head_begun:
                self._feed(parser, await self._receive())
                continue
            with trio.move_on_after(_HEAD_SECONDS):
                while parser.head_begun:
                    self._feed(parser, await self._receive())
            if parser.head_begun:
                raise ProtocolError(f"a response's head was not complete {_HEAD_SECONDS:g} s after its first byte")
        return self._response(parser)

    def _answer_if_any(self, request: RequestContext) -> Response | None:
        """The same, if its head has arrived; for a caller who has let other tasks have their turn. Never waits."""
        parser = request.parser
        assert parser is not None, "bug: the request was not started"
        try:
            data = self.wire.receive_if_likely()
        except OSError as error:
            raise self._broken() from error
        if data is None:
            return None
        self._feed(parser, data)
        return self._response(parser) if parser.status_code else None

    def _response(self, parser: ResponseParser) -> Response:
        if self._upload is not None and not 200 <= parser.status_code < 300:
            self._upload = None  # RFC 9112, 9.5: an error before the end of the body means nobody wants the rest
        return Response(self, parser)

    def _refuse(self) -> NoReturn:
        if self.wire.closed:
            raise trio.ClosedResourceError("this connection was closed")
        raise NotReusable(
            "this connection cannot carry another request: its last exchange is still under way, or did not end where "
            "it should"
        )

    def _send_at_once(self, data: bytes) -> None:
        try:
            self._sent = sent = self.wire.send_nowait(data)
        except BLOCKED:
            sent = 0
        except OSError as error:
            raise self._disconnected("the server closed the connection before the request was sent") from error
        self._sent_whole = sent == len(data)
        if not self._sent_whole:
            self._upload = Upload.of_rest(memoryview(data)[sent:])

    async def _wait_for_continue(self, request: RequestContext) -> None:
        upload, parser = request.upload, request.parser
        assert upload is not None, "bug: what expects the server to say 'continue' is not sent at once"
        assert parser is not None
        while upload.pending and not parser.status_code:
            data = await self._step(upload)
            if data is not None:
                self._feed(parser, data)
        with trio.move_on_after(_EXPECT_SECONDS):
            while not parser.interim and not parser.status_code:
                self._feed(parser, await self._receive_only())
        if parser.status_code:
            self._upload = None

    def _feed(self, parser: ResponseParser, data: bytes) -> None:
        """Hand what `_receive` returned to the parser, and settle the exchange when that was the end of it."""
        if data:
            self._answered = True
            parser.feed(data)
        elif not self._answered:
            raise self._disconnected("the server closed the connection without a response")
        elif missing := parser.feed_eof():
            raise self._disconnected(missing)
        if parser.complete and self._upload is None:
            self._settle(parser)

    def _settle(self, parser: ResponseParser) -> None:
        """Both messages have ended: decide whether the connection can carry another exchange."""
        self._clean = self._sent_whole and not self._close and not parser.close
        if parser.keep_alive_timeout is not None:
            margin = min(_KEEP_ALIVE_MARGIN, parser.keep_alive_timeout / 2)
            self._expires = trio.current_time() + parser.keep_alive_timeout - margin

    async def _finish_upload(self, parser: ResponseParser) -> None:
        """The response is complete and was a success: the server may still want the rest of the request."""
        if self._upload is None:
            return
        while (upload := self._upload) is not None:
            try:
                data = await self._step(upload)
            except ServerDisconnected:
                data = b""  # it has said what it had to say
            if data:
                parser.feed(data)  # raises: bytes follow the end of the response
            if data is not None:
                self._upload = None
        self._settle(parser)

    def _disconnected(self, message: str) -> ServerDisconnected:
        """The error for a server that went away, saying how far the exchange had got."""
        # Over TLS more is sent than we count. Who has acknowledged only as much as that is more has no whole record.
        reached = self._answered or self.wire.unacknowledged() < self._sent
        return ServerDisconnected(message, sent=self._sent > 0, answered=self._answered, reached=reached)

    # Every wait of an exchange

    def _receive(self) -> Awaitable[bytes]:
        """What the server sends next, ``b""`` at its end; meanwhile, the request's body goes on being sent."""
        return self._receive_only() if self._upload is None else self._receive_while_sending()

    async def _receive_while_sending(self) -> bytes:
        while (upload := self._upload) is not None:
            data = await self._step(upload)
            if data is not None:
                return data
        return await self._receive_only()

    async def _step(self, upload: Upload) -> bytes | None:
        """Take what the server has sent, if it has sent anything; go on sending otherwise."""
        try:
            data = self.wire.receive_if_any()
        except OSError as error:
            raise self._broken() from error
        if data is None:
            await self._send_some(upload)
        return data

    async def _receive_only(self) -> bytes:
        while True:
            if self._read_timeout == math.inf:
                await self.wire.ready()
            else:
                await self._ready_in_time()
            try:
                data = self.wire.receive_nowait()
            except OSError as error:
                raise self._broken() from error
            if data is not None:
                return data

    async def _ready_in_time(self) -> None:
        with trio.move_on_after(self._read_timeout) as scope:
            await self.wire.ready()
        if scope.cancelled_caught:
            raise ReadTimeout(f"nothing arrived from the server for {self._read_timeout:g} s")

    async def _send_some(self, upload: Upload) -> None:
        """One step: send what fits of the body's next piece, or wait until something does, or arrives."""
        if not upload.pending:
            await self._load(upload)
        if not upload.pending:
            return  # a piece may be empty, and at the end there is none
        try:
            sent = self.wire.send_nowait(upload.pending)
            upload.pending = upload.pending[sent:]
            self._sent += sent
        except BLOCKED:
            with trio.move_on_after(self._write_timeout) as scope:
                await self.wire.wait_readable_or_writable()
            if scope.cancelled_caught:
                raise WriteTimeout(f"the server took nothing of the request for {self._write_timeout:g} s") from None
        except OSError:
            self._upload = None  # the server takes no more; what it has to say about that is still to be read

    async def _load(self, upload: Upload) -> None:
        if self._progress is not None:
            await self._progress.sending_body()
        if await upload.load():
            return
        self._upload = None
        self._sent_whole = True
        if self._progress is not None:
            await self._progress.sent()

    def _broken(self) -> ServerDisconnected:
        return self._disconnected("the connection broke before the response was complete")


def check_seconds(**timeouts: float) -> None:
    """Raise `ValueError` for what is no length of time."""
    for name, seconds in timeouts.items():
        if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not seconds >= 0:
            raise ValueError(f"{name} must be a number of seconds >= 0, math.inf for no limit, not {seconds!r}")


class Progress(Protocol):
    """Who is told of an exchange's steps, if anybody is to be: see `respool_http._trace`."""

    async def sending(self) -> None: ...
    async def sending_body(self) -> None: ...
    async def sent(self) -> None: ...
    async def failed(self, error: BaseException) -> None: ...


class RequestContext:
    """One exchange, as an asynchronous context manager: entering sends the request, leaving ends the exchange."""

    # A hand-written class because one is made for every request. No repr: targets may hold a token, as headers may.
    __slots__ = ("connection", "outgoing", "parser", "progress", "read_timeout", "upload", "write_timeout")

    connection: Connection  # set before it is entered, or by entering

    def __init__(
        self,
        outgoing: Outgoing,
        read_timeout: float = math.inf,
        write_timeout: float = math.inf,
        progress: Progress | None = None,
    ) -> None:
        self.outgoing = outgoing
        self.read_timeout = read_timeout
        self.write_timeout = write_timeout
        self.progress = progress
        self.parser: ResponseParser | None = None  # of the response, once the request was started
        self.upload: Upload | None = None  # of what is not sent at once

    def __aenter__(self) -> Coroutine[Any, Any, Response]:
        return self.connection._begin(self)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self.upload is not None:
            await self.upload.aclose()
        return None
