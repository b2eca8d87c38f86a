"""What type checkers make of the kernel. Checked by mypy and basedpyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

import attrs
import trio

import respool
from respool.abc import Adapter, Verdict


async def connect() -> trio.SocketStream:
    return await trio.open_tcp_stream("localhost", 1)


class Session:
    pass


@attrs.frozen
class SessionAdapter(Adapter[Session]):
    async def open(self) -> Session:
        return Session()

    async def close(self, resource: Session) -> None:
        assert_type(resource, Session)


async def callables() -> None:
    adapter = respool.adapter(open=connect, close=trio.aclose_forcefully)
    assert_type(adapter, Adapter[trio.SocketStream])
    async with respool.open_pool(adapter, max_size=3) as pool:
        assert_type(pool, respool.Pool[trio.SocketStream])
        async with pool.acquire() as stream:
            assert_type(stream, trio.SocketStream)
        async with pool.acquire(timeout=1) as stream:
            assert_type(stream, trio.SocketStream)
        assert_type(pool.statistics(), respool.PoolStatistics)


async def adapters() -> None:
    adapter = SessionAdapter()
    assert_type(adapter.verdict(OSError()), Verdict)
    async with respool.open_pool(adapter, name="sessions", acquire_timeout=1.5) as pool, pool.acquire() as session:
        assert_type(session, Session)


async def urls() -> None:
    async with respool.open_pool("postgresql://localhost/shop") as pool:
        assert_type(pool, respool.Pool[Any])


async def mistakes() -> None:
    respool.open_pool(SessionAdapter(), max_sise=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    respool.open_pool(3)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
