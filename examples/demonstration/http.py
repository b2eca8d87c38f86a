"""A real nginx, started on a free port and thrown away: small files over kept connections."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from respool_http import Connection, HTTPAdapter, HTTPError

from tests.servers import NginxServer

from .servers import started
from .subject import ROWS, SLOWLY, Subject, right_answer

LENGTH = 600  # bytes of each file
PIECE = 500  # bytes after which the slow files' server makes a pause

CONFIGURATION = f"""
location /slow/ {{
    rewrite ^/slow(/.*)$ $1 break;
    output_buffers 1 {PIECE}; postpone_output 0; limit_rate {PIECE / SLOWLY:.0f};
}}
location = /status {{ stub_status; }}
"""

STATUS = re.compile(r"Active connections: (\d+).*Reading: (\d+) Writing: (\d+)", re.DOTALL)


def _server() -> NginxServer:
    files = {str(key): str(right_answer(key)).rjust(LENGTH).encode() for key in range(ROWS)}
    files["index.html"] = b"<p>respool</p>\n"
    return NginxServer(files=files, extra=CONFIGURATION)


@asynccontextmanager
async def http() -> AsyncIterator[Subject]:
    """The demo's subject."""
    async with started(_server) as server:
        adapter = HTTPAdapter(server.url)
        counting = trio.Lock()  # nginx knows no names: two who count would count each other

        async def count() -> tuple[int, int]:
            async with counting:
                connection = await adapter.open()
                try:
                    status = STATUS.search((await _get(connection, "/status")).decode())
                finally:
                    await adapter.close(connection)
            assert status is not None
            active, reading, writing = map(int, status.groups())
            return active - 1, reading + writing - 1  # without this request itself

        yield Subject(
            title="nginx, HTTP/1.1",
            adapter=adapter,
            ask=_ask,
            ask_slowly=_ask_slowly,
            failures=(OSError, HTTPError),
            count=count,
            restart=server.restart_async,
            examples="http",
            url=server.url,
            recovers=False,
        )


async def _ask(connection: Connection, key: int) -> int:
    return int(await _get(connection, f"/{key}"))


async def _ask_slowly(connection: Connection, key: int) -> int:
    return int(await _get(connection, f"/slow/{key}"))


async def _get(connection: Connection, target: str) -> bytes:
    async with connection.request("GET", target) as response:
        return await response.aread()
