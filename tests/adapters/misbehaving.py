"""Servers that do everything but what they should."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

Talk = Callable[[trio.SocketStream], Awaitable[None]]


async def silent(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def closing(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def babbling(stream: trio.SocketStream) -> None:
    with trio.move_on_after(0.05):  # whoever speaks first
        await stream.receive_some()
    await stream.send_all(b"\xff\xffWhat?\r\n\r\n" * 100)
    await silent(stream)


@asynccontextmanager
async def serving(talk: Talk | None) -> AsyncIterator[int]:
    """The port of a server that does as `talk` does; where nobody listens if there is none."""
    if talk is None:
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            yield nobody.getsockname()[1]
        return

    async def serve(stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):  # the client has heard enough
            await talk(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
