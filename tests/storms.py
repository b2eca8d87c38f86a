"""Measures what a pool loses, mixes up and leaves behind when its users are cancelled: at every point, and in storms.

For any pool of connections, ours or not, whose server is reached through a `FaultProxy`: that counts what the server
sees. `Subject` is all that is asked of the pool. For tests with storms of their own: `opened_pool`, `use` and `look`.
"""

from __future__ import annotations

import itertools
import math
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import attrs
import trio

from respool import PoolOverloaded
from respool.testing import cancel_everywhere
from tests.fault_proxy import FaultProxy

__all__ = ["Lender", "Losses", "Subject", "at_every_point", "count_orphans", "in_a_storm", "look", "opened_pool", "use"]

_BEFORE_ANOTHER_TRY = 0.01  # seconds: what any client would wait


class Lender(Protocol):
    """A pool, as far as this cares."""

    def acquire(self) -> AbstractAsyncContextManager[Any]: ...


@attrs.frozen
class Subject:
    """A pool and how to use it."""

    open: Callable[[], AbstractAsyncContextManager[Lender]]
    """Opens a pool of connections to `proxy`."""
    size: int
    """How many connections it may have."""
    ask: Callable[[Any, str], Awaitable[str]]
    """Sends a question on a connection, and returns the answer: the question."""
    proxy: FaultProxy
    """Between the pool and its server. Nobody else uses it."""
    opened: Callable[[Any], int] | None = None
    """How many connections the pool has opened so far. Default: how many the proxy has accepted."""
    patience: float = 10.0
    """Seconds within which all slots are to be acquired once nobody uses them."""
    errors: tuple[type[Exception], ...] = (Exception,)
    """What an operation may raise when the server or the network fails."""


@attrs.define
class Losses:
    """What cancelling cost. A right pool has 0 of everything but `cancelled`, `completed`, `refused` and `remade`."""

    cancelled: int = 0
    """Operations that were cancelled."""
    completed: int = 0
    """Operations that were not."""
    lost_slots: int = 0
    """Slots that could not be acquired any more, the most at any look."""
    wrong_answers: int = 0
    """Answers to a question that somebody else had asked."""
    refused: int = 0
    """Operations refused because their deadline left too little time."""
    failed: int = 0
    """Operations that raised one of `Subject.errors`: no loss only where a server or a network failed."""
    strange: list[str] = attrs.field(factory=list)
    """Tracebacks of operations that raised anything else."""
    swallowed: int = 0
    """Cancellations that an operation swallowed."""
    orphans: int = 0
    """Connections beyond the size of the pool that the server saw, the most at any look."""
    remade: int = 0
    """Connections made beyond the size of the pool."""


async def at_every_point(subject: Subject, *, warm: bool) -> Losses:
    """Cancel one operation everywhere, each time in a new pool; if it is `warm` it has an idle connection."""
    losses = Losses()
    questions = map(str, itertools.count())

    async def prepare() -> _OpenPool:
        opened: _OpenPool = await nursery.start(_keep_open, subject, losses)
        if warm:
            await _ask(subject, opened.pool, next(questions), losses)
        return opened

    async def operation(opened: _OpenPool) -> None:
        await _ask(subject, opened.pool, next(questions), losses)

    async def check(opened: _OpenPool) -> None:
        await look(subject, opened.pool, losses)
        opened.over.set()
        await opened.closed.wait()

    async with trio.open_nursery() as nursery:
        try:
            report = await cancel_everywhere(operation, prepare=prepare, check=check)
            losses.cancelled, losses.completed = report.cancelled, report.completed
        except AssertionError:
            losses.swallowed += 1
            nursery.cancel_scope.cancel()
    return losses


@attrs.frozen
class _OpenPool:
    pool: Lender
    over: trio.Event = attrs.field(factory=trio.Event)
    closed: trio.Event = attrs.field(factory=trio.Event)


async def _keep_open(subject: Subject, losses: Losses, task_status: trio.TaskStatus[_OpenPool]) -> None:
    async with opened_pool(subject, losses) as pool:
        opened = _OpenPool(pool)
        task_status.started(opened)
        await opened.over.wait()
    opened.closed.set()


async def in_a_storm(
    subject: Subject, *, seed: int, operations: int = 2000, tasks: int = 50, longest: float = 0.05
) -> Losses:
    """Let `tasks` tasks ask `operations` questions, each cancelled at a random moment up to `longest` seconds later."""
    losses = Losses()
    chance = random.Random(seed)
    questions = map(str, range(operations))
    async with opened_pool(subject, losses) as pool:
        async with trio.open_nursery() as users:
            for _ in range(tasks):
                users.start_soon(use, subject, pool, losses, questions, chance, longest)
        await look(subject, pool, losses)
    return losses


@asynccontextmanager
async def opened_pool(subject: Subject, losses: Losses) -> AsyncIterator[Lender]:
    """Open the pool, and see what is left when it is closed."""
    before = subject.proxy.accepted
    async with subject.open() as pool:
        yield pool
        opened = subject.opened(pool) if subject.opened else subject.proxy.accepted - before
        losses.remade += max(0, opened - subject.size)
    await count_orphans(subject, 0, losses)


async def use(
    subject: Subject,
    pool: Lender,
    losses: Losses,
    questions: Iterable[str],
    chance: random.Random,
    longest: float,
    patient: float = 0.0,
) -> None:
    """Ask each question, cancelled at a random moment up to `longest` seconds later, but never in `patient` cases."""
    for question in questions:
        seconds = math.inf if chance.random() < patient else chance.uniform(0, longest)
        answered = False
        with trio.move_on_after(seconds) as scope:
            answered = await _ask(subject, pool, question, losses)
        if scope.cancelled_caught:
            losses.cancelled += 1
            continue
        losses.completed += 1
        if not answered:
            await trio.sleep(_BEFORE_ANOTHER_TRY)


async def _ask(subject: Subject, pool: Lender, question: str, losses: Losses) -> bool:
    try:
        async with pool.acquire() as connection:
            answer = await subject.ask(connection, question)
    except PoolOverloaded:
        losses.refused += 1  # told that it will run out of time, a little before it does
    except subject.errors:
        losses.failed += 1
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        losses.strange.append(traceback.format_exc())
    else:
        losses.wrong_answers += answer != question
        return True
    return False


async def look(subject: Subject, pool: Lender, losses: Losses) -> None:
    """Acquire all slots at once, use each, and count what the server sees."""
    held = most = 0
    everybody = trio.Event()

    async def hold(question: str) -> None:
        nonlocal held, most
        async with pool.acquire() as connection:
            losses.wrong_answers += await subject.ask(connection, question) != question
            held += 1
            most = max(most, held)
            if held == subject.size:
                everybody.set()
            try:
                await everybody.wait()
            finally:
                held -= 1

    async def hold_at_last(question: str) -> None:
        """What a failure has broken may still be in use."""
        while True:
            try:
                return await hold(question)
            except subject.errors:
                losses.failed += 1
                await trio.sleep(_BEFORE_ANOTHER_TRY)

    with trio.move_on_after(subject.patience):
        async with trio.open_nursery() as nursery:
            for number in range(subject.size):
                nursery.start_soon(hold_at_last, f"look {number}")
    losses.lost_slots = max(losses.lost_slots, subject.size - most)
    await count_orphans(subject, subject.size, losses)


async def count_orphans(subject: Subject, allowed: int, losses: Losses) -> None:
    """Count the connections beyond what is allowed, unless they are about to go."""
    with trio.move_on_after(subject.patience):
        while subject.proxy.open > allowed:  # noqa: ASYNC110 - what is closed takes a moment to arrive
            await trio.sleep(0.001)
    losses.orphans = max(losses.orphans, subject.proxy.open - allowed)
