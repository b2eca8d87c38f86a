"""Connections to many origins, pooled: a `respool.KeyedPool` by origin, and the requests people send through it."""

from __future__ import annotations

import difflib
import functools
import math
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Final, TypedDict, Unpack

import attrs
import trio

import respool

from ._adapter import HTTPAdapter
from ._connection import Connection, Progress, RequestContext, check_seconds
from ._errors import HTTPError, InvalidRequest, ServerDisconnected
from ._origin import MAX_REMEMBERED, Origin, Proxy, split_url
from ._parser import MAX_BODY_SIZE, MAX_HEADER_SIZE
from ._request import Body, HeaderInput, Outgoing, write_request
from ._response import Response

__all__ = ["HTTPPool", "PooledRequest", "RequestOptions", "open_http_pool"]

_INSTEAD: Final = {  # what others call it
    **dict.fromkeys(("content", "data"), "'body'"),
    "json": "'body', with json.dumps(...) and the header Content-Type: application/json",
    "params": "the URL, with urllib.parse.urlencode(...)",
    "timeout": "trio.fail_after() around the call, 'read_timeout' for silence, 'acquire_timeout' for the pool",
}


class RequestOptions(TypedDict, total=False):
    """What `HTTPPool.request` and `HTTPPool.stream` take by name, all of it optional."""

    headers: HeaderInput
    """A mapping, or pairs where names may repeat."""
    body: Body
    """Bytes, text, or an iterable or asynchronous iterable of bytes."""
    retries: int
    """How often to repeat an idempotent request whose connection broke before any of the response came. 0."""
    read_timeout: float
    """Seconds the server may be silent. ``math.inf``."""
    write_timeout: float
    """Seconds the server may take nothing of the request. ``math.inf``."""


class HTTPPool:
    """Sends requests to any origin over pooled connections. `open_http_pool` makes one."""

    def __init__(self, connections: respool.KeyedPool[Origin, Connection]) -> None:
        self.connections = connections
        """The pool underneath, with its ``statistics`` and the rest."""

    def __repr__(self) -> str:
        return f"<respool_http.HTTPPool over {self.connections!r}>"

    def acquire(self, origin: str | Origin, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]:
        """Borrow a connection to ``"https://host[:port]"`` for the length of an ``async with`` block.

        For several requests that should travel on one connection, and for `Connection.request` as it is: nothing is
        repeated, and a server that has just closed the connection is yours to deal with. Raises as the pool's
        ``acquire`` does.
        """
        return self.connections.acquire(Origin.parse(origin), timeout=timeout)

    async def request(
        self, method: str, url: str, *, acquire_timeout: float | None = None, **options: Unpack[RequestOptions]
    ) -> Response:
        """Send a request and read the whole response: ``status_code``, ``headers``, ``content``.

        A connection that was kept alive may have been closed by its server a moment ago. A request that has not reached
        the server then is sent once more, on a fresh connection; unless its body is an iterator that has been begun,
        which cannot be read twice. If some of it was sent, only the server's TCP tells whether it has arrived, and not
        for certain: so that only counts for idempotent methods. Nothing else is repeated but what ``retries`` asks for.

        Redirects, cookies, content codings and authentication are a client's affair: see `respool_http.httpx2`.

        Args:
          method: ``"GET"``, in capitals.
          url: absolute, ``http`` or ``https``, percent-encoded.
          acquire_timeout: longest wait for a connection, instead of the pool's.
          options: ``headers``, ``body``, ``retries``, ``read_timeout``, ``write_timeout``: see `RequestOptions`.

        Raises:
          TypeError, ValueError: an option is not what it should be.
          InvalidRequest: the request is yours to mend.
          ServerDisconnected, ProtocolError, ReadTimeout, WriteTimeout: as `Connection.request`.
          respool.PoolTimeout, respool.OpenFailed: no connection in time; the server cannot be reached.
        """
        request = self._exchange(method, url, acquire_timeout, options)
        async with request as response:
            if response.take_if_arrived():
                request.connection._vouch()  # nothing has been waited for since it arrived
            else:
                await response.read_to_end()
            return response

    def stream(
        self, method: str, url: str, *, acquire_timeout: float | None = None, **options: Unpack[RequestOptions]
    ) -> AbstractAsyncContextManager[Response]:
        """As `request`, as an ``async with`` block that begins when the response's head is in, its body unread.

        The connection is lent for the length of the block. Read the body to its end, and the connection serves
        others; leave before, and it is closed.
        """
        return self._exchange(method, url, acquire_timeout, options)

    def _exchange(self, method: str, url: str, acquire_timeout: float | None, options: RequestOptions) -> PooledRequest:
        if options or not isinstance(url, str) or len(url) > MAX_REMEMBERED:
            _refuse_unknown(options)
            return self._exchange_with(method, url, acquire_timeout, **options)
        origin, outgoing = _plain_request(method, url)
        connections = self.connections
        return PooledRequest(connections, origin, outgoing, acquire_timeout, connections.limits.open_timeout)

    def _exchange_with(
        self,
        method: str,
        url: str,
        acquire_timeout: float | None,
        headers: HeaderInput = None,
        body: Body = None,
        retries: int = 0,
        read_timeout: float = math.inf,
        write_timeout: float = math.inf,
    ) -> PooledRequest:
        check_seconds(read_timeout=read_timeout, write_timeout=write_timeout)
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise ValueError(f"retries must be an int >= 0, not {retries!r}")
        origin, target = _split(url)
        outgoing = write_request(method, target, origin.host_field, headers, body)
        return PooledRequest(
            self.connections,
            origin,
            outgoing,
            acquire_timeout,
            self.connections.limits.open_timeout,
            retries=retries,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
        )


def _refuse_unknown(options: Iterable[str]) -> None:
    known = RequestOptions.__annotations__
    for name in options:
        if name not in known:
            near = _INSTEAD.get(name) or ", ".join(map(repr, difflib.get_close_matches(name, known, n=1)))
            raise TypeError(f"there is no option {name!r}" + (f"; use {near}" if near else ""))


def _split(url: str) -> tuple[Origin, str]:
    try:
        return split_url(url)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None


@functools.lru_cache(maxsize=1024)
def _plain_request(method: str, url: str) -> tuple[Origin, Outgoing]:
    origin, target = _split(url)
    return origin, write_request(method, target, origin.host_field, None, None)


class PooledRequest(RequestContext):
    """A lease and an exchange on it, in one block; the connection may have gone stale in the pool."""

    __slots__ = ("_connect_timeout", "_failure", "_lease", "_retries")

    def __init__(
        self,
        connections: respool.KeyedPool[Origin, Connection],
        origin: Origin,
        outgoing: Outgoing,
        acquire_timeout: float | None,
        connect_timeout: float,
        transferable: bool = False,
        retries: int = 0,
        read_timeout: float = math.inf,
        write_timeout: float = math.inf,
        progress: Progress | None = None,
    ) -> None:
        # Not by way of super(), which takes a tenth of what the whole does.
        self.outgoing = outgoing
        self.read_timeout = read_timeout
        self.write_timeout = write_timeout
        self.progress = progress
        self.parser = None
        self.upload = None
        self._connect_timeout = connect_timeout
        self._retries = retries
        self._failure: ServerDisconnected | None = None
        self._lease = connections.acquire(
            origin,
            timeout=acquire_timeout,
            transferable=transferable,
            # What has to be read from an iterable, or told, is begun in the task's own turn.
            on_lent=self._start if outgoing.body is None and progress is None else None,
        )

    def _start(self, connection: Connection) -> None:
        """Send the request, while the task that waits for the connection has not yet had its turn."""
        try:
            connection._start(self)
        except ServerDisconnected as error:
            # The error for which another task has perhaps just returned the connection is its own affair.
            (error.__cause__ or error).__context__ = None
            self._failure = error

    async def __aenter__(self) -> Response:
        connection = self.connection = await self._lease.__aenter__()
        try:
            if self.parser is not None and self._failure is None and connection._upload is None:
                try:
                    response = connection._answer_if_any(self)
                except ServerDisconnected as error:
                    self._failure = error
                else:
                    if response is not None:
                        return response
            return await self._go_on(connection)
        except BaseException as error:
            await self._lease.__aexit__(type(error), error, error.__traceback__)
            raise

    async def _go_on(self, connection: Connection) -> Response:
        """Wait for the response; send the request again, on a fresh connection, where that may be done."""
        exchange = connection._begin if self.parser is None else connection._answer
        while True:
            try:
                if self._failure is not None:
                    raise self._failure
                return await exchange(self)
            except ServerDisconnected as error:
                self._failure = None
                if self.progress is not None:
                    await self.progress.failed(error)
                if not self._may_repeat(error, reused=connection.exchanges > 1):
                    raise
            await self._renew()
            exchange = connection._begin

    def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> Coroutine[Any, Any, bool | None]:
        if self.upload is None:
            return self._lease.__aexit__(exc_type, exc, traceback)
        return self._end(exc_type, exc, traceback)

    async def _end(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            await super().__aexit__(exc_type, exc, traceback)
        finally:
            swallowed = await self._lease.__aexit__(exc_type, exc, traceback)
        return swallowed

    async def _renew(self) -> None:
        try:
            with trio.fail_after(self._connect_timeout):
                await self.connection.renew()
        except (OSError, HTTPError, trio.TooSlowError) as error:
            raise respool.OpenFailed("cannot open a fresh connection in place of one that the server closed") from error

    def _may_repeat(self, error: ServerDisconnected, *, reused: bool) -> bool:
        """RFC 9112, 9.3.1. Go's transport repeats more: idempotent requests that have reached the server."""
        outgoing, begun = self.outgoing, self.upload is not None
        if error.answered or (begun and isinstance(outgoing.body, (Iterator, AsyncIterator))):
            return False
        idempotent = outgoing.idempotent
        if reused and not (error.reached if idempotent else error.sent):
            return True
        self._retries -= 1
        return idempotent and self._retries >= 0


@asynccontextmanager
async def open_http_pool(
    *,
    max_per_origin: int = 10,
    ssl_context: ssl.SSLContext | None = None,
    proxy: str | Proxy | None = None,
    uds: str | None = None,
    max_header_size: int = MAX_HEADER_SIZE,
    max_body_size: int = MAX_BODY_SIZE,
    instruments: Sequence[respool.Instrument] = (),
    **options: Unpack[respool.Options],
) -> AsyncIterator[HTTPPool]:
    """Open an `HTTPPool` for the length of an ``async with`` block.

    ::

        async with respool_http.open_http_pool(max_size=200, max_per_origin=20) as pool:
            response = await pool.request("GET", "https://example.com/")

    Args:
      max_per_origin: connections to one origin.
      ssl_context: for ``https``; by default the system's certificate authorities, with verification on.
      proxy: ``"http://[user:password@]host:port"``; every connection is tunnelled through it with ``CONNECT``.
      uds: path of a Unix socket that serves every origin.
      max_header_size: bytes a response's head may have.
      max_body_size: bytes a body may have that is read whole, as `HTTPPool.request` does. Not for `HTTPPool.stream`.
      instruments: objects to be told what happens in the pools of all origins.
      options: those of `respool.open_keyed_pool`. Unless you say otherwise ``max_size``, the connections to all origins
        together, is 100; ``max_opening`` is `max_per_origin`, because servers that keep nothing alive need a connection
        for each request; and ``fail_fast`` is true: an origin that cannot be reached is an error now, and not something
        to wait for.
    """
    if not isinstance(max_per_origin, int) or isinstance(max_per_origin, bool) or max_per_origin < 1:
        raise ValueError(f"max_per_origin must be an int >= 1, not {max_per_origin!r}")
    adapter = HTTPAdapter(
        Origin("http", "localhost", 80),  # stands for any: what else is given is checked at once
        ssl_context=ssl_context,
        proxy=proxy,
        uds=uds,
        max_header_size=max_header_size,
        max_body_size=max_body_size,
    )

    def adapter_for(origin: Origin) -> HTTPAdapter:
        return attrs.evolve(adapter, origin=origin, server_hostname=origin.server_hostname)

    limits: respool.Options = {"max_size": 100, "max_opening": max_per_origin, "fail_fast": True, **options}
    async with respool.open_keyed_pool(
        adapter_for, max_per_key=max_per_origin, instruments=instruments, **limits
    ) as connections:
        yield HTTPPool(connections)
