"""Small files over kept connections, and 100 MB down and up: respool_http beside aiohttp, httpcore, httpx2 and wrk.

nginx serves. Everybody has ten connections. The bare loops are what Trio's sockets can do if nobody parses, checks or
pools anything: the down- and uploads are measured by them. wrk is a C program that does nothing but make load; it asks
for one file again and again.
"""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from tests.servers import NginxServer

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Program, Sample, Share, output_of

SIZE = 10
KEYS = 1000
SMALL = 600  # bytes
DIGITS = 5  # that end each small file: int() would take half a microsecond for the blanks before them
LARGE = 100_000_000
PIECE = bytes(62_500)
PIECES = [PIECE] * (LARGE // len(PIECE))


def number(key: int) -> int:
    return key * 7919 % 10007


@contextmanager
def server() -> Iterator[str]:
    files = {str(key): str(number(key)).rjust(SMALL).encode() for key in range(KEYS)}
    with NginxServer(files=files, extra="location = /sink { return 200 taken; }") as nginx:
        with (nginx.directory / "files" / "large").open("wb") as large:
            large.truncate(LARGE)
        yield nginx.url


# Small files: each client as a function from URL to content.


@asynccontextmanager
async def open_respool(url: str) -> AsyncIterator[Any]:
    import respool_http

    async with respool_http.open_http_pool(max_per_origin=SIZE) as pool:

        async def get(url: str) -> bytes:
            return (await pool.request("GET", url)).content

        yield get


@asynccontextmanager
async def open_aiohttp(url: str) -> AsyncIterator[Any]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SIZE)) as session:

        async def get(url: str) -> Any:
            async with session.get(url) as response:
                return await response.read()

        yield get


def open_httpcore(package: str) -> Any:
    @asynccontextmanager
    async def opened(url: str) -> AsyncIterator[Any]:
        import importlib

        pools = importlib.import_module(package)
        async with pools.AsyncConnectionPool(max_connections=SIZE, max_keepalive_connections=SIZE) as pool:

            async def get(url: str) -> Any:
                return (await pool.request("GET", url)).content

            yield get

    return opened


@asynccontextmanager
async def open_httpx2(url: str) -> AsyncIterator[Any]:
    import httpx2

    limits = httpx2.Limits(max_connections=SIZE, max_keepalive_connections=SIZE)
    async with httpx2.AsyncClient(limits=limits, timeout=None) as client:

        async def get(url: str) -> bytes:
            return (await client.get(url)).content

        yield get


@asynccontextmanager
async def open_transport(url: str) -> AsyncIterator[Any]:
    import httpx2
    import respool_http
    from respool_http.httpx2 import PoolTransport

    async with (
        respool_http.open_http_pool(max_per_origin=SIZE) as pool,
        httpx2.AsyncClient(transport=PoolTransport(pool), timeout=None) as client,
    ):

        async def get(url: str) -> bytes:
            return (await client.get(url)).content

        yield get


@asynccontextmanager
async def open_bare(url: str) -> AsyncIterator[Any]:
    """A loop that must not be cancelled. It looks whether the answer has come before it waits, which pays when busy."""
    idle_in, idle_out = trio.open_memory_channel[socket.socket](SIZE)

    async def get(url: str) -> bytes:
        sock = await idle_out.receive()
        sock.send(_head("GET", url))
        await trio.lowlevel.checkpoint()
        answer = b""
        while len(answer.partition(b"\r\n\r\n")[2]) < SMALL:
            try:
                answer += sock.recv(65536)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
        idle_in.send_nowait(sock)
        return answer[-SMALL:]

    with ExitStack() as stack:
        for _ in range(SIZE):
            idle_in.send_nowait(stack.enter_context(_connected(url)))
        yield get


def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    sock = socket.create_connection((parts.hostname, parts.port))
    sock.setblocking(False)
    return sock


async def _stream(url: str) -> trio.SocketStream:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return await trio.open_tcp_stream(parts.hostname, parts.port)


def _head(method: str, url: str, *lines: str) -> bytes:
    parts = urlsplit(url)
    return "\r\n".join([f"{method} {parts.path} HTTP/1.1", f"Host: {parts.netloc}", *lines, "", ""]).encode()


def getting(opened: Any) -> Any:
    @asynccontextmanager
    async def contender(url: str) -> AsyncIterator[Any]:
        async with opened(url) as get:

            async def work(keys: Share) -> int:
                total = 0
                for key in keys:
                    total += key * int((await get(f"{url}/{key}"))[-DIGITS:])
                return total

            yield work

    return contender


# wrk measures itself.

WRK = "wrk"


def wrk(url: str, seconds: float) -> Sample:
    """Let wrk work, in whole seconds. It has no tasks that wait for a connection: each connection is always busy."""
    command = [WRK, "--threads=1", f"--connections={SIZE}", f"--duration={max(1, round(seconds))}s", f"{url}/1"]
    said, cpu_seconds = output_of(command, "wrk")
    found = re.search(r"(\d+) requests in .*Requests/sec: +([\d.]+)", said, re.DOTALL)
    if found is None or "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    operations = int(found[1])
    return Sample(operations, float(found[2]), cpu_seconds * 1e6 / operations)


# 100 MB.


@asynccontextmanager
async def download(url: str) -> AsyncIterator[Any]:
    import respool_http

    async with respool_http.open_http_pool() as pool:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                async with pool.stream("GET", f"{url}/large") as response:
                    async for piece in response:
                        total += key * len(piece)
            return total

        yield work


@asynccontextmanager
async def bare_download(url: str) -> AsyncIterator[Any]:
    async with await _stream(url) as stream:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                await stream.send_all(_head("GET", f"{url}/large"))
                received = len((await stream.receive_some(65536)).partition(b"\r\n\r\n")[2])
                while received < LARGE:
                    received += len(await stream.receive_some(65536))
                total += key * received
            return total

        yield work


@asynccontextmanager
async def upload(url: str) -> AsyncIterator[Any]:
    import respool_http

    async with respool_http.open_http_pool() as pool:

        async def work(keys: Share) -> int:
            headers = {"Content-Length": str(LARGE)}
            total = 0
            for key in keys:
                response = await pool.request("POST", f"{url}/sink", headers=headers, body=PIECES)
                total += key * (response.content == b"taken")
            return total

        yield work


@asynccontextmanager
async def bare_upload(url: str) -> AsyncIterator[Any]:
    async with await _stream(url) as stream:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                await stream.send_all(_head("POST", f"{url}/sink", f"Content-Length: {LARGE}"))
                for piece in PIECES:
                    await stream.send_all(piece)
                total += key * (await stream.receive_some(65536)).endswith(b"taken")
            return total

        yield work


def _large(name: str, title: str, ours: Any, bare: Any, answer: int) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        contenders=(Contender("respool_http", ours), Contender("bare Trio sockets", bare)),
        answer=lambda _: answer,
        server=server,
        goals=(Goal("respool_http", "bare Trio sockets", 1 / 1.3),),
    )


BENCHMARKS = (
    Benchmark(
        name="small",
        title=f"GET of small files ({SMALL} bytes), 50 tasks over {SIZE} connections",
        contenders=(
            Contender("respool_http", getting(open_respool)),
            Contender("respool_http under httpx2", getting(open_transport)),
            Contender("aiohttp", getting(open_aiohttp), "asyncio"),
            Contender("aiohttp, uvloop", getting(open_aiohttp), "uvloop"),
            Contender("httpcore2, trio", getting(open_httpcore("httpcore2"))),
            Contender("httpcore, trio", getting(open_httpcore("httpcore"))),
            Contender("httpx2, trio", getting(open_httpx2)),
            Contender("bare Trio sockets", getting(open_bare)),
            Program(WRK, wrk),
        ),
        tasks=50,
        keys=KEYS,
        answer=number,
        server=server,
        goals=(
            Goal("respool_http", "aiohttp, uvloop", 3),
            Goal("respool_http", "httpcore2, trio", 8),
            Goal("respool_http", "httpcore, trio", 20),
            Goal("respool_http under httpx2", "httpx2, trio", 1.5),
        ),
    ),
    _large("download", "GET of 100 MB, one task", download, bare_download, LARGE),
    _large("upload", "POST of 100 MB, one task", upload, bare_upload, 1),
)
