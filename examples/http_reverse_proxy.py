"""A reverse proxy in a page: each request is fetched from the server behind it, and streamed through as it comes.

Set RESPOOL_HTTP_URL to a server's URL. Nothing is held in memory but the piece that is on its way: a slow reader here
slows the server there down. A reader that goes away cancels nothing but its own fetch.
"""

from __future__ import annotations

import os
import sys
from functools import partial

import respool_http
import trio

BACKEND = os.environ.get("RESPOOL_HTTP_URL") or sys.exit(
    "Set RESPOOL_HTTP_URL to a server's URL: http://127.0.0.1:8000"
)


async def forward(pool: respool_http.HTTPPool, client: trio.SocketStream) -> None:
    """Serve one client, one request: ``Connection: close`` keeps the example short."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = await client.receive_some()
        if not data:
            return
        head += data
    method, target, _ = head.decode("ascii").split(" ", 2)
    async with pool.stream(method, BACKEND + target) as response:
        lines = [f"HTTP/1.1 {response.status_code} {response.reason_phrase}", "Connection: close"]
        if "content-type" in response.headers:
            lines.append(f"Content-Type: {response.headers['content-type']}")
        await client.send_all("\r\n".join([*lines, "", ""]).encode())
        async for piece in response:
            await client.send_all(piece)


async def main() -> None:
    async with respool_http.open_http_pool(max_per_origin=10) as pool, trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, partial(forward, pool), 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        port = listeners[0].socket.getsockname()[1]
        for path in ("/", "/nowhere"):
            response = await pool.request("GET", f"http://127.0.0.1:{port}{path}")
            print(f"{path} through the proxy: {response.status_code}, {len(response.content)} bytes")
        nursery.cancel_scope.cancel()


trio.run(main)
