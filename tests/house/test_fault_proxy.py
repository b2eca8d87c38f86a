"""The fault proxy does to a connection what it says, and nothing else."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator

import attrs
import pytest
import trio
import trio.testing

from tests.fault_proxy import PASS, Fault, FaultProxy


@attrs.define(eq=False)
class Echo:
    """A server that sends back what it gets, and remembers it."""

    port: int
    received: bytearray = attrs.field(factory=bytearray)

    async def handle(self, stream: trio.SocketStream) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in stream:
                self.received += data
                await stream.send_all(data)


@pytest.fixture
async def echo(nursery: trio.Nursery) -> Echo:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    echo = Echo(listeners[0].socket.getsockname()[1])
    nursery.start_soon(functools.partial(trio.serve_listeners, echo.handle, listeners))
    return echo


@pytest.fixture
async def proxy(echo: Echo, nursery: trio.Nursery) -> FaultProxy:
    proxy = FaultProxy("127.0.0.1", echo.port)
    await nursery.start(proxy.serve)
    return proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[trio.SocketStream]:
    async with await connect(proxy) as stream:
        yield stream


async def connect(proxy: FaultProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream(proxy.host, proxy.port)


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    with trio.fail_after(5):
        while len(data) < count:
            chunk = await stream.receive_some(count - len(data))
            if not chunk:
                break
            data += chunk
    return data


async def test_passes_bytes_and_goodbyes(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """Without a fault everything arrives, a half-closed connection included."""
    big = bytes(range(256)) * 4000
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, big)
        assert await exactly(client, len(big)) == big
    await client.send_eof()
    assert await exactly(client, 1) == b""
    await trio.testing.wait_all_tasks_blocked()
    assert (proxy.accepted, proxy.open) == (1, 0)


async def test_silence_holds_bytes_back_until_it_is_over(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """Nothing arrives while the network is silent, on old and new connections; all of it does afterwards."""
    await client.send_all(b"a")
    assert await exactly(client, 1) == b"a"
    proxy.fault = Fault(silent=True)
    await client.send_all(b"b")
    async with await connect(proxy) as another:
        await another.send_all(b"c")
        with trio.move_on_after(0.05) as silence:
            await client.receive_some(1)
        assert silence.cancelled_caught
        proxy.fault = PASS
        assert await exactly(client, 1) == b"b"
        assert await exactly(another, 1) == b"c"


@pytest.mark.parametrize("count", [0, 1, 5])
async def test_cuts_replies_after_so_many_bytes(client: trio.SocketStream, proxy: FaultProxy, count: int) -> None:
    """The client gets exactly that many bytes, and then a reset."""
    proxy.fault = Fault(cut_to_client=count)
    await client.send_all(b"0123456789")
    assert await exactly(client, count) == b"0123456789"[:count]
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
        await client.receive_some(1)


async def test_cuts_requests_after_so_many_bytes(client: trio.SocketStream, proxy: FaultProxy, echo: Echo) -> None:
    """The server gets exactly that many bytes; a polite cut looks like a goodbye."""
    proxy.fault = Fault(cut_to_server=4, polite=True)
    await client.send_all(b"0123456789")
    with trio.fail_after(5):
        while await client.receive_some(100):
            pass
    assert echo.received == b"0123"


async def test_reset_all_resets_and_new_connections_work(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """A reset ends what is open, and nothing else."""
    await client.send_all(b"a")
    await exactly(client, 1)
    proxy.reset_all()
    with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
        await client.receive_some(1)
    async with await connect(proxy) as another:
        await another.send_all(b"b")
        assert await exactly(another, 1) == b"b"


async def test_refuses_and_listens_again(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """Refusing concerns new connections only, and keeps the port."""
    proxy.refuse()
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match="all attempts to connect"):
        await connect(proxy)
    await client.send_all(b"a")
    assert await exactly(client, 1) == b"a"
    proxy.listen()
    await trio.testing.wait_all_tasks_blocked()
    await (await connect(proxy)).aclose()


async def test_latency_delays_without_limiting_bandwidth(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """Twenty requests one after the other wait twenty times; twenty at once wait once."""
    proxy.fault = Fault(latency=0.1)
    start = trio.current_time()
    for _ in range(20):
        await client.send_all(b"x")
        await trio.lowlevel.checkpoint()
    await exactly(client, 20)
    together = trio.current_time() - start
    assert 0.2 <= together < 4


async def test_throttle_limits_bandwidth(client: trio.SocketStream, proxy: FaultProxy) -> None:
    """A thousand bytes at ten thousand a second take a tenth of a second."""
    proxy.fault = Fault(bytes_per_second=10_000)
    start = trio.current_time()
    await client.send_all(bytes(1000))
    await exactly(client, 1000)
    assert trio.current_time() - start >= 0.09


def test_redirect_keeps_the_rest_of_the_url() -> None:
    """Only host and port change."""
    proxy = FaultProxy("127.0.0.1", 1)
    redirected = proxy.redirect("postgresql://user:secret@127.0.0.1:1/name?x=1")
    assert redirected == f"postgresql://user:secret@127.0.0.1:{proxy.port}/name?x=1"
    proxy._reservation.close()
