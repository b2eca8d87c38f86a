from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from respool_postgres import Connection

from tests.servers import PostgresServer


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(settings={"max_prepared_transactions": "10"}) as server:
        yield server


@pytest.fixture
async def connection(server: PostgresServer) -> AsyncIterator[Connection]:
    """In autocommit mode. Closed as it is, without the commit at the end of a connection's own block."""
    connection = await Connection.connect(server.url, autocommit=True)
    yield connection
    await connection.close()
