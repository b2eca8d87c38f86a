from __future__ import annotations

import functools
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ._server import Server, Settings, lines, new_directory, other_user, program, run_as

PACKAGE = "postgresql"
PASSWORD = "throw-away"

SETTINGS: Settings = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "100",
    "max_wal_size": "64MB",
    "autovacuum": "off",
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "lc_messages": "C",
}


@functools.cache
def _template() -> Path:
    """A database cluster made once a run, and copied."""
    user = other_user("postgres")
    directory = new_directory("postgres-template", user)
    password = directory / "password"
    password.write_text(PASSWORD)
    data = directory / "data"
    place = [f"--pgdata={data}", "--encoding=UTF8", "--wal-segsize=1", "--no-locale", "--no-sync", "--no-instructions"]
    users = ["--username=postgres", f"--pwfile={password}", "--auth=trust"]
    run_as(user, [program("initdb", PACKAGE), *place, *users], directory=directory)
    return data


class PostgresServer(Server):
    """PostgreSQL. Its superuser is ``postgres``, its database ``postgres``.

    Args:
      settings: lines for postgresql.conf, without quotes around values.
      authentication: how pg_hba.conf lets TCP clients in: ``"trust"``, ``"scram-sha-256"``, ``"reject"``...
        Unix sockets are always trusted.
      tls: offer TLS with a certificate made for the occasion; whether clients must use it is their own affair.
    """

    kind = "postgres"
    stop_signal = signal.SIGINT  # "fast": disconnects its clients. SIGTERM would wait for them.

    def __init__(self, *, settings: Settings | None = None, authentication: str = "trust", tls: bool = False) -> None:
        super().__init__(user=other_user("postgres"), tls=tls)
        self.authentication = authentication
        self.data = self.directory / "data"
        run_as(self.user, ["cp", "-a", str(_template()), str(self.data)], directory=self.directory)
        transport: Settings = {"listen_addresses": self.host, "unix_socket_directories": str(self.directory)}
        if tls:
            certificate = {"ssl_cert_file": str(self.certificate_file), "ssl_key_file": str(self.key_file)}
            transport = {**transport, "ssl": "on", **certificate}
        merged = {**SETTINGS, **transport, **(settings or {})}
        (self.data / "postgresql.conf").write_text(lines(merged, "{name} = '{value}'"))
        (self.data / "pg_hba.conf").write_text(
            f"local all all trust\nlocal replication all trust\nhost all all all {authentication}\n"
        )

    @property
    def url(self) -> str:
        """For TCP. Holds a password if one is needed."""
        password = "" if self.authentication == "trust" else f":{PASSWORD}"
        return f"postgresql://postgres{password}@{self.host}:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        """For the Unix socket."""
        return f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"

    def _command(self) -> Sequence[str]:
        return [program("postgres", PACKAGE), "-D", str(self.data), "-p", str(self.port)]

    def _is_ready(self) -> bool:
        # As pg_ctl does it: the eighth line is the state. The file may be a killed predecessor's, or half written.
        state = (self.data / "postmaster.pid").read_text().splitlines()
        return len(state) > 7 and state[0] == str(self.process_id) and state[7].strip() == "ready"

    def close(self) -> None:
        """Kill it and delete everything, also the shared memory segment that a killed server leaves behind."""
        self.kill()
        lock = self.data / "postmaster.pid"
        if lock.exists() and len(state := lock.read_text().splitlines()) > 6:
            subprocess.run(["ipcrm", "--shmem-id", state[6].split()[1]], check=False, stderr=subprocess.DEVNULL)
        super().close()
