"""An open-loop surge: callers come whether or not those before them have been served, and leave when their time is up.

Arrivals are a Poisson process, the same for every contender. A caller's deadline counts from the moment at which it was
meant to arrive, so that a client too busy to let it in on time is not flattered ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import attrs
import trio

from ._contender import Contender, Program

RESOURCES = 10
USE = 0.01  # seconds that each caller needs a resource
NOMINAL = RESOURCES / USE  # what the resources could serve, a second
TIME_TO_LIVE = 0.2  # seconds
LOADS = (0.8, 1.0, 2.0, 5.0, 0.5)  # phases one after the other, as multiples of NOMINAL
PHASE = 3.0  # how long each lasts, as a multiple of the seconds of one measurement
BUCKETS = 15  # points in the picture for each phase


@attrs.define
class Caller:
    """One caller. Times are seconds since the surge began."""

    due: float
    served: float | None = None
    """When it was served, if it was."""
    refused: bool = False
    """Told that it need not wait, before its time was up."""

    @property
    def latency(self) -> float:
        """How long it took to be served."""
        assert self.served is not None
        return self.served - self.due


@attrs.frozen(kw_only=True)
class Surge:
    """A benchmark whose contenders yield ``use()``: acquire, use for `USE` seconds, release. Ours first."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    server: Callable[[], AbstractContextManager[str]] | None = None
    ours: tuple[str, ...] = ()
    """The contenders that have to keep their goodput."""

    def sample(self, contender: Contender | Program, url: str, seconds: float) -> dict[str, Any]:
        """Measure the capacity, and then the surge."""
        assert isinstance(contender, Contender), "no program is a pool"
        phase = PHASE * seconds
        callers = [Caller(due) for due in arrivals(phase)]
        cpu = time.process_time()
        match contender.loop:
            case "trio":
                capacity = trio.run(_on_trio, contender, url, phase, callers)
            case "uvloop":
                import uvloop

                capacity = uvloop.run(_on_asyncio(contender, url, phase, callers))
            case "asyncio":
                capacity = asyncio.run(_on_asyncio(contender, url, phase, callers))
            case "threads":
                raise ValueError("a surge needs an event loop: threads are not measured")
        return summary(callers, phase, capacity, time.process_time() - cpu)


def arrivals(phase: float) -> list[float]:
    """When callers come, all phases together."""
    chance = random.Random(1)
    due = 0.0
    found = []
    for number, load in enumerate(LOADS):
        due = max(due, number * phase)
        while (due := due + chance.expovariate(load * NOMINAL)) < (number + 1) * phase:
            found.append(due)
    return found


async def _on_trio(contender: Contender, url: str, phase: float, callers: list[Caller]) -> float:
    async with contender.prepare(url) as use:
        served = 0

        async def use_again_and_again() -> None:
            nonlocal served
            while True:
                await use()
                served += 1

        with trio.move_on_after(phase):
            async with trio.open_nursery() as nursery:
                for _ in range(RESOURCES):
                    nursery.start_soon(use_again_and_again)
        started = trio.current_time()

        async def call(caller: Caller) -> None:
            with trio.CancelScope(deadline=started + caller.due + TIME_TO_LIVE) as scope:
                try:
                    await use()
                except Exception:  # noqa: BLE001  # every pool has its own way to refuse
                    caller.refused = True
                else:
                    caller.served = trio.current_time() - started
            assert caller.served or caller.refused or scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for caller in callers:
                if started + caller.due > trio.current_time():
                    await trio.sleep_until(started + caller.due)
                nursery.start_soon(call, caller)
        return served / phase


async def _on_asyncio(contender: Contender, url: str, phase: float, callers: list[Caller]) -> float:
    now = asyncio.get_running_loop().time
    async with contender.prepare(url) as use:
        served = 0

        async def use_until(end: float) -> None:
            nonlocal served
            while now() < end:
                await use()
                served += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(RESOURCES):
                group.create_task(use_until(now() + phase))
        started = now()

        async def call(caller: Caller) -> None:
            try:
                async with asyncio.timeout_at(started + caller.due + TIME_TO_LIVE):
                    await use()
            except Exception:  # noqa: BLE001  # every pool has its own way to refuse
                caller.refused = now() < started + caller.due + TIME_TO_LIVE
            else:
                caller.served = now() - started

        async with asyncio.TaskGroup() as group:
            for caller in callers:
                if started + caller.due > now():
                    await asyncio.sleep(started + caller.due - now())
                group.create_task(call(caller))
        return served / phase


def summary(callers: list[Caller], phase: float, capacity: float, cpu: float) -> dict[str, Any]:
    """What is kept of a surge."""
    step = phase / BUCKETS
    slices = [[] for _ in range(len(LOADS) * BUCKETS)]  # type: list[list[Caller]]
    for caller in callers:
        slices[min(int(caller.due / step), len(slices) - 1)].append(caller)
    phases = [slices[number * BUCKETS : (number + 1) * BUCKETS] for number in range(len(LOADS))]
    calm = [caller for part in slices[-BUCKETS:] for caller in part if caller.due >= (len(LOADS) - 1) * phase + 1.0]
    return {
        "capacity": capacity,
        "cpu_seconds": cpu,
        "phases": [_described([caller for part in parts for caller in part], phase) for parts in phases],
        "calm_again": _described(calm, phase - 1.0) if calm else None,
        "step": step,
        "course": [_described(part, step) for part in slices],
    }


def _described(callers: list[Caller], seconds: float) -> dict[str, Any]:
    good = sorted(caller.latency for caller in callers if caller.served is not None and caller.latency <= TIME_TO_LIVE)
    return {
        "arrived": len(callers) / seconds,
        "goodput": len(good) / seconds,
        "refused": sum(caller.refused for caller in callers) / seconds,
        "p50": statistics.median(good) if good else None,
        "p99": good[int(len(good) * 0.99)] if good else None,
    }
