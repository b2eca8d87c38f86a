"""A pool of anything that can be opened and closed: here, of streams to a server that shouts back."""

from __future__ import annotations

from functools import partial

import trio

import respool


async def shout_back(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data.upper())


async def ask(pool: respool.Pool[trio.SocketStream], question: str) -> None:
    async with pool.acquire() as stream:
        await stream.send_all(question.encode())
        print((await stream.receive_some()).decode())


async def main() -> None:
    async with trio.open_nursery() as server:
        listener, *_ = await server.start(partial(trio.serve_tcp, shout_back, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]

        adapter = respool.adapter(
            open=partial(trio.open_tcp_stream, "127.0.0.1", port),
            close=trio.aclose_forcefully,
            name="shouting",
        )
        async with respool.open_pool(adapter, max_size=3) as pool:
            async with trio.open_nursery() as nursery:
                for i in range(20):
                    nursery.start_soon(ask, pool, f"question {i}")
            print("opened:", pool.statistics().opened)

        server.cancel_scope.cancel()


trio.run(main)
