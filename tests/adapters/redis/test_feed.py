"""What the wire gives hiredis: everything, in order, whatever values look like; but no header that claims too much."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, cast

import hiredis
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis._parsers import Encoder
from redis.exceptions import ConnectionError
from respool_redis._transport import Transport
from respool_redis._wire import Wire

LIMIT = 1 << 20

LOOKALIKES = [b">1000000\r\n", b"*1000000\r\n", b"*1", b">", b"$99999\r\n", b"\r\n", b"+", b"~1000\r", b"|12345\r\n"]

OPENED = [b"*3\r\n", b"~3\r\n:1\r\n", b"*9\r\n+$99999\r\n$3\r\n>10\r\n"]


class Pieces:
    """A transport that has received `pieces`, and each may be taken at its time."""

    descriptor = -1

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = list(pieces)

    def receive(self) -> memoryview | None:
        return memoryview(self.pieces.pop(0)) if self.pieces else None

    def close(self) -> None:
        self.pieces.clear()


def wire_of(pieces: Iterable[bytes]) -> Wire:
    transport = cast("Transport", Pieces(pieces))
    encoder = Encoder("utf-8", "strict", decode_responses=False)  # type: ignore[no-untyped-call]
    return Wire(transport, encoder, lambda *_: None, LIMIT)


def read(data: bytes, cuts: Iterable[int]) -> list[Any]:
    """What a wire makes of `data`, which arrives in pieces."""
    edges = [0, *sorted({cut % len(data) for cut in cuts}), len(data)]
    pieces = [data[start:end] for start, end in pairwise(edges) if start < end]
    wire = wire_of(pieces)
    messages = []
    for _ in range(len(data)):  # no message is shorter than that
        messages += [message for message in [wire.receive_nowait()] if message is not None]
    return messages


def expected(data: bytes) -> list[Any]:
    reader = hiredis.Reader(notEnoughData=...)
    reader.feed(data)
    messages = []
    while (message := reader.gets()) is not ...:
        messages.append(message)
    return messages


texts = st.lists(st.sampled_from(LOOKALIKES), max_size=5).map(b"".join)
values = texts.map(lambda text: b"$%d\r\n%b\r\n" % (len(text), text))
long_values = texts.map(lambda text: b"$%d\r\n%b\r\n" % (len(text) + 20_000, text + bytes(20_000)))
lines = st.sampled_from([b"+OK\r\n", b":1\r\n", b"_\r\n", b"$-1\r\n", b"+>12\r\n", b"+*1000\r\n", b"*0\r\n", b"#t\r\n"])


def nested(replies: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    mark = st.sampled_from([b"*", b"~", b">"])
    return st.builds(lambda mark, items: b"%b%d\r\n%b" % (mark, len(items), b"".join(items)), mark, st.lists(replies))


replies = st.recursive(values | long_values | lines, nested, max_leaves=8)
cuts = st.lists(st.integers(0, 1 << 30), max_size=8)


@given(data=st.lists(replies, min_size=1, max_size=4).map(b"".join), cuts=cuts)
@example(data=b"*1000\r\n" + b":1\r\n" * 1000 + b"+OK\r\n", cuts=[3, 4, 10])
@example(data=b"*2\r\n$20000\r\n" + b">1000000\r\n" * 2000 + b"\r\n$20000\r\n" + b"*9999999\r\n" * 2000, cuts=[])
@example(data=b"+>12345\r\n:1\r\n", cuts=[])
@example(data=b"+>12345\r\n:1\r\n", cuts=[1])
@example(data=b"*2\r\n+$99999\r\n:1\r\n" * 3, cuts=[5, 6, 7])
def test_everything_is_read(data: bytes, cuts: list[int]) -> None:
    """Wherever it is cut, and even if values look like headers."""
    assert read(data, cuts) == [message for message in expected(data) if message is not None]


@given(
    before=st.lists(replies, max_size=3).map(b"".join),
    opened=st.lists(st.sampled_from(OPENED), max_size=3).map(b"".join),
    mark=st.sampled_from([b"*", b"~", b"|", b">"]),
    cuts=cuts,
)
@example(before=b"", opened=b"*9\r\n+$99999\r\n", mark=b">", cuts=[5])
@example(before=b"$1\r\nvXX", opened=b"", mark=b">", cuts=[])
def test_a_claim_is_found(before: bytes, opened: bytes, mark: bytes, cuts: list[int]) -> None:
    """Wherever it is. hiredis is not given it, or there would be 8 GB for it."""
    with pytest.raises(ConnectionError, match=r"longer than max_reply_size|a push message of 1000000000"):
        read(before + opened + mark + b"1000000000\r\n", cuts)


def test_nothing_is_left_over() -> None:
    """A reply that was given bit by bit leaves the wire as quiet as any other."""
    wire = wire_of([b"*1000\r\n" + b":1\r\n" * 1000])
    assert wire.receive_nowait() == [1] * 1000
    assert not wire._has_unread
