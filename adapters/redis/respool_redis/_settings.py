"""Where a Redis server is and how to talk to it: redis-py's own settings, as one frozen value.

URLs are taken apart by redis-py's own ``parse_url``, and the names, defaults and meanings are redis-py's. Importing
``redis.asyncio`` for this, and for the command classes, does not start or need an asyncio event loop.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
from redis._defaults import get_default_socket_keepalive_options
from redis._parsers import Encoder
from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url, to_bool
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.driver_info import DriverInfo, resolve_driver_info
from redis.utils import SENTINEL

import respool

__all__ = ["Settings"]

_POOL_OPTIONS = {
    "max_connections": "max_size",
    "timeout": "acquire_timeout",
    "health_check_interval": "validate_after",
}
_TRIO_OPTIONS = {
    "socket_connect_timeout": "the pool's open_timeout",
    "retry": "a loop of your own, or open_redis, which repeats commands that were never sent",
    "retry_on_timeout": "a loop of your own around trio.move_on_after",
    "retry_on_error": "a loop of your own",
}


_DATABASE = re.compile(r"/?|/[0-9]+/?")
_ESCAPES = "in a user name or password write / as %2F, # as %23, ? as %3F"


def _protocol(value: Any) -> int | None:
    if value in (None, 2, 3, "2", "3"):
        return None if value is None else int(value)
    raise ValueError(f"protocol must be 2 or 3, not {value!r}")


def _flag(value: Any) -> bool:
    return bool(to_bool(value))  # a URL's "no" and "0" arrive as strings


@attrs.frozen(kw_only=True)
class Settings:
    """One server and the manners of talking to it. Field names are redis-py's."""

    host: str = "localhost"
    port: int = attrs.field(default=6379, converter=int)
    path: str | None = None
    """A Unix socket's path. If given, host and port are not used."""
    db: int = attrs.field(default=0, converter=int)
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    credential_provider: CredentialProvider | None = attrs.field(default=None, repr=False)
    client_name: str | None = None
    encoding: str = "utf-8"
    encoding_errors: str = "strict"
    decode_responses: bool = attrs.field(default=False, converter=_flag)
    protocol: int | None = attrs.field(default=None, converter=_protocol)
    """The RESP version. None, as in redis-py: RESP3 on the wire, RESP2's shapes in Python."""
    legacy_responses: bool = attrs.field(default=True, converter=_flag)
    socket_timeout: float | None = None
    """Seconds a reply may take before `redis.TimeoutError` is raised. None: the caller's cancel scopes decide."""
    socket_keepalive: bool = attrs.field(default=True, converter=_flag)
    socket_keepalive_options: Mapping[int, int | bytes] = attrs.field(factory=get_default_socket_keepalive_options)
    socket_read_size: int = 65536
    max_reply_size: int = attrs.field(default=1 << 30, converter=int, validator=attrs.validators.ge(1))
    """Bytes one reply may have. redis-py has no such limit; Redis itself has one, of 512 MiB for a value."""
    tls: RedisSSLContext | None = attrs.field(default=None, repr=False, eq=False)
    driver_info: DriverInfo | None = attrs.field(factory=lambda: resolve_driver_info(SENTINEL), repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.credential_provider is not None and (self.username or self.password):
            raise ValueError("give either username and password or credential_provider, not both")

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Settings:
        """Read a URL as redis-py does; what the URL says wins over `options`, as there.

        Raises:
          ValueError: the URL is not a Redis URL, or a value in it cannot be used.
          TypeError: an argument that is not known, or belongs to the pool.
        """
        if not isinstance(url, str):
            raise TypeError(f"the URL must be a str, not {type(url).__name__}: is an environment variable missing?")
        if url.startswith("redis+unix:"):
            url = url.removeprefix("redis+")
        _check(url)
        return cls.from_options(**{**options, **parse_url(url)})

    @classmethod
    def from_options(cls, **options: Any) -> Settings:
        """Build settings from the keyword arguments of redis-py's ``Redis``."""
        if "unix_socket_path" in options:
            options["path"] = options.pop("unix_socket_path")
        secure = options.pop("ssl", False)
        secure |= options.pop("connection_class", None) is SSLConnection
        tls = {name.removeprefix("ssl_"): options.pop(name) for name in list(options) if name.startswith("ssl_")}
        if tls and not secure:
            raise TypeError(f"ssl_{next(iter(tls))} needs a rediss:// URL, or ssl=True")
        if secure:
            options["tls"] = _tls(tls)
        if "lib_name" in options or "lib_version" in options:
            options["driver_info"] = resolve_driver_info(
                SENTINEL, options.pop("lib_name", SENTINEL), options.pop("lib_version", SENTINEL)
            )
        for name in list(options):
            if name == "socket_keepalive_options" and options[name] is None:
                options[name] = {}
            if name not in _FIELDS:
                raise TypeError(_unknown(name))
        return cls(**options)

    @property
    def where(self) -> str:
        """The server's address, for names and error messages."""
        return self.path if self.path is not None else f"{self.host}:{self.port}"

    @property
    def connection_kwargs(self) -> dict[str, Any]:
        """The settings as redis-py's own code looks them up (``client.connection_pool.connection_kwargs``)."""
        return {name: getattr(self, name) for name in _FIELDS}

    def get_encoder(self) -> Encoder:
        """How str becomes bytes and back: redis-py's encoder."""
        return Encoder(self.encoding, self.encoding_errors, self.decode_responses)  # type: ignore[no-untyped-call]

    async def credentials(self) -> tuple[str, ...]:
        """The arguments of AUTH; empty if the server asks for none. Asked again for every connection."""
        provider = self.credential_provider
        if provider is None:
            if not self.username and not self.password:
                return ()
            provider = UsernamePasswordCredentialProvider(self.username, self.password)
        return tuple(await provider.get_credentials_async())


_FIELDS = frozenset(attrs.fields_dict(Settings))


def _tls(options: dict[str, Any]) -> RedisSSLContext:
    try:
        return RedisSSLContext(**{"cert_reqs": "required", "check_hostname": True, **options})
    except TypeError:
        raise TypeError(f"unknown TLS option among {', '.join('ssl_' + name for name in options)}") from None


def _check(url: str) -> None:
    """Refuse what would make a password part of an address, or of an error's text. redis-py's message quotes it.

    And what redis-py would pass over in silence, and then use the first database, or the default port.
    """
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # computed, and checked, when it is asked for
    except ValueError:
        raise ValueError(f"the URL's host or port cannot be read; {_ESCAPES}") from None
    if "://" not in url:
        raise ValueError("a URL such as redis://user@host:6379/0 is needed")
    if "@" in url.replace(parts.netloc, "", 1):
        raise ValueError(f"the URL has an @ behind its host; {_ESCAPES}, and elsewhere @ as %40")
    if "#" in url:
        raise ValueError("the URL has a # in it, and what is behind it would not be read; write # as %23")
    if parts.port == 0:
        raise ValueError("the URL's port must not be 0")
    if parts.scheme in ("redis", "rediss") and not _DATABASE.fullmatch(unquote(parts.path)):
        raise ValueError("the URL's path must be a database's number, as in redis://host:6379/0")


def _unknown(name: str) -> str:
    if name in _POOL_OPTIONS:
        return f"{name} is not a connection's setting: give the pool {_POOL_OPTIONS[name]}=... instead"
    if name in _TRIO_OPTIONS:
        return f"{name} is not supported: use {_TRIO_OPTIONS[name]}"
    if name in respool.Options.__annotations__:
        return f"{name} is the pool's: give it to open_pool or open_redis"
    near = difflib.get_close_matches(name, [*respool.Options.__annotations__, *sorted(_FIELDS)], n=1, cutoff=0.8)
    return f"unknown Redis setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
