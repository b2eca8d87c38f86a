"""Throw-away real servers on free loopback ports, usable with and without pytest.

    with PostgresServer(settings={"max_connections": "20"}) as server:
        ...                              # server.url, server.host, server.port, server.directory
        server.pause(); server.resume()  # SIGSTOP and SIGCONT to every one of its processes
        server.kill()                    # SIGKILL to every one of them
        server.start()                   # same data, same port

``start``, ``stop``, ``kill`` and ``restart`` block for up to a second or so; inside Trio use ``start_async`` and its
like, which leave the loop running. A server that is not installed is a :class:`ServerNotInstalled` that names the
Debian package. Everything ends with the process that started it, however that ends. Linux only.
"""

from __future__ import annotations

from ._mariadb import MariaDBServer as MariaDBServer
from ._nginx import NginxServer as NginxServer
from ._pgbouncer import PgBouncerServer as PgBouncerServer
from ._postgres import PostgresServer as PostgresServer
from ._redis import RedisServer as RedisServer
from ._server import Server as Server
from ._server import ServerNotInstalled as ServerNotInstalled
from ._server import ServerNotStarted as ServerNotStarted
