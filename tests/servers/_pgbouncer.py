from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Literal

from ._postgres import PASSWORD, PostgresServer
from ._server import Server, Settings, lines, other_user, program


class PgBouncerServer(Server):
    """PgBouncer in front of a `PostgresServer`, whose settings its clients share. Its admin database: ``pgbouncer``.

    Args:
      postgres: where it connects to, over TCP.
      mode: what PgBouncer calls ``pool_mode``.
      settings: more lines for the ``[pgbouncer]`` section.
    """

    kind = "pgbouncer"

    def __init__(
        self,
        postgres: PostgresServer,
        *,
        mode: Literal["session", "transaction", "statement"] = "transaction",
        settings: Settings | None = None,
    ) -> None:
        super().__init__(user=other_user("postgres"))
        users = self.directory / "users.txt"
        users.write_text(f'"postgres" "{PASSWORD}"\n')
        defaults: Settings = {
            "listen_addr": self.host,
            "listen_port": str(self.port),
            "unix_socket_dir": str(self.directory),
            "auth_type": "trust",
            "auth_file": str(users),
            "admin_users": "postgres",
            "pool_mode": mode,
            "ignore_startup_parameters": "extra_float_digits",
            "max_client_conn": "500",
            "default_pool_size": "20",
        }
        configuration = f"[databases]\n* = host={postgres.host} port={postgres.port}\n\n[pgbouncer]\n"
        configuration += lines({**defaults, **(settings or {})}, "{name} = {value}")
        (self.directory / "pgbouncer.ini").write_text(configuration)

    @property
    def url(self) -> str:
        """For TCP."""
        return f"postgresql://postgres@{self.host}:{self.port}/postgres"

    def _command(self) -> Sequence[str]:
        return [program("pgbouncer", "pgbouncer"), str(self.directory / "pgbouncer.ini")]

    def _is_ready(self) -> bool:
        socket.create_connection((self.host, self.port), timeout=1).close()
        return True
