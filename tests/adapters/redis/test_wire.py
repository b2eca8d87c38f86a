"""One socket, many tasks: who reads, who writes, and what happens when they leave in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from redis.exceptions import BusyLoadingError, ConnectionError
from respool_redis import Connection, NotSent, RedisAdapter

Script = Callable[[trio.SocketStream], Awaitable[None]]


GREETING = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n"


async def start(nursery: trio.Nursery, script: Script) -> RedisAdapter:
    """An adapter for a server that does to each connection what `script` says."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, script, [listener])
    return RedisAdapter(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}")


@asynccontextmanager
async def connected(script: Script) -> AsyncIterator[Connection]:
    """A connection to a server that welcomes us first."""

    async def welcome(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(GREETING + b"+PONG\r\n")
        await script(stream)

    async with trio.open_nursery() as nursery:
        connection = await (await start(nursery, welcome)).open()
        yield connection
        connection.close_now()
        nursery.cancel_scope.cancel()


async def silent(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


def deaf_until(release: trio.Event, received: bytearray) -> Script:
    """A server that takes SETs only when it is released, and answers them when the last has come."""

    async def script(stream: trio.SocketStream) -> None:
        await release.wait()
        async for data in stream:
            received.extend(data)
            if received.endswith(b"\r\nlast\r\n"):
                await stream.send_all(b"+OK\r\n" * received.count(b"*3\r\n$3\r\nSET"))

    return script


async def silent_and_deaf(_: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_reader_that_leaves_hands_on() -> None:
    """The task that reads for all is cancelled; the others still get their replies, each its own."""
    answers: dict[int, Any] = {}
    scopes = [trio.CancelScope() for _ in range(4)]
    go = trio.Event()

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await go.wait()
        await stream.send_all(b":0\r\n:1\r\n:2\r\n:3\r\n")
        await silent(stream)

    async with connected(script) as connection, trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            with scopes[number]:
                answers[number] = await connection.echo(str(number))

        for number in range(4):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert answers == {2: 2, 3: 3}


async def test_commands_of_one_moment_are_written_together() -> None:
    """After the first, which had no company."""
    chunks: list[bytes] = []

    async def script(stream: trio.SocketStream) -> None:
        async for data in stream:
            chunks.append(bytes(data))
            await stream.send_all(b":1\r\n" * data.count(b"\r\nECHO\r\n"))

    async with connected(script) as connection, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(connection.echo, str(number))
    assert len(chunks) <= 2  # one, if the network put them together


async def test_a_command_cancelled_before_it_was_written_is_withdrawn() -> None:
    """It was queued behind more than the socket takes; the server never hears of it."""
    received = bytearray()
    release = trio.Event()

    async with connected(deaf_until(release, received)) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.set, "k", b"x" * 20_000_000)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await connection.set("k", "withdrawn")
        assert scope.cancelled_caught
        with trio.move_on_after(0.05) as scope:
            await connection.set("k", "withdrawn")
        assert scope.cancelled_caught
        nursery.start_soon(connection.set, "k", "last")
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert b"withdrawn" not in received
    assert received.count(b"SET") == 2


async def test_a_command_cancelled_in_the_queue_is_withdrawn() -> None:
    """The socket is full, but not the queue behind it: the command stood there already."""
    received = bytearray()
    release = trio.Event()

    async with connected(deaf_until(release, received)) as connection, trio.open_nursery() as nursery:
        while connection._wire._backlog < 150_000:
            nursery.start_soon(connection.set, "k", b"x" * 100_000)
            await trio.testing.wait_all_tasks_blocked(0.01)  # the network takes a little more after a moment
        with trio.move_on_after(0.05) as scope:
            await connection.set("k", "withdrawn")
        assert scope.cancelled_caught
        nursery.start_soon(connection.set, "k", "last")
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert b"withdrawn" not in received


async def test_a_writer_that_leaves_hands_on() -> None:
    """Half a command is on the wire; somebody else writes the rest."""
    release = trio.Event()
    received = bytearray()

    async def script(stream: trio.SocketStream) -> None:
        await release.wait()
        async for data in stream:
            received.extend(data)
            if received.endswith(b"\r\nmine\r\n"):
                await stream.send_all(b"+OK\r\n+mine\r\n")

    async with connected(script) as connection, trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def large() -> None:
            with scope:
                await connection.set("k", b"x" * 20_000_000)

        nursery.start_soon(large)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not connection.is_clean
        # The next to come waits for room, and so writes; then it leaves too, and the one behind it takes over.
        with trio.CancelScope() as scope:

            async def leave() -> None:
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                release.set()

            async def ask() -> None:
                with trio.fail_after(10):
                    assert await connection.echo("mine") == b"mine"

            nursery.start_soon(leave)
            await connection.echo("withdrawn")
        assert scope.cancelled_caught
    assert b"withdrawn" not in received


async def test_a_broken_connection_says_who_was_heard() -> None:
    """What was written may have been done; what was not, was not."""

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await trio.sleep(0.05)

    errors: dict[str, type[Exception]] = {}

    async with connected(script) as connection, trio.open_nursery() as nursery:

        async def put(name: str, value: bytes) -> None:
            try:
                await connection.set(name, value)
            except ConnectionError as error:
                errors[name] = type(error)

        nursery.start_soon(put, "heard", b"x" * 20_000_000)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(put, "unheard", b"x")
    assert issubclass(errors["unheard"], NotSent)
    assert not issubclass(errors["heard"], NotSent)
    assert connection.is_broken


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"x", b"$-5\r\n"])
async def test_what_is_not_redis_breaks_the_connection(nonsense: bytes) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(nonsense)
        await silent(stream)

    async with connected(script) as connection:
        with trio.fail_after(5), pytest.raises(ConnectionError, match="does not speak Redis"):
            await connection.ping()
        assert connection.is_broken


async def test_a_reply_to_no_question_is_not_believed() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.send_all(b"+somebody else's\r\n")
        await silent(stream)

    async with connected(script) as connection:
        await trio.testing.wait_all_tasks_blocked(0.01)  # it may have come with the greeting, or after it
        assert not connection.is_clean
        with pytest.raises(ConnectionError, match="not asked for"):
            await connection.make_clean()


async def test_replies_may_come_in_pieces() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        for byte in b"*2\r\n$5\r\nhello\r\n:1\r\n":
            await stream.send_all(bytes([byte]))
            await trio.lowlevel.checkpoint()
        await silent(stream)

    async with connected(script) as connection:
        assert await connection.execute_command("ANYTHING") == [b"hello", 1]


async def test_closing_fails_those_who_wait() -> None:
    async with connected(silent) as connection, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(ConnectionError, match="has been closed"):
                await connection.ping()

        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        connection.close_now()


async def test_closed_while_somebody_writes() -> None:
    """Who comes before the writer has noticed is told at once, and does not wait for its reply."""
    async with connected(silent_and_deaf) as connection, trio.open_nursery() as nursery:

        async def put() -> None:
            with pytest.raises(ConnectionError, match="has been closed"):
                await connection.set("k", bytes(20_000_000))

        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        connection.close_now()
        with trio.fail_after(5), pytest.raises(NotSent):
            await connection.ping()


async def test_a_server_that_is_loading_is_not_ready() -> None:
    """It says so to the PING that ends the handshake; the pool tries again."""

    async def script(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(GREETING + b"-LOADING Redis is loading the dataset in memory\r\n")

    async with trio.open_nursery() as nursery:
        with pytest.raises(BusyLoadingError):
            await (await start(nursery, script)).open()
        nursery.cancel_scope.cancel()
