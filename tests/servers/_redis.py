from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from ._server import Server, Settings, lines, program


class RedisServer(Server):
    """Redis, keeping everything in memory only.

    Args:
      settings: lines for redis.conf.
      tls: speak only TLS on `port`, with a certificate made for the occasion; plain on the Unix socket.
      sentinel: be a Sentinel, which has no data and watches others. Name them in `settings`.
    """

    kind = "redis"

    def __init__(self, *, settings: Settings | None = None, tls: bool = False, sentinel: bool = False) -> None:
        super().__init__(tls=tls)
        self.sentinel = sentinel
        self.password = str((settings or {}).get("requirepass", ""))
        place: Settings = {"bind": self.host, "dir": str(self.directory), "unixsocket": str(self.socket_path)}
        if tls:
            certificate = {"tls-cert-file": str(self.certificate_file), "tls-key-file": str(self.key_file)}
            files = {**certificate, "tls-ca-cert-file": str(self.ca_file)}
            place = {**place, "port": "0", "tls-port": str(self.port), "tls-auth-clients": "optional", **files}
        else:
            place = {**place, "port": str(self.port)}
        storage: Settings = {} if sentinel else {"save": '""', "appendonly": "no"}
        merged = {**storage, **place, **(settings or {})}
        (self.directory / "redis.conf").write_text(lines(merged, "{name} {value}"))

    @property
    def url(self) -> str:
        """For TCP. Holds the password if one is needed."""
        password = f":{self.password}@" if self.password else ""
        return f"{'rediss' if self.tls else 'redis'}://{password}{self.host}:{self.port}/0"

    @property
    def socket_path(self) -> Path:
        """The Unix socket."""
        return self.directory / "socket"

    def _command(self) -> Sequence[str]:
        command = [program("redis-server", "redis-server"), str(self.directory / "redis.conf")]
        return [*command, "--sentinel"] if self.sentinel else command

    def _is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self.socket_path))
            client.sendall(b"PING\r\n")
            return client.recv(100).startswith((b"+PONG", b"-NOAUTH", b"-MASTERDOWN"))
