"""A whole adapter, for a server that answers each line with a line."""

from __future__ import annotations

import select
from functools import partial

import attrs
import trio

import respool
from respool import Adapter, Verdict


class Connection:
    """What borrowers get. It knows what it has begun and not finished, because it may be cancelled anywhere."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.sending = False
        self.owed = 0  # answers that the server will still send
        self.received = b""

    async def ask(self, question: str) -> str:
        self.sending = True
        await self.stream.send_all(question.encode() + b"\n")
        self.sending = False
        self.owed += 1
        return await self.read_answer()

    async def read_answer(self) -> str:
        while b"\n" not in self.received:
            data = await self.stream.receive_some()
            if not data:
                raise ConnectionError("the server has closed the connection")
            self.received += data
        answer, _, self.received = self.received.partition(b"\n")
        self.owed -= 1
        return answer.decode()

    def is_idle(self) -> bool:
        return not (self.sending or self.owed or self.received or is_readable(self.stream.socket))


def is_readable(socket: trio.socket.SocketType) -> bool:
    """Whether something has arrived unasked: bytes, or the end."""
    poll = select.poll()
    poll.register(socket.fileno(), select.POLLIN)
    return bool(poll.poll(0))


@attrs.frozen
class ShoutingAdapter(Adapter[Connection]):
    """Connects to a shouting server."""

    host: str
    port: int

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    async def open(self) -> Connection:
        return Connection(await trio.open_tcp_stream(self.host, self.port))

    async def close(self, resource: Connection) -> None:
        await trio.aclose_forcefully(resource.stream)

    async def validate(self, resource: Connection) -> None:
        await resource.ask("are you there?")

    async def reset(self, resource: Connection) -> None:
        if resource.sending:
            raise ConnectionError("half a question was sent")
        while resource.owed:
            await resource.read_answer()

    def is_clean(self, resource: Connection) -> bool:
        return resource.is_idle()

    def verdict(self, error: BaseException) -> Verdict:
        return Verdict.DISCARD if isinstance(error, (OSError, trio.BrokenResourceError)) else Verdict.KEEP


async def shout_back(stream: trio.SocketStream) -> None:
    async for data in stream:
        await trio.sleep(0.01)
        await stream.send_all(data.upper())


async def main() -> None:
    async with trio.open_nursery() as server:
        listener, *_ = await server.start(partial(trio.serve_tcp, shout_back, 0, host="127.0.0.1"))
        adapter = ShoutingAdapter("127.0.0.1", listener.socket.getsockname()[1])
        async with respool.open_pool(adapter, max_size=1) as pool:
            with trio.move_on_after(0.005):
                async with pool.acquire() as connection:
                    await connection.ask("whose answer is this?")
            async with pool.acquire() as connection:
                print(await connection.ask("mine"))
            print("opened:", pool.statistics().opened)
        server.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
