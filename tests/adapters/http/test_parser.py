"""What a server may send, what it may not, and that the answer never depends on how the bytes were cut up."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from respool_http import ProtocolError
from respool_http._parser import ResponseParser

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def parse(data: bytes, method: bytes = b"GET") -> ResponseParser:
    parser = ResponseParser(method)
    parser.feed(data)
    return parser


# What a server may send


def test_a_body_of_known_length() -> None:
    parser = parse(OK + b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
    assert (parser.status_code, parser.reason, parser.http_version) == (200, b"OK", "HTTP/1.1")
    assert parser.fields == [(b"Content-Type", b"text/plain"), (b"Content-Length", b"5")]
    assert parser.take_body() == b"hello"
    assert parser.complete
    assert not parser.close


def test_chunks_extensions_and_trailers() -> None:
    parser = parse(CHUNKED + b'3;a="b"\r\nabc\r\n4\r\ndefg\r\n0\r\nDigest: x\r\n\r\n')
    assert parser.take_body() == b"abcdefg"
    assert parser.trailers == [(b"Digest", b"x")]
    assert parser.complete


def test_a_body_that_ends_with_the_connection_ends_the_connection() -> None:
    parser = parse(OK + b"\r\nanything")
    assert not parser.complete
    assert parser.feed_eof() is None
    assert parser.take_body() == b"anything"
    assert parser.complete
    assert parser.close


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200 OK"), (b"GET", b"204 No Content"), (b"GET", b"304 Not Modified")]
)
@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_responses_without_a_body_end_with_their_head(method: bytes, status: bytes, framing: bytes) -> None:
    parser = parse(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n", method)
    assert parser.complete
    assert not parser.close


def test_interim_responses_are_passed_over() -> None:
    parser = parse(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    assert (parser.interim, parser.status_code) == (2, 0)
    parser.feed(b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n")
    assert parser.status_code == 204
    assert parser.fields == [(b"Server", b"x")]


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"GET", b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"),
        (b"CONNECT", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
        (b"CONNECT", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_after_an_upgrade_everything_belongs_to_the_new_protocol(method: bytes, head: bytes) -> None:
    parser = parse(head + b"\x00raw", method)
    assert parser.upgraded
    assert parser.take_body() == b"\x00raw"


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Connection: keep-alive\r\n", False),
        (b"1.1", b"Connection: foo , Close\r\n", True),
        (b"1.1", b"Connection: foo\r\nConnection: close\r\n", True),
        (b"1.0", b"", True),
        (b"1.0", b"Connection: Keep-Alive\r\n", False),
        (b"1.0", b"Connection: Keep-Alive, close\r\n", True),
    ],
)
def test_the_connection_lives_on_only_if_both_sides_say_so(version: bytes, connection: bytes, close: bool) -> None:
    parser = parse(b"HTTP/" + version + b" 200 OK\r\nContent-Length: 0\r\n" + connection + b"\r\n")
    assert parser.close is close


def test_blanks_around_a_coding_are_none_of_it() -> None:
    parser = parse(OK + b"Transfer-Encoding: \tchunked \r\n\r\n0\r\n\r\n")
    assert parser.complete


def test_chunks_are_not_for_http_1_0() -> None:
    """RFC 9112, 6.1: somebody on the way may not have understood them. Read, but not trusted any further."""
    parser = parse(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert parser.complete
    assert parser.close


@pytest.mark.parametrize(
    ("value", "timeout"),
    [(b"timeout=5, max=100", 5), (b"max=3, Timeout = 7", 7), (b"max=3", None), (b"", None)],
)
def test_the_servers_idle_timeout_is_read(value: bytes, timeout: float | None) -> None:
    assert parse(OK + b"Content-Length: 0\r\nKeep-Alive: " + value + b"\r\n\r\n").keep_alive_timeout == timeout


@pytest.mark.parametrize(
    ("data", "missing"),
    [
        (OK, "middle of the response's head"),
        (OK + b"Content-Length: 5\r\n\r\nhe", "3 bytes before the end"),
        (CHUNKED + b"5\r\nhe", "before the last chunk"),
        (CHUNKED + b"2\r\nhe\r\n0\r\n", "before the last chunk"),
    ],
)
def test_an_end_that_comes_too_early_says_what_is_missing(data: bytes, missing: str) -> None:
    assert missing in str(parse(data).feed_eof())


# What it may not


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02",
        b"\r\n" + OK,
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/1.1 000 OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"HTTP/1.1 200 OK\nServer: lax\n\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ],
)
def test_a_strange_status_line(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(data)


@pytest.mark.parametrize(
    "lines",
    [
        b"A: b\n\r\n",
        b"A: b\r\n folded\r\n",
        b"A: b\r\n\tfolded\r\n",
        b" A: b\r\n",
        b"A : b\r\n",
        b"A\r\n",
        b": b\r\n",
        b"A: b\x00c\r\n",
        b"A: b\rInjected: c\r\n",
        b"A: \x01\r\n",
        b"A\x80: b\r\n",
    ],
)
def test_a_strange_header_line(lines: bytes) -> None:
    """Obsolete folding, bare LF and CR, control characters, space before the colon."""
    with pytest.raises(ProtocolError):
        parse(OK + lines + b"\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n",
        b"Content-Length: 5, 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: -5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: 5 5\r\n",
        b"Content-Length:\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: \x0bchunked\r\n",
        b"Transfer-Encoding: chunked\t\r\n",  # which llhttp does not take for chunks
    ],
)
def test_framing_two_readers_could_read_differently(lines: bytes) -> None:
    """The stuff of request smuggling and response splitting."""
    with pytest.raises(ProtocolError):
        parse(OK + lines + b"\r\n")


@pytest.mark.parametrize(
    "chunks",
    [
        b"3\nabc\r\n",
        b"3 \r\nabc\r\n",
        b"0x3\r\nabc\r\n",
        b"-1\r\n",
        b"+3\r\n",
        b"\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n",
        b"3\r\nabcX",
        b"fffffffffffffffff\r\n",
        b'3;a="\n"\r\n',
        b"0\r\nA: b\r\n folded\r\n\r\n",
        b"0\r\nContent-Length: 3\r\n\r\n",
    ],
)
def test_strange_chunks(chunks: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse(CHUNKED + chunks)


@pytest.mark.parametrize("garbage", [b"x", b"\r\n", b"\n", b"\x00", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny"])
@pytest.mark.parametrize(
    ("method", "response"),
    [
        (b"GET", OK + b"Content-Length: 2\r\n\r\nhi"),
        (b"GET", OK + b"Content-Length: 0\r\n\r\n"),
        (b"GET", CHUNKED + b"2\r\nhi\r\n0\r\n\r\n"),
        (b"GET", CHUNKED + b"2\r\nhi\r\n0\r\nA: b\r\n\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"HEAD", OK + b"Content-Length: 2\r\n\r\n"),
        (b"HEAD", CHUNKED),
    ],
)
def test_garbage_after_the_end(method: bytes, response: bytes, garbage: bytes) -> None:
    """Noticed to the byte, whether it comes in one piece with the response or later."""
    assert parse(response, method).complete
    with pytest.raises(ProtocolError, match="follow"):
        parse(response + garbage, method)
    with pytest.raises(ProtocolError, match="follow"):
        parse(response, method).feed(garbage)


# Bounded memory


def feed_for_ever(parser: ResponseParser, piece: bytes, *, limit: int) -> None:
    """Feed `piece` until the parser has had enough; fail if it takes more than `limit` bytes."""
    for _ in range(limit // len(piece)):
        parser.feed(piece)
        parser.take_body()
    pytest.fail("the parser never had enough")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (OK, b"X: " + b"y" * 500 + b"\r\n"),
        (OK + b"X: ", b"y" * 1000),
        (OK, b"y" * 1000),
        (b"HTTP/1.1 200 ", b"y" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"1;", b"y" * 1000),
        (CHUNKED, b"1;" + b"y" * 100 + b"\r\nx\r\n"),
        (CHUNKED + b"0\r\n", b"X: y\r\n"),
        (CHUNKED + b"0\r\nX: ", b"y" * 1000),
        (CHUNKED, b"0" * 1000),
    ],
    ids=["fields", "value", "name", "reason", "interim", "extension", "extensions", "trailers", "trailer", "zeros"],
)
def test_what_has_no_end_is_refused_before_it_fills_the_memory(start: bytes, piece: bytes) -> None:
    parser = parse(start)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            feed_for_ever(parser, piece, limit=1_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000


def test_more_fields_than_anyone_needs() -> None:
    with pytest.raises(ProtocolError, match="256 header fields"):
        parse(OK + b"a: b\r\n" * 257 + b"\r\n")


def test_the_limit_on_a_head_is_the_adapters() -> None:
    head = OK + b"A: " + b"b" * 2000 + b"\r\nContent-Length: 0\r\n\r\n"
    ResponseParser(b"GET", max_header_size=4096).feed(head)
    with pytest.raises(ProtocolError, match=r"max_header_size \(1024 bytes\)"):
        ResponseParser(b"GET", max_header_size=1024).feed(head)


def test_a_body_of_small_chunks_is_not_mistaken_for_trimmings() -> None:
    parser = parse(CHUNKED)
    for _ in range(20_000):
        parser.feed(b"1\r\nx\r\n")
    assert len(parser.take_body()) == 20_000


# The same answer however the bytes are cut up


@dataclass(frozen=True)
class Outcome:
    error: bool
    status: int = 0
    body: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    end: str = ""


def outcome(pieces: list[bytes], method: bytes) -> Outcome:
    """Read `pieces`. Anything but an answer or a `ProtocolError` escapes, and fails the test."""
    parser = ResponseParser(method)
    body = b""
    try:
        for piece in pieces:
            parser.feed(piece)
            body += parser.take_body()
    except ProtocolError:
        return Outcome(error=True)
    missing = None if parser.complete or parser.upgraded else parser.feed_eof()
    end = missing or ("upgraded" if parser.upgraded else "complete")
    return Outcome(False, parser.status_code, body, tuple(parser.fields), tuple(parser.trailers), end)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places) if start < end]


FRAGMENTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 101 x\r\n",
        b"HTTP/1.1 204 \r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n", b"Connection: Upgrade\r\n", b"Upgrade: x\r\n", b"A: b\r\n", b" folded\r\n", b"\r\n",
        b"hello", b"5\r\nhello\r\n", b"5;e=f\r\nhello\r\n", b"0\r\n", b"0\r\n\r\n", b"T: u\r\n", b"\n", b"\r", b"\x00",
        b"ffffffffffffffff\r\n", b"0", b" ", b":",
    ]
)  # fmt: skip

RESPONSES = st.one_of(
    st.lists(FRAGMENTS, max_size=12).map(b"".join),
    st.binary(max_size=60),
    st.builds(
        lambda body, sizes: CHUNKED + b"".join(b"%x\r\n%b\r\n" % (n, body[:n]) for n in sizes if n) + b"0\r\n\r\n",
        st.just(b"\r\n0\r\n\r\nHTTP/1.1 "),
        st.lists(st.integers(0, 15), max_size=5),
    ),
)


@given(
    data=RESPONSES,
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=2),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
    method=st.sampled_from([b"GET", b"HEAD", b"CONNECT"]),
)
@example(data=CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", flips=[], cuts=[], method=b"GET")
def test_the_answer_does_not_depend_on_how_the_bytes_were_cut_up(
    data: bytes, flips: list[tuple[int, int]], cuts: list[int], method: bytes
) -> None:
    """Whole, byte by byte and at random cuts: the same answer, and never any exception but ours."""
    damaged = bytearray(data)
    for place, byte in flips:
        if damaged:
            damaged[place % len(damaged)] = byte
    data = bytes(damaged)
    whole = outcome([data] if data else [], method)
    assert whole == outcome([data[i : i + 1] for i in range(len(data))], method)
    assert whole == outcome(cut(data, cuts), method)
