"""A TCP proxy that misbehaves on demand, to stand between a client and a real server.

proxy = FaultProxy(server.host, server.port)
await nursery.start(proxy.serve)
...                                             # connect to proxy.redirect(server.url)
proxy.fault = Fault(latency=0.002)              # open and new connections, from the next byte on
proxy.fault = Fault(cut_to_client=100)          # each connection is reset after 100 more bytes of replies
proxy.fault = Fault(silent=True)                # a black hole: accepts, and says nothing
proxy.fault = PASS                              # the network heals: what was held back arrives
proxy.reset_all()                               # RST on everything that is open
proxy.refuse()                                  # new connections are refused...
proxy.listen()                                  # ...and no longer
"""

from __future__ import annotations

import math
import socket
import struct
from urllib.parse import urlsplit, urlunsplit

import attrs
import trio

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@attrs.frozen(kw_only=True)
class Fault:
    """What is wrong with the network. The default: nothing."""

    silent: bool = False
    """Accept, hold back every byte in both directions. What was held back arrives once this is over."""

    cut_to_client: float = math.inf
    """Cut each connection after this many more bytes from the server."""

    cut_to_server: float = math.inf
    """Cut each connection after this many more bytes to the server."""

    polite: bool = False
    """Cut with an orderly FIN rather than an RST."""

    latency: float = 0.0
    """Seconds each byte is under way, in each direction."""

    bytes_per_second: float = math.inf
    """Bandwidth of each connection in each direction."""


PASS = Fault()


class FaultProxy:
    """Passes TCP connections on to ``server_host:server_port``, with faults. `serve` runs it.

    If the server itself refuses, a connection is accepted first and then reset.
    """

    def __init__(self, server_host: str, server_port: int, *, fault: Fault = PASS) -> None:
        self.server_host = server_host
        self.server_port = server_port
        self.host = "127.0.0.1"
        # Bound for good but never listening: keeps the port while connections are refused.
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reservation.bind((self.host, 0))
        self.port: int = self._reservation.getsockname()[1]
        self.accepted = 0
        """Connections accepted so far."""
        self.answered = 0
        """Those of them on which the server has said something."""
        self._open: set[_Connection] = set()
        self._fault = fault
        self._fault_changed = trio.Event()
        self._listening = trio.Event()
        self._accepting: trio.CancelScope | None = None

    @property
    def open(self) -> int:
        """Connections open now."""
        return len(self._open)

    @property
    def fault(self) -> Fault:
        """What is wrong at present. Set it to change it: byte counts start again."""
        return self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault
        self._fault_changed.set()
        self._fault_changed = trio.Event()

    def redirect(self, url: str) -> str:
        """Make the server's URL lead through this proxy."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    def reset_all(self) -> None:
        """Reset every open connection."""
        for connection in self._open:
            connection.cut(politely=False)

    def refuse(self) -> None:
        """Refuse new connections. Open ones stay."""
        self._listening = trio.Event()
        if self._accepting is not None:
            self._accepting.cancel()

    def listen(self) -> None:
        """Accept new connections again."""
        self._listening.set()

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled: ``await nursery.start(proxy.serve)``."""
        self.listen()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._listening.wait()
                    with trio.CancelScope() as self._accepting, trio.socket.socket() as listener:
                        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        await listener.bind((self.host, self.port))
                        listener.listen(1000)
                        task_status.started()
                        task_status = trio.TASK_STATUS_IGNORED
                        while True:
                            client, _ = await listener.accept()
                            self.accepted += 1
                            nursery.start_soon(_Connection(self, client).run)
        finally:
            self._reservation.close()


class _Connection:
    """One client, and the proxy's own connection to the server on its behalf."""

    def __init__(self, proxy: FaultProxy, client: trio.socket.SocketType) -> None:
        self._proxy = proxy
        self._client = trio.SocketStream(client)
        self._scope = trio.CancelScope()
        self._politely = False
        self._answered = False

    def cut(self, *, politely: bool) -> None:
        """End it from outside."""
        self._politely = politely
        self._scope.cancel()

    async def run(self) -> None:
        """Pass bytes both ways until both sides have said goodbye, or it is cut."""
        self._proxy._open.add(self)
        streams = [self._client]
        try:
            with self._scope:
                while self._proxy.fault.silent:
                    await self._proxy._fault_changed.wait()
                server = await trio.open_tcp_stream(self._proxy.server_host, self._proxy.server_port)
                streams.append(server)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._pump, self._client, server, "cut_to_server")
                    nursery.start_soon(self._pump, server, self._client, "cut_to_client")
                self._politely = True
        except* (OSError, trio.BrokenResourceError):
            pass  # either side has ended it rudely, and so does the other now
        finally:
            self._proxy._open.discard(self)
            for stream in streams:
                if not self._politely:
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                stream.socket.close()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, limit: str) -> None:
        # Latency must not limit bandwidth, so what is under way is queued with the time at which it arrives.
        send, receive = trio.open_memory_channel[tuple[float, bytes | bytearray]](64)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, receive, sink, limit)
            async with send:
                async for data in source:
                    await send.send((trio.current_time() + self._proxy.fault.latency, data))

    async def _deliver(
        self, receive: trio.MemoryReceiveChannel[tuple[float, bytes | bytearray]], sink: trio.SocketStream, limit: str
    ) -> None:
        fault, passed = self._proxy.fault, 0
        async for arrives, data in receive:
            await trio.sleep_until(arrives)
            if limit == "cut_to_client" and not self._answered:
                self._answered = True
                self._proxy.answered += 1
            rest = memoryview(data)
            while rest:
                while self._proxy.fault.silent:
                    await self._proxy._fault_changed.wait()
                if fault is not self._proxy.fault:
                    fault, passed = self._proxy.fault, 0
                size = int(min(len(rest), getattr(fault, limit) - passed, max(1, fault.bytes_per_second / 100)))
                await sink.send_all(rest[:size])
                rest, passed = rest[size:], passed + size
                if passed >= getattr(fault, limit):
                    self.cut(politely=fault.polite)
                await trio.sleep(size / fault.bytes_per_second)
        await sink.send_eof()
