"""httpx's and httpx2's transports, which differ in nothing but their module's name.

A transport hands out a response whose body is read later, by somebody else, so the lease cannot be a block here: it
lasts until `BodyStream.aclose`, which httpx's clients call. A body that has arrived whole with its head needs no
connection any more, and is handed out without one.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Mapping
from types import ModuleType
from typing import Any, Final

import trio

import respool

from ._connection import Connection
from ._errors import HTTPError, InvalidRequest, ProtocolError, ProxyError, ReadTimeout, ServerDisconnected, WriteTimeout
from ._origin import Origin
from ._pool import HTTPPool, PooledRequest
from ._request import Outgoing, write_request
from ._response import Response, UpgradedStream
from ._trace import Trace

__all__ = ["BodyStream", "NetworkStream", "PooledTransport", "translated"]

_PORTS: Final = {"http": 80, "https": 443}
_EXPECTED: Final = (HTTPError, respool.OpenFailed, respool.PoolTimeout, respool.PoolOverloaded)
"""What becomes one of httpx's exceptions. What the caller's own body raises, or a closed pool, stays as it is."""


class PooledTransport:
    """All of a transport but its base class. `handle_async_request` calls `_send`."""

    _library: ModuleType
    _stream_type: type[BodyStream]

    def __init__(self, pool: HTTPPool) -> None:
        if pool.connections.limits.max_hold != math.inf:
            # It cancels its borrowers' blocks, and a lease that is not a block cannot be cancelled.
            raise ValueError("a transport's pool must not have max_hold: its responses outlive any block")
        self._pool = pool

    async def _send(self, request: Any) -> Any:
        """Send an httpx request, return an httpx response. Raises httpx's exceptions."""
        library, connections, extensions = self._library, self._pool.connections, request.extensions
        timeouts: Mapping[str, float | None] = extensions.get("timeout", {})
        connect_timeout = _seconds(timeouts.get("connect"))
        trace = Trace(extensions["trace"], request) if "trace" in extensions else None
        origin = _origin(library, request)
        # The pool connects in the background and a request takes whichever connection comes first, so that there is one
        # wait: for a connection to be opened where there is room for one, and otherwise for one to be returned.
        to_connect = connections.room(origin) > 0
        patience = connect_timeout if to_connect else _seconds(timeouts.get("pool"))
        try:
            exchange = PooledRequest(
                connections,
                origin,
                _outgoing(library, request, origin),
                patience,
                min(connect_timeout, connections.limits.open_timeout),
                transferable=True,
                read_timeout=_seconds(timeouts.get("read")),
                write_timeout=_seconds(timeouts.get("write")),
                progress=trace,
            )
            response = await exchange.__aenter__()
        except _EXPECTED as error:
            if trace is not None:
                await trace.failed(error)
            if to_connect and isinstance(error, respool.PoolTimeout):
                raise library.ConnectTimeout(str(error)) from error
            raise translated(library, error) from error
        stream = self._stream_type(library, exchange, response, trace)
        network = NetworkStream(library, exchange.connection, response)
        try:
            return await self._answer(response, stream, network, trace)
        except BaseException:
            await stream.aclose()
            raise

    async def _answer(self, response: Response, stream: BodyStream, network: NetworkStream, trace: Trace | None) -> Any:
        version, reason = response.http_version.encode(), response.reason_phrase.encode("latin-1")
        if trace is not None:
            await trace.sent()  # unless the response came before the request's end, this has been told
            await trace.complete((version, response.status_code, reason, response.headers.raw))
        elif response.take_if_arrived():
            await stream.aclose()
            stream = self._library.ByteStream(response.content)
        return self._library.Response(
            response.status_code,
            headers=response.headers.raw,
            stream=stream,
            extensions={"http_version": version, "reason_phrase": reason, "network_stream": network},
        )


def _origin(library: ModuleType, request: Any) -> Origin:
    url = request.url
    if url.scheme not in _PORTS:
        raise library.UnsupportedProtocol(f"the URL must begin with http:// or https://, not {url.scheme!r}")
    host = url.raw_host.decode("ascii")
    return Origin(url.scheme, host, url.port or _PORTS[url.scheme], request.extensions.get("sni_hostname"))


def _outgoing(library: ModuleType, request: Any, origin: Origin) -> Outgoing:
    target = request.extensions.get("target", request.url.raw_path).decode("ascii")
    return write_request(request.method, target, origin.host_field, request.headers.raw, _body(library, request))


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout


def _body(library: ModuleType, request: Any) -> bytes | AsyncIterator[bytes]:
    """Bytes where they are known, which is also what makes a request repeatable."""
    if isinstance(request.stream, library.ByteStream):
        return b"".join(request.stream)
    body: AsyncIterator[bytes] = aiter(request.stream)
    return body


class BodyStream:
    """A response's body on its way in, and the lease of the connection it comes from."""

    def __init__(self, library: ModuleType, exchange: PooledRequest, response: Response, trace: Trace | None) -> None:
        self._library = library
        self._exchange: PooledRequest | None = exchange
        self._response = response
        self._trace = trace

    async def __aiter__(self) -> AsyncIterator[bytes]:
        # Raises httpx's exceptions.
        if self._trace is not None:
            await self._trace.start("receive_response_body")
        try:
            while piece := await self._response.receive_some():
                yield piece
        except _EXPECTED as error:
            if self._trace is not None:
                await self._trace.failed(error)
            raise translated(self._library, error) from error
        if self._trace is not None:
            await self._trace.complete()

    async def aclose(self) -> None:
        """End the exchange and the lease."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        await exchange.__aexit__(None, None, None)
        if self._trace is not None:
            await self._trace.start("response_closed")
            await self._trace.complete()


class NetworkStream:
    """The ``network_stream`` extension: what is known of the socket, and the raw stream after an upgrade."""

    def __init__(self, library: ModuleType, connection: Connection, response: Response) -> None:
        self._library = library
        self._wire = connection.wire
        self._raw: UpgradedStream | None = response.stream if response.is_upgraded else None

    @property
    def _stream(self) -> UpgradedStream:
        if self._raw is None:
            raise RuntimeError("the connection still speaks HTTP: only the response may be read from it")
        return self._raw

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What arrives next."""
        try:
            with trio.fail_after(_seconds(timeout)):
                return await self._stream.receive_some(max_bytes)
        except trio.TooSlowError as error:
            raise self._library.ReadTimeout(str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._library.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send everything."""
        try:
            with trio.fail_after(_seconds(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise self._library.WriteTimeout(str(error)) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._library.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Close the raw stream."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """``"socket"``, ``"ssl_object"``, ``"client_addr"``, ``"server_addr"`` or ``"is_readable"``."""
        sock = self._wire.socket
        match info:
            case "socket":
                return sock
            case "ssl_object":
                return sock if isinstance(sock, ssl.SSLSocket) else None
            case "client_addr":
                return sock.getsockname()
            case "server_addr":
                return sock.getpeername()
            case "is_readable":
                return not self._wire.is_quiet()
        return None


def translated(library: ModuleType, error: BaseException) -> Exception:
    """The exception httpx's users expect. Its ``__cause__`` has the details."""
    error_type: type[Exception] = getattr(library, _name(error))
    reason = error.__cause__ if isinstance(error, respool.OpenFailed) else error
    return error_type(str(reason))


def _name(error: BaseException) -> str:
    match error:
        case ReadTimeout():
            return "ReadTimeout"
        case WriteTimeout():
            return "WriteTimeout"
        case InvalidRequest():
            return "LocalProtocolError"
        case ProtocolError():
            return "RemoteProtocolError"
        case ServerDisconnected():
            return _name_of_disconnect(error)
        case respool.PoolTimeout() | respool.PoolOverloaded():
            return "PoolTimeout"
    return _name_of_failed_open(error.__cause__)


def _name_of_disconnect(error: ServerDisconnected) -> str:
    if error.__cause__ is None:
        return "RemoteProtocolError"  # an orderly end, but too early
    return "ReadError" if error.sent else "WriteError"


def _name_of_failed_open(error: BaseException | None) -> str:
    if isinstance(error, (TimeoutError, trio.TooSlowError)):
        return "ConnectTimeout"
    return "ProxyError" if isinstance(error, ProxyError) else "ConnectError"
