"""An httpx transport on a pool: existing programs get it by changing one line.

::

    async with respool_http.open_http_pool() as pool, httpx.AsyncClient(transport=PoolTransport(pool)) as client:
        response = await client.get("https://example.com/")

Redirects, cookies, content codings, authentication and everything else httpx's client does stay as they are; so do its
exceptions, its timeouts and its streaming. The pool bounds connections (``limits`` has no effect), and knows about TLS
and proxies (``verify``, ``cert`` and ``proxy`` have none). The request extensions ``timeout``, ``sni_hostname`` and
``target`` work, ``trace`` does not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from ._pool import HTTPPool
from ._transport import BodyStream, send, without_max_hold

__all__ = ["PoolTransport"]


class PoolTransport(httpx.AsyncBaseTransport):
    """Sends the requests of an ``httpx.AsyncClient`` through an `HTTPPool`, on Trio.

    Closing the client does not close the pool: its own block does. The pool must not have ``max_hold``, because a
    response lasts as long as the program likes.
    """

    def __init__(self, pool: HTTPPool) -> None:
        self._pool = without_max_hold(pool)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's exceptions."""
        answer = await send(self._pool, httpx, request)
        body = answer.body
        return httpx.Response(
            answer.status_code,
            headers=answer.headers,
            stream=httpx.ByteStream(body) if isinstance(body, bytes) else _Stream(body),
            extensions=answer.extensions,
        )


class _Stream(httpx.AsyncByteStream):
    def __init__(self, body: BodyStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._body.receive_some():
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()
