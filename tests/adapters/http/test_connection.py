"""One connection: bodies both ways, early answers, and when it may carry another exchange."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from contextlib import nullcontext

import pytest
import trio
from respool_http import (
    Connection,
    InvalidRequest,
    NotReusable,
    ProtocolError,
    ReadTimeout,
    ServerDisconnected,
    WriteTimeout,
)
from trio.testing import MockClock, wait_all_tasks_blocked

from respool.testing import cancel_everywhere

from .scripted import OK, Peer, always, connected, once, serve

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BIG = 40_000_000  # more than the kernel buffers between two loopback sockets


async def get(connection: Connection, target: str = "/") -> bytes:
    async with connection.request("GET", target) as response:
        return await response.aread()


# A response


async def test_a_request_and_its_response(nursery: trio.Nursery) -> None:
    heads = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())
        await peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain; charset=latin-1\r\n")
        await peer.send(b"Set-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 1\r\n\r\n\xe9")

    origin = await serve(nursery, script)
    async with connected(origin) as connection, connection.request("GET", "/x?y", headers={"A": "b"}) as response:
        assert heads == [b"GET /x?y HTTP/1.1\r\nHost: %b\r\nA: b\r\n\r\n" % origin[7:].encode()]
        assert (response.status_code, response.reason_phrase, response.http_version) == (404, "Not Found", "HTTP/1.1")
        with pytest.raises(RuntimeError, match="aread"):
            response.content  # noqa: B018
        assert await response.aread() == response.content == b"\xe9"
        assert response.text == "é"
        assert response.headers["content-type"] == "text/plain; charset=latin-1"
        assert response.headers["SET-COOKIE"] == "a=1, b=2"
        assert response.headers.get_list("Set-Cookie") == ["a=1", "b=2"]
        assert "a=1" not in repr(response.headers)
        assert "missing" not in response.headers


async def test_one_connection_carries_many_exchanges(nursery: trio.Nursery) -> None:
    async with connected(await serve(nursery, always(OK))) as connection:
        for number in range(1, 4):
            assert await get(connection) == b"ok"
            assert connection.exchanges == number
            assert connection.is_clean()


async def test_a_body_arrives_as_it_is_sent(nursery: trio.Nursery) -> None:
    """The next piece is not sent before the last one was received: nothing holds pieces back."""
    received = trio.Semaphore(0)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(CHUNKED)
        for piece in (b"1\r\na\r\n", b"2\r\nbc\r\n", b"0\r\nDigest: x\r\n\r\n"):
            await peer.send(piece)
            if piece[0:1] != b"0":
                await received.acquire()
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("GET", "/") as response:
            pieces = []
            async for piece in response:
                pieces.append(piece)
                received.release()
            assert pieces == [b"a", b"bc"]
            with pytest.raises(RuntimeError, match="already"):
                await response.aread()
            assert response.trailers["digest"] == "x"
            assert await response.receive_some() == b""
        assert connection.is_clean()


async def test_nothing_is_received_ahead_of_its_reader(nursery: trio.Nursery) -> None:
    """Back-pressure: an unread body stays with the server, apart from what the kernel buffers."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG)
        for _ in range(BIG // 1_000_000):
            await peer.send(bytes(1_000_000))
            sent += 1_000_000
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("GET", "/") as response:
            await wait_all_tasks_blocked(0.05)
            assert sent < BIG
            size = 0
            async for piece in response:
                size += len(piece)
            assert size == BIG
        assert connection.is_clean()


async def test_head_and_interim_responses(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        assert (await peer.read_head()).startswith(b"HEAD ")
        await peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await peer.read_head()
        await peer.send(OK)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("HEAD", "/") as response:
            assert response.headers["content-length"] == "5"
            assert await response.aread() == b""
        assert await get(connection) == b"ok"


# A request's body


async def echo(peer: Peer) -> None:
    """Sends chunked bodies back as they come, and says the length of others."""
    while head := await peer.read_head():
        if b"chunked" in head:
            await peer.send(CHUNKED)
            while chunk := await peer.read_chunk():
                await peer.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            await peer.send(b"0\r\n\r\n")
        else:
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await peer.read_exactly(length)
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%d" % (len(str(length)), length))


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.lowlevel.checkpoint()
        yield piece


async def test_bodies_of_every_kind(nursery: trio.Nursery) -> None:
    async with connected(await serve(nursery, echo)) as connection:
        for body, answer in (
            (b"bytes", b"5"),
            (bytearray(b"bytearray"), b"9"),
            (memoryview(b"view"), b"4"),
            ("tëxt", b"5"),
            (b"", b"0"),
            (bytes(3_000_000), b"3000000"),
            ([b"a", b"", b"bc"], b"abc"),
            ((piece for piece in (b"ab", b"c")), b"abc"),
            (in_pieces(b"a", b"", b"bc"), b"abc"),
            ([memoryview(b"abc")[1:]], b"bc"),
            ([], b""),
        ):
            async with connection.request("POST", "/", body=body) as response:  # type: ignore[arg-type]
                assert await response.aread() == answer
            assert connection.is_clean()
        headers = {"Content-Length": "3"}
        async with connection.request("POST", "/", headers=headers, body=in_pieces(b"a", b"bc")) as response:
            assert await response.aread() == b"3"
        for known in (b"bytes", b"", None):  # whoever wants chunks gets them
            headers = {"Transfer-Encoding": "chunked"}
            async with connection.request("POST", "/", headers=headers, body=known) as response:
                assert await response.aread() == (known or b"")


async def test_a_server_of_another_protocol_is_quoted(nursery: trio.Nursery) -> None:
    """Some speak first."""

    async def script(peer: Peer) -> None:
        await peer.send(b"SSH-2.0-OpenSSH")
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        await trio.lowlevel.wait_readable(connection.wire.socket)
        with pytest.raises(ProtocolError, match="SSH"):
            async with connection.request("POST", "/"):
                pass


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (in_pieces, "must be bytes, str, or an iterable"),
        (5, "must be bytes, str, or an iterable"),
        (io.BytesIO(b"x"), "trio.open_file"),
    ],
)
async def test_a_body_of_the_wrong_kind_is_refused_before_anything_is_sent(
    nursery: trio.Nursery, body: object, message: str
) -> None:
    async with connected(await serve(nursery, always(OK))) as connection:
        with pytest.raises(InvalidRequest, match=message):
            async with connection.request("POST", "/", body=body):  # type: ignore[arg-type]
                pass
        assert await get(connection) == b"ok"


@pytest.mark.parametrize(
    ("length", "pieces", "message"),
    [("3", [b"ab", b"cd"], "longer than"), ("3", [b"ab"], "ended 1 bytes before"), (None, ["ab"], "must yield bytes")],
)
async def test_a_body_that_is_not_what_was_announced_breaks_its_exchange(
    nursery: trio.Nursery, length: str | None, pieces: list[bytes], message: str
) -> None:
    async with connected(await serve(nursery, once(b""))) as connection:
        with pytest.raises(InvalidRequest, match=message):
            async with connection.request(
                "POST", "/", headers={"Content-Length": length} if length else None, body=pieces
            ):
                pass
        assert not connection.is_clean()


async def test_what_the_callers_iterable_raises_reaches_the_caller(nursery: trio.Nursery) -> None:
    """As it is: an OSError of theirs is not taken for one of the socket's."""
    error = OSError("a file of theirs")

    def broken() -> Iterator[bytes]:
        yield b"a"
        raise error

    async with connected(await serve(nursery, once(b""))) as connection:
        with pytest.raises(OSError, match="theirs") as caught:
            async with connection.request("POST", "/", body=broken()):
                pass
        assert caught.value is error
        assert not connection.is_clean()


async def test_a_body_is_asked_for_no_faster_than_the_server_takes_it(nursery: trio.Nursery) -> None:
    """Back-pressure the other way."""
    asked = 0
    may_read = trio.Event()

    def body() -> Iterator[bytes]:
        nonlocal asked
        for _ in range(BIG // 1_000_000):
            asked += 1
            yield bytes(1_000_000)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await may_read.wait()
        while await peer.read_chunk():
            pass
        await peer.send(OK)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:

        async def post() -> None:
            async with connection.request("POST", "/", body=body()) as response:
                assert await response.aread() == b"ok"

        async with trio.open_nursery() as posting:
            posting.start_soon(post)
            await wait_all_tasks_blocked(0.05)
            assert asked < BIG // 1_000_000
            may_read.set()
        assert connection.is_clean()


# Answers before the end of the request


async def endless(closed: list[bool]) -> AsyncIterator[bytes]:
    try:
        while True:
            yield bytes(100_000)
    finally:
        closed.append(True)


@pytest.mark.parametrize("reads_on", [True, False])
async def test_an_early_refusal_ends_the_upload(nursery: trio.Nursery, reads_on: bool) -> None:
    """Seen although the socket takes no more; the body's generator is closed, the connection not used again."""
    got_head = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\n")
        await got_head.wait()
        await peer.send(b"big")
        if reads_on:
            while await peer.receive():
                pass
        else:
            await trio.sleep_forever()

    closed: list[bool] = []
    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("POST", "/", body=endless(closed)) as response:
            assert response.status_code == 413
            got_head.set()
            assert await response.aread() == b"big"
        assert closed == [True]
        assert not connection.is_clean()


async def test_an_answer_is_read_although_the_server_slammed_the_door(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        with trio.move_on_after(0.05):  # take a little, so that the answer is not lost to a reset at once
            while await peer.receive():
                pass

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("POST", "/", body=endless([])) as response:
            assert response.status_code == 413
            assert await response.aread() == b"big"
        assert not connection.is_clean()


async def test_an_echo_does_not_deadlock(nursery: trio.Nursery) -> None:
    """The server answers while it reads: reading its answer goes on sending."""
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(BIG // 100_000):
            sent += 1
            yield bytes(100_000)

    async with connected(await serve(nursery, echo)) as connection:
        async with connection.request("POST", "/", body=body()) as response:
            assert sent < BIG // 100_000
            size = 0
            async for piece in response:
                size += len(piece)
            assert size == BIG
        assert connection.is_clean()


async def test_an_early_success_still_gets_the_whole_request(nursery: trio.Nursery) -> None:
    received = 0
    may_read = trio.Event()

    async def script(peer: Peer) -> None:
        nonlocal received
        await peer.read_head()
        await peer.send(OK)
        await may_read.wait()
        while chunk := await peer.read_chunk():
            received += len(chunk)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("POST", "/", body=[bytes(1_000_000)] * (BIG // 1_000_000)) as response:
            assert response.status_code == 200
            may_read.set()
            assert await response.aread() == b"ok"
        assert connection.is_clean()
        await wait_all_tasks_blocked(0.01)
        assert received == BIG


@pytest.mark.parametrize("how", ["ends", "resets", "babbles"])
async def test_a_server_that_leaves_after_an_early_success(nursery: trio.Nursery, how: str) -> None:
    """Its answer counts; the upload ends, rather than to wait for room that never comes."""
    got_head = trio.Event()

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        await peer.read_head()
        await peer.send(OK)
        await got_head.wait()
        if how == "ends":
            await peer.stream.send_eof()
        elif how == "babbles":
            await peer.send(b"x")
        else:
            return
        await trio.sleep_forever()

    async with connected(await serve(nursery, script)) as connection:
        with pytest.raises(ProtocolError, match="1 bytes follow") if how == "babbles" else nullcontext():
            async with connection.request("POST", "/", body=endless([])) as response:
                got_head.set()
                assert await response.aread() == b"ok"
        assert not connection.is_clean()


# Expect: 100-continue

EXPECT = {"Expect": "100-continue"}


async def test_a_body_waits_for_100_continue(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        with trio.move_on_after(0.05) as scope:
            await peer.receive()
        assert scope.cancelled_caught, "the body came without being asked for"
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await peer.read_exactly(4) == b"body"
        await peer.send(OK)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("POST", "/", headers=EXPECT, body=b"body") as response:
            assert await response.aread() == b"ok"
        assert connection.is_clean()


async def test_a_body_the_server_refuses_is_never_sent(nursery: trio.Nursery) -> None:
    closed: list[bool] = []
    async with connected(
        await serve(nursery, once(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"))
    ) as connection:
        async with connection.request("POST", "/", headers=EXPECT, body=endless(closed)) as response:
            assert response.status_code == 417
        assert not connection.is_clean()
        assert closed == []  # never started


async def test_a_server_that_does_not_know_expect_is_not_waited_for(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        assert await peer.read_exactly(4) == b"body"
        await peer.send(OK)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:

        async def post() -> None:
            async with connection.request("POST", "/", headers=EXPECT, body=b"body") as response:
                assert await response.aread() == b"ok"

        async with trio.open_nursery() as posting:
            posting.start_soon(post)
            await wait_all_tasks_blocked(0.05)
            mock_clock.jump(1.0)
        assert connection.is_clean()


# When a connection may carry another exchange


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_the_server_ends_is_not_used_again(nursery: trio.Nursery, response: bytes) -> None:
    async with connected(await serve(nursery, once(response))) as connection:
        assert await get(connection) == b"ok"
        assert not connection.is_clean()
        with pytest.raises(NotReusable):
            await get(connection)


async def test_a_connection_the_request_ends_is_not_used_again(nursery: trio.Nursery) -> None:
    async with connected(await serve(nursery, once(OK))) as connection:
        async with connection.request("GET", "/", headers={"Connection": "Close"}) as response:
            await response.aread()
        assert not connection.is_clean()


async def test_a_body_left_unread_ends_the_connection_unless_it_is_all_there(nursery: trio.Nursery) -> None:
    rest = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await peer.read_head()
        await peer.send(OK[:-1])
        await rest.wait()
        await peer.send(OK[-1:])
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("GET", "/"):
            pass
        assert connection.is_clean()
        async with connection.request("GET", "/") as response:
            assert await response.receive_some() == b"o"
        rest.set()
        await wait_all_tasks_blocked(0.01)
        assert not connection.is_clean()


@pytest.mark.parametrize("garbage", [b"x", b"\r\n", OK])
async def test_bytes_nobody_asked_for_end_the_connection(nursery: trio.Nursery, garbage: bytes) -> None:
    go_on = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await go_on.wait()
        await peer.send(garbage)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection:
        await get(connection)
        assert connection.is_clean()
        go_on.set()
        await wait_all_tasks_blocked(0.01)
        assert not connection.is_clean()


async def test_garbage_behind_the_body_is_an_error(nursery: trio.Nursery) -> None:
    async with connected(await serve(nursery, once(OK + b"HTTP/1.1 200 OK\r\n"))) as connection:
        with pytest.raises(ProtocolError, match="17 bytes follow the end"):
            await get(connection)
        assert not connection.is_clean()


async def test_a_server_that_has_gone_is_noticed_without_asking_it(nursery: trio.Nursery) -> None:
    go = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        await go.wait()

    async with connected(await serve(nursery, script)) as connection:
        await get(connection)
        assert connection.is_clean()
        go.set()
        await wait_all_tasks_blocked(0.01)
        assert not connection.is_clean()


async def test_the_servers_keep_alive_timeout_is_respected(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    response = b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=10\r\nContent-Length: 2\r\n\r\nok"
    async with connected(await serve(nursery, always(response))) as connection:
        for _ in range(2):
            await get(connection)
            mock_clock.jump(8.9)
            assert connection.is_clean()
        mock_clock.jump(0.2)
        assert not connection.is_clean()


async def test_one_exchange_at_a_time(nursery: trio.Nursery) -> None:
    async with (
        connected(await serve(nursery, once(OK[:-1]))) as connection,
        connection.request("GET", "/"),
    ):
        with pytest.raises(NotReusable, match="still under way"):
            await get(connection)


async def test_a_closed_connection_says_so(nursery: trio.Nursery) -> None:
    """Also to a task that is just waiting for a response on it."""
    async with connected(await serve(nursery, once(b""))) as connection:
        async with trio.open_nursery() as waiting:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await get(connection)

            waiting.start_soon(wait)
            await wait_all_tasks_blocked(0.01)
            await connection.aclose()
        await connection.aclose()
        assert not connection.is_clean()
        with pytest.raises(trio.ClosedResourceError):
            await get(connection)


async def test_a_renewed_connection_is_as_good_as_new(nursery: trio.Nursery) -> None:
    """And one that is closed while it is renewed leaves no socket behind."""
    async with connected(await serve(nursery, once(OK))) as connection:
        for _ in range(2):
            assert await get(connection) == b"ok"
            await connection.renew()
            assert connection.is_clean()
            assert connection.exchanges == 0

        async def renew() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await connection.renew()

        async with trio.open_nursery() as renewing:
            renewing.start_soon(renew)
            await trio.lowlevel.checkpoint()
            await connection.aclose()
        assert not connection.is_clean()


# Servers that go away, and servers that dawdle


@pytest.mark.parametrize(
    ("response", "answered"),
    [(b"", False), (b"HTTP/1.1 200", True), (OK[:-1], True), (CHUNKED + b"5\r\nab", True)],
)
async def test_a_server_that_closes_too_early(nursery: trio.Nursery, response: bytes, answered: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(response)

    async with connected(await serve(nursery, script)) as connection:
        with pytest.raises(ServerDisconnected) as caught:
            await get(connection)
        assert (caught.value.sent, caught.value.answered) == (True, answered)
        assert not connection.is_clean()


async def test_a_body_nobody_took_is_closed(nursery: trio.Nursery) -> None:
    """The caller's generator runs its ``finally`` before the error reaches the caller."""

    async def script(peer: Peer) -> None:
        await peer.read_head()

    closed: list[bool] = []
    async with connected(await serve(nursery, script)) as connection:
        with pytest.raises(ServerDisconnected):
            await connection.request("POST", "/", body=endless(closed)).__aenter__()
        assert closed == [True]


async def test_timeouts_bound_silence(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    origin = await serve(nursery, script)
    for error, options in (
        (ReadTimeout, {"read_timeout": 5.0}),
        (WriteTimeout, {"write_timeout": 5.0, "body": bytes(BIG)}),
    ):
        async with connected(origin) as connection:
            async with trio.open_nursery() as waiting:

                async def wait() -> None:
                    with pytest.raises(error, match="5 s"):  # noqa: B023
                        async with connection.request("POST", "/", **options):  # noqa: B023
                            pass

                waiting.start_soon(wait)
                await wait_all_tasks_blocked(0.05)
                mock_clock.jump(5)
            assert not connection.is_clean()


async def test_a_head_that_drips_is_given_up(nursery: trio.Nursery, mock_clock: MockClock) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        while True:
            await peer.send(b"H" if mock_clock.current_time() == 0 else b"")
            await peer.send(b"TTP/1.1 200 OK\r\n" if mock_clock.current_time() == 0 else b"X: y\r\n")
            await trio.sleep(1)

    async with connected(await serve(nursery, script)) as connection:
        async with trio.open_nursery() as waiting:

            async def wait() -> None:
                with pytest.raises(ProtocolError, match="30 s after its first byte"):
                    await get(connection)

            waiting.start_soon(wait)
            for _ in range(31):
                await wait_all_tasks_blocked(0.002)
                mock_clock.jump(1)
        assert not connection.is_clean()


async def test_a_server_may_think_for_long_after_an_interim_response(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """However that one was cut up: only heads that have begun are bound to end soon."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 103 Early")
        await wait_all_tasks_blocked(0.01)
        await peer.send(b" Hints\r\nLink: x\r\n\r\n")
        await trio.sleep(60)
        await peer.send(OK)
        await peer.receive()

    async with connected(await serve(nursery, script)) as connection, trio.open_nursery() as waiting:

        async def wait() -> None:
            assert await get(connection) == b"ok"

        waiting.start_soon(wait)
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(60)


# Upgrade


async def test_an_upgrade_hands_over_the_raw_stream(nursery: trio.Nursery) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello")
        while data := await peer.receive():
            await peer.send(data)

    headers = {"Connection": "Upgrade", "Upgrade": "echo"}
    async with connected(await serve(nursery, script)) as connection:
        async with connection.request("GET", "/", headers=headers) as response:
            assert response.status_code == 101
            assert await response.aread() == b""
            stream = response.stream
            assert await stream.receive_some(3) == b"hel"
            assert await stream.receive_some() == b"lo"
            await stream.wait_send_all_might_not_block()
            await stream.send_all(b"raw")
            assert await stream.receive_some() == b"raw"

            async def send() -> None:
                await stream.send_all(bytes(BIG))

            async with trio.open_nursery() as both:
                both.start_soon(send)
                size = 0
                while size < BIG:
                    size += len(await stream.receive_some())
            await stream.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await stream.receive_some()
        assert not connection.is_clean()


async def test_there_is_no_raw_stream_without_an_upgrade(nursery: trio.Nursery) -> None:
    async with (
        connected(await serve(nursery, once(OK))) as connection,
        connection.request("GET", "/") as response,
    ):
        with pytest.raises(RuntimeError, match="still speaks HTTP"):
            response.stream  # noqa: B018


# Cancellation


async def test_cancelled_anywhere_a_connection_is_clean_only_after_a_whole_exchange(nursery: trio.Nursery) -> None:
    origin = await serve(nursery, echo)

    async def exchange() -> None:
        async with connected(origin) as connection:
            done = False
            try:
                body = in_pieces(b"a", b"bc")
                async with connection.request("POST", "/", body=body) as response:
                    assert await response.aread() == b"abc"
                    done = True
            finally:
                assert connection.is_clean() == done

    await cancel_everywhere(exchange)


async def test_a_cancelled_upload_raises_no_group(nursery: trio.Nursery) -> None:
    """The wait for room or an answer uses a nursery of its own, and nobody gets to see it."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    async with connected(await serve(nursery, script)) as connection:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as waiting:

                async def post() -> None:
                    with pytest.raises(trio.Cancelled):
                        async with connection.request("POST", "/", body=bytes(BIG)):
                            pass

                waiting.start_soon(post)
                await wait_all_tasks_blocked(0.05)
                scope.cancel()
