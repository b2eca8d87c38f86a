from __future__ import annotations

import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Self

from ._server import Server, other_user, program

CONFIGURATION = """
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    default_type application/octet-stream;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen {host}:{port}{ssl};
        listen unix:{directory}/socket;
        root {directory}/files;
        location /echo {{ return 200 $args; }}
        {certificate}
        {extra}
    }}
}}
"""


class NginxServer(Server):
    """nginx, serving files over HTTP/1.1. ``/echo?question`` answers with the question.

    Args:
      files: what it serves, path to content. More may be written into ``directory / "files"`` at any time.
      extra: more directives for the ``server`` block: limits, locations...
      tls: HTTPS on `port`, with a certificate made for the occasion; plain on the Unix socket.
    """

    kind = "nginx"
    stop_signal = signal.SIGQUIT  # finishes the requests it is working on

    def __init__(self, *, files: Mapping[str, bytes] | None = None, extra: str = "", tls: bool = False) -> None:
        super().__init__(user=other_user("www-data"), tls=tls)
        for path, content in (files or {"index.html": b"hello\n"}).items():
            file = self.directory / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        certificate = f"ssl_certificate {self.certificate_file}; ssl_certificate_key {self.key_file};" if tls else ""
        (self.directory / "nginx.conf").write_text(
            CONFIGURATION.format(
                directory=self.directory,
                host=self.host,
                port=self.port,
                ssl=" ssl" if tls else "",
                certificate=certificate,
                extra=extra,
            )
        )

    @property
    def url(self) -> str:
        """Its origin, without a slash at the end."""
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def _command(self) -> Sequence[str]:
        configuration = str(self.directory / "nginx.conf")
        return [program("nginx", "nginx-light"), "-c", configuration, "-p", str(self.directory), "-e", "stderr"]

    def _is_ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(1)
            client.connect(str(self.directory / "socket"))
            # It listens before it has a worker, which must be there: a kill in the middle of its birth might miss it.
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return client.recv(1) == b"H"

    def start(self, *, timeout: float = 20.0) -> Self:
        """Start, and wait until it serves."""
        # A killed nginx leaves its Unix socket behind and then refuses to start.
        (self.directory / "socket").unlink(missing_ok=True)
        return super().start(timeout=timeout)
