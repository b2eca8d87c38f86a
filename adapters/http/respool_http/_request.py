"""Writing a request, strictly: nothing a caller passes can add a line, a field or a second request.

The rules are RFC 9112 sections 3 to 7; whatever they leave to taste is refused rather than repaired, because what one
server repairs another reads differently.
"""

from __future__ import annotations

import functools
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TypeAlias

import attrs

from ._errors import InvalidRequest
from ._origin import MAX_REMEMBERED
from ._upload import known_content

__all__ = ["Body", "HeaderInput", "Outgoing", "write_request"]

Body: TypeAlias = bytes | bytearray | memoryview | str | Iterable[bytes] | AsyncIterable[bytes] | None
"""A request's body: bytes, text (sent as UTF-8), or an iterable or asynchronous iterable of bytes."""

HeaderInput: TypeAlias = (
    Mapping[str, str | bytes] | Mapping[bytes, str | bytes] | Iterable[tuple[str | bytes, str | bytes]] | None
)
"""A request's header fields: a mapping, or pairs where a name may repeat."""

_INLINE_BODY = 65536
"""Bodies up to this size travel in one send with the head."""

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_IN_VALUES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_DIGITS = re.compile(rb"[0-9]{1,18}")
_METHODS = {verb: verb.encode() for verb in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT")}
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE"})  # RFC 9110, 9.2.2
_EXPECTS_LENGTH = frozenset({b"POST", b"PUT", b"PATCH"})  # RFC 9110, 8.6: an empty body is announced for these
_HEADERS = "headers must be a mapping, or pairs of a name and a value"
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding"})  # these may be given once
_OPTIONS = frozenset({b"connection", b"expect"})


@attrs.frozen
class Outgoing:
    """A request ready to be sent, as often as it takes, and what it promises."""

    wire: bytes = attrs.field(repr=False)
    """Its head, and its body too if that is small."""
    method: bytes
    idempotent: bool
    """It does no harm if the server acts upon it twice."""
    close: bool = False
    """It asks for the connection to end with it."""
    expect_continue: bool = False
    length: int | None = 0
    """Bytes of body, ``None`` for chunks."""
    body: Body = attrs.field(default=None, repr=False)
    """What follows `wire`, if anything does."""


def write_request(method: str, target: str, host: bytes, headers: HeaderInput, body: Body) -> Outgoing:
    """Check and write a request, adding ``Host`` and the body's framing where the caller did not.

    Raises:
      InvalidRequest: naming the part that cannot be sent, never quoting a header's value.
    """
    if headers is None and body is None and len(target) <= MAX_REMEMBERED:
        return _bare_request(method, target, host)
    content = known_content(body)
    request = _write_head(method, target, host, headers, None if content is None else len(content))
    if content is None or len(content) > _INLINE_BODY or request.expect_continue or request.length is None:
        return attrs.evolve(request, body=body if content is None else content)
    return attrs.evolve(request, wire=request.wire + content) if content else request


@functools.lru_cache(maxsize=1024)
def _bare_request(method: str, target: str, host: bytes) -> Outgoing:
    return _write_head(method, target, host, None, 0)


def _write_head(method: str, target: str, host: bytes, headers: HeaderInput, body_length: int | None) -> Outgoing:
    """Everything up to the body. `body_length` is in bytes, ``None`` if it is not known."""
    verb = _METHODS.get(method) or _checked_method(method)
    lines = [b"%b %b HTTP/1.1\r\n" % (verb, _checked_target(verb, target))]
    framing: dict[bytes, bytes] = {}
    options: dict[bytes, bytes] = {}
    for name, value in _pairs(headers):
        start, lower = _checked_name(name)
        checked = _checked_value(start, value)
        lines.append(b"%b%b\r\n" % (start, checked))
        if lower in _FRAMING:
            if lower in framing:
                raise InvalidRequest(f"header {lower.decode()!r} is given twice")
            framing[lower] = checked
        elif lower in _OPTIONS:
            options[lower] = options.get(lower, b"") + b"," + checked.lower()
    if b"host" not in framing:
        lines.insert(1, b"Host: %b\r\n" % host)
    length, field = _framing(verb, framing, body_length)
    lines.append(field)
    lines.append(b"\r\n")
    close = b"close" in map(bytes.strip, options.get(b"connection", b"").split(b","))
    expect_continue = length != 0 and options.get(b"expect") == b",100-continue"
    return Outgoing(b"".join(lines), verb, verb in _IDEMPOTENT, close, expect_continue, length)


def _checked_method(method: str) -> bytes:
    verb = method.encode("utf-8", "replace") if isinstance(method, str) else b""
    if not _TOKEN.fullmatch(verb):
        raise InvalidRequest(f"method must be a token such as 'GET', not {method!r}")
    return verb


def _checked_target(verb: bytes, target: str) -> bytes:
    if not (target and target.isascii() and target.isprintable() and " " not in target):
        raise InvalidRequest(
            "target must be visible ASCII without spaces: percent-encode the rest, with urllib.parse.quote for instance"
        )
    if target[0] != "/" and verb != b"CONNECT" and target != "*" and "://" not in target:
        raise InvalidRequest("target must begin with '/': pass the path and query, the host is the connection's")
    if "#" in target:
        raise InvalidRequest("target must not hold a fragment ('#...'): fragments stay with the client")
    return target.encode("ascii")


def _pairs(headers: HeaderInput) -> Iterable[tuple[str | bytes, str | bytes]]:
    if headers is None:
        return ()
    if isinstance(headers, Mapping):
        return headers.items()
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise InvalidRequest(f"{_HEADERS}, not {type(headers).__name__}")
    return map(_checked_pair, headers)


def _checked_pair(pair: tuple[str | bytes, str | bytes]) -> tuple[str | bytes, str | bytes]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise InvalidRequest(f"{_HEADERS}; one of them is something else")
    return pair


@functools.lru_cache(maxsize=512)
def _checked_name(name: str | bytes) -> tuple[bytes, bytes]:
    """The start of the field's line, and the name in lower case."""
    raw = name if isinstance(name, bytes) else str(name).encode("utf-8", "replace")
    if not isinstance(name, (str, bytes)) or not _TOKEN.fullmatch(raw):
        raise InvalidRequest(f"header name {name!r} is not a token: letters, digits and !#$%&'*+-.^_`|~ only")
    return raw + b": ", raw.lower()


def _checked_value(start: bytes, value: str | bytes) -> bytes:
    if isinstance(value, str):
        if not value.isascii():
            raise InvalidRequest(
                f"the value of header {_name(start)} is not ASCII: pass bytes in the encoding the server expects"
            )
        value = value.encode("ascii")
    elif not isinstance(value, (bytes, bytearray)):
        raise InvalidRequest(f"the value of header {_name(start)} must be str or bytes, not {type(value).__name__}")
    if value.translate(None, _IN_VALUES) or value.strip(b" \t") != value:
        raise InvalidRequest(
            f"the value of header {_name(start)} must not hold line breaks, NUL or other control characters, "
            "nor begin or end with a space"
        )
    return value


def _name(start: bytes) -> str:
    return repr(start[:-2].decode("ascii"))


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
