"""Servers that say exactly what a test tells them to."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from respool_http import Connection, HTTPAdapter

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """The server's end of one connection."""

    def __init__(self, stream: trio.abc.Stream, number: int) -> None:
        self.stream = stream
        self.number = number
        self._received = b""

    async def receive(self) -> bytes:
        """What the client sends next, ``b""`` once it has closed."""
        data, self._received = self._received, b""
        return data or bytes(await self.stream.receive_some(65536))

    async def read_until(self, end: bytes) -> bytes:
        """Everything up to and including `end`; ``b""`` if the client closes first."""
        data = b""
        while (place := data.find(end)) < 0:
            more = await self.receive()
            if not more:
                return b""
            data += more
        place += len(end)
        self._received = data[place:]
        return data[:place]

    async def read_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.receive()
            if not more:
                raise trio.BrokenResourceError(f"the client closed after {len(data)} of {size} bytes")
            data += more
        data, self._received = data[:size], data[size:]
        return data

    async def read_head(self) -> bytes:
        return await self.read_until(b"\r\n\r\n")

    async def read_chunk(self) -> bytes:
        """The next chunk of a chunked body, ``b""`` for the last."""
        size = await self.read_until(b"\r\n")
        if not size:
            raise trio.BrokenResourceError("the client closed before the last chunk")
        return (await self.read_exactly(int(size, 16) + 2))[:-2]

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)


Script = Callable[[Peer], Awaitable[None]]


async def serve(nursery: trio.Nursery, script: Script, *, context: ssl.SSLContext | None = None) -> str:
    """Run `script` for every connection, which ends when it returns; say at what address."""
    count = 0

    async def run(stream: trio.SocketStream) -> None:
        nonlocal count
        count += 1
        wrapped: trio.abc.Stream = stream
        if context is not None:
            wrapped = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        try:
            await script(Peer(wrapped, count))
        except* trio.BrokenResourceError:
            pass  # the client has gone, as many tests want it to
        finally:
            await trio.aclose_forcefully(stream)

    listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), run, 0)
    port = listeners[0].socket.getsockname()[1]
    return f"{'http' if context is None else 'https'}://127.0.0.1:{port}"


def always(response: bytes) -> Script:
    """Answers every request, as long as they have no body, with `response`."""

    async def script(peer: Peer) -> None:
        while await peer.read_head():
            await peer.send(response)

    return script


def once(response: bytes) -> Script:
    """Answers one request with `response` and waits for the client to close."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response)
        while await peer.receive():
            pass

    return script


@asynccontextmanager
async def connected(origin: str, **options: Any) -> AsyncIterator[Connection]:
    adapter = HTTPAdapter(origin, **options)
    connection = await adapter.open()
    try:
        yield connection
    finally:
        await adapter.close(connection)
