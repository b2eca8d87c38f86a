"""Programs written for httpx or httpx2, on a pool: everything as they know it."""

from __future__ import annotations

import gzip
import math
import ssl
from collections.abc import AsyncIterator
from functools import partial
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
import respool_http.httpx
import respool_http.httpx2
import trio
import trustme
from respool_http import HTTPPool, ProtocolError, open_http_pool
from trio.testing import MockClock, wait_all_tasks_blocked

from .scripted import OK, Peer, always, once, serve


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    return {"httpx": httpx, "httpx2": httpx2}[request.param]


@pytest.fixture
async def pool() -> AsyncIterator[HTTPPool]:
    async with open_http_pool(max_size=5, max_per_origin=1) as pool:
        yield pool


@pytest.fixture
async def client(pool: HTTPPool, library: ModuleType) -> AsyncIterator[Any]:
    async with new_client(pool, library) as client:
        yield client


def new_client(pool: HTTPPool, library: ModuleType, **options: Any) -> Any:
    transport = {httpx: respool_http.httpx, httpx2: respool_http.httpx2}[library].PoolTransport(pool)
    return library.AsyncClient(transport=transport, **options)


def response(body: bytes, *fields: bytes, status: bytes = b"200 OK") -> bytes:
    lines = b"".join(field + b"\r\n" for field in fields)
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), lines, body)


# What programs do


async def test_redirects_cookies_content_codings_and_json(client: Any, nursery: trio.Nursery) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            heads.append(head)
            if b"/start" in head:
                fields = (b"Location: /end", b"Set-Cookie: taste=sweet")
                await peer.send(response(b"", *fields, status=b"302 Found"))
            else:
                await peer.send(response(gzip.compress(b'{"a": 1}'), b"Content-Encoding: gzip"))

    url = await serve(nursery, script)
    answer = await client.get(url + "/start", params={"q": "a b"}, follow_redirects=True)
    assert answer.json() == {"a": 1}
    assert answer.http_version == "HTTP/1.1"
    assert answer.reason_phrase == "OK"
    assert [step.status_code for step in answer.history] == [302]
    assert heads[0].startswith((b"GET /start?q=a%20b HTTP/1.1\r\n", b"GET /start?q=a+b HTTP/1.1\r\n"))
    assert b"\r\ncookie: taste=sweet\r\n" in heads[1].lower()
    assert b"chunked" not in heads[1].lower()


async def test_bodies_of_every_kind(client: Any, nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            body = b""
            if b"chunked" in head:
                while chunk := await peer.read_chunk():
                    body += chunk
            else:
                size = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                body = await peer.read_exactly(int(size))
            await peer.send(response(body))

    url = await serve(nursery, script)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"bc"

    assert (await client.post(url, content=b"bytes")).content == b"bytes"
    assert (await client.post(url, content=pieces())).content == b"abc"
    assert (await client.post(url, content=pieces(), headers={"Content-Length": "3"})).content == b"abc"
    assert (await client.post(url, data={"a": "b"})).content == b"a=b"
    assert b"file content" in (await client.post(url, files={"f": b"file content"})).content


async def test_a_response_is_streamed_and_its_connection_then_serves_others(
    client: Any, pool: HTTPPool, nursery: trio.Nursery
) -> None:
    numbers = []
    received = trio.Semaphore(0)

    async def script(peer: Peer) -> None:
        while await peer.read_head():
            numbers.append(peer.number)
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await received.acquire()
            await peer.send(b"1\r\nb\r\n0\r\n\r\n")

    url = await serve(nursery, script)
    for _ in range(2):
        async with client.stream("GET", url) as answer:
            pieces = []
            async for piece in answer.aiter_bytes():
                pieces.append(piece)
                received.release()
            assert pieces == [b"a", b"b"]
        received = trio.Semaphore(0)
    assert numbers == [1, 1]
    async with client.stream("GET", url):
        pass  # its body unread
    received.release()
    received.release()
    assert (await client.get(url)).content == b"ab"
    assert numbers == [1, 1, 1, 2]


async def test_a_cancelled_request_gives_its_connection_back(
    client: Any, pool: HTTPPool, nursery: trio.Nursery
) -> None:
    async def script(peer: Peer) -> None:
        while await peer.read_head():
            if peer.number == 1:
                await trio.sleep_forever()
            await peer.send(OK)

    url = await serve(nursery, script)
    with trio.move_on_after(0.05):
        await client.get(url)
    assert (await client.get(url)).content == b"ok"


# Errors and timeouts


async def test_errors_are_theirs(client: Any, library: ModuleType, nursery: trio.Nursery) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        for url, options, error in (
            (nobody, {}, library.ConnectError),
            (await serve(nursery, once(b"garbage")), {}, library.RemoteProtocolError),
            (await serve(nursery, silent_end), {}, library.RemoteProtocolError),
            (await serve(nursery, always(OK)), {"headers": {"a": "b\r\nc: d"}}, library.LocalProtocolError),
            (await serve(nursery, always(OK)), {"content": short_body(), **DECLARED}, library.LocalProtocolError),
        ):
            with pytest.raises(error) as caught:
                await client.post(url, **options)
            assert caught.value.request.url == url
            assert caught.value.__cause__ is not None
    with pytest.raises(library.UnsupportedProtocol):
        await client.get("ftp://example.com")


DECLARED = {"headers": {"Content-Length": "5"}}


async def short_body() -> AsyncIterator[bytes]:
    yield b"abc"


async def silent_end(peer: Peer) -> None:
    await peer.read_head()


async def test_an_error_in_the_middle_of_a_body(client: Any, library: ModuleType, nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")

    url = await serve(nursery, script)
    with pytest.raises(library.RemoteProtocolError, match="2 bytes before the end"):
        await client.get(url)
    with pytest.raises(library.RemoteProtocolError, match="2 bytes before the end"):
        await client.get(url)


async def test_what_the_callers_body_raises_stays_as_it_is(client: Any, nursery: trio.Nursery) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"a"
        raise OSError("a file of theirs")

    with pytest.raises(OSError, match="theirs"):
        await client.post(await serve(nursery, once(b"")), content=broken())


async def until(clock: MockClock, seconds: float) -> None:
    await wait_all_tasks_blocked(0.05)
    clock.jump(seconds)


@pytest.mark.parametrize("timeout", ["read", "write", "pool"])
async def test_timeouts_are_theirs(
    client: Any, library: ModuleType, nursery: trio.Nursery, mock_clock: MockClock, timeout: str
) -> None:
    """``pool`` is what a request waits for while all connections are lent, and ``connect`` has no say in it."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    url = await serve(nursery, script)
    limits = dict.fromkeys(("connect", "read", "write", "pool"), math.inf) | {timeout: 3.0}
    if timeout == "pool":
        limits["connect"] = 1.0
        nursery.start_soon(client.post, url)
        await wait_all_tasks_blocked(0.05)
    error = {"read": library.ReadTimeout, "write": library.WriteTimeout, "pool": library.PoolTimeout}[timeout]

    async def post() -> None:
        content = bytes(40_000_000) if timeout == "write" else b""
        with pytest.raises(error):
            await client.post(url, content=content, timeout=library.Timeout(**limits))
        assert mock_clock.current_time() == 3

    async with trio.open_nursery() as posting:
        posting.start_soon(post)
        await until(mock_clock, 2)
        await until(mock_clock, 1)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("pool_timeout", [1.0, None])
async def test_a_server_that_never_shakes_hands(
    client: Any,
    library: ModuleType,
    nursery: trio.Nursery,
    mock_clock: MockClock,
    pool_timeout: float | None,
) -> None:
    """``connect`` is what a request waits for while a connection is opened, and ``pool`` has no say in it."""

    async def script(peer: Peer) -> None:
        while await peer.receive():
            pass

    url = (await serve(nursery, script)).replace("http:", "https:")

    async def get() -> None:
        with pytest.raises(library.ConnectTimeout):
            await client.get(url, timeout=library.Timeout(None, connect=3, pool=pool_timeout))
        assert mock_clock.current_time() == 3

    async with trio.open_nursery() as getting:
        getting.start_soon(get)
        await until(mock_clock, 2)
        await until(mock_clock, 1)


async def test_a_fresh_connection_in_place_of_a_stale_one_is_waited_for_as_long(
    unnoticed: None, library: ModuleType, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """The server drops a kept connection before the next request arrives, and never accepts another."""
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    handshakes = trio.Semaphore(1)

    async def script(stream: trio.SocketStream) -> None:
        await handshakes.acquire()
        peer = Peer(trio.SSLStream(stream, server_context, server_side=True, https_compatible=True), 0)
        await peer.read_head()
        await peer.send(OK)
        await trio.aclose_forcefully(stream)

    listeners = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), script, 0)
    url = f"https://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with open_http_pool(ssl_context=client_context) as pool, new_client(pool, library) as client:
        assert (await client.get(url)).content == b"ok"
        await wait_all_tasks_blocked()

        async def get() -> None:
            with pytest.raises(library.ConnectTimeout):
                await client.get(url, timeout=library.Timeout(None, connect=3))
            assert mock_clock.current_time() == 3

        async with trio.open_nursery() as getting:
            getting.start_soon(get)
            await until(mock_clock, 3)
    nursery.cancel_scope.cancel()


async def test_a_pool_that_revokes_leases_will_not_do(library: ModuleType) -> None:
    async with open_http_pool(max_hold=1.0) as pool:
        with pytest.raises(ValueError, match="max_hold"):
            new_client(pool, library)


# Extensions


async def test_extensions(client: Any, nursery: trio.Nursery) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            heads.append(head)
            await peer.send(b"HTTP/1.0 200 Fine\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")

    url = await serve(nursery, script)
    answer = await client.get(url, extensions={"target": b"/*special*"})
    assert heads[0].startswith(b"GET /*special* HTTP/1.1\r\n")
    assert answer.extensions["http_version"] == b"HTTP/1.0"
    assert answer.extensions["reason_phrase"] == b"Fine"
    network = answer.extensions["network_stream"]
    assert network.get_extra_info("server_addr") == ("127.0.0.1", int(url.rpartition(":")[2]))
    assert network.get_extra_info("client_addr")[0] == "127.0.0.1"
    assert network.get_extra_info("ssl_object") is None
    assert network.get_extra_info("socket") is not None
    assert network.get_extra_info("is_readable") is False
    assert network.get_extra_info("else") is None
    with pytest.raises(RuntimeError, match="still speaks HTTP"):
        await network.read(1)


class Log:
    """A ``trace`` function that takes notes."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    async def __call__(self, event: str, info: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.events.append((event, info))

    @property
    def names(self) -> list[str]:
        return [event.removeprefix("http11.") for event, _ in self.events]


def started_and(end: str, *steps: str) -> list[str]:
    return [f"{step}.{when}" for step in steps for when in ("started", end)]


SENT = started_and("complete", "send_request_headers", "send_request_body")
WHOLE = started_and("complete", "receive_response_headers", "receive_response_body", "response_closed")


async def test_a_trace_is_told_of_every_step_as_it_is_taken(client: Any, nursery: trio.Nursery) -> None:
    """And in httpcore's words."""
    log = Log()
    seen: list[list[str]] = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            if b"chunked" in head:
                assert await peer.read_chunk() == b"a"
                seen.append(log.names)
                assert await peer.read_chunk() == b""
            await wait_all_tasks_blocked(0.01)
            seen.append(log.names)
            await peer.send(OK)

    url = await serve(nursery, script)
    received_nothing = [*SENT, "receive_response_headers.started"]
    response = await client.get(url, extensions={"trace": log})
    assert seen == [received_nothing]
    assert log.names == [*SENT, *WHOLE]
    assert [info["request"] for event, info in log.events if event.endswith("started")] == [response.request] * 5
    results = [info["return_value"] for event, info in log.events if event.endswith("complete")]
    assert results == [None, None, (b"HTTP/1.1", 200, b"OK", response.headers.raw), None, None]

    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        await wait_all_tasks_blocked(0.01)

    log.events.clear()
    await client.post(url, content=body(), extensions={"trace": log})
    assert seen[1:] == [SENT[:-1], received_nothing]
    assert log.names == [*SENT, *WHOLE]


async def test_a_trace_is_told_of_failures_and_of_what_is_sent_once_more(
    unnoticed: None, client: Any, library: ModuleType, nursery: trio.Nursery
) -> None:
    seen = 0

    async def script(peer: Peer) -> None:
        nonlocal seen
        while await peer.read_head():
            seen += 1
            await peer.send([OK, OK, OK[:-1], b"garbage"][seen - 1])
            if seen in {1, 3}:
                return

    url = await serve(nursery, script)
    await client.get(url)
    await wait_all_tasks_blocked()
    log = Log()
    await client.get(url, extensions={"trace": log})
    failed = [*SENT, *started_and("failed", "receive_response_headers")]
    assert log.names == [*failed, *SENT, *WHOLE]
    log.events.clear()
    with pytest.raises(library.RemoteProtocolError):
        await client.get(url, extensions={"trace": log})
    assert log.names == [*SENT, *WHOLE[:3], "receive_response_body.failed", *WHOLE[4:]]
    log.events.clear()
    with pytest.raises(library.RemoteProtocolError):
        await client.get(url, extensions={"trace": log})
    assert log.names == failed
    assert isinstance(log.events[-1][1]["exception"], ProtocolError)


@pytest.mark.parametrize("event", [*SENT, *WHOLE])
async def test_a_trace_that_raises_costs_no_connection_for_good(
    client: Any, pool: HTTPPool, nursery: trio.Nursery, event: str
) -> None:
    """The lease ends all the same, and the next request is served."""

    async def trace(told: str, _info: object) -> None:
        if told == f"http11.{event}":
            raise ZeroDivisionError

    url = await serve(nursery, always(OK))
    with pytest.raises(ZeroDivisionError):
        await client.get(url, extensions={"trace": trace})
    assert (await client.get(url)).content == b"ok"
    (statistics,) = pool.connections.statistics().keys.values()
    assert statistics.lent == 0


async def test_an_upgraded_connection(client: Any, library: ModuleType, nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhi")
        while data := await peer.receive():
            await peer.send(data)

    url = await serve(nursery, script)
    async with client.stream("GET", url, headers={"Connection": "Upgrade", "Upgrade": "echo"}) as answer:
        assert answer.status_code == 101
        network = answer.extensions["network_stream"]
        assert await network.read(10) == b"hi"
        await network.write(b"raw", timeout=1)
        assert await network.read(10, timeout=1) == b"raw"
        with pytest.raises(library.ReadTimeout):
            await network.read(10, timeout=0)
        await network.aclose()
        with pytest.raises(library.ReadError):
            await network.read(10)
        with pytest.raises(library.WriteError):
            await network.write(b"x")


async def test_tls_with_the_name_of_an_extension(library: ModuleType, nursery: trio.Nursery) -> None:
    authority = trustme.CA()
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("respool.example").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    url = await serve(nursery, always(OK), context=server_context)
    async with open_http_pool(ssl_context=client_context) as pool, new_client(pool, library) as client:
        answer = await client.get(url, extensions={"sni_hostname": "respool.example"})
        assert answer.content == b"ok"
        assert isinstance(answer.extensions["network_stream"].get_extra_info("ssl_object"), ssl.SSLSocket)
        with pytest.raises(library.ConnectError, match="certificate"):
            await client.get(url)
