from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from respool_mysql import Connection, connect

from tests.servers import MariaDBServer


@pytest.fixture(scope="session")
def server() -> Iterator[MariaDBServer]:
    """Everybody may use all of it, as long as tables are temporary."""
    with MariaDBServer(settings={"local_infile": "1"}) as server:
        yield server


@pytest.fixture(scope="session")
def tls_server() -> Iterator[MariaDBServer]:
    with MariaDBServer(settings={"plugin_load_add": "auth_ed25519"}, tls=True) as server:
        yield server


@pytest.fixture
async def connection(server: MariaDBServer) -> AsyncIterator[Connection]:
    """In autocommit mode."""
    connection = await connect(server.url, autocommit=True)
    yield connection
    connection.close()


@pytest.fixture
async def observer(server: MariaDBServer) -> AsyncIterator[Connection]:
    """Another one, to look at the first from outside."""
    connection = await connect(server.url, autocommit=True)
    yield connection
    connection.close()
