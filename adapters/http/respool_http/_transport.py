"""What httpx's and httpx2's transports share: they differ in nothing but their module's name.

A transport hands out a response whose body is read later, by somebody else, so the lease cannot be a block here: it
lasts until `BodyStream.aclose`, which httpx's clients call. A body that has arrived whole with its head needs no
connection any more, and is handed out without one.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import attrs
import trio

import respool

from ._connection import Connection
from ._errors import HTTPError, InvalidRequest, ProtocolError, ProxyError, ReadTimeout, ServerDisconnected, WriteTimeout
from ._origin import Origin
from ._pool import HTTPPool, PooledRequest
from ._response import Response, UpgradedStream

__all__ = ["Answer", "BodyStream", "NetworkStream", "send", "translated", "without_max_hold"]

_PORTS: Final = {"http": 80, "https": 443}
_EXPECTED: Final = (HTTPError, respool.OpenFailed, respool.PoolTimeout, respool.PoolOverloaded)
"""What becomes one of httpx's exceptions. What the caller's own body raises, or a closed pool, stays as it is."""


@attrs.frozen
class Answer:
    """A response in the terms of httpx's models. `body` is whole, or still to be read."""

    status_code: int
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes | BodyStream
    extensions: dict[str, Any]


def without_max_hold(pool: HTTPPool) -> HTTPPool:
    """`pool`, unless it cancels its borrowers' blocks: a lease that is not a block cannot be cancelled."""
    if pool.connections.limits.max_hold != math.inf:
        raise ValueError("a transport's pool must not have max_hold: its responses outlive any block")
    return pool


async def send(pool: HTTPPool, library: ModuleType, request: Any) -> Answer:
    """Send an httpx request through `pool`. Raises httpx's exceptions."""
    extensions = request.extensions
    timeouts: Mapping[str, float | None] = extensions.get("timeout", {})
    origin = _origin(library, request)
    exchange = PooledRequest(
        pool.connections.acquire(origin, timeout=_patience(timeouts), transferable=True),
        request.method,
        extensions.get("target", request.url.raw_path).decode("ascii"),
        request.headers.raw,
        _body(library, request),
        _seconds(timeouts.get("read")),
        _seconds(timeouts.get("write")),
    )
    try:
        response = await exchange.__aenter__()
    except _EXPECTED as error:
        if isinstance(error, respool.PoolTimeout) and _was_connecting(pool, origin):
            raise library.ConnectTimeout(str(error)) from error
        raise translated(library, error) from error
    stream = BodyStream(library, exchange, response)
    network = NetworkStream(library, exchange.connection, response)
    body: bytes | BodyStream = stream
    if response.has_arrived:
        await stream.aclose()
        body = await response.read_to_end()
    return Answer(
        response.status_code,
        response.headers.raw,
        body,
        {
            "http_version": response.http_version.encode(),
            "reason_phrase": response.reason_phrase.encode("latin-1"),
            "network_stream": network,
        },
    )


def _origin(library: ModuleType, request: Any) -> Origin:
    url = request.url
    if url.scheme not in _PORTS:
        raise library.UnsupportedProtocol(f"the URL must begin with http:// or https://, not {url.scheme!r}")
    host = url.raw_host.decode("ascii")
    return Origin(url.scheme, host, url.port or _PORTS[url.scheme], request.extensions.get("sni_hostname"))


def _patience(timeouts: Mapping[str, float | None]) -> float:
    """The pool connects in the background and a caller takes whichever comes first, so there is one wait, not two."""
    return max(_seconds(timeouts.get("pool")), _seconds(timeouts.get("connect")))


def _was_connecting(pool: HTTPPool, origin: Origin) -> bool:
    statistics = pool.connections.statistics().keys.get(origin)
    return statistics is not None and statistics.opening > 0


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

    def __init__(self, library: ModuleType, exchange: PooledRequest, response: Response) -> None:
        self._library = library
        self._exchange: PooledRequest | None = exchange
        self._response = response

    async def receive_some(self) -> bytes:
        """The next piece, ``b""`` at the end. Raises httpx's exceptions."""
        try:
            return await self._response.receive_some()
        except _EXPECTED as error:
            raise translated(self._library, error) from error

    async def aclose(self) -> None:
        """End the exchange and the lease."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            await exchange.__aexit__(None, None, None)


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
