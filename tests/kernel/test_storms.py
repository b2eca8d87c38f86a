"""Cancellation at every point and in storms, over real sockets; and proof that `tests.storms` sees what is wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio

from respool import open_pool
from tests.fault_proxy import Fault, FaultProxy
from tests.storms import Losses, Subject, at_every_point, in_a_storm

from .echo import Connection, EchoAdapter, echo_server

SIZE = 4
LATENCIES = pytest.mark.parametrize("latency", [0, 0.002], ids=["on loopback", "behind 2 ms"])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with echo_server() as address:
        yield address


@pytest.fixture
async def proxy(server: tuple[str, int], nursery: trio.Nursery) -> FaultProxy:
    proxy = FaultProxy(*server)
    await nursery.start(proxy.serve)
    return proxy


class PlainPool:
    """A right pool, as simple as can be: a slot at a time, and what was cut off is closed."""

    def __init__(self, adapter: EchoAdapter) -> None:
        self.adapter = adapter
        self.slots = trio.Semaphore(SIZE)
        self.idle: list[Connection] = []

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        async with self.slots:
            connection = self.idle.pop() if self.idle else await self.adapter.open()
            try:
                yield connection
            except BaseException:
                connection.socket.close()
                raise
            self.idle.append(connection)

    def close(self) -> None:
        for connection in self.idle:
            connection.socket.close()


class GivesBackACutExchange(PlainPool):
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        async with self.slots:
            connection = self.idle.pop() if self.idle else await self.adapter.open()
            try:
                yield connection
            finally:
                self.idle.append(connection)


class LosesTheSlotWhenAConnectIsCut(PlainPool):
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        await self.slots.acquire()
        connection = self.idle.pop() if self.idle else await self.adapter.open()
        try:
            yield connection
        except BaseException:
            connection.socket.close()
            raise
        else:
            self.idle.append(connection)
        finally:
            self.slots.release()


class ForgetsToClose(PlainPool):
    forgotten: list[Connection] = []  # noqa: RUF012

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        async with self.slots:
            connection = self.idle.pop() if self.idle else await self.adapter.open()
            try:
                yield connection
            except BaseException:
                self.forgotten.append(connection)
                raise
            self.idle.append(connection)


class SwallowsCancellation(PlainPool):
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        try:
            async with super().acquire() as connection:
                yield connection
        except trio.Cancelled:
            pass


async def ask(connection: Connection, question: str) -> str:
    return await connection.ask(question)


def respool_subject(proxy: FaultProxy) -> Subject:
    adapter = EchoAdapter(proxy.host, proxy.port)
    return Subject(lambda: open_pool(adapter, max_size=SIZE, acquire_timeout=5), SIZE, ask, proxy)


def plain_subject(kind: type[PlainPool], proxy: FaultProxy) -> Subject:
    patience = 10.0 if kind is PlainPool else 0.3  # what is lost does not come back

    @asynccontextmanager
    async def open_plain_pool() -> AsyncIterator[PlainPool]:
        pool = kind(EchoAdapter(proxy.host, proxy.port))
        try:
            yield pool
        finally:
            pool.close()

    return Subject(open_plain_pool, SIZE, ask, proxy, patience=patience)


def assert_nothing_lost(losses: Losses) -> None:
    assert losses.cancelled > 0
    assert losses.lost_slots == losses.wrong_answers == losses.failed == losses.swallowed == losses.orphans == 0, losses
    assert not losses.strange


@LATENCIES
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_respool_loses_nothing_at_any_point(*, warm: bool, latency: float, proxy: FaultProxy) -> None:
    """Nor does it make a connection again: those cut off in the middle of an exchange are recovered."""
    proxy.fault = Fault(latency=latency)
    losses = await at_every_point(respool_subject(proxy), warm=warm)
    assert_nothing_lost(losses)
    assert losses.remade == 0


@LATENCIES
@pytest.mark.parametrize("seed", range(5))
async def test_respool_loses_nothing_in_storms(seed: int, latency: float, proxy: FaultProxy) -> None:
    """2,000 operations by 50 tasks on 4 connections, each cancelled at a random moment."""
    proxy.fault = Fault(latency=latency)
    losses = await in_a_storm(respool_subject(proxy), seed=seed)
    assert_nothing_lost(losses)
    assert losses.remade == 0


async def test_a_plain_right_pool_loses_nothing(proxy: FaultProxy) -> None:
    """So what the harness reports of others is not its own doing. It does make connections again."""
    subject = plain_subject(PlainPool, proxy)
    assert_nothing_lost(await at_every_point(subject, warm=True))
    assert_nothing_lost(await at_every_point(subject, warm=False))
    losses = await in_a_storm(subject, seed=0, longest=0.2)
    assert_nothing_lost(losses)
    assert losses.remade > 0


async def test_a_cut_exchange_given_back_is_noticed(proxy: FaultProxy) -> None:
    """The next user gets the answer of the last."""
    subject = plain_subject(GivesBackACutExchange, proxy)
    assert (await at_every_point(subject, warm=True)).wrong_answers > 0
    assert (await in_a_storm(subject, seed=0, longest=0.2)).wrong_answers > 0


async def test_a_lost_slot_is_noticed(proxy: FaultProxy) -> None:
    """It cannot be acquired any more."""
    subject = plain_subject(LosesTheSlotWhenAConnectIsCut, proxy)
    assert (await at_every_point(subject, warm=False)).lost_slots > 0
    assert (await in_a_storm(subject, seed=0, longest=0.005)).lost_slots > 0  # so short that connects are cut


async def test_a_connection_that_is_not_closed_is_noticed(proxy: FaultProxy) -> None:
    """The server sees more of them than the pool may have, or than there are when the pool is closed."""
    subject = plain_subject(ForgetsToClose, proxy)
    assert (await at_every_point(subject, warm=True)).orphans > 0
    assert (await in_a_storm(subject, seed=0, operations=200, longest=0.2)).orphans > 0


async def test_a_swallowed_cancellation_is_noticed(proxy: FaultProxy) -> None:
    """The operation goes on as if nothing had been."""
    assert (await at_every_point(plain_subject(SwallowsCancellation, proxy), warm=True)).swallowed > 0
