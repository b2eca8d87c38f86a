"""What a pool loses, mixes up and leaves behind when its users are cancelled.

The ideas are those of `tests.storms`; here anybody's pool can be measured, on Trio or on asyncio, by nothing but using
it: one cancellation at each point where the event loop could deliver one, each time in a new pool of one connection for
which another task is waiting; and storms on a pool of four. All of it on loopback, and behind 2 ms of delay each way.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import partial
from typing import Any

import attrs

from respool import PoolOverloaded
from tests.fault_proxy import Fault

from ._contender import Contender, Program
from ._losing_loops import LOOPS, Loop
from ._proxied import Proxied

DELAY = 0.002  # seconds, in each direction
SIZE = 4
TASKS = 50
OPERATIONS = 2000  # in a storm
LONGEST = 0.05  # seconds after which an operation is cancelled at the latest
SEEDS = 5
COUNTED: tuple[str, ...] = ("points", "leaked", "not_served", "lost_slots", "cancelled", "remade", "refused")
COUNTED += ("swallowed", "failed", "wrong", "orphans")
SETTLE = 2.0  # seconds that a pool may take to have them stopped
SLEEPERS = 10  # for each connection
SLEEP = 30.0  # seconds for which the server would be busy if nobody told it otherwise


@attrs.frozen(kw_only=True)
class Borrowing:
    """An open pool: what a contender yields."""

    use: Callable[[str], AbstractAsyncContextManager[str]]
    """Borrow a connection for a block, and begin it with the answer to a question: the question."""
    sleep: Callable[[float], Awaitable[object]] | None = None
    """Borrow a connection and have the server work for so many seconds."""
    opened: Callable[[], int] | None = None
    """How many connections it has opened. Default: how many the proxy has seen on which the server spoke."""


OpenPool = Callable[[int], AbstractAsyncContextManager[Borrowing]]


@attrs.frozen(kw_only=True)
class Losing:
    """A benchmark whose contenders yield, for a URL, a function that opens a pool of a given size. Ours first."""

    name: str
    title: str
    contenders: tuple[Contender, ...]
    server: Callable[[], AbstractContextManager[str]]
    ours: tuple[str, ...]
    """The contenders that have to lose nothing."""
    remade: float = 0.05
    """How many connections those may make anew for each cancellation."""
    patience: float = 1.0
    """Seconds for what a right pool does at once."""
    busy: Callable[[str], int] | None = None
    """Says how many sleeps the server at a URL is busy with."""

    def sample(self, contender: Contender | Program, url: str, seconds: float) -> dict[str, Any]:
        """Cancel everywhere, and in storms; in shorter ones if `seconds` is less than one."""
        assert isinstance(contender, Contender), "a program's tasks cannot be cancelled"
        loop = LOOPS[contender.loop]
        with Proxied(url) as proxy:
            trial = Trial(loop, contender.prepare(proxy.url), proxy, self.patience)
            loop.run(trial.run, round(OPERATIONS * min(1.0, seconds)))
            if self.busy is not None:
                # Not through the proxy: who a query belongs to is seen by the address of its connection.
                busy = partial(self.busy, url)
                trial.counts["left_running"] = loop.run(trial.count_sleepers, contender.prepare(url), busy)
            return {**trial.counts, **trial.summary()}


class Trial:
    """One contender's turn."""

    def __init__(
        self,
        loop: Loop,
        open_pool: OpenPool,
        proxy: Proxied,
        patience: float,
    ) -> None:
        self.loop = loop
        self.open_pool = open_pool
        self.proxy = proxy
        self.patience = patience
        self.counts = dict.fromkeys(COUNTED, 0)
        self.exits: list[float] = []
        self.numbers = itertools.count()

    def summary(self) -> dict[str, Any]:
        """How long it took from a cancellation in a storm until its task had left."""
        exits = sorted(self.exits) or [0.0]
        return {
            "exit_median": statistics.median(exits),
            "exit_p99": exits[int(len(exits) * 0.99)],
            "slots": SEEDS * SIZE,
        }

    async def run(self, operations: int) -> None:
        """Everything but the sleepers."""
        for delay in (0.0, DELAY):
            self.proxy.change(Fault(latency=delay))
            for warm in (True, False):
                point = 0
                while await self._at_point(point, warm=warm):
                    point += 1
                self.counts["points"] += point
        for seed in range(SEEDS):
            self.proxy.change(Fault(latency=DELAY * (seed % 2)))
            await self._storm(seed, operations)

    # One point.

    async def _at_point(self, point: int, *, warm: bool) -> bool:
        """Cancel a use at its `point`, if it has so many. The pool has an idle connection if it is `warm`."""
        begun, served = self.loop.event(), self.loop.event()

        async with self.open_pool(1) as pool:
            if warm:
                await self._use(pool)

            async def operation() -> None:
                begun.set()
                await self._use(pool, raising=True)

            async def next_in_line() -> None:
                await begun.wait()
                await self._use(pool)
                served.set()

            async with self.loop.background(next_in_line):
                outcome = await self.loop.cancel_at(point, operation)
                in_time = await self._soon(served.wait)
            self.counts["not_served"] += not in_time
            self.counts["swallowed"] += outcome == "swallowed"
            self.counts["failed"] += outcome == "failed"
            self.counts["leaked"] += 1 - await self._usable(pool, 1, hurry=not in_time)
            await self._count_orphans(1)
        await self._count_orphans(0)
        return outcome != "undisturbed"

    # A storm.

    async def _storm(self, seed: int, operations: int) -> None:
        chance = random.Random(seed)
        tickets = iter(range(operations))

        async with self.open_pool(SIZE) as pool:
            assert await self._usable(pool, SIZE) == SIZE, "its connections are open when the storm begins"
            before = self._opened(pool)

            async def user() -> None:
                for _ in tickets:
                    await self._use_for(pool, chance.uniform(0, LONGEST))

            await self.loop.together([user] * TASKS)
            self.counts["lost_slots"] += SIZE - await self._usable(pool, SIZE)
            await self._count_orphans(SIZE)
            self.counts["remade"] += self._opened(pool) - before
        await self._count_orphans(0)

    def _opened(self, pool: Borrowing) -> int:
        return pool.opened() if pool.opened else self.proxy.answered

    async def _use_for(self, pool: Borrowing, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            outcome = await self.loop.within(seconds, lambda: self._use(pool, raising=True))
        except PoolOverloaded:
            self.counts["refused"] += 1  # told that it will run out of time, a little before it does
            return
        except Exception:  # noqa: BLE001 - whatever it is, it is counted
            self.counts["failed"] += 1
            return
        self.counts["swallowed"] += outcome == "swallowed"
        if outcome == "cancelled":
            self.counts["cancelled"] += 1
            self.exits.append(time.monotonic() - deadline)

    # What the server is left with.

    async def count_sleepers(self, open_pool: OpenPool, busy: Callable[[], int]) -> int:
        """Cancel queries that would take long, and ask the server how many it is still at."""
        async with open_pool(SIZE) as pool:
            assert pool.sleep is not None
            sleep = pool.sleep

            async def sleeper() -> None:
                for _ in range(SLEEPERS):
                    with contextlib.suppress(PoolOverloaded):
                        await self.loop.within(0.05, lambda: sleep(SLEEP))
                    await self.loop.sleep(0.3)  # until it may have its next

            await self.loop.together([sleeper] * SIZE)
            await self.loop.sleep(SETTLE)
            return busy()

    # Using a pool.

    async def _use(self, pool: Borrowing, *, raising: bool = False) -> None:
        question = f"question-{next(self.numbers)}"
        try:
            async with pool.use(question) as answer:
                self.counts["wrong"] += answer != question
        except Exception:
            if raising:
                raise
            self.counts["failed"] += 1

    async def _usable(self, pool: Borrowing, size: int, *, hurry: bool = False) -> int:
        """How many connections can be used at once, once nobody else does."""
        usable = 0
        everybody = self.loop.event()
        look = next(self.numbers)

        async def hold(number: int) -> None:
            nonlocal usable
            async with pool.use(f"look-{look}-{size}-{number}") as answer:
                self.counts["wrong"] += answer != f"look-{look}-{size}-{number}"
                usable += 1
                if usable == size:
                    everybody.set()
                await everybody.wait()

        holders = [lambda number=number: hold(number) for number in range(size)]
        await self._soon(lambda: self.loop.together(holders), hurry=hurry)
        return usable

    async def _soon(self, function: Callable[[], Awaitable[object]], *, hurry: bool = False) -> bool:
        return await self.loop.within(self.patience / (2 if hurry else 1), function) == "undisturbed"

    async def _count_orphans(self, allowed: int) -> None:
        deadline = time.monotonic() + self.patience / 2
        while self.proxy.open > allowed and time.monotonic() < deadline:
            await self.loop.sleep(0.002)
        self.counts["orphans"] = max(self.counts["orphans"], self.proxy.open - allowed)
