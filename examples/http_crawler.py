"""Crawl a site: every page once, many at a time, over no more connections than it deserves.

The site is a little one of our own, on a free port: a thousand pages that link to each other.
"""

from __future__ import annotations

import re
from functools import partial
from urllib.parse import urljoin

import respool_http
import trio

PAGES = 1000
CRAWLERS = 50
CONNECTIONS = 5


async def crawl(pool: respool_http.HTTPPool, start: str) -> set[str]:
    """Everything that can be reached from `start`."""
    seen = {start}
    to_visit, to_do = trio.open_memory_channel[str](PAGES)
    to_visit.send_nowait(start)
    pending = 1

    async def crawler() -> None:
        nonlocal pending
        async for url in to_do:
            response = await pool.request("GET", url)
            for link in re.findall(r'href="([^"]+)"', response.text):
                if (found := urljoin(url, link)) not in seen:
                    seen.add(found)
                    pending += 1
                    to_visit.send_nowait(found)
            pending -= 1
            if not pending:
                to_visit.close()  # the crawlers' loops end

    async with trio.open_nursery() as nursery:
        for _ in range(CRAWLERS):
            nursery.start_soon(crawler)
    return seen


async def serve_site(stream: trio.SocketStream) -> None:
    """Page n links to pages 2n and 2n + 1: a tree, and a link home."""
    request = b""
    async for data in stream:
        request += data
        if request.endswith(b"\r\n\r\n"):
            page = int(request.split()[1][1:] or 1)
            links = "".join(f'<a href="/{n}">{n}</a>' for n in (2 * page, 2 * page + 1, 1) if n <= PAGES)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(links), links.encode()))
            request = b""


async def main() -> None:
    connections = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await serve_site(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        start = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/1"
        async with respool_http.open_http_pool(max_per_origin=CONNECTIONS) as pool:
            found = await crawl(pool, start)
        print(f"{len(found)} pages by {CRAWLERS} crawlers over {connections} connections")
        nursery.cancel_scope.cancel()


trio.run(main)
