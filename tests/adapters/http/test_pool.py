"""Requests through a pool: what it repeats, and what it must not."""

from __future__ import annotations

import math
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from respool_http import (
    Body,
    Connection,
    HTTPAdapter,
    HTTPPool,
    InvalidRequest,
    Origin,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    open_http_pool,
)
from respool_http._pool import PooledRequest
from respool_http._request import write_request
from trio.testing import MockClock, wait_all_tasks_blocked

import respool
from respool.opentelemetry import PoolMetrics
from respool.testing import cancel_everywhere

from .scripted import OK, Peer, Script, always, connected, serve


@pytest.fixture
async def pool() -> AsyncIterator[HTTPPool]:
    async with open_http_pool(max_size=5, max_per_origin=2) as pool:
        yield pool


async def test_a_whole_response(pool: HTTPPool, nursery: trio.Nursery) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            heads.append(head)
            assert await peer.read_exactly(4) == b"body"
            await peer.send(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX: y\r\n\r\nok")

    url = await serve(nursery, script)
    response = await pool.request("POST", url + "/path?query#fragment", headers={"A": "b"}, body="body")
    assert (response.status_code, response.headers["x"], response.content, response.text) == (201, "y", b"ok", "ok")
    assert heads[0].startswith(b"POST /path?query HTTP/1.1\r\nHost: 127.0.0.1:")


async def test_a_body_unread(pool: HTTPPool, nursery: trio.Nursery) -> None:
    url = await serve(nursery, always(OK))
    async with pool.stream("GET", url) as response:
        assert [piece async for piece in response] == [b"ok"]


async def test_a_body_that_the_server_cuts_short_is_let_go_with_the_block(
    pool: HTTPPool, nursery: trio.Nursery
) -> None:
    """The caller's generator runs its ``finally`` then, not when garbage is collected."""
    ended = False

    async def endless() -> AsyncIterator[bytes]:
        nonlocal ended
        try:
            while True:
                yield b"x"
        finally:
            ended = True

    url = await serve(nursery, always(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"))
    response = await pool.request("POST", url, body=endless())
    assert response.status_code == 413
    assert ended


async def test_the_connection_itself(pool: HTTPPool, nursery: trio.Nursery) -> None:
    url = await serve(nursery, always(OK))
    for origin in (url, Origin.parse(url)):
        async with pool.acquire(origin) as connection:
            for _ in range(2):
                async with connection.request("GET", "/") as response:
                    assert await response.aread() == b"ok"


async def test_connections_are_kept_by_origin_and_bounded(pool: HTTPPool, nursery: trio.Nursery) -> None:
    """Two for each of two origins, whoever asks; and all four are idle afterwards, ready for the next."""
    now = [0, 0]
    peak = [0, 0]
    opened: list[tuple[int, int]] = []

    def counting(server: int) -> Script:
        async def script(peer: Peer) -> None:
            opened.append((server, peer.number))
            while await peer.read_head():
                now[server] += 1
                peak[server] = max(peak[server], now[server])
                await trio.sleep(0.005)
                now[server] -= 1
                await peer.send(OK)

        return script

    urls = [await serve(nursery, counting(server)) for server in range(2)]
    for _ in range(2):
        async with trio.open_nursery() as requesting:
            for number in range(20):
                requesting.start_soon(pool.request, "GET", urls[number % 2])
    assert peak == [2, 2]
    assert sorted(opened) == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    "url", ["", "/path", "example.com", "ftp://example.com", "http://a b", "http://user:secret@example.com"]
)
async def test_what_is_not_a_url(pool: HTTPPool, url: str) -> None:
    with pytest.raises(InvalidRequest, match="URL") as caught:
        await pool.request("GET", url)
    assert "secret" not in str(caught.value)


async def test_an_origin_nobody_serves_is_an_error_at_once(pool: HTTPPool) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        for _ in range(2):  # the second time without even asking
            with pytest.raises(
                respool.OpenFailed, match="cannot open a resource, and the pool is to fail fast"
            ) as caught:
                await pool.request("GET", f"http://127.0.0.1:{port}/")
            assert isinstance(caught.value.__cause__, OSError)


async def test_an_origin_may_be_waited_for(nursery: trio.Nursery) -> None:
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        async with open_http_pool(fail_fast=False) as pool:
            with pytest.raises(respool.PoolTimeout, match=r"ConnectionRefusedError: .* refused: '127"):
                await pool.request("GET", url, acquire_timeout=0.3)


async def test_as_many_connections_are_opened_at_a_time_as_an_origin_may_have(nursery: trio.Nursery) -> None:
    """A server that is slow to accept, and keeps nothing alive, would otherwise be asked for three at a time."""
    all_there = trio.Event()

    async def proxy(peer: Peer) -> None:
        await peer.read_head()
        if peer.number == 10:
            all_there.set()
        await all_there.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await always(OK)(peer)

    async with open_http_pool(proxy=await serve(nursery, proxy)) as pool, trio.open_nursery() as requests:
        for _ in range(10):
            requests.start_soon(pool.request, "GET", "http://origin.test")


async def test_instruments_are_told_of_every_origin(nursery: trio.Nursery) -> None:
    told = []

    class Told(respool.Instrument):
        def opened(self, pool: respool.Pool[Any], took: float) -> None:
            told.append(pool.name)

    urls = [await serve(nursery, always(OK)) for _ in range(2)]
    async with open_http_pool(instruments=[Told()]) as pool:
        for url in urls:
            await pool.request("GET", url)
    assert [f"http://{name}" for name in told] == urls


# What is repeated


class Stale:
    """Answers a connection's first request and closes it; from the second connection on it serves properly."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, bytes]] = []

    async def __call__(self, peer: Peer) -> None:
        while head := await peer.read_head():
            self.requests.append((peer.number, head.split()[0]))
            await peer.send(OK[:-2] if head.startswith(b"HEAD") else OK)
            if peer.number == 1:
                return


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_an_idempotent_request_that_has_not_reached_the_server_is_sent_once_more(
    unnoticed: None, pool: HTTPPool, nursery: trio.Nursery, method: str
) -> None:
    server = Stale()
    url = await serve(nursery, server)
    await pool.request("GET", url)
    await wait_all_tasks_blocked()
    async with pool.stream(method, url) as response:
        assert response.status_code == 200
    assert server.requests == [(1, b"GET"), (2, method.encode())]


async def numbers() -> AsyncIterator[bytes]:
    yield b"12"


@pytest.mark.parametrize(
    ("method", "body", "sent"), [("POST", None, True), ("PATCH", b"12", True), ("PUT", "an iterator", False)]
)
async def test_what_was_sent_is_not_sent_again_if_that_may_do_harm(
    unnoticed: None, pool: HTTPPool, nursery: trio.Nursery, method: str, body: Body, sent: bool
) -> None:
    """That a server's TCP has not acknowledged it does not prove that nobody has read it; an iterator is used up."""
    server = Stale()
    url = await serve(nursery, server)
    await pool.request("GET", url)
    await wait_all_tasks_blocked()
    with pytest.raises(ServerDisconnected) as caught:
        await pool.request(method, url, body=numbers() if body == "an iterator" else body, retries=3)
    assert (caught.value.sent, caught.value.answered, caught.value.reached) == (sent, False, False)
    assert server.requests == [(1, b"GET")]
    assert (await pool.request("GET", url)).content == b"ok"


@pytest.mark.parametrize("half_an_answer", [b"", b"HTTP/1.1 200"])
async def test_a_request_that_has_reached_the_server_is_repeated_if_asked_for(
    pool: HTTPPool, nursery: trio.Nursery, half_an_answer: bytes
) -> None:
    """And not if part of its answer has come."""
    requests: list[int] = []

    async def script(peer: Peer) -> None:
        while await peer.read_head():
            requests.append(peer.number)
            if peer.number < 3 and requests.count(peer.number) == 2:
                await peer.send(half_an_answer)
                return
            await peer.send(OK)

    url = await serve(nursery, script)
    await pool.request("GET", url)
    with pytest.raises(ServerDisconnected) as caught:
        await pool.request("GET", url)
    assert (caught.value.sent, caught.value.answered, caught.value.reached) == (True, half_an_answer != b"", True)
    await pool.request("GET", url)
    assert requests == [1, 1, 2]
    if half_an_answer:
        with pytest.raises(ServerDisconnected):
            await pool.request("GET", url, retries=1)
        assert requests == [1, 1, 2, 2]
    else:
        assert (await pool.request("GET", url, retries=1)).content == b"ok"
        assert requests == [1, 1, 2, 2, 3]


async def test_a_waiting_request_is_sent_before_its_tasks_turn(pool: HTTPPool, nursery: trio.Nursery) -> None:
    """As soon as another task returns the connection, so that the answer is on its way meanwhile."""
    url = await serve(nursery, always(OK))
    async with pool.acquire(url) as other, pool.acquire(url) as connection:
        for target in ("/1", "/2"):
            nursery.start_soon(pool.request, "GET", url + target)
        await wait_all_tasks_blocked()
        assert connection.exchanges == 0
    assert (connection.exchanges, other.exchanges) == (1, 1)  # this task has not waited since
    assert not connection.is_clean()
    await wait_all_tasks_blocked(0.01)
    assert connection.is_clean()


async def test_cancelled_anywhere_requests_get_their_own_answers(nursery: trio.Nursery) -> None:
    """Whether they wait for a connection, are sent before their turn, or wait for the answer."""

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            target = head.split()[1]
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target))

    async def ask(target: str) -> None:
        assert (await pool.request("GET", url + target)).content == target.encode()

    async def operation() -> None:
        async with trio.open_nursery() as inner:
            for i in range(3):
                inner.start_soon(ask, f"/{i}")

    url = await serve(nursery, script)
    async with open_http_pool(max_per_origin=1) as pool:
        for _ in range(3):  # Trio runs the tasks in random order
            report = await cancel_everywhere(operation)
            assert report.points >= 5
        await ask("/last")
        statistics = pool.connections.statistics()
        assert (statistics.size, statistics.waiting) == (1, 0)


async def test_a_connection_vouched_for_is_asked_the_next_time(pool: HTTPPool, nursery: trio.Nursery) -> None:
    """What arrives after a response was read, in the pool or in a block, is nobody's answer."""
    go_on = trio.Event()
    numbers: list[int] = []

    async def script(peer: Peer) -> None:
        numbers.append(peer.number)
        while await peer.read_head():
            await peer.send(OK)
            await go_on.wait()
            await peer.send(OK.replace(b"ok", b"no"))

    url = await serve(nursery, script)
    assert (await pool.request("GET", url)).content == b"ok"
    go_on.set()
    await wait_all_tasks_blocked(0.01)
    async with pool.stream("GET", url) as response:
        assert await response.aread() == b"ok"
        await wait_all_tasks_blocked(0.01)
    assert (await pool.request("GET", url)).content == b"ok"
    assert numbers == [1, 2, 3]


async def test_what_cannot_be_sent_needs_no_connection(pool: HTTPPool) -> None:
    """Nobody serves this address."""
    for method, url, message in (("G ET", "http://127.0.0.1:1/", "method"), ("GET", "http://127.0.0.1:1/a b", "URL")):
        with pytest.raises(InvalidRequest, match=message):
            await pool.request(method, url)
    with pytest.raises(InvalidRequest, match="header name"):
        await pool.request("GET", "http://127.0.0.1:1/", headers={"a b": "c"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"header": {}}, "there is no option 'header'; use 'headers'"),
        ({"json": {}}, "no option 'json'; use 'body', with json.dumps"),
        ({"timeout": 3}, "no option 'timeout'; use trio.fail_after"),
        ({"quickly": True}, "no option 'quickly'$"),
        ({"retries": -1}, "retries must be an int >= 0, not -1"),
        ({"retries": "a"}, "retries must be an int"),
        ({"read_timeout": None}, "read_timeout must be a number of seconds >= 0, math.inf for no limit, not None"),
        ({"write_timeout": "1"}, "write_timeout must be a number"),
        ({"read_timeout": math.nan}, "read_timeout must be a number"),
    ],
)
async def test_an_option_of_a_request_that_is_none(pool: HTTPPool, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        await pool.request("GET", "http://127.0.0.1:1/", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_per_origin": 0}, "max_per_origin must be an int >= 1, not 0"),
        ({"proxy": "localhost:3128"}, "a proxy's URL must begin with http://"),
        ({"ssl_context": True}, "ssl_context must be SSLContext or None, not bool"),
        ({"uds": 5}, "uds must be str or None, not int"),
        ({"uds": "/none", "proxy": "http://localhost:1"}, "exclude each other"),
    ],
)
async def test_an_option_of_the_pool_that_is_none(options: Any, message: str) -> None:
    """Is told before the first request."""
    with pytest.raises((TypeError, ValueError), match=message):
        async with open_http_pool(**options):
            pass


async def test_why_a_server_cannot_be_reached_is_in_the_text(pool: HTTPPool, caplog: pytest.LogCaptureFixture) -> None:
    """And not in the log as well, because somebody has been told."""
    with pytest.raises(respool.OpenFailed, match=r"ConnectionRefusedError: .*Connection refused: '127.0.0.1:1'"):
        await pool.request("GET", "http://127.0.0.1:1/")
    async with open_http_pool(uds="/no/such/socket") as other:
        with pytest.raises(respool.OpenFailed, match=r"FileNotFoundError: .*'/no/such/socket'"):
            await other.request("GET", "http://localhost/")
    assert not caplog.records
    assert "1 keys" in repr(pool) or "0 keys" in repr(pool)


class Leaver:
    """Closes a connection together with the last of so many answers, of which it says nothing."""

    def __init__(self, answers: int) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self._answers = answers

    async def __call__(self, peer: Peer) -> None:
        for answer in range(1, self._answers + 1):
            head = await peer.read_head()
            if not head:
                return
            while head.startswith(b"PUT") and await peer.read_chunk():
                pass
            self.seen.append((peer.number, head.split()[0]))
            assert isinstance(peer.stream, trio.SocketStream)
            peer.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, answer == self._answers)
            await peer.send(OK)


@pytest.mark.parametrize("answers", [1, 2])
@pytest.mark.parametrize(("method", "body"), [("POST", None), ("PUT", "an iterator"), ("GET", None)])
async def test_a_server_that_closes_without_a_word_is_noticed_in_time(
    nursery: trio.Nursery, method: str, body: Body, answers: int
) -> None:
    """Before anything is sent that cannot be sent again, even if a connection goes straight to the next request."""
    server = Leaver(answers)
    url = await serve(nursery, server)
    async with open_http_pool(max_per_origin=1) as pool, trio.open_nursery() as requests:
        for _ in range(6):
            content = numbers() if body == "an iterator" else body
            requests.start_soon(partial(pool.request, method, url, body=content))
    assert sorted(server.seen) == sorted((1 + i // answers, method.encode()) for i in range(6))


async def test_a_server_that_keeps_nothing_alive_without_a_word(nursery: trio.Nursery) -> None:
    """Its connections are not even lent on."""

    async def ask() -> None:
        async with pool.acquire(url) as connection, connection.request("POST", "/") as response:
            assert await response.aread() == b"ok"

    url = await serve(nursery, Leaver(1))
    async with open_http_pool(max_per_origin=1) as pool, trio.open_nursery() as requests:
        for _ in range(3):
            requests.start_soon(pool.request, "GET", url)
            requests.start_soon(ask)


class Lender:
    """Lends one connection, as a keyed pool does, whatever state it is in."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    @asynccontextmanager
    async def acquire(
        self, *_: object, on_lent: Callable[[Connection], object], **__: object
    ) -> AsyncIterator[Connection]:
        try:
            raise ValueError("what ended the block of the task that returned it")
        except ValueError:
            on_lent(self.connection)
        yield self.connection


async def test_a_request_none_of_which_was_sent_is_repeated_whatever_it_is(
    pool: HTTPPool, nursery: trio.Nursery
) -> None:
    """The kernel knows already that the connection is gone, but nobody has looked since it was lent."""
    seen = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            seen.append((peer.number, head.split()[0]))
            await peer.send(OK)

    url = await serve(nursery, script)
    async with pool.acquire(url) as connection:
        async with connection.request("GET", "/") as response:
            await response.aread()
        connection.wire.socket.shutdown(socket.SHUT_RDWR)
        lender: Any = Lender(connection)
        post = write_request("POST", "/", b"example.com", None, b"")
        async with PooledRequest(lender, Origin.parse(url), post, acquire_timeout=1, connect_timeout=1) as response:
            assert await response.aread() == b"ok"
    assert seen == [(1, b"GET"), (2, b"POST")]


async def test_the_error_of_a_request_that_was_not_sent(nursery: trio.Nursery) -> None:
    """It tells nothing of another task's, and what it refers to does not wait for the garbage collector."""
    url = await serve(nursery, always(OK))
    async with connected(url) as connection:
        connection.wire.socket.shutdown(socket.SHUT_RDWR)
        lender: Any = Lender(connection)
        get = write_request("GET", "/", b"example.com", None, None)
        request = PooledRequest(lender, Origin.parse(url), get, acquire_timeout=1, connect_timeout=1)
        try:
            async with request:
                pass
        except ServerDisconnected as error:
            cause, freed = error.__cause__, weakref.ref(error)
        assert isinstance(cause, BrokenPipeError)
        assert cause.__context__ is None
        assert freed() is None


async def test_the_rest_of_a_request_that_broke_off_does_not_follow_its_repetition(
    nursery: trio.Nursery,
) -> None:
    """Where it broke off it was too large for the socket's buffer; a fresh connection takes it whole."""
    verbs: list[bytes] = []

    async def script(peer: Peer) -> None:
        if peer.number == 1:
            assert isinstance(peer.stream, trio.SocketStream)
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it ends in a reset
        while head := await peer.read_head():
            verbs.append(head.split()[0])
            if head.startswith(b"PUT"):
                if peer.number == 1:
                    return
                await peer.read_exactly(60000)
            await peer.send(OK)

    url = await serve(nursery, script)
    async with open_http_pool(max_per_origin=1) as pool:
        await pool.request("GET", url)
        async with pool.acquire(url) as connection:
            connection.wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await pool.request("PUT", url, body=bytes(60000))
        await pool.request("GET", url)
    assert verbs == [b"GET", b"PUT", b"PUT", b"GET"]


async def test_a_fresh_connection_is_not_retried_unless_asked_for(pool: HTTPPool, nursery: trio.Nursery) -> None:
    seen = 0

    async def script(peer: Peer) -> None:
        nonlocal seen
        while await peer.read_head():
            seen += 1
            if seen % 3:
                return
            await peer.send(OK)

    url = await serve(nursery, script)
    with pytest.raises(ServerDisconnected):
        await pool.request("GET", url)
    assert seen == 1
    assert (await pool.request("GET", url, retries=1)).content == b"ok"
    assert seen == 3
    for method, retries, attempts in (("GET", 1, 2), ("POST", 5, 1)):
        pool.connections.retire_all()
        seen = 0
        with pytest.raises(ServerDisconnected):
            await pool.request(method, url, retries=retries)
        assert seen == attempts


async def test_a_stale_connection_whose_server_is_gone_for_good(unnoticed: None, pool: HTTPPool) -> None:
    async with trio.open_nursery() as serving:
        url = await serve(serving, always(OK))
        await pool.request("GET", url)
        serving.cancel_scope.cancel()
    with pytest.raises(respool.OpenFailed) as caught:
        await pool.request("GET", url)
    assert isinstance(caught.value.__cause__, OSError)


async def test_timeouts_and_broken_answers_are_not_repeated(
    pool: HTTPPool, nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    seen = 0

    async def script(peer: Peer) -> None:
        nonlocal seen
        while await peer.read_head():
            seen += 1
            if seen == 2:
                await peer.send(b"garbage")
            elif seen == 1:
                await peer.send(OK)

    url = await serve(nursery, script)
    await pool.request("GET", url)
    with pytest.raises(ProtocolError):
        await pool.request("GET", url, retries=3)

    async def wait() -> None:
        with pytest.raises(ReadTimeout):
            await pool.request("GET", url, retries=3, read_timeout=1)

    async with trio.open_nursery() as waiting:
        waiting.start_soon(wait)
        await wait_all_tasks_blocked(0.01)
        mock_clock.jump(1)
    assert seen == 3


@pytest.mark.parametrize(
    ("origin", "address", "port"),
    [
        ("http://shop.example", "shop.example", 80),
        ("https://shop.example", "shop.example", 443),
        ("http://127.0.0.1:8080", "127.0.0.1", 8080),
        ("https://[::1]:8443", "::1", 8443),
    ],
)
async def test_metrics_name_the_server(origin: str, address: str, port: int) -> None:
    """As OpenTelemetry's conventions for HTTP require."""
    reader = InMemoryMetricReader()
    metrics = PoolMetrics(http=True, meter_provider=MeterProvider([reader], shutdown_on_exit=False))
    async with respool.open_pool(HTTPAdapter(origin), instruments=[metrics]):
        data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    (metric,) = (metric for metric in scope.metrics if metric.name == "http.client.active_requests")
    assert [point.attributes for point in metric.data.data_points] == [{"server.address": address, "server.port": port}]
