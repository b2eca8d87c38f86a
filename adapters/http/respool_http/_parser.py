"""Reading one response: bytes in, head and body out. No I/O.

llhttp (through httptools) checks every head, and reads the body where it comes in chunks. What surrounds it is ours,
because a client's safety hangs on it: a head is handed to llhttp whole and alone, so its end is known to the byte; an
llhttp parser serves one response and is thrown away, so nothing a server sends can change how the next one is read;
and what llhttp lets pass (other versions, other transfer codings, blank lines before the status line, bytes after the
end) is refused. A head that llhttp has passed is one status line and ``name: value`` lines, each ending in CRLF:
its fields are split only when somebody looks at them.

Memory is bounded whatever arrives: a head by `max_header_size`, a chunk's trimmings by `_MAX_OVERHEAD`, a body by what
was fed since `take_body` last took it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import httptools

from ._errors import ProtocolError

__all__ = ["MAX_BODY_SIZE", "MAX_HEADER_SIZE", "ResponseParser"]

MAX_HEADER_SIZE: Final = 65536
"""Bytes a response's head may have unless the adapter says otherwise. curl allows 300 KiB, nginx 4 to 8, h11 100."""

MAX_BODY_SIZE: Final = 1 << 30
"""Bytes a body may have that is read whole, unless the adapter says otherwise."""

_MAX_FIELDS: Final = 256
_SHORT_HEAD: Final = 4 * _MAX_FIELDS  # no shorter line than "a:" and CRLF: a head of this length has not too many
_MAX_INTERIM: Final = 32
_MAX_OVERHEAD: Final = 16384  # what Go allows a chunked body to waste (CVE-2023-39326)
_CHUNK_OVERHEAD: Final = 16
_START: Final = b"HTTP/1."
_OLD: Final = b"HTTP/1.0"
_USUAL: Final = b"HTTP/1.1 200 OK\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_FRAMING = re.compile(rb"\n(content-length|transfer-encoding|connection|keep-alive|upgrade):[ \t]*([^\r]*)")
_KEEP_ALIVE = re.compile(rb"timeout\s*=\s*([0-9]{1,9})")

# What the parser is waiting for. Plain numbers: looking up an enum's member costs more than the comparison.
_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKS: Final = 2
_UNTIL_CLOSE: Final = 3
_UPGRADED: Final = 4


class ResponseParser:
    """Reads the response to one request of the given `method`.

    Feed it what arrives with `feed`, and the end of the stream with `feed_eof`; look at `status_code` and `complete`,
    and take the body with `take_body`.
    """

    # Slots, and those set that are read before a head is in: a start value on the class takes longer to read.
    __slots__ = (
        "_buffer",
        "_chunks",
        "_max_header_size",
        "_method",
        "_remaining",
        "_state",
        "body",
        "close",
        "complete",
        "head",
        "interim",
        "keep_alive_timeout",
        "status_code",
        "trailers",
        "upgraded",
    )

    _remaining: int  # bytes of the body, in _LENGTH
    _chunks: _ChunkReader  # in _CHUNKS

    def __init__(self, method: bytes, max_header_size: int = MAX_HEADER_SIZE) -> None:
        self._method = method
        self._max_header_size = max_header_size
        self._state = _HEAD
        self._buffer = b""
        self.status_code = 0
        """0 until the final head is in."""
        self.interim = 0
        """How many interim (1xx) responses came before it."""
        self.head = b"HTTP/1.1 0\r\n\r\n"
        """The final head, from its status line to its blank line."""
        self.close = True
        """The connection ends with this response."""
        self.keep_alive_timeout: float | None = None
        """Seconds the server lets the connection be idle, if it says so."""
        self.body: list[bytes] = []
        """The body's pieces fed since `take_body` last took them."""
        self.trailers: Sequence[tuple[bytes, bytes]] = ()
        """Fields that came after a chunked body."""
        self.complete = False
        """The response has ended, exactly where it should."""
        self.upgraded = False
        """The connection no longer speaks HTTP; `take_body` holds what arrived after the head."""

    @property
    def http_version(self) -> str:
        """``"HTTP/1.1"`` or ``"HTTP/1.0"``."""
        return self.head[:8].decode("ascii")

    @property
    def reason(self) -> bytes:
        """What followed the status code."""
        return self.head[13 : self.head.index(b"\r\n")]

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The head's fields, as they were spelled."""
        lines = (line.partition(b":") for line in self.head[:-4].split(b"\r\n")[1:])
        return [(name, value.strip(b" \t")) for name, _, value in lines]

    @property
    def head_begun(self) -> bool:
        """Part of a head has arrived."""
        return bool(self._buffer)

    def take_body(self) -> bytes:
        """The body's bytes fed since the last call."""
        body = self.body
        if len(body) == 1:
            return body.pop()
        taken = b"".join(body)
        body.clear()
        return taken

    def feed(self, data: bytes) -> None:
        """Read on. Raises `ProtocolError` at the first byte that does not belong."""
        if self._state == _HEAD:
            data = self._feed_head(data)
            while data and self._state == _HEAD:
                data = self._feed_head(data)
        if data:
            self._feed_body(data)

    def feed_eof(self) -> str | None:
        """The server has closed its side. Says what is missing, or ``None`` if the response may end here."""
        state = self._state
        if self.complete:
            return None
        if state == _HEAD:
            return "the server closed the connection in the middle of the response's head"
        if state == _LENGTH:
            return f"the server closed the connection {self._remaining} bytes before the end of the body"
        if state == _CHUNKS:
            return "the server closed the connection before the last chunk of the body"
        self.complete = state == _UNTIL_CLOSE
        return None

    # The head

    def _feed_head(self, data: bytes) -> bytes:
        """Take the head's bytes; what follows it is returned."""
        start = 0
        if self._buffer:
            start = max(0, len(self._buffer) - 3)
            data = self._buffer + data
        end = data.find(b"\r\n\r\n", start, self._max_header_size) + 4
        if end < 4:
            self._check_partial_head(data, start)
            self._buffer = data
            return b""
        self._buffer = b""
        self._parse_head(data[:end])
        return data[end:]

    def _check_partial_head(self, head: bytes, start: int) -> None:
        if not head.startswith(_START) and head != _START[: len(head)]:
            raise ProtocolError(f"this is not an HTTP/1 response: it begins with {head[:16]!r}")
        if len(head) >= self._max_header_size:
            raise ProtocolError(f"the response's head is longer than max_header_size ({self._max_header_size} bytes)")
        if _BARE_LF.search(head, start):
            raise ProtocolError("the response's head has a line that ends in LF without CR")

    def _parse_head(self, head: bytes) -> None:
        if not head.startswith(_USUAL) and not _STATUS_LINE.match(head):
            line = head.partition(b"\r\n")[0]
            raise ProtocolError(f"the status line is not HTTP/1.1: {line[:64]!r}")
        if len(head) > _SHORT_HEAD and head.count(b"\n") > _MAX_FIELDS + 2:
            raise ProtocolError(f"the response has more than {_MAX_FIELDS} header fields")
        llhttp = httptools.HttpResponseParser(None)
        try:
            llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the right answer to 101: llhttp stops at the end of the head, which is where we are
        except httptools.HttpParserError as error:
            raise ProtocolError(f"the response's head is not valid HTTP/1.1: {error}") from None
        status = llhttp.get_status_code()
        if status >= 200 or status == 101:
            self.head = head
            self._read_framing(status, head)
            self.status_code = status
            return
        self.interim += 1
        if self.interim > _MAX_INTERIM:
            raise ProtocolError(f"more than {_MAX_INTERIM} interim (1xx) responses")

    def _read_framing(self, status: int, head: bytes) -> None:
        """Where the body ends: RFC 9112 section 6.3, in its order."""
        fields: dict[bytes, bytes] = {}
        for name, value in _FRAMING.findall(head.lower()):
            fields[name] = fields[name] + b"," + value if name in fields else value
        coding = fields.get(b"transfer-encoding")
        if coding is not None and coding.rstrip(b" ") != b"chunked":
            raise ProtocolError("the response has a transfer coding other than 'chunked', which nobody asked for")
        self.close = fields.get(b"connection") != b"keep-alive" and _closes(head, fields)
        if b"keep-alive" in fields and (timeout := _KEEP_ALIVE.search(fields[b"keep-alive"])):
            self.keep_alive_timeout = float(timeout[1])
        if status == 101 or (self._method == b"CONNECT" and status < 300):
            if status == 101 and not fields.get(b"upgrade"):
                raise ProtocolError("the response switches protocols (101) without saying to which")
            self._state = _UPGRADED
            self.upgraded = True
        elif self._method == b"HEAD" or status == 204 or status == 304:
            self._state = _LENGTH
            self._remaining = 0
            self.complete = True
        elif b"content-length" in fields:
            # llhttp has refused a second Content-Length, one that is not digits, and one beside a Transfer-Encoding.
            self._state = _LENGTH
            self._remaining = length = int(fields[b"content-length"])
            self.complete = not length
        elif coding is not None:
            self.close = self.close or head.startswith(_OLD)  # RFC 9112, 6.1: chunks are not for HTTP/1.0
            trailers: list[tuple[bytes, bytes]] = []
            self.trailers = trailers
            self._chunks = _ChunkReader(head, self.body, trailers)
            self._state = _CHUNKS
        else:
            self.close = True
            self._state = _UNTIL_CLOSE

    # The body

    @property
    def announced(self) -> int:
        """How many bytes of the body are still to come, as far as the head has said so."""
        return self._remaining if self._state == _LENGTH else 0

    def _feed_body(self, data: bytes) -> None:
        state = self._state
        if state == _LENGTH:
            self._remaining = remaining = self._remaining - len(data)
            if remaining < 0:
                raise ProtocolError(f"{-remaining} bytes follow the end of the response")
            self.body.append(data)
            self.complete = not remaining
        elif state == _CHUNKS:
            if self.complete:
                raise ProtocolError(f"{len(data)} bytes follow the end of the response")
            self.complete = self._chunks.feed(data)
        else:
            self.body.append(data)


def _closes(head: bytes, fields: Mapping[bytes, bytes]) -> bool:
    """Whether the connection ends with this response (RFC 9112, 9.3)."""
    options = [option.strip(b" \t") for option in fields.get(b"connection", b"").split(b",")]
    return b"close" in options or (head.startswith(_OLD) and b"keep-alive" not in options)


class _ChunkReader:
    """Has llhttp read a chunked body into `body` and `trailers`. It has to see the head first."""

    def __init__(self, head: bytes, body: list[bytes], trailers: list[tuple[bytes, bytes]]) -> None:
        self._body = body
        self._trailers = trailers
        self._in_head = True
        self._ended = False
        self._overhead = 0
        self._chunks = 0
        self._llhttp: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._llhttp.feed_data(head)
        self._in_head = False

    def feed(self, data: bytes) -> bool:
        """Read on; say whether this was the end, to the byte.

        llhttp does not say where in `data` the response ended, only whether it has: so the last byte goes alone.
        """
        assert self._llhttp is not None
        self._chunks = 0
        known = len(self._body)
        try:
            self._llhttp.feed_data(memoryview(data)[:-1])
            followed = self._ended
            if not followed:
                self._llhttp.feed_data(data[-1:])
        except httptools.HttpParserError as error:
            if not self._ended:
                raise ProtocolError(f"the response's chunks are not valid HTTP/1.1: {error}") from None
            followed = True
        if followed:
            raise ProtocolError("bytes follow the last chunk of the response")
        self._check_overhead(len(data), sum(map(len, self._body[known:])))
        if self._ended:
            self._llhttp = None  # it holds our methods, we held it: a cycle the garbage collector need not find
        return self._ended

    def _check_overhead(self, fed: int, body: int) -> None:
        self._overhead = max(0, self._overhead + fed - 2 * body - _CHUNK_OVERHEAD * self._chunks)
        if self._overhead > _MAX_OVERHEAD or len(self._trailers) > _MAX_FIELDS:
            raise ProtocolError("the response's chunks are more trimmings (extensions, trailers) than body")

    # llhttp calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            self._trailers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_message_complete(self) -> None:
        self._ended = True
