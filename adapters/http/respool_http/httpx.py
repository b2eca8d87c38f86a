"""An httpx transport on a pool: existing programs get it by changing one line.

::

    async with respool_http.open_http_pool() as pool, httpx.AsyncClient(transport=PoolTransport(pool)) as client:
        response = await client.get("https://example.com/")

Redirects, cookies, content codings, authentication and everything else httpx's client does stay as they are; so do its
exceptions, its timeouts and its streaming. The pool bounds connections (``limits`` has no effect), and knows about TLS
and proxies (``verify``, ``cert`` and ``proxy`` have none). The request extensions ``timeout``, ``sni_hostname``,
``target`` and ``trace`` work; ``trace`` is told of everything but connecting, which the pool does by itself.
"""

from __future__ import annotations

import httpx

from ._transport import BodyStream, PooledTransport

__all__ = ["PoolTransport"]


class _Stream(BodyStream, httpx.AsyncByteStream):
    pass


class PoolTransport(PooledTransport, httpx.AsyncBaseTransport):
    """Sends the requests of an ``httpx.AsyncClient`` through an `HTTPPool`, on Trio.

    Closing the client does not close the pool: its own block does. The pool must not have ``max_hold``, because a
    response lasts as long as the program likes.
    """

    _library = httpx
    _stream_type = _Stream

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's exceptions."""
        response: httpx.Response = await self._send(request)
        return response
