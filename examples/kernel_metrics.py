"""Metrics for Prometheus, served by Trio itself next to the application's own requests."""

from __future__ import annotations

from functools import partial

import trio
from prometheus_client import CollectorRegistry, generate_latest

import respool
from respool.prometheus import PoolCollector

registry = CollectorRegistry()
collector = PoolCollector(registry)  # one for all pools


async def open_one() -> object:
    await trio.sleep(0.01)
    return object()


async def close_one(_: object) -> None:
    await trio.lowlevel.checkpoint()


async def serve(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()  # whatever is asked for
        page = generate_latest(registry)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n\r\n" + page)


async def scrape(port: int) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\n\r\n")
        page = b"".join([chunk async for chunk in stream]).decode()
    print(*(line for line in page.splitlines() if line.startswith(("respool_resources", "respool_waiting"))), sep="\n")


async def work(pool: respool.Pool[object]) -> None:
    async with pool.acquire():
        await trio.sleep(0.2)


async def main() -> None:
    adapter = respool.adapter(open=open_one, close=close_one)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with (
            respool.open_pool(adapter, name="shop", max_size=2, instruments=[collector]) as pool,
            trio.open_nursery() as workers,
        ):
            for _ in range(5):
                workers.start_soon(work, pool)
            await trio.sleep(0.1)
            await scrape(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


trio.run(main)
