"""What a lease costs: the kernel beside Trio's own primitives.

`postgres` has what other pools' leases cost, on their own loops.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

import respool

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Share

SIZE = 10


async def open_object() -> object:
    return object()


async def close_object(_: object) -> None:
    pass


ADAPTER = respool.adapter(open=open_object, close=close_object)


def one_for_all(_: int) -> respool.Adapter[object]:
    return ADAPTER


@asynccontextmanager
async def respool_pool(_: str, *instruments: respool.Instrument) -> AsyncIterator[Any]:
    async with respool.open_pool(ADAPTER, min_size=SIZE, max_size=SIZE, instruments=instruments) as pool:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                async with pool.acquire():
                    total += key
            return total

        yield work


def keyed(keys: int, used: int) -> Any:
    """A keyed pool with an idle resource for each of so many keys, of which so many are used in turn."""

    @asynccontextmanager
    async def prepare(_: str) -> AsyncIterator[Any]:
        async with respool.open_keyed_pool(one_for_all, max_size=keys, max_per_key=1) as pool:
            gc.disable()  # or it goes through a hundred thousand pools again and again while they are made, and ended
            for key in range(keys):
                async with pool.acquire(key):
                    pass
            gc.enable()

            async def work(share: Share) -> int:
                total = 0
                for key in share:
                    async with pool.acquire(key % used * (keys // used)):
                        total += key
                return total

            yield work
            gc.disable()

    return prepare


def idle_instrument(_: str) -> Any:
    return respool_pool(_, respool.Instrument())


def prometheus(_: str) -> Any:
    from prometheus_client import CollectorRegistry

    from respool.prometheus import PoolCollector

    return respool_pool(_, PoolCollector(CollectorRegistry()))


def opentelemetry(_: str) -> Any:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from respool.opentelemetry import PoolMetrics

    return respool_pool(_, PoolMetrics(meter_provider=MeterProvider([InMemoryMetricReader()])))


@asynccontextmanager
async def capacity_limiter(_: str) -> AsyncIterator[Any]:
    yield _hold(trio.CapacityLimiter(SIZE))


@asynccontextmanager
async def semaphore(_: str) -> AsyncIterator[Any]:
    yield _hold(trio.Semaphore(SIZE))


@asynccontextmanager
async def lock(_: str) -> AsyncIterator[Any]:
    yield _hold(trio.Lock())


def _hold(primitive: AbstractAsyncContextManager[Any]) -> Any:
    """The same work with what is made once and entered again and again."""

    async def work(keys: Share) -> int:
        total = 0
        for key in keys:
            async with primitive:
                total += key
        return total

    return work


PRIMITIVES = (
    Contender("respool", respool_pool),
    Contender("trio.CapacityLimiter", capacity_limiter),
    Contender("trio.Semaphore", semaphore),
    Contender("trio.Lock (1 holder)", lock),
)


def _waiters(tasks: int) -> Benchmark:
    return Benchmark(
        name=f"waiters-{tasks}",
        title=f"Acquire and release, {tasks:,} tasks over {SIZE} resources",
        contenders=PRIMITIVES,
        tasks=tasks,
        goals=(Goal("respool", "trio.CapacityLimiter", 1 / 0.75, "cpu"),),
    )


BENCHMARKS = (
    Benchmark(
        name="alone",
        title="Acquire and release, one task",
        contenders=PRIMITIVES,
        goals=(Goal("respool", "trio.CapacityLimiter", 1.0, "cpu"),),
    ),
    Benchmark(
        name="instruments",
        title="Acquire and release, one task, with instruments",
        contenders=(
            Contender("no instrument", respool_pool),
            Contender("an Instrument that does nothing", idle_instrument),
            Contender("Prometheus", prometheus),
            Contender("OpenTelemetry, with its SDK", opentelemetry),
        ),
    ),
    Benchmark(
        name="keys",
        title="Acquire and release by key, one task",
        contenders=(
            Contender("100,000 keys, 10 in use", keyed(100_000, 10)),
            Contender("10 keys", keyed(10, 10)),
            Contender("100,000 keys, 1,000 in use", keyed(100_000, 1_000)),
            Contender("1,000 keys", keyed(1_000, 1_000)),
        ),
        goals=(Goal("100,000 keys, 10 in use", "10 keys", 1 / 1.25, "cpu"),),
    ),
    _waiters(100),
    _waiters(1_000),
    _waiters(10_000),
)
