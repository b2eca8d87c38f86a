"""Driving a measurement on each kind of event loop, and with threads.

Tasks wait at a gate until all have started, so that starting them is not measured.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import trio
import trio.testing

from ._contender import Burst, Contender, Measurement, Sample, Share


class _Stopwatch:
    def __init__(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()

    def stop(self, totals: list[int]) -> Burst:
        return Burst(time.perf_counter() - self._started, time.process_time() - self._cpu_started, sum(totals))


def drive(contender: Contender, url: str, measurement: Measurement) -> Sample:
    """Let `contender` do the work on its loop."""
    match contender.loop:
        case "trio":
            return trio.run(_on_a_loop, contender, url, measurement, _burst_on_trio)
        case "asyncio":
            return asyncio.run(_on_a_loop(contender, url, measurement, _burst_on_asyncio))
        case "uvloop":
            import uvloop

            sample: Sample = uvloop.run(_on_a_loop(contender, url, measurement, _burst_on_asyncio))
            return sample
        case "threads":
            return _on_threads(contender, url, measurement)


async def _on_a_loop(contender: Contender, url: str, measurement: Measurement, burst: Any) -> Sample:
    async with contender.prepare(url) as work:
        shares = next(measurement)
        while True:
            try:
                shares = measurement.send(await burst(work, shares))
            except StopIteration as end:
                sample: Sample = end.value
                return sample


async def _burst_on_trio(work: Any, shares: list[Share]) -> Burst:
    gate = trio.Event()
    totals: list[int] = []

    async def one(share: Share) -> None:
        await gate.wait()
        totals.append(await work(share))

    async with trio.open_nursery() as nursery:
        for share in shares:
            nursery.start_soon(one, share)
        await trio.testing.wait_all_tasks_blocked()
        stopwatch = _Stopwatch()
        gate.set()
    return stopwatch.stop(totals)


async def _burst_on_asyncio(work: Any, shares: list[Share]) -> Burst:
    gate = asyncio.Event()
    barrier = asyncio.Barrier(len(shares) + 1)

    async def one(share: Share) -> int:
        await barrier.wait()
        await gate.wait()
        total: int = await work(share)
        return total

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(share)) for share in shares]
        await barrier.wait()
        stopwatch = _Stopwatch()
        gate.set()
    return stopwatch.stop([task.result() for task in tasks])


def _on_threads(contender: Contender, url: str, measurement: Measurement) -> Sample:
    with contender.prepare(url) as work:
        shares = next(measurement)
        with ThreadPoolExecutor(len(shares)) as threads:
            while True:
                try:
                    shares = measurement.send(_burst_on_threads(threads, work, shares))
                except StopIteration as end:
                    sample: Sample = end.value
                    return sample


def _burst_on_threads(threads: ThreadPoolExecutor, work: Any, shares: list[Share]) -> Burst:
    gate = threading.Barrier(len(shares) + 1)

    def one(share: Share) -> int:
        gate.wait()
        total: int = work(share)
        return total

    results = [threads.submit(one, share) for share in shares]
    gate.wait()
    stopwatch = _Stopwatch()
    return stopwatch.stop([result.result() for result in results])
