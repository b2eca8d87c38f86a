"""The arguments of `pymysql.connect`, as types and as a URL."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypedDict
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql.cursors

from ._cursors import Cursor

__all__ = ["Arguments", "from_url"]


class Arguments(TypedDict, total=False):
    """Keyword arguments of `pymysql.connect` that make sense here. PyMySQL documents them."""

    host: str
    port: int
    user: str | bytes
    password: str | bytes
    database: str | bytes
    unix_socket: str
    bind_address: str
    charset: str
    collation: str
    sql_mode: str
    init_command: str
    autocommit: bool | None
    cursorclass: type[Cursor[Any] | pymysql.cursors.Cursor]
    conv: Mapping[Any, Callable[..., Any]]
    use_unicode: bool
    client_flag: int
    local_infile: bool
    max_allowed_packet: int
    program_name: str
    connect_timeout: float
    read_timeout: float | None
    write_timeout: float | None
    read_default_file: str
    read_default_group: str
    auth_plugin_map: Mapping[Any, Callable[..., Any]]
    server_public_key: bytes
    ssl: ssl.SSLContext | Mapping[str, Any]
    ssl_ca: str
    ssl_cert: str
    ssl_key: str
    ssl_key_password: str
    ssl_disabled: bool
    ssl_verify_cert: bool
    ssl_verify_identity: bool


_ESCAPES = "in a user name or password write / as %2F, # as %23, ? as %3F"
_TRUTHS = {"1": True, "true": True, "on": True, "yes": True, "0": False, "false": False, "off": False, "no": False}


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise ValueError
    return _TRUTHS[text.lower()]


_IN_URL: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("unix_socket", "bind_address", "charset", "collation", "sql_mode", "init_command"), str),
    **dict.fromkeys(("program_name", "read_default_file", "read_default_group"), str),
    **dict.fromkeys(("ssl_ca", "ssl_cert", "ssl_key", "ssl_key_password"), str),
    **dict.fromkeys(("client_flag", "max_allowed_packet", "max_result_size"), int),
    **dict.fromkeys(("connect_timeout", "read_timeout", "write_timeout"), float),
    **dict.fromkeys(("autocommit", "use_unicode", "local_infile", "reset_session"), _truth),
    **dict.fromkeys(("ssl_disabled", "ssl_verify_cert", "ssl_verify_identity"), _truth),
}


def from_url(url: str) -> dict[str, Any]:
    """The arguments that `url` stands for.

    Raises:
      ValueError: it is not such a URL. Neither the URL nor any value in it is repeated, because of the password.
    """
    if not url.lower().startswith(("mysql://", "mariadb://")):
        raise ValueError("a URL such as mysql://user@host:3306/database is needed")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"the URL's host or port cannot be read; {_ESCAPES}") from None
    if "@" in url.replace(parts.netloc, "", 1):  # the password would become part of a name, which logs tell
        raise ValueError(f"the URL has an @ behind its host; {_ESCAPES}, and elsewhere @ as %40")
    if "#" in url:
        raise ValueError("the URL has a # in it, and what is behind it would not be read; write # as %23")
    if port == 0:
        raise ValueError("the URL's port must not be 0")
    given = {
        "host": parts.hostname,
        "port": port,
        "user": parts.username and unquote(parts.username),
        "password": parts.password and unquote(parts.password),
        "database": unquote(parts.path.removeprefix("/")),
    }
    arguments = {name: value for name, value in given.items() if value}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _IN_URL:
            raise ValueError(f"a MySQL URL has no option {name!r}; it has {', '.join(sorted(_IN_URL))}")
        if name.startswith("ssl_") and not text:  # PyMySQL would do without TLS
            raise ValueError(f"option {name!r} of the URL must not be empty")
        try:
            arguments[name] = _IN_URL[name](text)
        except ValueError:
            needed = "true or false" if _IN_URL[name] is _truth else "a number"
            raise ValueError(f"option {name!r} of the URL must be {needed}") from None
    return arguments
