"""Giving hiredis what has arrived, but never a header that claims too much.

For an array, a set, an attribute or a push message hiredis makes room as soon as it has read the header, before any
element has come: 8 bytes for each that it claims to have, in headers within headers too. Which bytes are a header only
hiredis knows, as values may contain anything. So where something looks like one, hiredis is first given all that comes
before; if then it has read everything, it is one, and otherwise it is in the middle of a value.

Bytes that cannot be a header, or a part of one, need none of this; the wire gives them to hiredis itself.
"""

from __future__ import annotations

import re
from collections import deque
from itertools import chain

import hiredis
from redis.exceptions import ConnectionError

__all__ = ["Feed"]

_LF = 0x0A
_ROOM = 8  # bytes for an element
_MAX_PUSHED = 999  # elements of a push message; Redis sends four at most

_HEADER = re.compile(rb"([*~|>])(\d{1,20})\r\n")
_BEGUN = re.compile(rb"[*~|>]\d{0,20}\r?\Z")
_LONG_VALUE = re.compile(rb"\$(\d{5,20})\r\n")
# Claims of less than a thousand do no harm: hiredis goes 1024 headers deep. One pattern for each kind, because it is
# faster to look for one fixed byte; but not so for small data.
_CLAIMS = [(mark, re.compile(re.escape(mark) + rb"\d{4,20}\r\n")) for mark in (b"*", b"~", b"|", b">")]
_SMALL = 512
_LONGEST = 22  # bytes that a header may have without its end
_ANY_CLAIM = re.compile(rb"[*~|>](?:\d{4}|\d{0,3}\r?\Z)")


class Feed:
    """What has arrived and `parser` has not been given yet, because of what looks like a header in it."""

    __slots__ = ("_at", "_claims", "_data", "_max_reply_size", "_parser", "_value", "last", "pending")

    def __init__(self, parser: hiredis.Reader, max_reply_size: int) -> None:
        self._parser = parser
        self._max_reply_size = max_reply_size
        self._data = b""
        self._at = 0  # where what has not been given begins
        self._claims: deque[int] | None = None  # where in `_data` something looks like a header, once it matters
        self._value = 0  # bytes still to come of a long value, which nothing is looked for in
        self.last = _LF
        """The last byte that the parser was given."""
        self.pending = False
        """Whether whatever arrives next has to go this way too."""

    def add(self, data: bytes) -> None:
        """Take what has arrived."""
        if not self.pending and len(data) <= _SMALL and not _ANY_CLAIM.search(data):
            self._parser.feed(data)
            self.last = data[-1]
            return
        self._data = self._data[self._at :] + data
        self._at = 0
        self._claims = None
        self.pending = True

    def step(self, since_reply: int) -> int | None:
        """Give the parser something more, once it has read all that it was given. None if there is nothing.

        Args:
          since_reply: bytes received, and made room for, since the last complete reply.

        Returns:
          for how many bytes it will make room because of it.

        Raises:
          redis.ConnectionError: that would be too much.
        """
        data, at = self._data, self._at
        room = 0
        between = not self._parser.has_data()
        if between:
            self._value = 0
        if not data or (between and _BEGUN.match(data, at)):
            self.pending = bool(data or self._value)
            return None
        if self._value:
            end = min(at + self._value, len(data))
            self._value -= end - at
        elif between and (header := _HEADER.match(data, at)):
            room = self._check(header, since_reply)
            end = header.end()
        elif between and (value := _LONG_VALUE.match(data, at)):
            self._value = int(value[1]) + 2
            end = value.end()
        else:
            end = self._next_claim()
        self._parser.feed(data, at, end - at)
        self.last = data[end - 1]
        self._at = end
        if end == len(data):
            self._data, self._at = b"", 0
            self.pending = self._value > 0
        return room

    def _check(self, header: re.Match[bytes], since_reply: int) -> int:
        kind, count = header[1], int(header[2])
        # A line may begin like a header, `+>1234`: hiredis has read its first byte, and seems to have read everything.
        if kind == b">" and count > _MAX_PUSHED and self.last == _LF:
            raise ConnectionError(f"the server does not speak Redis: a push message of {count} elements")
        if since_reply + count * _ROOM > self._max_reply_size:
            raise ConnectionError(f"a reply is longer than max_reply_size ({self._max_reply_size} bytes)")
        return count * _ROOM

    def _next_claim(self) -> int:
        """Where something looks like a header, behind what is given next; the end of the data if nothing does."""
        if self._claims is None:
            data, at = self._data, self._at
            found = [claim.finditer(data, at) for mark, claim in _CLAIMS if data.find(mark, at) >= 0]
            starts = sorted(match.start() for match in chain.from_iterable(found))
            if begun := _BEGUN.search(data, max(at, len(data) - _LONGEST)):
                starts.append(begun.start())
            self._claims = deque(starts)
        while self._claims and self._claims[0] <= self._at:
            self._claims.popleft()
        return self._claims[0] if self._claims else len(self._data)
