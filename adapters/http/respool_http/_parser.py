"""Reading one response: bytes in, head and body out. No I/O.

llhttp (through httptools) reads every head, and the body where it comes in chunks. What surrounds it is ours, because a
client's safety hangs on it: a head is handed to the parser whole and alone, so its end is known to the byte; a parser
serves one head and is thrown away, so nothing a server sends can change how the next response is read; and what llhttp
lets pass (other versions, other transfer codings, blank lines before the status line, bytes after the end) is refused.

Memory is bounded whatever arrives: a head by `max_header_size`, a chunk's trimmings by `_MAX_OVERHEAD`, a body by what
was fed since `take_body` last took it.
"""

from __future__ import annotations

import enum
import math
import re
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
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_KEEP_ALIVE = re.compile(rb"timeout\s*=\s*([0-9]{1,9})", re.IGNORECASE)


class _State(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    UNTIL_CLOSE = enum.auto()
    UPGRADED = enum.auto()
    DONE = enum.auto()


class ResponseParser:
    """Reads the response to one request of the given `method`.

    Feed it what arrives with `feed`, and the end of the stream with `feed_eof`; look at `status_code` (0 until the
    final head is in) and `complete`, and take the body with `take_body`.
    """

    __slots__ = (
        "_body",
        "_buffer",
        "_chunks",
        "_ended",
        "_llhttp",
        "_max_header_size",
        "_method",
        "_overhead",
        "_remaining",
        "_state",
        "close",
        "fields",
        "http_version",
        "interim",
        "keep_alive_timeout",
        "reason",
        "status_code",
        "trailers",
    )

    def __init__(self, method: bytes, *, max_header_size: int = MAX_HEADER_SIZE) -> None:
        self._method = method
        self._max_header_size = max_header_size
        self._state = _State.HEAD
        self._buffer = b""
        self._body: list[bytes] = []
        self._remaining = 0
        self._llhttp: httptools.HttpResponseParser | None = None
        self.interim = 0
        self.status_code = 0
        self.reason = b""
        self.http_version = ""
        self.fields: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.close = True
        self.keep_alive_timeout = math.inf

    @property
    def complete(self) -> bool:
        """The response has ended, exactly where it should."""
        return self._state is _State.DONE

    @property
    def head_begun(self) -> bool:
        """Part of a head has arrived."""
        return bool(self._buffer)

    @property
    def upgraded(self) -> bool:
        """The connection no longer speaks HTTP; `take_body` holds what arrived after the head."""
        return self._state is _State.UPGRADED

    @property
    def has_body(self) -> bool:
        """`take_body` would return something."""
        return bool(self._body)

    def take_body(self) -> bytes:
        """The body's bytes fed since the last call."""
        body = self._body
        if len(body) == 1:
            return body.pop()
        taken = b"".join(body)
        body.clear()
        return taken

    def feed(self, data: bytes) -> None:
        """Read on. Raises `ProtocolError` at the first byte that does not belong."""
        while data:
            match self._state:
                case _State.HEAD:
                    data = self._feed_head(data)
                case _State.LENGTH:
                    data = self._feed_length(data)
                case _State.CHUNKS:
                    self._feed_chunks(data)
                    return
                case _State.UNTIL_CLOSE | _State.UPGRADED:
                    self._body.append(data)
                    return
                case _State.DONE:
                    raise ProtocolError(f"{len(data)} bytes follow the end of the response")

    def feed_eof(self) -> str | None:
        """The server has closed its side. Says what is missing, or ``None`` if the response may end here."""
        match self._state:
            case _State.HEAD:
                return "the server closed the connection in the middle of the response's head"
            case _State.LENGTH:
                return f"the server closed the connection {self._remaining} bytes before the end of the body"
            case _State.CHUNKS:
                return "the server closed the connection before the last chunk of the body"
            case _State.UNTIL_CLOSE:
                self._state = _State.DONE
        return None

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
        if not _STATUS_LINE.match(head):
            line = head.partition(b"\r\n")[0]
            raise ProtocolError(f"the status line is not HTTP/1.1: {line[:64]!r}")
        self.fields = []
        llhttp = httptools.HttpResponseParser(self)
        try:
            llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # the right answer to 101: llhttp stops at the end of the head, which is where we are
        except httptools.HttpParserError as error:
            raise _protocol_error(error) from None
        status = llhttp.get_status_code()
        if 100 <= status < 200 and status != 101:
            self.interim += 1
            if self.interim > _MAX_INTERIM:
                raise ProtocolError(f"more than {_MAX_INTERIM} interim (1xx) responses")
            return
        self.http_version = "HTTP/" + llhttp.get_http_version()
        self._read_framing(status, llhttp)
        self.status_code = status

    def _read_framing(self, status: int, llhttp: httptools.HttpResponseParser) -> None:
        """Where the body ends: RFC 9112 section 6.3, in its order."""
        length: bytes | None = None
        codings: list[bytes] = []
        options = b""
        upgrade = False
        for name, value in self.fields:
            lower = name.lower()
            if lower not in _FRAMING:
                continue
            match lower:
                case b"content-length":
                    length = value  # llhttp has refused a second one, and anything but digits
                case b"transfer-encoding":
                    codings.append(value.strip().lower())
                case b"connection":
                    options += b"," + value.lower()
                case b"upgrade":
                    upgrade = True
                case b"keep-alive":
                    if found := _KEEP_ALIVE.search(value):
                        self.keep_alive_timeout = float(found[1])
        tokens = {token.strip() for token in options.split(b",")} if options else ()
        self.close = b"close" in tokens or (self.http_version == "HTTP/1.0" and b"keep-alive" not in tokens)
        if codings and codings != [b"chunked"]:
            raise ProtocolError("the response has a transfer coding other than 'chunked', which nobody asked for")
        if status == 101 and not upgrade:
            raise ProtocolError("the response switches protocols (101) without saying to which")
        if status == 101 or (self._method == b"CONNECT" and 200 <= status < 300):
            self._state = _State.UPGRADED
        elif self._method == b"HEAD" or status in (204, 304):
            self._state = _State.DONE
        elif codings:
            self._start_chunks(llhttp)
        elif length is not None:
            self._remaining = int(length)
            self._state = _State.LENGTH if self._remaining else _State.DONE
        else:
            self.close = True
            self._state = _State.UNTIL_CLOSE

    # The body

    def _feed_length(self, data: bytes) -> bytes:
        size = len(data)
        if size < self._remaining:
            self._remaining -= size
            self._body.append(data)
            return b""
        rest = b""
        if size > self._remaining:
            data, rest = data[: self._remaining], data[self._remaining :]
        self._remaining = 0
        self._body.append(data)
        self._state = _State.DONE
        return rest

    def _start_chunks(self, llhttp: httptools.HttpResponseParser) -> None:
        self._llhttp = llhttp
        self._ended = False
        self._overhead = 0
        self._chunks = 0
        self._state = _State.CHUNKS

    def _feed_chunks(self, data: bytes) -> None:
        """Feed llhttp. It does not say where in `data` the response ended, only whether: the last byte goes alone."""
        assert self._llhttp is not None
        self._chunks = 0
        taken = len(self._body)
        try:
            self._llhttp.feed_data(memoryview(data)[:-1])
            if self._ended:
                raise ProtocolError("bytes follow the last chunk of the response")
            self._llhttp.feed_data(data[-1:])
        except httptools.HttpParserError as error:
            if self._ended:
                raise ProtocolError("bytes follow the last chunk of the response") from None
            raise _protocol_error(error) from None
        size = sum(map(len, self._body[taken:]))
        self._overhead = max(0, self._overhead + len(data) - 2 * size - _CHUNK_OVERHEAD * self._chunks)
        if self._overhead > _MAX_OVERHEAD:
            raise ProtocolError("the response's chunks are more trimmings (extensions, trailers) than body")
        if self._ended:
            self._llhttp = None  # it holds our methods, we held it: a cycle the garbage collector need not find
            self._state = _State.DONE

    # llhttp calls these

    def on_status(self, reason: bytes) -> None:
        self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        fields = self.fields if self._state is _State.HEAD else self.trailers
        fields.append((name, value))
        if len(fields) > _MAX_FIELDS:
            raise ProtocolError(f"the response has more than {_MAX_FIELDS} header fields")

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_message_complete(self) -> None:
        self._ended = True


def _protocol_error(error: httptools.HttpParserError) -> ProtocolError:
    if isinstance(error.__context__, ProtocolError):
        return error.__context__  # raised by one of our own callbacks above
    return ProtocolError(f"the response is not valid HTTP/1.1: {error}")
