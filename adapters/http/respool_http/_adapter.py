"""HTTP/1.1 origins as poolable resources: the whole answer to open, close, is_clean and verdict."""

from __future__ import annotations

import functools
import http.client
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import attrs
import trio

from respool.abc import Adapter, Verdict

from ._connection import Connection
from ._errors import ProtocolError, ProxyError, ServerDisconnected
from ._origin import Origin, Proxy
from ._parser import MAX_BODY_SIZE, MAX_HEADER_SIZE
from ._socket import Wire, open_tcp, open_unix

__all__ = ["HTTPAdapter"]


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    """The system's certificate authorities, host names checked, ``http/1.1`` offered.

    Loaded once, in a thread: reading the authorities' files takes tens of milliseconds.
    """
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _origin(origin: str | Origin) -> Origin:
    return Origin.parse(origin)


def _proxy(proxy: str | Proxy | None) -> Proxy | None:
    return None if proxy is None else Proxy.parse(proxy)


def _with_reason(error: OSError, where: str) -> OSError:
    """The same with the reason in its text, where Trio has only told what it was that failed."""
    attempts = error.__cause__.exceptions if isinstance(error.__cause__, BaseExceptionGroup) else (error,)
    errno = next((attempt.errno for attempt in attempts if isinstance(attempt, OSError)), None)
    return error if errno is None else OSError(errno, os.strerror(errno), where)


def _is_a(*types: type) -> Callable[[object, attrs.Attribute[Any], object], None]:
    def check(_: object, option: attrs.Attribute[Any], value: object) -> None:
        if value is not None and not isinstance(value, types):
            raise TypeError(f"{option.name} must be {types[0].__name__} or None, not {type(value).__name__}")

    return check


@attrs.frozen
class HTTPAdapter(Adapter[Connection]):
    """Opens keep-alive connections to one origin, such as ``"https://example.com"`` or ``"http://127.0.0.1:8080"``.

    Args:
      origin: scheme, host and perhaps a port. No path, no credentials: those belong to the single request.
      ssl_context: for ``https``; by default the system's certificate authorities, with verification on. A context of
        your own should offer ``http/1.1`` (``set_alpn_protocols``).
      server_hostname: the name sent as SNI and checked against the certificate, if it is not the origin's host.
      proxy: ``"http://[user:password@]host:port"``; connections are tunnelled through it with ``CONNECT``.
      uds: path of a Unix socket to connect to instead of the origin's host.
      max_header_size: bytes a response's head may have.
      max_body_size: bytes a body may have that is read whole (`Response.aread`). Read in pieces, it may be longer.
    """

    origin: Origin = attrs.field(converter=_origin)
    ssl_context: ssl.SSLContext | None = attrs.field(
        default=None, kw_only=True, repr=False, validator=_is_a(ssl.SSLContext)
    )
    server_hostname: str | None = attrs.field(default=None, kw_only=True)
    proxy: Proxy | None = attrs.field(default=None, kw_only=True, converter=_proxy)
    uds: str | None = attrs.field(default=None, kw_only=True, validator=_is_a(str))
    max_header_size: int = attrs.field(default=MAX_HEADER_SIZE, kw_only=True, validator=attrs.validators.ge(1024))
    max_body_size: int = attrs.field(default=MAX_BODY_SIZE, kw_only=True, validator=attrs.validators.ge(0))

    def __attrs_post_init__(self) -> None:
        if self.proxy is not None and self.uds is not None:
            raise ValueError("proxy and uds exclude each other: a connection goes one way or the other")

    @classmethod
    def from_url(cls, url: str) -> HTTPAdapter:
        """The adapter for ``http://host[:port]`` or ``https://host[:port]``."""
        return cls(url)

    @property
    def name(self) -> str:
        """``host:port``."""
        return f"{self.origin.host}:{self.origin.port}"

    async def open(self) -> Connection:
        """Connect, through the proxy if there is one, and shake hands."""
        wire = await self._open_wire()
        return Connection(
            wire,
            self.origin.host_field,
            self._open_wire,
            max_header_size=self.max_header_size,
            max_body_size=self.max_body_size,
        )

    async def _open_wire(self) -> Wire:
        wire = Wire(await self._connect())
        try:
            if self.proxy is not None:
                await self._open_tunnel(wire, self.proxy)
            if self.origin.scheme == "https":
                context = self.ssl_context
                if context is None:
                    context = await trio.to_thread.run_sync(_default_ssl_context)
                await wire.start_tls(context, self.server_hostname or self.origin.host)
        except BaseException:
            wire.close(politely=False)
            raise
        return wire

    async def _connect(self) -> socket.socket:
        target = self.origin if self.proxy is None else self.proxy
        where = f"{target.host}:{target.port}" if self.uds is None else self.uds
        try:
            return await (open_tcp(target.host, target.port) if self.uds is None else open_unix(self.uds))
        except socket.gaierror:
            raise
        except OSError as error:
            raise _with_reason(error, where) from error

    async def _open_tunnel(self, wire: Wire, proxy: Proxy) -> None:
        authority = self.origin.authority
        tunnel = Connection(wire, authority.encode(), self._open_wire, max_header_size=self.max_header_size)
        try:
            async with tunnel.request("CONNECT", authority, headers=proxy.headers) as response:
                if not response.is_upgraded:
                    status = response.status_code
                    # In RFC 9110's words, not the proxy's, which has just been told a password.
                    phrase = http.client.responses.get(status, "")
                    raise ProxyError(f"the proxy {proxy} answered {status} {phrase}".rstrip(), status_code=status)
                if response.stream.unread:
                    raise ProxyError(f"the proxy {proxy} sent bytes of its own into the tunnel")
        except (ProtocolError, ServerDisconnected) as error:
            raise ProxyError(f"the proxy {proxy} did not answer as a proxy: {error}") from error

    async def close(self, resource: Connection) -> None:
        """Free the socket."""
        await resource.aclose()

    def is_clean(self, resource: Connection) -> bool:
        """Between exchanges, the server still there, nothing unread: all there is to know.

        So there is no `validate`, because HTTP/1.1 has no request that means nothing, and no `reset`, because an
        exchange that did not end where it should leaves nothing that could be set right.
        """
        return resource.is_clean()

    def verdict(self, error: BaseException) -> Verdict:
        """`Connection.is_clean` knows what an error did to a connection; certificates do not mend themselves."""
        if isinstance(error, ssl.SSLCertVerificationError):
            return Verdict.PERMANENT
        if isinstance(error, ProxyError) and error.status_code is not None and 400 <= error.status_code < 500:
            return Verdict.PERMANENT
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
            return Verdict.PERMANENT
        return Verdict.KEEP
