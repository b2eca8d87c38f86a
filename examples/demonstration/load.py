"""Many tasks asking one server, with no pool and with one, while things go wrong. Every answer is compared."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

import respool

from .subject import ROWS, SLOWLY, Subject, right_answer

TASKS = 50
SIZE = 10
PATIENCE = 10.0  # seconds that any recovery may take before it counts as failed
Pool = respool.Pool[Any]


@attrs.define
class Tally:
    """What the tasks of one phase lived through."""

    phase: str
    started: float = attrs.field(factory=trio.current_time)
    seconds: float = 0.0
    latencies: list[float] = attrs.Factory(list)
    wrong: int = 0
    cancelled: int = 0
    failed: Counter[str] = attrs.Factory(Counter)
    opened: int = 0
    """Connections opened."""
    most_connections: int = 0
    """The most that the server ever counted."""
    next_answer: trio.Event = attrs.Factory(trio.Event)
    checks: list[Check] = attrs.Factory(list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, fraction: float) -> float:
        """How long a request took, in seconds, unless it belongs to the slower rest."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0

    def answered(self, key: int, answer: int, seconds: float) -> None:
        """Note one answer."""
        self.latencies.append(seconds)
        self.wrong += answer != right_answer(key)
        self.next_answer.set()
        self.next_answer = trio.Event()

    def check(self, promise: str, *, kept: bool, found: str) -> None:
        """Note what became of a promise."""
        self.checks.append(Check(promise, found, kept))


@attrs.frozen
class Check:
    """A promise, what was found, and whether that keeps it."""

    promise: str
    found: str
    kept: bool


class View:
    """Is told of every phase, and while it runs can ask for its tally and its pool."""

    def begin(self, subject: Subject, tally: Tally, pool: Pool | None) -> None:
        """A phase begins."""

    def end(self) -> None:
        """It is over."""


Request = Callable[[int], Awaitable[int | None]]
"""Asks for a key. None: the task that asked was cancelled in the middle."""


async def without_pool(subject: Subject, seconds: float, view: View) -> Tally:
    """Every request opens a connection, asks, and closes it."""
    tally = Tally("no pool")

    async def request(key: int) -> int:
        tally.opened += 1
        connection = await subject.adapter.open()
        try:
            return await subject.ask(connection, key)
        finally:
            with trio.move_on_after(PATIENCE, shield=True):
                await subject.adapter.close(connection)

    async with _watched(subject, tally, None, view):
        await _ask_for(seconds, request, subject, tally)
    _check_answers(tally)
    return tally


async def with_pool(subject: Subject, seconds: float, view: View) -> Tally:
    """Every request borrows a connection."""
    tally = Tally("pool")
    async with open_pool(subject) as pool, _watched(subject, tally, pool, view):
        await _ask_for(seconds, _borrowing(pool, subject), subject, tally)
        tally.opened = pool.statistics().opened
        await _count(subject, tally)
    _check_answers(tally)
    tally.check("the server never saw more than the pool may have", **_bounded(tally))
    return tally


async def cancelled(subject: Subject, seconds: float, view: View) -> Tally:
    """Every request may take as long as chance says: about half of them are cancelled in the middle."""
    tally = Tally("tasks cancelled in mid-query")
    async with open_pool(subject) as pool:

        async def request(key: int) -> int | None:
            with trio.CancelScope() as scope:
                async with pool.acquire() as connection:
                    scope.deadline = trio.current_time() + random.uniform(0, 2 * SLOWLY)
                    return await subject.ask_slowly(connection, key)
            tally.cancelled += 1
            return None

        await _all_at_once(pool, subject)  # so that whatever is opened from here on replaces something lost
        opened = pool.statistics().opened
        async with _watched(subject, tally, pool, view):
            await _ask_for(seconds, request, subject, tally)
        _check_answers(tally)
        await _check_pool(pool, subject, tally)
        tally.opened = pool.statistics().opened
        replaced = tally.opened - opened
        allowed, but = (0, "") if subject.recovers else (tally.cancelled, "but ")
        tally.check(
            f"no connection was lost {but}to a cancelled task", kept=replaced <= allowed, found=f"{replaced} replaced"
        )
    return tally


async def restarted(subject: Subject, seconds: float, view: View) -> Tally:
    """The server is taken away and comes back while all tasks go on asking."""
    tally = Tally("server restarted under load")
    async with open_pool(subject) as pool, trio.open_nursery() as nursery:
        back = trio.Event()
        recovered: list[float] = []

        async def restart() -> None:
            await trio.sleep(seconds / 3)
            await subject.restart()
            came_back = trio.current_time()
            with trio.move_on_after(PATIENCE):
                await tally.next_answer.wait()
                recovered.append(trio.current_time() - came_back)
            back.set()

        nursery.start_soon(restart)
        async with _watched(subject, tally, pool, view):
            await _ask_for(seconds / 3, _borrowing(pool, subject), subject, tally, after=back)
        _check_answers(tally)
        kept = bool(recovered)
        tally.check(
            "answers flow again", kept=kept, found=f"{recovered[0]:.2f} s after the server" if kept else "never"
        )
        await _check_pool(pool, subject, tally)
        tally.opened = pool.statistics().opened
    return tally


@asynccontextmanager
async def open_pool(subject: Subject) -> AsyncIterator[Pool]:
    """The pool that all phases use, with nothing but its size set."""
    async with respool.open_pool(subject.adapter, max_size=SIZE) as pool:
        yield pool


def _borrowing(pool: Pool, subject: Subject) -> Request:
    async def request(key: int) -> int:
        async with pool.acquire() as connection:
            return await subject.ask(connection, key)

    return request


async def _ask_for(
    seconds: float, request: Request, subject: Subject, tally: Tally, *, after: trio.Event | None = None
) -> None:
    """Have all tasks ask again and again, for some seconds, counted from an event on if one is given."""
    over = False
    expected: tuple[type[Exception], ...] = (*subject.failures, respool.PoolError)

    async def client(number: int) -> None:
        key = number
        while not over:
            key = (key + TASKS + 1) % ROWS
            started = trio.current_time()
            try:
                answer = await request(key)
            except expected as error:
                tally.failed[type(error).__name__] += 1
                continue
            if answer is None:
                continue
            tally.answered(key, answer, trio.current_time() - started)

    tally.started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(client, number)
        if after is not None:
            await after.wait()
        await trio.sleep(seconds)
        over = True
    tally.seconds = trio.current_time() - tally.started


@asynccontextmanager
async def _watched(subject: Subject, tally: Tally, pool: Pool | None, view: View) -> AsyncIterator[None]:
    """Show the phase, and have the server count its connections, while the block runs."""

    async def count() -> None:
        while True:
            with contextlib.suppress(*subject.failures):  # it may be away
                await _count(subject, tally)
            await trio.sleep(0.2)

    view.begin(subject, tally, pool)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            yield
            nursery.cancel_scope.cancel()
    finally:
        view.end()


async def _count(subject: Subject, tally: Tally) -> tuple[int, int]:
    """How many connections and requests the server has now."""
    connections, working = await subject.count()
    tally.most_connections = max(tally.most_connections, connections)
    return connections, working


async def _all_at_once(pool: Pool, subject: Subject) -> int:
    """Hold as many connections at one time as the pool may have, and ask on each. How many gave the right answer."""
    holding = 0
    right = 0
    everybody = trio.Event()

    async def hold(key: int) -> None:
        nonlocal holding, right
        async with pool.acquire() as connection:
            holding += 1
            if holding == SIZE:
                everybody.set()
            await everybody.wait()
            answer = await subject.ask(connection, key)
            right += answer == right_answer(key)

    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for key in range(SIZE):
                nursery.start_soon(hold, key)
    return right


def _check_answers(tally: Tally) -> None:
    found = f"{tally.wrong} of {len(tally.latencies):,} wrong"
    tally.check("every answer belongs to its question", kept=bool(tally.latencies) and not tally.wrong, found=found)


def _bounded(tally: Tally) -> dict[str, Any]:
    return {"kept": 0 < tally.most_connections <= SIZE, "found": f"{tally.most_connections} of {SIZE}"}


async def _check_pool(pool: Pool, subject: Subject, tally: Tally) -> None:
    """What must hold after whatever happened."""
    right = await _all_at_once(pool, subject)
    tally.check("all connections can be held at once, and work", kept=right == SIZE, found=f"{right} of {SIZE}")
    connections, working = await _count(subject, tally)
    found = f"{connections} of {pool.statistics().size}"
    tally.check("the server counts as many as the pool", kept=connections == pool.statistics().size, found=found)
    tally.check("no query was left running on the server", kept=working == 0, found=f"{working} running")
    tally.check("the server never saw more than the pool may have", **_bounded(tally))
