"""Pools of fake resources and the borrowers that trouble them, run on a mock clock and watched at every step."""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import attrs
import trio
from trio.testing import MockClock

from respool import OpenFailed, Pool, PoolClosed, PoolOverloaded, PoolTimeout
from respool._entry import State
from respool.testing import FakeResource, GatedAdapter, GatedError

__all__ = ["Borrower", "borrow_all", "run", "watched"]


def run(scenario: Callable[..., Awaitable[None]], *args: Any, seed: object) -> None:
    """Run `scenario` on a clock that jumps; chance, also in the order of tasks, depends on `seed` alone."""
    trio._core._run._r.seed(repr(seed))
    random.seed(repr(seed))
    trio.run(scenario, *args, clock=MockClock(autojump_threshold=0))


@contextlib.contextmanager
def watched(pool: Pool[FakeResource], adapter: GatedAdapter) -> Iterator[None]:
    """Hold the pool to its promises after every step of every task, until it has ended."""
    watcher = _Watcher(pool, adapter)
    trio.lowlevel.add_instrument(watcher)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watcher)
    assert not watcher.broken, watcher.broken
    assert not adapter.faults, adapter.faults
    assert adapter.present == len(adapter.resources) == 0, "P9: something is left open"


class _Watcher(trio.abc.Instrument):
    def __init__(self, pool: Pool[FakeResource], adapter: GatedAdapter) -> None:
        self.pool = pool
        self.adapter = adapter
        self.broken: Counter[str] = Counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        ledger, limits, present = self.pool._ledger, self.pool.limits, self.adapter.present
        states = Counter(entry.state for entry in ledger.entries)
        size, waiting = len(ledger.entries), len(ledger.queue)
        left_alone = ledger.failures or ledger.closed
        promises = {
            "P1: no more resources than max_size, none unknown": present <= size <= limits.max_size,
            "P2: lent exactly if there is a lease": all(
                (entry.state is State.LENT) == (entry.lease is not None) for entry in ledger.entries
            ),
            "P4: idle while a task waits, and not checked for it": not ledger.idle or waiting <= states[State.CHECKING],
            "P4: room while a task waits, and not filled for it": left_alone
            or waiting <= ledger.arriving
            or size == limits.max_size
            or ledger.opening == limits.max_opening,
            "idle stack": sorted(map(id, ledger.idle))
            == sorted(id(entry) for entry in ledger.entries if entry.state is State.IDLE),
            "opening": ledger.opening == states[State.OPENING] <= limits.max_opening,
            "arriving": ledger.arriving == states[State.OPENING] + states[State.CHECKING],
            "work left lying": not ledger.work,
        }
        self.broken.update(promise for promise, kept in promises.items() if not kept)


@attrs.define
class Borrower:
    """An impatient task, and an account of what became of it."""

    pool: Pool[FakeResource]
    adapter: GatedAdapter
    chance: random.Random
    outcomes: Counter[str]

    async def run(self) -> None:
        """Borrow a few times, now and then giving up, breaking or soiling what it gets."""
        for _ in range(4):
            await trio.sleep(self.chance.choice([0, 0.3, 1]))
            with trio.move_on_after(self.chance.choice([0, 0.4, 1.7, math.inf])) as patience:
                await self._borrow()
            if patience.cancelled_caught:
                assert trio.current_time() == patience.deadline, "P6: a cancelled borrower left late"

    async def _borrow(self) -> None:
        acquired = False
        timeout = self.chance.choice([None, 0, 0.5, 3])
        started = trio.current_time()
        try:
            async with self.pool.acquire(timeout=timeout) as resource:
                acquired = True
                self.outcomes["acquired"] += 1
                with self.adapter.lease(resource):
                    await self._use(resource)
        except (PoolTimeout, PoolOverloaded, OpenFailed, PoolClosed) as error:
            self.outcomes[type(error).__name__] += 1
            if isinstance(error, PoolTimeout):
                limit = self.pool.limits.acquire_timeout if timeout is None else timeout
                assert math.isclose(trio.current_time() - started, limit), "a time-out came early or late"
        except GatedError:
            assert acquired, "an adapter's error reached a task that held nothing"
        except trio.Cancelled:
            if not acquired and trio.current_time() > started:
                self.outcomes["cancelled while waiting"] += 1
            raise

    async def _use(self, resource: FakeResource) -> None:
        await trio.sleep(self.chance.choice([0, 0, 0.2, 1]))
        match self.chance.choice(["exchange", "exchange", "dirty", "broken", "error"]):
            case "exchange":
                answer = await self.adapter.exchange(resource, self)
                assert answer is self, "P5: a stranger's data"
            case "dirty":
                resource.dirty = True
            case "broken":
                resource.broken = True
            case "error":
                raise GatedError("the borrower's own")


async def borrow_all(pool: Pool[FakeResource], adapter: GatedAdapter) -> None:
    """Hold every slot at once, which must be possible again after any trouble."""
    everybody = trio.Event()
    holding = 0

    async def hold() -> None:
        nonlocal holding
        async with pool.acquire(timeout=60) as resource:
            with adapter.lease(resource):
                holding += 1
                if holding == pool.limits.max_size:
                    everybody.set()
                await everybody.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(pool.limits.max_size):
            nursery.start_soon(hold)
