"""From connection parameters to the attempts to make, with every name already resolved.

libpq would resolve names itself, and block the event loop while it does.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING

import trio
from psycopg import errors as e
from psycopg import pq
from psycopg.conninfo import conninfo_attempts, make_conninfo

if TYPE_CHECKING:
    from psycopg.abc import ConnDict

__all__ = ["check_places", "connection_attempts", "effective", "without_secrets"]

_ROUTING = ("host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts", "connect_timeout")
_BUILT_IN = {option.keyword.decode(): (option.compiled or b"").decode() for option in pq.Conninfo.get_defaults()}
"""What libpq assumes if neither it nor the environment nor a service file is told anything."""
_UNKNOWN_OPTION = re.compile(r'invalid (?:URI query parameter:|connection option) "(\w+)"')
_SPILT = re.compile(r"postgres(ql)?://[^/?]*/[^?]*@")
_ESCAPES = "in a user name or password write / as %2F, @ as %40"


def without_secrets(error: e.Error, conninfo: str) -> str:
    """The text of `error`. What libpq cannot read it quotes: an option's name, or a piece of a password."""
    text = str(error).strip()
    could_be_secret = "password" in conninfo or "@" in conninfo.partition("?")[2]
    if (unknown := _UNKNOWN_OPTION.search(text)) and not could_be_secret:
        return f"neither psycopg nor libpq has an option {unknown[1]!r}"
    return re.sub(r'".*"', '"..."', text, flags=re.DOTALL)


def check_places(conninfo: str, params: Mapping[str, object]) -> None:
    """Refuse what would make a password part of a host, a port or a database's name, all of which logs tell.

    Raises:
      psycopg.ProgrammingError: libpq has read a password that is not percent-encoded as something else.
    """
    if any(port.strip() and not port.strip().isdigit() for port in str(params.get("port", "")).split(",")):
        raise e.ProgrammingError(f"the port is no number; in a URL, {_ESCAPES}")
    if any("@" in host[1:] for host in str(params.get("host", "")).split(",") if not host.startswith("/")):
        raise e.ProgrammingError(f"the host has an @ in it; in a URL, {_ESCAPES}")
    if _SPILT.match(conninfo):
        raise e.ProgrammingError(f"the URL has an @ behind its host; {_ESCAPES}, also in a database's name")


def effective(params: ConnDict) -> dict[str, str]:
    """What libpq makes of `params`: with its defaults, the environment and the service file.

    libpq tells only of a connection, so one is started that it refuses after reading everything and before connecting.

    Raises:
      psycopg.OperationalError: the service file does not have the service asked for.
    """
    refused = pq.PGconn.connect_start(make_conninfo("", **{**params, "gssencmode": "none-such"}).encode())
    found = {option.keyword.decode(): option.val.decode() for option in refused.info if option.val}
    message = refused.get_error_message()
    refused.finish()
    if "none-such" not in message:
        raise e.OperationalError(message)
    return found


async def connection_attempts(params: ConnDict) -> list[ConnDict]:
    """The attempts to make, in order: one for each address of each host.

    Raises:
      psycopg.OperationalError: no host could be resolved, or the lists of hosts and ports do not match.
    """
    known = effective(params)
    params = {
        **{name: known[name] for name in _ROUTING if known.get(name) not in (None, _BUILT_IN.get(name))},
        **params,
    }
    hosts = str(params.get("host") or "").split(",")
    if "hostaddr" in params or not any(map(_is_name, hosts)):
        return conninfo_attempts(params)
    ports = str(params.get("port", "")).split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise e.OperationalError(f"could not match {len(ports)} port numbers to {len(hosts)} hosts")
    resolved = await _resolve(list(zip(hosts, ports, strict=True)))
    if "port" not in params:
        del resolved["port"]
    return conninfo_attempts({**params, **resolved})


def _is_name(host: str) -> bool:
    if not host or host.startswith(("/", "@")):  # a Unix socket's directory, or an abstract one's
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


async def _resolve(hosts: list[tuple[str, str]]) -> ConnDict:
    """Lists of host, hostaddr and port, with a place for each address the hosts have."""
    places: list[tuple[str, str, str]] = []
    failure = None
    for host, port in hosts:
        if not _is_name(host):
            places.append((host, "" if host.startswith(("/", "@")) else host, port))
            continue
        try:
            found = await trio.socket.getaddrinfo(
                host, port or _BUILT_IN["port"], type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        except OSError as error:
            failure = e.OperationalError(f"failed to resolve host {host!r}: {error}")
        else:
            places += [(host, str(address[0]), port) for *_, address in found]
    if not places:
        assert failure is not None
        raise failure
    return {
        name: ",".join(values)
        for name, values in zip(("host", "hostaddr", "port"), zip(*places, strict=True), strict=True)
    }
