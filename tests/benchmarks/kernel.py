"""What a lease costs: the kernel beside Trio's own primitives.

`postgres` has what other pools' leases cost, on their own loops.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio

import respool

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Share

SIZE = 10


@asynccontextmanager
async def respool_pool(_: str, *instruments: respool.Instrument) -> AsyncIterator[Any]:
    async def open_object() -> object:
        return object()

    async def close_object(_: object) -> None:
        pass

    adapter = respool.adapter(open=open_object, close=close_object)
    async with respool.open_pool(adapter, min_size=SIZE, max_size=SIZE, instruments=instruments) as pool:

        async def work(keys: Share) -> int:
            total = 0
            for key in keys:
                async with pool.acquire():
                    total += key
            return total

        yield work


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
    _waiters(100),
    _waiters(1_000),
    _waiters(10_000),
)
