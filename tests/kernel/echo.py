"""A server that gives back each line it is sent, and the adapter for it: what every adapter should be, on one page."""

from __future__ import annotations

import select
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from respool.abc import Adapter, Verdict

__all__ = ["Connection", "EchoAdapter", "echo_server"]


class Echo(socketserver.StreamRequestHandler):
    """Greets, and gives back each line it is sent."""

    def handle(self) -> None:
        self.wfile.write(b"welcome\n")
        for line in self.rfile:
            self.wfile.write(line)


class EchoServer(socketserver.ThreadingTCPServer):
    """Runs in threads, so that a client that blocks the event loop is answered all the same."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are what this is about."""


@contextmanager
def echo_server(handler: type[socketserver.BaseRequestHandler] = Echo) -> Iterator[tuple[str, int]]:
    """Run the server; yields its host and port."""
    with EchoServer(("127.0.0.1", 0), handler) as echo:
        thread = threading.Thread(target=echo.serve_forever, args=[0.01])
        thread.start()
        yield echo.server_address  # type: ignore[misc]
        echo.shutdown()
        thread.join()


@attrs.define(eq=False)
class Connection:
    """A client of the echo server."""

    socket: trio.socket.SocketType
    received: bytes = b""
    unsent: bytes = b""
    owed: int = 0  # answers

    async def ask(self, question: str) -> str:
        self.owed += 1
        self.unsent += question.encode() + b"\n"
        await self.send()
        return await self.read()

    async def send(self) -> None:
        while self.unsent:
            self.unsent = self.unsent[await self.socket.send(self.unsent) :]

    async def read(self) -> str:
        while b"\n" not in self.received:
            data = await self.socket.recv(100)
            if not data:
                raise ConnectionError("the server closed the connection")
            self.received += data
        self.owed -= 1
        line, _, self.received = self.received.partition(b"\n")
        return line.decode()


@attrs.frozen
class EchoAdapter(Adapter[Connection]):
    """Everything as it should be."""

    host: str
    port: int

    async def open(self) -> Connection:
        connection = Connection(trio.socket.socket(), owed=1)
        try:
            await connection.socket.connect((self.host, self.port))
            await connection.read()
        except BaseException:
            connection.socket.close()
            raise
        return connection

    async def close(self, resource: Connection) -> None:
        try:
            if resource.socket.fileno() != -1:
                await resource.socket.send(b"goodbye\n")
        except OSError:
            pass
        finally:
            resource.socket.close()

    async def validate(self, resource: Connection) -> None:
        await resource.ask("ping")

    async def reset(self, resource: Connection) -> None:
        await resource.send()
        while resource.owed:
            await resource.read()
        if not self.is_clean(resource):
            raise ConnectionError("closed, or out of step")

    def is_clean(self, resource: Connection) -> bool:
        quiet = not select.select([resource.socket.fileno()], [], [], 0)[0]
        return quiet and not (resource.owed or resource.received or resource.unsent)

    def verdict(self, error: BaseException) -> Verdict:
        return Verdict.KEEP
