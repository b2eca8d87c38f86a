from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from respool_redis import Connection, RedisAdapter

from tests.fault_proxy import FaultProxy
from tests.servers import RedisServer


@pytest.fixture
async def url(redis_server: RedisServer) -> str:
    """Of a server without data."""
    connection = await RedisAdapter(redis_server.url).open()
    await connection.flushall()
    connection.close_now()
    return redis_server.url


@pytest.fixture
async def conn(url: str) -> AsyncIterator[Connection]:
    connection = await RedisAdapter(url).open()
    yield connection
    connection.close_now()


@pytest.fixture
async def other(url: str) -> AsyncIterator[Connection]:
    """Somebody else."""
    connection = await RedisAdapter(url).open()
    yield connection
    connection.close_now()


@pytest.fixture
async def proxy(redis_server: RedisServer, nursery: trio.Nursery) -> FaultProxy:
    proxy = FaultProxy(redis_server.host, redis_server.port)
    await nursery.start(proxy.serve)
    return proxy
