"""Servers that mean harm, with oversized lengths, replies without an end, nonsense: a clear error, little memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import psycopg
import pymysql
import pytest
import redis
import respool_http
import respool_mysql
import respool_postgres
import respool_redis
import trio
import trio.testing

from respool.abc import Adapter
from tests.adapters.misbehaving import serving
from tests.adapters.mysql import scripted
from tests.footprint import resident_memory

LIMIT = 1 << 20  # bytes: what the adapters are told to put up with
HARM = 1 << 28  # bytes that a server sends before it has had enough
ROOM = 1 << 26  # bytes by which this process may grow: much more than LIMIT, much less than HARM
PIECE = bytes(1 << 16)


@attrs.define
class Watch:
    """Looks at the memory while a server sends."""

    stream: trio.SocketStream
    start: int = attrs.field(factory=resident_memory)
    peak: int = 0
    sent: int = 0

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)
        self.sent += len(data)
        self.peak = max(self.peak, resident_memory() - self.start)

    async def flood(self, piece: bytes) -> None:
        """Send `piece` again and again."""
        pieces = piece * max(1, len(PIECE) // len(piece))
        while self.sent < HARM:
            await self.send(pieces)


Reply = Callable[[Watch], Awaitable[None]]
"""What a server says when it is asked something, and before it hangs up."""


def says(data: bytes, flood: bytes = b"") -> Reply:
    async def reply(watch: Watch) -> None:
        await watch.send(data)
        if flood:
            await watch.flood(flood)

    return reply


def says_all(data: bytes, more: Reply) -> Reply:
    async def reply(watch: Watch) -> None:
        await watch.send(data)
        await more(watch)

    return reply


def drips(*pieces: bytes) -> Reply:
    async def reply(watch: Watch) -> None:
        for piece in pieces:
            await watch.send(piece)
            await trio.testing.wait_all_tasks_blocked(0.01)

    return reply


@attrs.frozen
class Kind:
    """A protocol: an adapter for a port, how a server of it welcomes a client, and a question."""

    adapter: Callable[[int], Adapter[Any]]
    welcome: Callable[[trio.SocketStream], Awaitable[object]]
    ask: Callable[[Any], Awaitable[object]]
    error: type[Exception]


async def meet(kind: Kind, reply: Reply) -> tuple[Exception, Watch]:
    """Ask a hostile server; the error that comes of it, and what that cost."""
    watches: list[Watch] = []

    async def talk(stream: trio.SocketStream) -> None:
        await kind.welcome(stream)
        watches.append(Watch(stream))
        await reply(watches[0])

    with trio.fail_after(60):
        async with serving(talk) as port:
            adapter = kind.adapter(port)
            with pytest.raises(kind.error) as caught:
                connection = await adapter.open()
                try:
                    await kind.ask(connection)
                finally:
                    assert not adapter.is_clean(connection)
                    await adapter.close(connection)
    return caught.value, watches[0]


# Redis.


async def welcome_to_redis(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n+PONG\r\n")
    await stream.receive_some()


REDIS = Kind(
    lambda port: respool_redis.RedisAdapter(f"redis://127.0.0.1:{port}", max_reply_size=LIMIT, socket_timeout=5),
    welcome_to_redis,
    lambda connection: connection.get("k"),
    redis.ConnectionError,
)

REDIS_REPLIES = {
    "a value without an end": (says(b"$99999999999\r\n", PIECE), "longer than max_reply_size"),
    "a line without an end": (says(b"+", PIECE), "longer than max_reply_size"),
    "an array without an end": (says(b"*2147483647\r\n", b"$1\r\na\r\n"), "longer than max_reply_size"),
    "an array too large for any memory": (says(b"*4294967295\r\n"), "longer than max_reply_size"),
    "an array in an array": (says(b"*1\r\n*134217728\r\n"), "longer than max_reply_size"),
    "arrays of all that is allowed": (says(b"*100000\r\n*100000\r\n"), "longer than max_reply_size"),
    "a set too large": (says(b"~134217728\r\n"), "longer than max_reply_size"),
    "attributes of which there are too many": (says(b"|134217728\r\n"), "longer than max_reply_size"),
    "a push message too large": (says(b">134217728\r\n"), "a push message of 134217728 elements"),
    "a push message in an array": (says(b"*1\r\n>134217728\r\n"), "a push message of 134217728 elements"),
    "a push message behind the wrong end": (says(b"*2\r\n$1\r\nvXX>134217728\r\n"), "longer than max_reply_size"),
    "a push message in pieces": (
        drips(b"*2\r\n:", b"1\r\n>134", b"217728", b"\r\n"),
        "a push message of 134217728",
    ),
    "a push message that a value might hide": (drips(b"*2\r\n+", b"$99999\r\n>134217728\r\n"), "longer|push message"),
    "arrays in arrays in arrays": (says(b"*1\r\n" * 100_000), "nesting|closed"),
    "push messages without an end": (says(b"", b">2\r\n+a\r\n+b\r\n"), "longer than max_reply_size"),
    "an error without an end": (says(b"-", PIECE), "longer than max_reply_size"),
    "a map for a key": (says(b"%1\r\n%1\r\n+a\r\n+b\r\n+c\r\n"), "does not speak Redis: unhashable"),
    "a negative length": (says(b"$-5\r\n"), "out of range"),
    "a length that is no number": (says(b"$x\r\n"), "length"),
    "a number that is none": (says(b":x\r\n"), "integer"),
    "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak Redis"),
    "the end in the middle": (says(b"$5\r\nhel"), "closed"),
}


# MySQL.


def packets(*payloads: bytes, first: int = 1) -> bytes:
    return scripted.packets(list(payloads), first)


async def welcome_to_mysql(stream: trio.SocketStream) -> None:
    client = scripted.Client(stream, 1)
    await client.welcome()
    await client.command()


async def rows_without_end(watch: Watch) -> None:
    *head, row, _ = scripted.result(("x" * 200,))
    await watch.send(packets(*head))
    numbers = itertools.count(len(head) + 1)
    while watch.sent < HARM:
        await watch.send(b"".join(packets(row, first=next(numbers)) for _ in range(300)))


async def columns_without_end(watch: Watch) -> None:
    _, column, *_ = scripted.result(("x",))
    await watch.send(packets(b"\xfd\xff\xff\xff"))
    numbers = itertools.count(2)
    while watch.sent < HARM:
        await watch.send(b"".join(packets(column, first=next(numbers)) for _ in range(1000)))


async def long_columns(watch: Watch) -> None:
    """As many as are allowed, and each is as long as is allowed."""
    _, column, *_ = scripted.result(("x",))
    column = column.replace(b"\x02c0", b"\xfd\x00\x00\x04" + bytes(1 << 18))
    await watch.send(packets(b"\xfc\xff\xff"))
    numbers = itertools.count(2)
    while watch.sent < HARM:
        await watch.send(packets(column, first=next(numbers)))


HEAD = scripted.result(("x",))[:-2]

MYSQL = Kind(
    lambda port: respool_mysql.MySQLAdapter(host="127.0.0.1", port=port, max_result_size=LIMIT, autocommit=None),
    welcome_to_mysql,
    lambda connection: connection.execute("SELECT 1"),
    pymysql.MySQLError,
)

MYSQL_REPLIES = {
    "rows without an end": (rows_without_end, "max_result_size"),
    "columns without an end": (columns_without_end, "Malformed packet: a result of 16777215"),
    "columns of any length": (long_columns, "max_result_size"),
    "a row without an end": (says(packets(*HEAD) + b"\xff\xff\xff\x04", PIECE), "max_result_size"),
    "an error without an end": (says(b"\xff\xff\xff\x01\xff\x10\x04", PIECE), "max_result_size"),
    "a value longer than its row": (says(packets(*HEAD, b"\xfd\xff\xff\x7fx")), "Malformed packet"),
    "an empty packet": (says(packets(b"") + PIECE[:1]), "Malformed packet"),
    "an OK that claims a longer number": (says(packets(b"\x00\xfe\x01\x00\x00\x02\x00\x00\x00")), "Malformed packet"),
    "a truncated OK": (says(packets(b"\x00\x01")), "Malformed packet|Lost connection"),
    "a truncated error": (says(packets(b"\xff")), "Malformed packet"),
    "a truncated column": (says(packets(b"\x01", b"\x03de")), "Malformed packet|Lost connection"),
    "more columns than were told": (says(packets(*HEAD[:-1], HEAD[1])), "Malformed packet: .*expecting EOF"),
    "packets out of order": (says(packets(scripted.OK, first=9)), "sequence number wrong"),
    "a file that nobody offered": (says(packets(b"\xfb/etc/hostname")), "LOAD_LOCAL|local_infile"),
    "the end in the middle": (says(packets(scripted.OK)[:-2]), "Lost connection"),
}


# HTTP.


async def read_head(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def get(connection: respool_http.Connection) -> bytes:
    async with connection.request("GET", "/") as response:
        return await response.aread()


HTTP = Kind(
    lambda port: respool_http.HTTPAdapter(f"http://127.0.0.1:{port}", max_body_size=LIMIT),
    read_head,
    get,
    respool_http.HTTPError,
)
OK = b"HTTP/1.1 200 OK\r\n"

HTTP_REPLIES = {
    "a length too large": (says(OK + b"Content-Length: 99999999999\r\n\r\n", PIECE), "longer than max_body_size"),
    "a body without an end": (says(OK + b"\r\n", PIECE), "longer than max_body_size"),
    "chunks without an end": (
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + bytes(1024) + b"\r\n"),
        "longer than max_body_size",
    ),
    "a chunk too large": (says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\n"), "chunks are not"),
    "a head without an end": (says(OK, b"X: y\r\n"), "longer than max_header_size"),
    "a line without an end": (says(OK + b"X: ", b"y"), "longer than max_header_size"),
    "interim responses without an end": (says(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"), "interim"),
    "trailers without an end": (
        says(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n"),
        "trimmings|chunks are not",
    ),
    "a length that is no number": (says(OK + b"Content-Length: x\r\n\r\n"), "not valid HTTP"),
    "another protocol": (says(b"SSH-2.0-OpenSSH_9.2\r\n"), "not an HTTP/1 response"),
    "the end in the middle": (says(OK + b"Content-Length: 9\r\n\r\nhel"), "6 bytes before the end"),
}


# Postgres. It is libpq that reads here.


def message(kind: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return kind + struct.pack("!i", len(body) + 4 if length is None else length) + body


async def welcome_to_postgres(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(message(b"R", bytes(4)) + message(b"K", bytes(8)) + message(b"Z", b"I"))
    await stream.receive_some()


POSTGRES = Kind(
    lambda port: respool_postgres.PostgresAdapter(
        f"postgresql://u@127.0.0.1:{port}/db?sslmode=disable&gssencmode=disable", max_result_size=LIMIT
    ),
    welcome_to_postgres,
    lambda connection: connection.execute("SELECT 1"),
    psycopg.Error,
)
COLUMN = message(b"T", struct.pack("!h", 1) + b"c\0" + bytes(18))

ROW = message(b"D", struct.pack("!hi", 1, 200) + bytes(200))


async def parameters_without_end(watch: Watch) -> None:
    numbers = itertools.count()
    while watch.sent < HARM:
        await watch.send(b"".join(message(b"S", b"p%d\0%b\0" % (next(numbers), b"x" * 200)) for _ in range(300)))


POSTGRES_REPLIES = {
    "rows without an end": (says(COLUMN, ROW), "max_result_size"),
    "rows of nothing without an end": (says(message(b"T", bytes(2)), message(b"D", bytes(2))), "max_result_size"),
    "a row without an end": (says(COLUMN + message(b"D", length=2**30), PIECE), "max_result_size"),
    "results without an end": (says(b"", message(b"C", b"SELECT 0\0")), "max_result_size"),
    "notices without an end": (says(b"", message(b"N", b"SNOTICE\0Mhello\0\0")), "max_result_size"),
    "a notice without an end": (says(message(b"N", length=2**30), PIECE), "max_result_size"),
    "notifications without an end": (says(b"", message(b"A", bytes(4) + b"channel\0payload\0")), "max_result_size"),
    "parameters without an end": (parameters_without_end, "max_result_size"),
    "a row too long": (says(COLUMN + message(b"D", length=2**31 - 1)), "closed|message|memory|lost"),
    "a row too short": (says(COLUMN + message(b"D", length=1)), "lost synchronization|message"),
    "a value longer than its row": (
        says(COLUMN + message(b"D", struct.pack("!hi", 1, 2**31 - 1))),
        "message|insufficient",
    ),
    "columns that are not there": (says(message(b"T", struct.pack("!h", 32767))), "message|insufficient|lost"),
    "a message too long for its kind": (says(message(b"C", length=2**30)), "lost synchronization"),
    "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "lost synchronization|unexpected|message"),
    "the end in the middle": (says(COLUMN[:-3]), "closed"),
}


# Before they let anybody in.


async def listen(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def connect(stream: trio.SocketStream) -> None:
    """MySQL's servers are the first to speak."""


def at_login(kind: Kind, welcome: Callable[[trio.SocketStream], Awaitable[object]] = listen) -> Kind:
    return attrs.evolve(kind, welcome=welcome)


AUTHENTICATED = message(b"R", bytes(4))
GREETING = b"\x0a" + b"8.0.0"

LOGINS: dict[str, tuple[Kind, dict[str, tuple[Reply, str]]]] = {
    "redis": (
        at_login(REDIS),
        {
            "a value without an end": (says(b"$99999999999\r\n", PIECE), "longer than max_reply_size"),
            "a map too large": (says(b"%1\r\n*134217728\r\n"), "longer than max_reply_size"),
            "push messages without an end": (says(b"", b">2\r\n+a\r\n+b\r\n"), "longer than max_reply_size"),
            "an error without an end": (says(b"-", PIECE), "longer than max_reply_size"),
        },
    ),
    "mysql": (
        at_login(MYSQL, connect),
        {
            "a greeting without an end": (says(b"\xff\xff\xff\x00" + GREETING, PIECE), "max_result_size"),
            "a version without an end": (says(packets(GREETING * 1000, first=0)), "Malformed|Can't connect|Lost"),
            "an empty greeting": (says(packets(b"", first=0)), "Malformed packet"),
            "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "sequence number wrong"),
        },
    ),
    "postgres": (
        at_login(POSTGRES),
        {
            "parameters without an end": (says_all(AUTHENTICATED, parameters_without_end), "says too much"),
            "notices without an end": (says(AUTHENTICATED, message(b"N", b"SNOTICE\0Mhello\0\0")), "says too much"),
            "a notice without an end": (says(AUTHENTICATED + message(b"N", length=2**30), PIECE), "says too much"),
            "an error without an end": (says(message(b"E", length=2**30), PIECE), "connection failed"),
            "a request without an end": (says(message(b"R", length=2**30), PIECE), "invalid|too long"),
            "another protocol": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "expected authentication request"),
        },
    ),
}


KINDS = {
    "redis": (REDIS, REDIS_REPLIES),
    "mysql": (MYSQL, MYSQL_REPLIES),
    "http": (HTTP, HTTP_REPLIES),
    "postgres": (POSTGRES, POSTGRES_REPLIES),
}


@pytest.mark.parametrize(
    ("kind", "reply", "text"),
    [
        pytest.param(kind, reply, text, id=f"{name}: {story}{when}")
        for when, kinds in (("", KINDS), (", at login", LOGINS))
        for name, (kind, replies) in kinds.items()
        for story, (reply, text) in replies.items()
    ],
)
async def test_a_hostile_reply(kind: Kind, reply: Reply, text: str) -> None:
    """Ends in the driver's own error, which says what was wrong; the server cannot fill the memory."""
    error, watch = await meet(kind, reply)
    assert re.search(text, str(error)), repr(error)
    assert watch.sent < HARM
    assert watch.peak < ROOM


async def pour(watch: Watch) -> None:
    """Flood with notifications from a thread, so that it goes on while the event loop does not."""
    pieces = message(b"A", bytes(4) + b"channel\0payload\0") * 1000

    def send() -> None:
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(watch.stream.socket.fileno())) as sock:
            while watch.sent < HARM:
                select.select([], [sock], [])
                watch.sent += sock.send(pieces)

    await watch.send(message(b"C", b"SELECT 0\0") + message(b"Z", b"I"))
    await trio.to_thread.run_sync(send)


async def test_notifications_that_nobody_asked_for() -> None:
    """A reset, which throws them away, does not do so for ever."""
    adapter = POSTGRES.adapter(1)

    async def ask(connection: Any) -> None:
        await POSTGRES.ask(connection)
        while adapter.is_clean(connection):
            await trio.testing.wait_all_tasks_blocked()
        await adapter.reset(connection)

    error, watch = await meet(attrs.evolve(POSTGRES, ask=ask), pour)
    assert re.search("what nobody asked for", str(error)), repr(error)
    assert watch.sent < HARM


async def test_columns_that_are_not_worth_remembering() -> None:
    """Results' columns are remembered, but not if they are long: there may be hundreds."""
    peaks: list[int] = []

    async def talk(stream: trio.SocketStream) -> None:
        client = scripted.Client(stream, 1)
        await client.welcome()
        watch = Watch(stream)
        while await client.command():
            columns, column, *rest = scripted.result(("x",))
            column = column.replace(b"\x02c0", b"\xfd\x00\x00\x0c" + bytes(0xBFFFE) + b"%02d" % len(peaks))
            await watch.send(packets(columns, column, *rest))
            peaks.append(watch.peak)

    async with serving(talk) as port:
        adapter = MYSQL.adapter(port)
        connection = await adapter.open()
        for _ in range(100):
            await MYSQL.ask(connection)
        await adapter.close(connection)
    assert len(peaks) == 100
    assert peaks[-1] < ROOM
