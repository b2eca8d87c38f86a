"""A TCP proxy between an adapter and its server, for `check_adapter`: it delays, holds back and cuts off."""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from typing import Literal, TypeAlias

import trio
import trio.testing

__all__ = ["Cut", "Proxy", "open_proxy"]

Cut: TypeAlias = Literal["closed", "reset", "silent"]
"""How the server ends a connection: politely (FIN), rudely (RST), or not at all, but never says anything again."""

_STACK = 6  # innermost frames shown of an event loop that is blocked
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger for 0 seconds


@contextlib.asynccontextmanager
async def open_proxy(server: tuple[str, int], *, patience: float) -> AsyncIterator[Proxy]:
    """Run a `Proxy` for `server` in a thread.

    In a thread, so that it goes on while a faulty adapter blocks the event loop under test: then the blocking ends and
    can be measured. For the same reason a connection that has been paused for `patience` seconds is cut, and so are all
    when the event loop has been blocked for that long: the server may run in the same one, and never answer.
    """
    proxy = Proxy(server, patience)
    started = threading.Event()
    thread = threading.Thread(target=trio.run, args=(proxy.serve, started), name="respool.testing proxy")
    thread.start()
    await trio.to_thread.run_sync(started.wait)
    try:
        yield proxy
    finally:
        with trio.move_on_after(patience, shield=True):
            await proxy.stop()
            await trio.to_thread.run_sync(thread.join)


class Proxy:
    """Passes on what clients of `host` and `port` and the server say to each other. See `open_proxy`."""

    def __init__(self, server: tuple[str, int], patience: float) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.delay = 0.0
        """Seconds by which everything the server says arrives later."""
        self.connections = 0
        """Clients that are connected now."""
        self.answered = 0
        """Bytes the server has said so far."""
        self.blocked = ""
        """Where the event loop under test stood when it was blocked for so long that all connections were cut."""
        self._server = server
        self._patience = patience
        self._clients: set[trio.SocketStream] = set()
        self._tested = trio.lowlevel.current_trio_token()
        self._tested_thread = threading.get_ident()
        self._flowing = trio.Event()
        self._flowing.set()
        self._remaining = math.inf  # bytes the server may still say before `_next_cut`
        self._next_cut: Cut = "reset"

    async def stop(self) -> None:
        """End it and all its connections."""
        await self._in_its_loop(self._scope.cancel)

    async def pause(self) -> None:
        """Hold back everything both sides say, like a stopped server: connections are accepted, nothing is answered."""
        await self._in_its_loop(self._pause)

    async def resume(self) -> None:
        """Deliver what was held back, and go on."""
        await self._in_its_loop(self._resume)

    async def cut(self, how: Cut) -> None:
        """End all present connections. The other side has the news when this returns."""
        await trio.to_thread.run_sync(lambda: trio.from_thread.run(self._cut_all, how, trio_token=self._token))

    async def cut_after(self, count: float, how: Cut) -> None:
        """End the connection on which the server says the `count`-th byte from now; `math.inf` takes it back."""
        await self._in_its_loop(lambda: self._ration(count, how))

    async def _in_its_loop(self, change: Callable[[], object]) -> None:
        await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(change, trio_token=self._token))

    # What follows runs in the proxy's own event loop.

    async def serve(self, started: threading.Event) -> None:
        """Serve until `stop`."""
        (listener,) = await trio.open_tcp_listeners(0, host=self.host)
        self.port = listener.socket.getsockname()[1]
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._end_blocking)
            started.set()
            await trio.serve_listeners(self._connect, [listener])

    async def _end_blocking(self) -> None:
        while True:
            alive = threading.Event()
            self._tested.run_sync_soon(alive.set)
            await trio.sleep(self._patience)
            if not alive.is_set():
                stack = traceback.format_stack(sys._current_frames()[self._tested_thread], limit=_STACK)
                self.blocked = "".join(stack)
                await self._cut_all("reset")

    async def _connect(self, client: trio.SocketStream) -> None:
        self.connections += 1
        self._clients.add(client)
        try:
            async with client, await trio.open_tcp_stream(*self._server) as server, trio.open_nursery() as nursery:
                nursery.start_soon(self._ask, client, server, nursery.cancel_scope)
                await self._answer(server, client)
                nursery.cancel_scope.cancel()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            _end(client, "reset")
        finally:
            self._clients.discard(client)
            self.connections -= 1

    async def _ask(self, client: trio.SocketStream, server: trio.SocketStream, connection: trio.CancelScope) -> None:
        async for data in client:
            await self._until_resumed()
            await server.send_all(data)
        connection.cancel()

    async def _answer(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        async for data in server:
            self.answered += len(data)
            await trio.sleep(self.delay)
            await self._until_resumed()
            if len(data) >= self._remaining:
                await client.send_all(data[: int(self._remaining)])
                self._remaining = math.inf
                if self._next_cut == "silent":
                    await trio.sleep(self._patience)
                _end(client, self._next_cut)
                return
            self._remaining -= len(data)
            await client.send_all(data)

    async def _until_resumed(self) -> None:
        with trio.move_on_after(self._patience) as patience:
            await self._flowing.wait()
        if patience.cancelled_caught:
            raise trio.BrokenResourceError("paused for too long")

    def _pause(self) -> None:
        self._flowing = trio.Event()

    def _resume(self) -> None:
        self._flowing.set()

    async def _cut_all(self, how: Cut) -> None:
        await trio.testing.wait_all_tasks_blocked()  # until those have been accepted that think they are connected
        for client in self._clients:
            _end(client, how)

    def _ration(self, count: float, how: Cut) -> None:
        self._remaining, self._next_cut = count, how


def _end(client: trio.SocketStream, how: Cut) -> None:
    if how == "reset" and client.socket.fileno() != -1:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    client.socket.close()
