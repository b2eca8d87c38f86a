"""Where connections go: origins and proxies, parsed once and strictly."""

from __future__ import annotations

import base64
import functools
import ipaddress
import re
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

__all__ = ["MAX_REMEMBERED", "Origin", "Proxy", "split_url"]

MAX_REMEMBERED = 1024  # characters of a URL, or target: a thousand of the longest would fill many megabytes

_DEFAULT_PORTS = {"http": 80, "https": 443}
_VISIBLE = re.compile(r"[!-~\x80-\U0010ffff]+")
_ESCAPES = "in a user name or password write / as %2F, # as %23, ? as %3F"
_HOST = re.compile(r"[A-Za-z0-9._~-]+")


class Origin(NamedTuple):
    """Scheme, host and port: what a connection is good for. The key of an `HTTPPool`."""

    scheme: str
    host: str
    port: int
    server_hostname: str | None = None
    """The name sent as SNI and checked against the certificate, if it is not `host`."""

    @classmethod
    def parse(cls, origin: str | Origin) -> Origin:
        """``"https://example.com"``. Raises `ValueError` for anything that is more, or less, than an origin."""
        if isinstance(origin, Origin):
            return origin
        parsed, target = split_url(origin)
        if target != "/":
            raise ValueError("an origin is scheme, host and port only: give the path to the request")
        return parsed

    @property
    def authority(self) -> str:
        """``host:port``, IPv6 addresses in brackets."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def host_field(self) -> bytes:
        """What the ``Host`` field says: the port only where it is not the scheme's own."""
        if self.port == _DEFAULT_PORTS[self.scheme]:
            return _bracketed(self.host).encode("ascii")
        return self.authority.encode("ascii")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """An absolute ``http`` or ``https`` URL as its origin and its target (path and query).

    Raises `ValueError`. URLs with credentials are refused: they would travel in plain sight through logs.
    """
    if not isinstance(url, str):
        raise TypeError(f"the URL must be a str, not {type(url).__name__}: is an environment variable missing?")
    return _remembered_split(url) if len(url) <= MAX_REMEMBERED else _checked_split(url)


def _checked_split(url: str) -> tuple[Origin, str]:
    if not _VISIBLE.fullmatch(url):
        raise ValueError("the URL must not be empty, nor hold spaces or control characters: percent-encode them")
    parts = _split(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the URL must begin with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL must not hold a user or password: send an Authorization header")
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    target = parts.path or "/"
    if parts.query or url.partition("#")[0].endswith("?"):
        target = f"{target}?{parts.query}"
    return Origin(parts.scheme, _checked_host(parts.hostname), port), target


_remembered_split = functools.lru_cache(maxsize=1024)(_checked_split)


def _split(url: str) -> SplitResult:
    """`urlsplit`, which looks at the port late, and quotes what may be the beginning of a password."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # computed, and checked, when it is asked for
    except ValueError:
        raise ValueError(f"the URL's host or port cannot be read; {_ESCAPES}") from None
    return parts


def _checked_host(host: str | None) -> str:
    if not host:
        raise ValueError("the URL has no host")
    if ":" in host:
        return str(ipaddress.IPv6Address(host)) if "%" not in host else host
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name")
    return host


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@attrs.frozen
class Proxy:
    """An HTTP proxy that opens tunnels. Its credentials are in no repr and no error."""

    host: str
    port: int
    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)

    @classmethod
    def parse(cls, url: str | Proxy) -> Proxy:
        """``"http://[user:password@]host:port"``. Raises `ValueError`."""
        if isinstance(url, Proxy):
            return url
        parts = _split(url)
        if parts.scheme != "http":
            raise ValueError("a proxy's URL must begin with http://: tunnels go through plain HTTP proxies")
        if parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"a proxy's URL ends with its port; {_ESCAPES}")
        host = _checked_host(parts.hostname)
        return cls(host, 80 if parts.port is None else parts.port, _credentials(parts.username, parts.password))

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


def _credentials(user: str | None, password: str | None) -> tuple[tuple[str, str], ...]:
    if user is None:
        return ()
    pair = f"{unquote(user)}:{unquote(password or '')}".encode()
    return (("Proxy-Authorization", "Basic " + base64.b64encode(pair).decode()),)
