"""Laps of load, cancellation, trouble and change."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import trio

from respool import LeaseRevoked, OpenFailed, Options, PoolClosed, PoolOverloaded, PoolTimeout, open_pool
from tests.fault_proxy import FaultProxy
from tests.footprint import Footprint, resident_memory
from tests.kinds import Kind
from tests.storms import Subject, count_orphans, look, use
from tests.troubles import NETWORK_TROUBLES, SERVER_TROUBLES, Stage

from ._account import Account, Tally
from ._changes import CHANGES

__all__ = ["soak"]

SIZE = 4
BORROWERS = 12
TROUBLES = [*NETWORK_TROUBLES, *SERVER_TROUBLES]
LIMITS: Options = {"max_size": SIZE, "open_timeout": 1.0, "reset_timeout": 0.3, "close_timeout": 0.3}
SPECIALITIES: list[Options] = [
    {},
    {"min_size": SIZE},
    {"validate_after": 0.0},
    {"max_lifetime": 0.2},
    {"max_idle": 0.01},
    {"max_uses": 20},
    {"max_hold": 0.5},
    {"fail_fast": True},
]
LAP = 6.0  # seconds
# Not PoolDeadlock, because there is none. Trio's own error: the pool has ended under its borrower.
POOL_ERRORS = (LeaseRevoked, OpenFailed, PoolClosed, PoolOverloaded, PoolTimeout, trio.ClosedResourceError)


@attrs.frozen
class Venue:
    """One adapter's server, and the account of what happens there."""

    kind: Kind
    stage: Stage
    patience: float
    """Seconds within which the pool must serve at full size, and every operation end, once trouble is over."""
    tally: Tally = attrs.field(factory=Tally)

    def subject(self, options: Options) -> Subject:
        adapter = self.kind.adapter(self.stage.proxy.redirect(self.stage.server.url))
        merged: Options = {**LIMITS, **options}
        return Subject(
            functools.partial(open_pool, adapter, **merged),
            SIZE,
            self.kind.ask,
            self.stage.proxy,
            patience=self.patience,
            errors=(self.kind.error, *POOL_ERRORS),
        )


async def soak(kinds: Sequence[Kind], *, seconds: float, seed: int, patience: float = 20.0) -> Account:
    """Run laps for so long, and one at least. The same seed makes the same choices; the moments are the machine's."""
    async with AsyncExitStack() as open_venues:
        venues = [await open_venues.enter_async_context(_venue(kind, patience)) for kind in kinds]
        for venue in venues:
            await _warm_up(venue)
        before = after = await Footprint.take()
        account = Account({venue.kind.name: venue.tally for venue in venues}, before, after)
        ends = trio.current_time() + seconds
        for number in itertools.count(1):
            lap_ends = min(ends, trio.current_time() + LAP)
            async with trio.open_nursery() as lap:
                for venue in venues:
                    lap.start_soon(_live, venue, random.Random(f"{seed} {venue.kind.name} {number}"), lap_ends)
            account.after = await Footprint.take()
            account.memory.append(resident_memory())
            account.blocks.append(account.after.blocks)
            print(_progress(number, seconds - ends + trio.current_time(), account), flush=True)
            if trio.current_time() >= ends:
                break
    return account


def _progress(lap: int, seconds: float, account: Account) -> str:
    tallies = account.tallies.values()
    done = sum(tally.losses.completed + tally.losses.cancelled for tally in tallies)
    faults = sum(tally.faults.total() for tally in tallies)
    verdict = "all well" if account.is_clean else "NOT ALL WELL"
    return f"lap {lap}, {seconds:.0f} s: {done:,} operations, {faults:,} faults, {verdict}"


@asynccontextmanager
async def _venue(kind: Kind, patience: float) -> AsyncIterator[Venue]:
    with kind.server() as server:
        async with trio.open_nursery() as nursery:
            proxy = FaultProxy(server.host, server.port)
            await nursery.start(proxy.serve)
            yield Venue(kind, Stage(server, proxy), patience)
            nursery.cancel_scope.cancel()


async def _warm_up(venue: Venue) -> None:
    """Have made whatever is made only once."""
    subject = venue.subject({})
    async with subject.open() as pool:
        await look(subject, pool, venue.tally.losses)
    await count_orphans(subject, 0, venue.tally.losses)


async def _live(venue: Venue, chance: random.Random, ends: float) -> None:
    """One lap: a pool's life, which ends while borrowers are at work, half of the time suddenly."""
    tally = venue.tally
    subject = venue.subject(chance.choice(SPECIALITIES))
    suddenly = chance.random() < 0.5
    async with _borrowers(venue, subject) as start:
        with trio.CancelScope() as life:
            async with subject.open() as pool:
                while trio.current_time() < ends:
                    await _round(venue, subject, pool, chance)
                start(pool, chance)
                await trio.sleep(chance.uniform(0, 0.1))
                if suddenly:
                    life.cancel()
    tally.pools += 1
    with trio.move_on_after(venue.patience):
        while venue.stage.proxy.open:  # noqa: ASYNC110 - what is closed takes a moment to arrive
            await trio.sleep(0.001)
    tally.sockets += venue.stage.proxy.open


async def _round(venue: Venue, subject: Subject, pool: Any, chance: random.Random) -> None:
    """Load, trouble and changes at the same time; then the pool must serve at full size."""
    tally = venue.tally
    async with _borrowers(venue, subject) as start:
        start(pool, chance)
        async with trio.open_nursery() as nursery:
            for trouble in chance.sample(TROUBLES, chance.choice([0, 1, 1, 1])):
                nursery.start_soon(trouble, venue.stage, random.Random(chance.random()))
                tally.faults[trouble.__name__] += 1
            for change in chance.sample(CHANGES, chance.choice([0, 1, 2])):
                nursery.start_soon(change, pool, random.Random(chance.random()))
                tally.changes[change.__name__] += 1
        began = trio.current_time()
    await look(subject, pool, tally.losses)
    tally.slowest = max(tally.slowest, trio.current_time() - began)


@asynccontextmanager
async def _borrowers(venue: Venue, subject: Subject) -> AsyncIterator[Callable[[Any, random.Random], None]]:
    """Yields what starts borrowers. When the block ends, each still does what it is at, and is to end with it soon."""
    over = trio.Event()
    questions = itertools.takewhile(lambda _: not over.is_set(), map(str, itertools.count()))

    def start(pool: Any, chance: random.Random) -> None:
        for _ in range(BORROWERS):
            own = random.Random(chance.random())
            patient, longest = own.choice([0.0, 0.1, 0.5]), own.choice([0.005, 0.05, 0.5])
            nursery.start_soon(use, subject, pool, venue.tally.losses, questions, own, longest, patient)

    async with trio.open_nursery() as nursery:
        try:
            yield start
        finally:
            over.set()
            nursery.cancel_scope.deadline = trio.current_time() + venue.patience
    venue.tally.stuck += nursery.cancel_scope.cancelled_caught
