"""Each of the adapters in turn, with its server behind a proxy, for the tests that do the same with all of them."""

from __future__ import annotations

import pytest
import trio

from tests.fault_proxy import FaultProxy
from tests.kinds import KINDS, Kind
from tests.servers import Server

SHARED_SERVERS = {
    "postgres": "postgres_server",
    "mysql": "mariadb_server",
    "redis": "redis_server",
    "http": "nginx_server",
}


@pytest.fixture(params=KINDS, ids=[kind.name for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def shared_server(kind: Kind, request: pytest.FixtureRequest) -> Server:
    """The whole run's."""
    server: Server = request.getfixturevalue(SHARED_SERVERS[kind.name])
    return server


@pytest.fixture
async def shared_server_proxy(shared_server: Server, nursery: trio.Nursery) -> FaultProxy:
    proxy = FaultProxy(shared_server.host, shared_server.port)
    await nursery.start(proxy.serve)
    return proxy
