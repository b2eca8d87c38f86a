"""A server inside this process that needs nothing installed, its client, and a whole adapter for it.

One line a request, one line an answer. Connecting costs what it costs elsewhere: some milliseconds of handshake.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

import respool

from .subject import SLOWLY, Subject, right_answer

HANDSHAKE = 0.01  # seconds that the server takes to greet: TLS and a password's hash cost as much
WORK = 0.001  # seconds that it takes to answer
AWAY = 0.5  # seconds that it is gone when it restarts


@attrs.define(eq=False)
class Server:
    """Answers ``get KEY`` and ``slow KEY`` with the key's number."""

    nursery: trio.Nursery
    port: int = 0
    connections: int = 0
    working: int = 0
    _life: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        (listener,) = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        self._life = trio.CancelScope()
        self.nursery.start_soon(self._serve, listener)

    async def _serve(self, listener: trio.SocketListener) -> None:
        with self._life:
            await trio.serve_listeners(self._talk, [listener])

    def stop(self) -> None:
        """Drop every connection, and listen no more."""
        self._life.cancel()

    async def _talk(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        try:
            await trio.sleep(HANDSHAKE)
            await stream.send_all(b"welcome\n")
            async for data in stream:
                for line in data.splitlines():
                    await stream.send_all(await self._answer(line))
        except trio.BrokenResourceError:
            pass  # the client is gone, and that is its right
        finally:
            self.connections -= 1

    async def _answer(self, line: bytes | bytearray) -> bytes:
        verb, key = line.split()
        self.working += 1
        try:
            await trio.sleep(SLOWLY if verb == b"slow" else WORK)
        finally:
            self.working -= 1
        return b"%d\n" % right_answer(int(key))


@attrs.define(eq=False)
class Connection:
    """A client's side. Knows how many answers it is still owed, which is all that safety needs."""

    stream: trio.SocketStream
    owed: int = 0
    _buffer: bytes = b""

    async def ask(self, request: str) -> int:
        """Send one request, and read its answer."""
        if self.owed:
            raise RuntimeError("an earlier request was never read to its end: call forget() first")
        line = request.encode() + b"\n"
        # Cancelled here, nothing has been sent. `send_all` could not promise that.
        if await self.stream.socket.send(line) != len(line):
            raise trio.BrokenResourceError("the request was sent in part")
        self.owed += 1
        answer = int(await self.read_line())
        self.owed -= 1
        return answer

    async def forget(self) -> None:
        """Read the answers that nobody waits for any more, and throw them away."""
        while self.owed:
            await self.read_line()
            self.owed -= 1

    async def read_line(self) -> bytes:
        """Read one line. Cancelled, it has lost nothing."""
        while b"\n" not in self._buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError("the server closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


@attrs.frozen
class EmbeddedAdapter(respool.Adapter[Connection]):
    """What a pool must know of this protocol. A cancelled exchange costs no connection: its answer is read later."""

    port: int

    @property
    def name(self) -> str:
        """What the pool is called."""
        return f"127.0.0.1:{self.port}"

    async def open(self) -> Connection:
        """Connect, and wait for the greeting."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        connection = Connection(stream)
        try:
            await connection.read_line()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return connection

    async def close(self, resource: Connection) -> None:
        """Hang up."""
        await resource.stream.aclose()

    async def validate(self, resource: Connection) -> None:
        """Ask anything."""
        await resource.ask("get 0")

    async def reset(self, resource: Connection) -> None:
        """Read what the last borrower did not stay for."""
        await resource.forget()

    def is_clean(self, resource: Connection) -> bool:
        """No answer is owed, and neither data nor the end of the stream has arrived unasked."""
        return not resource.owed and not resource.stream.socket.is_readable()

    def verdict(self, error: BaseException) -> respool.Verdict:
        """Nothing but the network can break a connection: `is_clean` knows about the rest."""
        return respool.Verdict.DISCARD if isinstance(error, FAILURES) else respool.Verdict.KEEP


FAILURES = (OSError, EOFError, trio.BrokenResourceError)


@asynccontextmanager
async def embedded() -> AsyncIterator[Subject]:
    """The demo's subject."""
    async with trio.open_nursery() as nursery:
        server = Server(nursery)
        await server.start()

        async def ask(connection: Connection, key: int) -> int:
            return await connection.ask(f"get {key}")

        async def ask_slowly(connection: Connection, key: int) -> int:
            return await connection.ask(f"slow {key}")

        async def count() -> tuple[int, int]:
            return server.connections, server.working

        async def restart() -> None:
            server.stop()
            await trio.sleep(AWAY)
            await server.start()

        yield Subject(
            title="embedded server",
            adapter=EmbeddedAdapter(server.port),
            ask=ask,
            ask_slowly=ask_slowly,
            failures=FAILURES,
            count=count,
            restart=restart,
        )
        server.stop()
