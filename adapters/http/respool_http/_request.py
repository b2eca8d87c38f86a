"""Writing a request's head, strictly: nothing a caller passes can add a line, a field or a second request.

The rules are RFC 9112 sections 3 to 7; whatever they leave to taste is refused rather than repaired, because what one
server repairs another reads differently.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TypeAlias

import attrs

from ._errors import InvalidRequest

__all__ = ["Body", "HeaderInput", "RequestHead", "write_head"]

Body: TypeAlias = bytes | bytearray | memoryview | str | Iterable[bytes] | AsyncIterable[bytes] | None
"""A request's body: bytes, text (sent as UTF-8), or an iterable or asynchronous iterable of bytes."""

HeaderInput: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes] | Iterable[tuple[str | bytes, str | bytes]] | None
"""A request's header fields: a mapping, or pairs where a name may repeat."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[!-~]+")
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_DIGITS = re.compile(rb"[0-9]{1,18}")
_EXPECTS_LENGTH = frozenset({b"POST", b"PUT", b"PATCH"})  # RFC 9110, 8.6: an empty body is announced for these
_ONLY_ONCE = frozenset({b"host", b"content-length", b"transfer-encoding"})


@attrs.frozen
class RequestHead:
    """A request's head, ready to send, and what it promises about its body."""

    wire: bytes
    method: bytes
    length: int | None
    """Bytes of body that follow; ``None`` for chunks."""
    close: bool
    """The request asked for the connection to end with it."""
    expect_continue: bool


def write_head(method: str, target: str, host: bytes, headers: HeaderInput, body_length: int | None) -> RequestHead:
    """Check and write everything up to the body, adding ``Host`` and the body's framing where the caller did not.

    `body_length` is the number of bytes known to follow, or ``None`` for a body of unknown length.

    Raises:
      InvalidRequest: naming the part that cannot be sent, never quoting a header's value.
    """
    verb = _checked_method(method)
    lines = [b"%b %b HTTP/1.1\r\n" % (verb, _checked_target(verb, target))]
    framing: dict[bytes, bytes] = {}
    close = expect_continue = False
    for name, value in _pairs(headers):
        lines.append(b"%b: %b\r\n" % (name, value))
        lower = name.lower()
        if lower in _ONLY_ONCE:
            if lower in framing:
                raise InvalidRequest(f"header {lower.decode()!r} is given twice")
            framing[lower] = value
        elif lower == b"connection":
            close = close or b"close" in [token.strip() for token in value.lower().split(b",")]
        elif lower == b"expect":
            expect_continue = value.lower() == b"100-continue"
    if b"host" not in framing:
        lines.insert(1, b"Host: %b\r\n" % host)
    length, field = _framing(verb, framing, body_length)
    lines.append(field)
    lines.append(b"\r\n")
    return RequestHead(b"".join(lines), verb, length, close, expect_continue and length != 0)


def _checked_method(method: str) -> bytes:
    verb = method.encode("ascii", "replace")
    if not _TOKEN.fullmatch(verb) or "?" in method:
        raise InvalidRequest(f"method must be a token such as 'GET', not {method!r}")
    return verb


def _checked_target(verb: bytes, target: str) -> bytes:
    raw = target.encode("utf-8")
    if not _TARGET.fullmatch(raw):
        raise InvalidRequest(
            "target must be visible ASCII without spaces: percent-encode the rest, with urllib.parse.quote for instance"
        )
    if verb != b"CONNECT" and raw[:1] != b"/" and raw != b"*" and b"://" not in raw:
        raise InvalidRequest("target must begin with '/': pass the path and query, the host is the connection's")
    if b"#" in raw:
        raise InvalidRequest("target must not hold a fragment ('#...'): fragments stay with the client")
    return raw


def _pairs(headers: HeaderInput) -> Iterable[tuple[bytes, bytes]]:
    if headers is None:
        return
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        raw_name = name if isinstance(name, bytes) else name.encode("utf-8")
        if not _TOKEN.fullmatch(raw_name):
            raise InvalidRequest(f"header name {name!r} is not a token: letters, digits and !#$%&'*+-.^_`|~ only")
        raw_value = value if isinstance(value, bytes) else _encoded(raw_name, value)
        if not _VALUE.fullmatch(raw_value):
            raise InvalidRequest(
                f"the value of header {raw_name.decode()!r} must not hold line breaks, NUL or other control "
                "characters, nor begin or end with a space"
            )
        yield raw_name, raw_value


def _encoded(name: bytes, value: str) -> bytes:
    try:
        return value.encode("ascii")
    except UnicodeEncodeError:
        raise InvalidRequest(
            f"the value of header {name.decode()!r} is not ASCII: pass bytes in the encoding the server expects"
        ) from None


def _framing(verb: bytes, given: Mapping[bytes, bytes], body_length: int | None) -> tuple[int | None, bytes]:
    """How long the body is (``None``: chunks), and the header line that still has to say so."""
    coding = given.get(b"transfer-encoding")
    length = given.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise InvalidRequest("'content-length' and 'transfer-encoding' exclude each other: give neither")
        if coding.lower() != b"chunked":
            raise InvalidRequest("'transfer-encoding' must be 'chunked': no other transfer coding is spoken here")
        return None, b""
    if length is not None:
        if not _DIGITS.fullmatch(length):
            raise InvalidRequest("'content-length' must be a decimal number")
        if body_length is not None and int(length) != body_length:
            raise InvalidRequest(f"'content-length' is {int(length)}, but the body has {body_length} bytes")
        return int(length), b""
    if body_length is None:
        return None, b"Transfer-Encoding: chunked\r\n"
    if body_length or verb in _EXPECTS_LENGTH:
        return body_length, b"Content-Length: %d\r\n" % body_length
    return 0, b""
