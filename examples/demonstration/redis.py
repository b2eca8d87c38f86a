"""A real Redis, started on a free port and thrown away: one lease a command."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.exceptions import RedisError
from respool_redis import Connection, RedisAdapter

from tests.servers import RedisServer

from .servers import started
from .subject import ROWS, Subject, right_answer

NAME = "respool-demo"  # what the connections of this program call themselves on the server

# Redis does one thing at a time: while ten connections ask for two milliseconds of it, each waits for twenty.
SLOW = "for i = 1, 200000 do end return redis.call('get', KEYS[1])"


def _server() -> RedisServer:
    return RedisServer(settings={"save": "3600 1"})  # so that it keeps its data when it restarts


@asynccontextmanager
async def redis() -> AsyncIterator[Subject]:
    """The demo's subject."""
    async with started(_server) as server, _connection(server.url) as connection:
        await connection.mset({f"item:{key}": right_answer(key) for key in range(ROWS)})
        version = (await connection.info("server"))["redis_version"]

        async def count() -> tuple[int, int]:
            async with _connection(server.url) as counting:
                clients = [client for client in await counting.client_list() if client["name"] == NAME]
                return len(clients), sum(client["qbuf"] != "0" for client in clients)

        yield Subject(
            title=f"Redis {version}",
            adapter=RedisAdapter(server.url, client_name=NAME),
            ask=_ask,
            ask_slowly=_ask_slowly,
            failures=(RedisError,),
            count=count,
            restart=server.restart_async,
            examples="redis",
            url=server.url,
        )


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[Connection]:
    connection = await RedisAdapter(url).open()
    try:
        yield connection
    finally:
        connection.close_now()


async def _ask(connection: Connection, key: int) -> int:
    return int(await connection.get(f"item:{key}"))


async def _ask_slowly(connection: Connection, key: int) -> int:
    return int(await connection.eval(SLOW, 1, f"item:{key}"))
