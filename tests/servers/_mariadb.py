from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from pathlib import Path

from ._server import Server, Settings, lines, new_directory, other_user, program, run_as

PACKAGE = "mariadb-server"

SETTINGS: Settings = {
    "innodb_buffer_pool_size": "16M",
    "innodb_log_file_size": "4M",
    "innodb_flush_log_at_trx_commit": "0",
    "innodb_fast_shutdown": "2",
    "innodb_flush_method": "nosync",
    "key_buffer_size": "1M",
    "aria_pagecache_buffer_size": "1M",
    "max_connections": "100",
    "max_connect_errors": "1000000000",
    "skip_name_resolve": "1",
    "character_set_server": "utf8mb4",
}

USERS = """
FLUSH PRIVILEGES;
CREATE USER respool@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO respool@'%' WITH GRANT OPTION;
CREATE DATABASE IF NOT EXISTS test;
"""


@functools.cache
def _template() -> Path:
    """A data directory made once a run, and copied."""
    user = other_user("mysql")
    directory = new_directory("mariadb-template", user)
    data = directory / "data"
    users = directory / "users.sql"
    users.write_text(USERS)
    install = [program("mariadb-install-db", PACKAGE), "--no-defaults", f"--datadir={data}", f"--extra-file={users}"]
    content = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    content += [f"--tmpdir={directory}"]  # it may not write where this process may
    storage = ["--innodb-log-file-size=4M", "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=16M"]
    run_as(user, [*install, *content, *storage], directory=directory)
    return data


class MariaDBServer(Server):
    """MariaDB. Its all-powerful user is ``respool``, without a password; its database ``test``.

    Args:
      settings: lines for the ``[mariadbd]`` section of its option file.
      tls: offer TLS with a certificate made for the occasion.
    """

    kind = "mariadb"

    def __init__(self, *, settings: Settings | None = None, tls: bool = False) -> None:
        super().__init__(user=other_user("mysql"), tls=tls)
        self.data = self.directory / "data"
        run_as(self.user, ["cp", "-a", str(_template()), str(self.data)], directory=self.directory)
        place: Settings = {
            "datadir": str(self.data),
            "tmpdir": str(self.directory),
            "bind_address": self.host,
            "port": str(self.port),
            "socket": str(self.socket_path),
            "pid_file": str(self.directory / "pid"),
        }
        if tls:
            certificate = {"ssl_cert": str(self.certificate_file), "ssl_key": str(self.key_file)}
            place = {**place, **certificate, "ssl_ca": str(self.ca_file)}
        merged = {**SETTINGS, **place, **(settings or {})}
        (self.directory / "my.cnf").write_text("[mariadbd]\n" + lines(merged, "{name} = {value}"))

    @property
    def url(self) -> str:
        """For TCP."""
        return f"mysql://respool@{self.host}:{self.port}/test"

    @property
    def socket_path(self) -> Path:
        """The Unix socket."""
        return self.directory / "socket"

    def _command(self) -> Sequence[str]:
        return [program("mariadbd", PACKAGE), f"--defaults-file={self.directory / 'my.cnf'}"]

    def _is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self.socket_path))
            return bool(client.recv(1))  # its greeting
