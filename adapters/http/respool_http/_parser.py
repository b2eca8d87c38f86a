"""Reading one response: bytes in, head and body out. No I/O.

llhttp (through httptools) reads every head, and the body where it comes in chunks. What surrounds it is ours, because a
client's safety hangs on it: a head is handed to the parser whole and alone, so its end is known to the byte; a parser
serves one head and is thrown away, so nothing a server sends can change how the next response is read; and what llhttp
lets pass (other versions, other transfer codings, blank lines before the status line, bytes after the end) is refused.

Memory is bounded whatever arrives: a head by `max_header_size`, a chunk's trimmings by `_MAX_OVERHEAD`, a body by what
was fed since `take_body` last took it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Final

import httptools

from ._errors import ProtocolError

__all__ = ["MAX_HEADER_SIZE", "ResponseParser"]

MAX_HEADER_SIZE: Final = 65536
"""Bytes a response's head may have unless the adapter says otherwise. curl allows 300 KiB, nginx 4 to 8, h11 100."""

_MAX_FIELDS: Final = 256
_MAX_INTERIM: Final = 32
_MAX_OVERHEAD: Final = 16384  # what Go allows a chunked body to waste (CVE-2023-39326)
_CHUNK_OVERHEAD: Final = 16
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"keep-alive"})
_START: Final = b"HTTP/1."
_USUAL: Final = b"HTTP/1.1 200 OK\r\n"
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_KEEP_ALIVE = re.compile(rb"timeout\s*=\s*([0-9]{1,9})", re.IGNORECASE)


# What the parser is waiting for. Plain numbers: looking up an enum's member costs more than the comparison.
_HEAD: Final = 0
_LENGTH: Final = 1
_CHUNKS: Final = 2
_UNTIL_CLOSE: Final = 3
_UPGRADED: Final = 4
_NOTHING: Final = 5


class ResponseParser:
    """Reads the response to one request of the given `method`.

    Feed it what arrives with `feed`, and the end of the stream with `feed_eof`; look at `status_code` and `complete`,
    and take the body with `take_body`.
    """

    # Start values: most responses never need an instance's own.
    status_code: int = 0
    """0 until the final head is in."""
    interim: int = 0
    """How many interim (1xx) responses came before it."""
    reason: bytes = b""
    http_version: str = ""
    close: bool = True
    """The connection ends with this response."""
    keep_alive_timeout: float = math.inf
    """Seconds the server says it lets the connection be idle."""
    complete: bool = False
    """The response has ended, exactly where it should."""
    upgraded: bool = False
    """The connection no longer speaks HTTP; `take_body` holds what arrived after the head."""

    _state: int = _HEAD
    _buffer: bytes = b""
    _remaining: int = 0
    _llhttp: httptools.HttpResponseParser | None = None
    _ended: bool = False
    _overhead: int = 0
    _chunks: int = 0

    def __init__(self, method: bytes, *, max_header_size: int = MAX_HEADER_SIZE) -> None:
        self._method = method
        self._max_header_size = max_header_size
        self.body: list[bytes] = []
        """The body's pieces fed since `take_body` last took them."""
        self.fields: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []

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
        while data:
            state = self._state
            if state == _HEAD:
                data = self._feed_head(data)
            elif state == _LENGTH:
                data = self._feed_length(data)
            elif state == _CHUNKS:
                self._feed_chunks(data)
                return
            elif state == _NOTHING:
                raise ProtocolError(f"{len(data)} bytes follow the end of the response")
            else:
                self.body.append(data)
                return

    def feed_eof(self) -> str | None:
        """The server has closed its side. Says what is missing, or ``None`` if the response may end here."""
        state = self._state
        if state == _HEAD:
            return "the server closed the connection in the middle of the response's head"
        if state == _LENGTH:
            return f"the server closed the connection {self._remaining} bytes before the end of the body"
        if state == _CHUNKS:
            return "the server closed the connection before the last chunk of the body"
        if state == _UNTIL_CLOSE:
            self._end()
        return None

    def _end(self) -> None:
        self._state = _NOTHING
        self.complete = True

    # The head

    def _feed_head(self, data: bytes) -> bytes:
        """Take the head's bytes; what follows it is returned."""
        known = len(self._buffer)
        buffer = self._buffer + data if known else data
        if buffer[:7] != _START[: len(buffer)]:
            raise ProtocolError(f"this is not an HTTP/1 response: it begins with {buffer[:16]!r}")
        end = buffer.find(b"\r\n\r\n", max(0, known - 3), self._max_header_size)
        if end < 0:
            self._check_partial_head(buffer, known)
            self._buffer = buffer
            return b""
        self._buffer = b""
        self._parse_head(buffer[: end + 4])
        return buffer[end + 4 :]

    def _check_partial_head(self, buffer: bytes, known: int) -> None:
        if len(buffer) >= self._max_header_size:
            raise ProtocolError(f"the response's head is longer than max_header_size ({self._max_header_size} bytes)")
        if _BARE_LF.search(buffer, max(0, known - 1)):
            raise ProtocolError("the response's head has a line that ends in LF without CR")

    def _parse_head(self, head: bytes) -> None:
        if not head.startswith(_USUAL) and not _STATUS_LINE.match(head):
            line = head.partition(b"\r\n")[0]
            raise ProtocolError(f"the status line is not HTTP/1.1: {line[:64]!r}")
        self.fields.clear()
        llhttp = httptools.HttpResponseParser(self)
        try:
            llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the right answer to 101: llhttp stops at the end of the head, which is where we are
        except httptools.HttpParserError as error:
            raise ProtocolError(f"the response's head is not valid HTTP/1.1: {error}") from None
        if len(self.fields) > _MAX_FIELDS:
            raise ProtocolError(f"the response has more than {_MAX_FIELDS} header fields")
        status = llhttp.get_status_code()
        if status < 200 and status != 101:
            self.interim += 1
            if self.interim > _MAX_INTERIM:
                raise ProtocolError(f"more than {_MAX_INTERIM} interim (1xx) responses")
            return
        self.http_version = "HTTP/1.1" if head[7:8] == b"1" else "HTTP/1.0"
        self._read_framing(status, llhttp)
        self.status_code = status

    def _read_framing(self, status: int, llhttp: httptools.HttpResponseParser) -> None:
        """Where the body ends: RFC 9112 section 6.3, in its order."""
        found: dict[bytes, bytes] = {}
        for name, value in self.fields:
            lower = name.lower()
            if lower in _FRAMING:
                found[lower] = found[lower] + b"," + value if lower in found else value
        # llhttp has refused a second Content-Length, one that is not digits, and one beside a Transfer-Encoding.
        length = found.get(b"content-length")
        coding = found.get(b"transfer-encoding")
        self._read_options(found)
        if coding is not None and coding.strip(b" \t").lower() != b"chunked":
            raise ProtocolError("the response has a transfer coding other than 'chunked', which nobody asked for")
        if status == 101 and b"upgrade" not in found:
            raise ProtocolError("the response switches protocols (101) without saying to which")
        if status == 101 or (self._method == b"CONNECT" and status < 300):
            self._state = _UPGRADED
            self.upgraded = True
        elif self._method == b"HEAD" or status in (204, 304) or length == b"0":
            self._end()
        elif length is not None:
            self._remaining = int(length)
            self._state = _LENGTH
        elif coding is not None:
            self._llhttp = llhttp
            self._ended = False
            self._state = _CHUNKS
        else:
            self.close = True
            self._state = _UNTIL_CLOSE

    def _read_options(self, found: Mapping[bytes, bytes]) -> None:
        """Whether the connection lives on, and how long (RFC 9112, 9.3)."""
        tokens = [token.strip() for token in found.get(b"connection", b"").lower().split(b",")]
        self.close = b"close" in tokens or (self.http_version == "HTTP/1.0" and b"keep-alive" not in tokens)
        if b"keep-alive" in found and (timeout := _KEEP_ALIVE.search(found[b"keep-alive"])):
            self.keep_alive_timeout = float(timeout[1])

    # The body

    def _feed_length(self, data: bytes) -> bytes:
        """Take the body's bytes; what follows it is returned."""
        missing = self._remaining - len(data)
        if missing > 0:
            self._remaining = missing
            self.body.append(data)
            return b""
        self._end()
        if missing == 0:
            self.body.append(data)
            return b""
        self.body.append(data[:missing])
        return data[missing:]

    def _feed_chunks(self, data: bytes) -> None:
        """Feed llhttp. It does not say where in `data` the response ended, only whether: the last byte goes alone."""
        assert self._llhttp is not None
        self._chunks = 0
        known = len(self.body)
        try:
            self._llhttp.feed_data(memoryview(data)[:-1])
            if not self._ended:
                self._llhttp.feed_data(data[-1:])
                followed = False
            else:
                followed = True
        except httptools.HttpParserError as error:
            if not self._ended:
                raise ProtocolError(f"the response's chunks are not valid HTTP/1.1: {error}") from None
            followed = True
        if followed:
            raise ProtocolError("bytes follow the last chunk of the response")
        size = sum(map(len, self.body[known:]))
        self._overhead = max(0, self._overhead + len(data) - 2 * size - _CHUNK_OVERHEAD * self._chunks)
        if self._overhead > _MAX_OVERHEAD or len(self.trailers) > _MAX_FIELDS:
            raise ProtocolError("the response's chunks are more trimmings (extensions, trailers) than body")
        if self._ended:
            self._llhttp = None  # it holds our methods, we held it: a cycle the garbage collector need not find
            self._end()

    # llhttp calls these

    def on_status(self, reason: bytes) -> None:
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state == _HEAD:
            self.fields.append((name, value))
        else:
            self.trailers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_message_complete(self) -> None:
        self._ended = True
