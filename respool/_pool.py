"""The pool: the only place that awaits.

A borrower's task never does anything slow. It takes an idle resource that is clean, synchronously, or it parks in the
queue. Whatever has to be awaited about a resource (`Adapter.open`, `validate`, `reset`, `close`) is a *job*: a task in
the pool's own nursery, one per entry at a time, under a time limit. Hence the promises: a cancelled borrower leaves at
once, nobody waits on one connect, and leaving the block needs no checkpoint.

Jobs are shielded, because a resource half opened or half reset when somebody else's deadline strikes would be lost for
nothing; the shield is never without a deadline, and the end of the pool's block lifts it.
"""

from __future__ import annotations

import contextvars
import logging
import math
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, Generic, TypeVar, Unpack, overload

import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_clock,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from ._entry import Discard, Entry, Lease, State
from ._errors import OpenFailed, PoolClosed, PoolOverloaded, PoolTimeout
from ._ledger import Ledger
from ._limits import Limits, Options
from ._statistics import Holder, PoolStatistics
from ._urls import adapter_from_url
from .abc import Adapter, Verdict

__all__ = ["Pool", "open_pool"]

T = TypeVar("T")

logger = logging.getLogger("respool")


class _Acquire(Lease[T]):
    """What `Pool.acquire` returns: the lease itself, so that an uncontended acquire allocates nothing else."""

    __slots__ = ("_pool", "_timeout")

    def __init__(self, pool: Pool[T], timeout: float | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self.entry = None
        self.stack = None
        self.task = None

    @enable_ki_protection
    async def __aenter__(self) -> T:
        await checkpoint_if_cancelled()
        if self.task is not None:
            raise RuntimeError("this acquire() has been used already; call acquire() again for another lease")
        pool = self._pool
        ledger = pool._ledger
        now = pool._now()
        self.task = current_task()
        if pool.limits.record_stacks:
            self.stack = "".join(traceback.format_stack())
        if not ledger.queue and ledger.try_lend(self, now):
            if ledger.work:
                pool._start_jobs()
            await cancel_shielded_checkpoint()
        else:
            pool._queue(self, now, self._timeout)
            await wait_task_rescheduled(self._give_up)
            if self.error is not None:
                raise self.error
        entry = self.entry
        assert entry is not None, "bug: woken with neither a resource nor an error"
        return entry.resource

    def _give_up(self, _: RaiseCancelT) -> Abort:
        self._pool._ledger.give_up(self)
        return Abort.SUCCEEDED

    @enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        pool = self._pool
        ledger = pool._ledger
        now = pool._now()
        if exc is None:
            ledger.check_in(self, now)
        else:
            pool._check_in_after(exc, self, now)
        if ledger.work:
            pool._start_jobs()


class Pool(Generic[T]):
    """Lends resources of one kind. Made by `open_pool`; may be used by any number of tasks."""

    def __init__(self, adapter: Adapter[T], limits: Limits) -> None:
        self.adapter = adapter
        """The adapter, as given."""
        self.limits = limits
        """The options, as given, with defaults filled in."""
        self.name = limits.name or adapter.name
        """What logs, errors and metrics call the pool."""
        self._now = current_clock().current_time  # what trio.current_time() calls, at a third of its cost
        asks = type(adapter).is_clean is not Adapter.is_clean
        self._ledger: Ledger[T] = Ledger(limits, self._is_clean if asks else None, reschedule)
        self._upkeep_scope = trio.CancelScope(shield=True)  # cancelled by _end(), and by nothing else
        self._nap = trio.CancelScope()  # upkeep's sleep; moving its deadline wakes upkeep earlier
        self._nap_ends = -math.inf  # that deadline
        self._hurry = False  # whether the closing of resources is not to wait for politeness
        self._empty = trio.Event()  # set once the pool is closing and no entry is left
        self._returned = trio.Event()  # set once the pool is closing and no entry is lent
        self._nursery: trio.Nursery  # for jobs; set by open_pool
        # Jobs run in the context of the task that opened the pool, not of the borrower that happened to cause them.
        self._context = contextvars.copy_context()

    def __repr__(self) -> str:
        return f"<respool.Pool {self.name!r}: {'closed' if self._ledger.closed else self.statistics()}>"

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[T]:
        """Borrow a resource for the length of an ``async with`` block.

        Takes the idle resource used last, or waits in line for the first to be returned or opened. Entering the
        block is always a checkpoint; leaving it never is. The lease is exclusive.

        Args:
          timeout: longest wait in seconds, instead of ``acquire_timeout``. ``math.inf`` waits for ever, 0 not at all
            (but has a resource opened or validated for whoever comes next).
            It limits the wait for the resource, not its use: put the block into `trio.fail_after` for that.

        Raises:
          PoolTimeout: nothing came free in time.
          PoolOverloaded: ``max_waiting`` tasks are waiting already.
          OpenFailed: no resource can be opened, for good, and none is in use that might be returned.
          PoolClosed: the pool's block has ended or is ending.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
        return _Acquire(self, timeout)

    def statistics(self) -> PoolStatistics:
        """The pool at this moment: a frozen snapshot. Costs some microseconds a resource."""
        ledger = self._ledger
        now = self._now()
        leases = sorted((e.lease for e in ledger.entries if e.lease), key=lambda lease: lease.since)
        return PoolStatistics(
            name=self.name,
            min_size=self.limits.min_size,
            max_size=self.limits.max_size,
            size=len(ledger.entries),
            idle=len(ledger.idle),
            lent=len(leases),
            opening=ledger.opening,
            checking=ledger.count(State.CHECKING),
            resetting=ledger.count(State.RESETTING),
            closing=ledger.count(State.CLOSING),
            waiting=len(ledger.queue),
            oldest_wait=now - next(iter(ledger.queue)).waiting_since if ledger.queue else 0.0,
            holders=tuple(Holder(lease.task.name, now - lease.since, lease.stack) for lease in leases),
            acquired=ledger.use_time.count + len(leases),
            timeouts=ledger.timeouts,
            refused=ledger.refused,
            cancelled=ledger.cancelled,
            opened=ledger.opened_total,
            open_failures=ledger.open_failures,
            discards=MappingProxyType({reason.value: ledger.discards[reason] for reason in Discard}),
            wait_time=ledger.wait_time.snapshot(),
            use_time=ledger.use_time.snapshot(),
            open_time=ledger.open_time.snapshot(),
        )

    # Borrowers.

    def _queue(self, lease: _Acquire[T], now: float, timeout: float | None) -> None:
        """Put `lease` at the end of the queue, or raise if there is no point in waiting."""
        ledger = self._ledger
        limits = self.limits
        if ledger.work:  # resources that were not clean
            self._start_jobs()
        if ledger.closed or now < ledger.retry_at or len(ledger.queue) >= limits.max_waiting:
            self._refuse()
        ledger.enqueue(lease, now, now + (limits.acquire_timeout if timeout is None else timeout))
        if ledger.work:
            self._start_jobs()
        if ledger.due < self._nap_ends:
            self._wake_upkeep()

    def _refuse(self) -> None:
        """Raise if there is no point in waiting."""
        ledger = self._ledger
        if ledger.closed:
            raise self._closed_error()
        if ledger.hopeless():
            raise self._open_failed_error()
        # Those for whom a resource is being made ready, or can be, do not count: they do not wait for others to finish.
        coming = ledger.arriving + len(ledger.idle) + self.limits.max_size - len(ledger.entries)
        if len(ledger.queue) >= self.limits.max_waiting + coming:
            ledger.refused += 1
            raise PoolOverloaded(f"{self.name}: {len(ledger.queue)} tasks are waiting already; {self._plight()}")

    def _check_in_after(self, error: BaseException, lease: _Acquire[T], now: float) -> None:
        """End a lease whose block ended in `error`."""
        ledger = self._ledger
        verdict = self._verdict(error)
        # An older entry's complaint is old news: it must not cost the resources opened since then.
        if Verdict.RETIRE in verdict and lease.entry and lease.entry.generation == ledger.generation:
            logger.warning("%s: retiring all resources, because of %s", self.name, _brief(error))
            ledger.retire_all(now)
        ledger.check_in(lease, now, broken=Verdict.DISCARD in verdict)

    def _verdict(self, error: BaseException) -> Verdict:
        verdict = Verdict.KEEP
        for leaf in _leaves(error):
            try:
                verdict |= self.adapter.verdict(leaf)
            except Exception:
                logger.exception("%s: %s.verdict() failed; discarding the resource", self.name, self.adapter.name)
                verdict |= Verdict.DISCARD
        return verdict

    def _is_clean(self, resource: T) -> bool:
        try:
            return self.adapter.is_clean(resource)
        except Exception:
            logger.exception("%s: %s.is_clean() failed; resetting the resource", self.name, self.adapter.name)
            return False

    # Jobs and upkeep.

    def _start_jobs(self) -> None:
        """Do what the ledger has ordered."""
        for entry in self._ledger.work:
            self._context.run(self._start_job, entry)
        self._ledger.work.clear()

    def _start_job(self, entry: Entry[T]) -> None:
        job = _JOBS[entry.state]
        self._nursery.start_soon(job, self, entry, name=f"respool {self.name}: {entry.state.value}")

    def _job_done(self) -> None:
        """What every job does last."""
        ledger = self._ledger
        self._start_jobs()
        if ledger.due < self._nap_ends:
            self._wake_upkeep()
        if ledger.closed:
            self._check_progress_of_closing()

    @enable_ki_protection
    async def _open(self, entry: Entry[T]) -> None:
        started = self._now()
        try:
            with self._time_limit(entry, "open_timeout"):
                resource = await self.adapter.open()
        except Exception as error:  # noqa: BLE001  # whatever it is, the waiters are told
            self._open_failed(entry, error)
        else:
            if entry.job.cancelled_caught:
                self._ledger.open_abandoned(entry)
            else:
                now = self._now()
                self._ledger.opened(entry, resource, now - started, now)
        self._job_done()

    def _open_failed(self, entry: Entry[T], error: Exception) -> None:
        ledger = self._ledger
        now = self._now()
        verdict = self._verdict(error)
        if Verdict.RETIRE in verdict and entry.generation == ledger.generation:
            ledger.retire_all(now)
        ledger.open_failed(entry, error, now, permanent=Verdict.PERMANENT in verdict)
        logger.warning("%s: could not open a resource: %s", self.name, _brief(error))
        if ledger.hopeless():
            for lease in list(ledger.queue):
                ledger.dismiss(lease, self._open_failed_error())

    @enable_ki_protection
    async def _recover(self, entry: Entry[T]) -> None:
        """Validate or reset, whichever the state asks for."""
        hook, doing = (
            (self.adapter.validate, "validate") if entry.state is State.CHECKING else (self.adapter.reset, "reset")
        )
        try:
            with self._time_limit(entry, "reset_timeout"):
                await hook(entry.resource)
        except Exception as error:  # noqa: BLE001  # whatever it is, the resource is not lent again
            logger.warning("%s: discarding a resource, because %s failed: %s", self.name, doing, _brief(error))
            self._ledger.unrecoverable(entry, self._now())
        else:
            if entry.job.cancelled_caught:
                self._ledger.unrecoverable(entry, self._now())
            else:
                self._ledger.recovered(entry, self._now())
        self._job_done()

    @enable_ki_protection
    async def _close(self, entry: Entry[T]) -> None:
        try:
            with self._time_limit(entry, "close_timeout"):
                await self.adapter.close(entry.resource)
        except Exception as error:  # noqa: BLE001  # nobody could do anything about it
            logger.warning("%s: closing a resource failed: %s", self.name, _brief(error))
        self._ledger.gone(entry, self._now())
        self._job_done()

    @contextmanager
    def _time_limit(self, entry: Entry[T], option: str) -> Iterator[None]:
        """Run a job's hook under the named limit, or not at all if the pool is closing."""
        seconds: float = getattr(self.limits, option)
        unwanted = self._ledger.closed and (self._hurry or entry.state is not State.CLOSING)
        deadline = -math.inf if unwanted else self._now() + seconds
        with trio.CancelScope(deadline=deadline, shield=True) as entry.job:
            yield
        if entry.job.cancelled_caught and not self._ledger.closed:
            raise TimeoutError(f"it took longer than {option} ({seconds:g} s)")

    async def _upkeep(self) -> None:
        """Tell waiters that their time is up, retire idle resources, open missing ones: whenever one is due."""
        ledger = self._ledger
        with self._upkeep_scope:
            while True:
                now = self._now()
                for lease in ledger.expired(now):
                    ledger.dismiss(lease, self._timeout_error(now - lease.waiting_since))
                ledger.tidy(now)
                self._start_jobs()
                self._nap_ends = ledger.due
                with trio.CancelScope(deadline=ledger.due) as self._nap:
                    await trio.sleep_forever()

    def _wake_upkeep(self) -> None:
        self._nap_ends = self._nap.deadline = self._ledger.due

    async def _end(self) -> None:
        """Close everything: politely and after the outstanding leases, or at once if cancelled."""
        ledger = self._ledger
        ledger.close()
        for lease in list(ledger.queue):
            ledger.dismiss(lease, self._closed_error())
        self._upkeep_scope.cancel()
        self._cut_short(state for state in State if state is not State.CLOSING)
        self._job_done()
        try:
            with trio.move_on_after(self.limits.drain_timeout):
                await self._returned.wait()
            self._take_back()
            await self._empty.wait()
        finally:
            self._hurry = True
            self._take_back()
            self._cut_short(State)

    def _take_back(self) -> None:
        """Close the resources that are still lent."""
        if self._ledger.count(State.LENT):
            holders = "; ".join(map(str, self.statistics().holders))
            logger.warning("%s: closing with resources still lent to %s", self.name, holders)
            self._ledger.close_lent()
        self._job_done()

    def _cut_short(self, states: Iterable[State]) -> None:
        """Cancel the jobs at work on entries in `states`; the rest of them goes its usual way from there."""
        states = set(states)
        for entry in self._ledger.entries:
            if entry.job is not None and entry.state in states:
                entry.job.cancel()

    def _check_progress_of_closing(self) -> None:
        if not self._ledger.entries:
            self._empty.set()
        if not self._ledger.count(State.LENT):
            self._returned.set()

    # Errors.

    def _timeout_error(self, waited: float) -> PoolTimeout:
        self._ledger.timeouts += 1
        error = PoolTimeout(f"{self.name}: waited {waited:.3g} s for a resource; {self._plight()}")
        error.__cause__ = self._ledger.open_error
        return error

    def _open_failed_error(self) -> OpenFailed:
        error = OpenFailed(f"{self.name}: cannot open a resource, and trying again will not help; {self._plight()}")
        error.__cause__ = self._ledger.open_error
        return error

    def _closed_error(self) -> PoolClosed:
        return PoolClosed(f"{self.name}: the pool is closed, or closing; acquire only inside open_pool()'s block")

    def _plight(self) -> str:
        """The pool's state and the holders of its resources, in words and numbers."""
        statistics = self.statistics()
        holders = "; ".join(map(str, statistics.holders))
        failures = self._ledger.failures
        return (
            str(statistics)
            + (f"; held by {holders}" if holders else "")
            + (f"; the last {failures} attempts to open one failed" if failures else "")
        )


_JOBS: dict[State, Callable[[Pool[Any], Entry[Any]], Awaitable[None]]] = {
    State.OPENING: Pool._open,
    State.CHECKING: Pool._recover,
    State.RESETTING: Pool._recover,
    State.CLOSING: Pool._close,
}


@overload
def open_pool(
    adapter: Adapter[T], **options: Unpack[Options]
) -> AbstractAsyncContextManager[Pool[T]]: ...  # pragma: no cover


@overload
def open_pool(
    adapter: str, **options: Unpack[Options]
) -> AbstractAsyncContextManager[Pool[Any]]: ...  # pragma: no cover


def open_pool(adapter: Adapter[Any] | str, **options: Unpack[Options]) -> AbstractAsyncContextManager[Pool[Any]]:
    """Open a pool for the length of an ``async with`` block.

    Nothing is opened until somebody acquires, or in the background if ``min_size`` asks for it. When the block ends
    the pool waits up to ``drain_timeout`` for outstanding leases, then closes everything: no resource, task or socket
    is left. If the block is cancelled it closes everything at once.

    Args:
      adapter: an `Adapter`, or a URL such as ``"postgresql://host/database"``, which an installed adapter package
        must serve. Only an adapter tells type checkers what `Pool.acquire` yields.
      options: see `Limits`.

    Raises:
      TypeError, ValueError: an option, or the URL, is not what it should be.
    """
    if isinstance(adapter, str):
        adapter = adapter_from_url(adapter)
    elif not isinstance(adapter, Adapter):
        raise TypeError(f"open_pool() takes an Adapter or a URL, not {adapter!r}")
    return _running(Pool(adapter, Limits(**options)))


@asynccontextmanager
async def _running(pool: Pool[T]) -> AsyncIterator[Pool[T]]:
    error_of_block: BaseException | None = None
    async with trio.open_nursery() as pool._nursery:
        pool._nursery.start_soon(pool._upkeep, name=f"respool {pool.name}: upkeep")
        try:
            yield pool
        except BaseException as error:  # noqa: BLE001  # raised again outside the nursery, which would group it
            error_of_block = error
        try:
            await pool._end()
        except trio.Cancelled as cancelled:
            if error_of_block is None:
                error_of_block = cancelled  # likewise
    if error_of_block is not None:
        raise error_of_block


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
