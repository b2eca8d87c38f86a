"""An adapter that reads and writes a socket itself, and a client that sends its request in the moment of the lease."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial

import attrs
import trio

import respool
from respool import Adapter, Verdict
from respool.lowlevel import SocketWatch

SIZE = 65536


class Connection:
    """What borrowers get: one line asked, one line answered."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.watch = SocketWatch(sock)
        self.unsent = b""
        self.owed = 0  # answers that the server will still send
        self.received = b""

    def send(self, question: str) -> None:
        """Send what fits now, and keep the rest. Does not wait, so `on_lent` may call it."""
        self.owed += 1  # first, because after an error nobody knows what the server has got
        self.unsent += question.encode() + b"\n"
        self.send_more()

    def send_more(self) -> None:
        with suppress(BlockingIOError):
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def take(self, data: bytes) -> None:
        if not data:
            raise ConnectionError("the server has closed the connection")
        self.received += data

    async def answer(self) -> str:
        while self.unsent:
            await trio.lowlevel.wait_writable(self.sock)
            self.send_more()
        while b"\n" not in self.received:
            await self.watch.wait_readable()
            with suppress(BlockingIOError):
                self.take(self.sock.recv(SIZE))
        answer, _, self.received = self.received.partition(b"\n")
        self.owed -= 1
        return answer.decode()

    async def ask(self, question: str) -> str:
        self.send(question)
        return await self.answer()


@attrs.frozen
class ShoutingAdapter(Adapter[Connection]):
    """Connects to a shouting server."""

    host: str
    port: int

    async def open(self) -> Connection:
        stream = await trio.open_tcp_stream(self.host, self.port)
        return Connection(socket.socket(fileno=stream.socket.detach()))

    async def close(self, resource: Connection) -> None:
        resource.watch.close()  # before the socket, or whoever waits for it waits for ever
        resource.sock.close()
        await trio.lowlevel.checkpoint()

    async def validate(self, resource: Connection) -> None:
        await resource.ask("are you there?")

    async def reset(self, resource: Connection) -> None:
        while resource.owed:  # by a borrower who was cancelled, perhaps before all was sent
            await resource.answer()

    def is_clean(self, resource: Connection) -> bool:
        return not (resource.owed or resource.received or resource.watch.is_readable())

    def verdict(self, error: BaseException) -> Verdict:
        return Verdict.KEEP  # whatever it was, is_clean and reset find out what it did to the connection


async def ask(pool: respool.Pool[Connection], question: str) -> str:
    async with pool.acquire(on_lent=lambda connection: connection.send(question)) as connection:
        data = connection.watch.read_if_likely(connection.sock.recv, SIZE)
        if data is not None:  # b"" is the end of the stream, which take() tells; None means to go on and wait
            connection.take(data)
        return await connection.answer()


async def shout_back(stream: trio.SocketStream) -> None:
    line = b""
    async for data in stream:
        line += data
        if line.endswith(b"\n"):
            await trio.sleep(0.01)
            await stream.send_all(line.upper())
            line = b""


async def main() -> None:
    async with trio.open_nursery() as server:
        listener, *_ = await server.start(partial(trio.serve_tcp, shout_back, 0, host="127.0.0.1"))
        adapter = ShoutingAdapter("127.0.0.1", listener.socket.getsockname()[1])
        async with respool.open_pool(adapter, max_size=1) as pool:
            with trio.move_on_after(0.005):
                await ask(pool, "whose answer is this?")
            print(await ask(pool, "mine"))
            print(len(await ask(pool, "more than fits into one send" * 100_000)))
            print("opened:", pool.statistics().opened)
        server.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
