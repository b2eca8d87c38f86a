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
import inspect
import logging
import math
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from types import CoroutineType, TracebackType
from typing import Any, Generic, TypeVar, Unpack, overload

import attrs
import trio
from trio.lowlevel import (
    Abort,
    ParkingLot,
    RaiseCancelT,
    cancel_shielded_checkpoint,
    checkpoint_if_cancelled,
    current_clock,
    current_task,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

from . import _telling
from ._budget import Budget
from ._clocks import ClockWatch
from ._deadlock import blocked_for_certain
from ._entry import Entry, Lease, State
from ._errors import LeaseRevoked, OpenFailed, PoolClosed, PoolDeadlock, PoolError, PoolOverloaded, PoolTimeout
from ._ledger import UPKEEP_PERIOD, Ledger
from ._limits import Limits, Options, limits_from
from ._misuse import NotAwaitable, OnlyEntered, awaitable, instruments_from, refuse_async_hooks
from ._queue import Priority
from ._statistics import PoolStatistics
from ._urls import adapter_from_url
from .abc import Adapter, Instrument, Verdict

__all__ = ["Pool", "open_pool"]

T = TypeVar("T")
_Refusal = TypeVar("_Refusal", bound=PoolError)

# Plain ints, because indexing with them is quicker; and looking a member or its value up runs Python code.
URGENT = Priority.URGENT.value
NORMAL = Priority.NORMAL.value
_NORMAL = Priority.NORMAL

_NESTING_CHECKS = 1000  # enough to meet the habit, few enough to cost nothing in the long run
_TELLING_USE = 0.005  # seconds

logger = logging.getLogger("respool")


class _Acquire(OnlyEntered, Lease[T]):
    """What `Pool.acquire` returns: the lease itself, so that an uncontended acquire allocates nothing else."""

    __slots__ = ("_on_lent", "_pool", "_timeout")

    # Set by Pool.acquire: an __init__ would make it half as slow again.
    _pool: Pool[T]
    _timeout: float | None
    _on_lent: Callable[[T], object] | None  # `error` is what it raised, while `entry` is held

    @enable_ki_protection
    async def __aenter__(self) -> T:
        if self.task is not None:
            raise RuntimeError(_telling.USED_ALREADY)
        pool = self._pool
        ledger = pool._ledger
        queue = ledger.queue
        if not queue.size or ledger.idle or ledger.spare or len(ledger.entries) < pool.limits.max_size:
            await checkpoint_if_cancelled()  # before anything is lent to, or begun for, a caller who is gone
        now = pool._now()
        self.task = current_task()
        try:
            if pool._watchful:
                pool._before_acquire(self)
            lent = False
            if not queue.size or (self.line == URGENT and not queue.count_urgent()):
                lent = ledger.try_lend(self, now)
                if ledger.work:
                    pool._start_jobs()
            if lent:
                if self._on_lent is None:
                    await cancel_shielded_checkpoint()
                else:
                    self.call_on_lent()
                    await cancel_shielded_checkpoint()
                    self.unwrap()
            else:
                latest_start = now + (pool.limits.acquire_timeout if self._timeout is None else self._timeout)
                if (
                    ledger.open_error is not None
                    or (ledger.expected_use > _TELLING_USE and queue.size)
                    or queue.size >= pool.limits.max_waiting
                    or ledger.closed
                ):
                    if pool._is_forgotten():
                        return await self._enter_anew()
                    latest_start = pool._admit(self, now, latest_start)
                ledger.enqueue(self, now, latest_start)
                if ledger.work:
                    pool._start_jobs()
                if ledger.due < pool._nap_ends:
                    pool._wake_upkeep()
                await wait_task_rescheduled(self._give_up)
            entry = self.entry
            if entry is None:  # the resource was closed before this task came to use it
                if lent:
                    self.waiting_since, self.latest_start = now, now + pool._timeout(self)
                entry, lent = await self._acquire_again(), False
            if pool._instruments:
                pool._tell("acquired", 0.0 if lent else self.since - self.waiting_since)
            resource: T = entry.resource
            return resource
        finally:
            # It may hold a borrower that holds this: only the garbage collector would free them.
            self._on_lent = None

    async def _enter_anew(self) -> T:
        """Enter the pool that has taken the place of one that was forgotten."""
        self._pool = self._pool._successor()
        if self._on_lent is not None:
            self._pool._ledger.wake = _wake_lent
        self.task = None
        return await _Acquire.__aenter__(self)

    def call_on_lent(self) -> None:
        """Begin the use on the borrower's behalf. What is raised is the borrower's: `unwrap` raises it there."""
        self.error = None
        try:
            returned = self._on_lent(self.entry.resource)  # type: ignore[misc]  # called only if there is one
            if isinstance(returned, CoroutineType):
                returned.close()
                raise TypeError("on_lent must not be an async function: nobody could await it")
        except BaseException as error:  # noqa: BLE001
            self.error = error
        else:
            return
        _cut_context(self.error, sys.exception())

    async def _acquire_again(self) -> Entry[T]:
        """Wait once more, in the place in line that this lease has by its `waiting_since`."""
        while self.entry is None:
            if self._pool._is_forgotten():
                await self._enter_anew()
            elif not self._pool._lend_or_enqueue_again(self):
                await wait_task_rescheduled(self._give_up)
            elif self._on_lent is not None:
                self.call_on_lent()
                self.unwrap()
        entry: Entry[T] = self.entry
        return entry

    def unwrap(self) -> None:
        """Be what is sent to this lease's task when its wait is over, as an `outcome.Outcome` is.

        One of those would have to be made for each wait, at a tenth of its cost.
        """
        if self.error is not None:
            error, self.error = self.error, None
            if self.entry is not None:
                self._pool._take_back_unused(self, error)
            try:
                raise error
            finally:
                del error  # or what its traceback holds, the caller's frames, would be freed only by the collector

    def _give_up(self, raise_cancel: RaiseCancelT) -> Abort:
        pool = self._pool
        now = pool._now()
        try:
            raise_cancel()
        except (trio.Cancelled, KeyboardInterrupt) as cancellation:  # Trio raises it again, in the task
            pool._ledger.give_up(self, now, late=now >= self.latest_start or _is_for_a_deadline(cancellation))
        pool._tell("cancelled", now - self.waiting_since)
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
        if pool._instruments:
            pool._tell("returned", now - self.since, exc)


class _RevocableAcquire(_Acquire[T]):
    """A lease whose block the pool cancels after ``max_hold``."""

    __slots__ = ("_scope",)

    @enable_ki_protection
    async def __aenter__(self) -> T:
        resource = await super().__aenter__()
        self._scope = trio.CancelScope(deadline=self.since + self._pool.limits.max_hold)
        self._scope.__enter__()
        return resource

    @enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await super().__aexit__(exc_type, exc, tb)
        self._scope.__exit__(exc_type, exc, tb)
        if self._scope.cancelled_caught:
            pool = self._pool
            raise LeaseRevoked(
                f"{pool.name}: the lease was held for {pool._now() - self.since:.3g} s, longer than max_hold "
                f"({pool.limits.max_hold:g} s)"
            ) from None


class Pool(Generic[T]):
    """Lends resources of one kind. Made by `open_pool`; may be used by any number of tasks."""

    def __init__(
        self,
        adapter: Adapter[T],
        limits: Limits,
        *,
        budget: Budget | None = None,
        instruments: Sequence[Instrument] = (),
        when_empty: Callable[[], object] | None = None,
        successor: Callable[[], Pool[T]] | None = None,
    ) -> None:
        self.adapter = adapter
        """The adapter, as given."""
        self.limits = limits
        """The options, as given, with defaults filled in."""
        self.name = limits.name or adapter.name
        """What logs, errors and metrics call the pool."""
        self._now = current_clock().current_time  # what trio.current_time() calls, at a third of its cost
        asks = type(adapter).is_clean is not Adapter.is_clean
        self._ledger: Ledger[T] = Ledger(
            limits=limits,
            is_clean=self._is_clean if asks else None,
            wake=reschedule,
            nudge=self._follow_up,
            share=adapter.leases_per_resource,
            budget=budget,
            clock_jumped=ClockWatch().jumped,
        )
        self._lease_type = _Acquire if limits.max_hold == math.inf else _RevocableAcquire
        self._instruments = list(instruments)
        self._when_empty = when_empty  # called when the pool holds nothing and nobody waits; then it is over
        self._successor = successor or (lambda: self)  # which pool to use when this one is over
        self._nesting_checks = _NESTING_CHECKS  # acquires for which to look whether the task holds a lease already
        self._watchful = True  # whether there is anything to do before an acquire
        self._upkeep_scope = trio.CancelScope(shield=True)  # cancelled by _end(), and by nothing else
        self._nap = trio.CancelScope()  # upkeep's sleep; moving its deadline wakes upkeep earlier
        self._nap_ends = -math.inf  # that deadline
        # Whether is_clean has said no of everything yet, also of the first resource when it had just been opened.
        self._never_clean: bool | None = None if asks else False
        self._hurry = False  # whether the closing of resources is not to wait for politeness
        self._progress = ParkingLot()  # tasks that wait for something to be closed
        self._nursery: trio.Nursery  # for jobs; set by open_pool
        # Jobs run in the context of the task that opened the pool, not of the borrower that happened to cause them.
        self._context = contextvars.copy_context()

    def __repr__(self) -> str:
        return f"<respool.Pool {self.name!r}: {'closed' if self._ledger.closed else _telling.in_numbers(self._ledger)}>"

    def acquire(
        self,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        transferable: bool = False,
        on_lent: Callable[[T], object] | None = None,
    ) -> AbstractAsyncContextManager[T]:
        """Borrow a resource for the length of an ``async with`` block.

        Takes the idle resource used last, or waits in line for the first to be returned or opened. Entering the
        block is always a checkpoint; leaving it never is. The lease is exclusive, unless the adapter says that one
        resource serves several.

        Args:
          timeout: longest wait in seconds, instead of ``acquire_timeout``. ``math.inf`` waits for ever, 0 not at all
            (but has a resource opened or validated for whoever comes next).
            It limits the wait for the resource, not its use: put the block into `trio.fail_after` for that.
          priority: who is served first if tasks have to wait.
          transferable: whether another task may end the lease than the one that acquired. Nothing is concluded then
            from what that one waits for: see `PoolDeadlock`.
          on_lent: called with the resource in the moment in which it is lent, which is before this task has its next
            turn: to begin its use, by sending a request for instance, whose answer is then on its way meanwhile. It
            must not wait, nor use the pool, nor context variables: it is called by whichever task returns or opens the
            resource. What it raises is raised on entering the block, and the resource has been returned as after a
            block that raises it. If a shared resource is closed before the block begins, it is called again, for
            another.

        Raises:
          PoolTimeout: nothing came free in time.
          PoolDeadlock: every resource is held by a task that waits for this pool.
          PoolOverloaded: ``max_waiting`` tasks are waiting already, or the deadline of a surrounding cancel scope
            leaves less time than nine in ten leases take.
          OpenFailed: no resource can be opened, for good, and none is in use that might be returned.
          PoolClosed: the pool's block has ended or is ending.
        """
        if timeout is not None and not (
            isinstance(timeout, (int, float)) and timeout >= 0 and not isinstance(timeout, bool)
        ):
            raise ValueError(f"timeout must be a number of seconds >= 0, not {timeout!r}")
        line = NORMAL
        if priority is not _NORMAL:
            if not isinstance(priority, Priority):
                raise TypeError(f"priority must be a respool.Priority, not {priority!r}")
            line = priority.value
        lease: _Acquire[T] = self._lease_type()
        lease._pool = self
        lease._timeout = timeout
        lease.line = line
        lease.entry = lease.task = None
        lease._on_lent = on_lent
        if on_lent is not None:
            self._ledger.wake = _wake_lent  # from now on: who does without it should not pay for it
        if transferable:
            lease.transferable = True
        return lease

    def statistics(self) -> PoolStatistics:
        """The pool at this moment: a frozen snapshot. Costs some microseconds a resource.

        May be called from any thread, and does not wait for Trio's, so that it also tells of a pool whose event loop
        is stuck. Only then may the fields be of slightly different moments.
        """
        return _telling.statistics(self.name, self._ledger, self._now())

    # Running changes.

    def resize(self, *, min_size: int | None = None, max_size: int | None = None) -> None:
        """Change ``min_size``, ``max_size``, or both. Never disturbs a lease.

        A pool that is too large closes its coldest idle resources now and others as they come back. One that is closed,
        or closing, does nothing.

        Raises:
          TypeError, ValueError: as for `Limits`; nothing is changed then.
        """
        limits = attrs.evolve(
            self.limits,
            min_size=self.limits.min_size if min_size is None else min_size,
            max_size=self.limits.max_size if max_size is None else max_size,
        )
        if self._ledger.closed:
            return  # what it had reserved in a budget is, or will be, given back once and for all
        budget = self._ledger.budget
        if budget is not None:
            budget.reserve(limits.min_size - self.limits.min_size)
        self.limits = limits
        self._ledger.resize(limits, self._now())
        self._follow_up()

    def pause(self) -> None:
        """Lend nothing until `resume` is called: whoever acquires waits, as long as its timeout lets it.

        Leases that have begun go on. PgBouncer's ``PAUSE``, for the moment in which the server is being replaced.
        """
        self._ledger.pause()

    def resume(self) -> None:
        """Lend again, after `pause` or `drain`. Does nothing if the pool is not paused."""
        self._ledger.resume(self._now())
        self._follow_up()

    def retire_all(self) -> None:
        """Replace every resource: idle ones are closed now, lent ones when they come back.

        For what the adapter cannot notice by itself: a failover announced by other means, rotated credentials, a
        changed DNS name. asyncpg calls it ``expire_connections``.
        """
        self._ledger.retire_all(self._now())
        self._follow_up()

    async def quiesce(self) -> None:
        """Close what is idle, and return once it is closed.

        For a process that is about to be frozen (a serverless function between requests): its peers would otherwise
        count connections that nobody can use. The pool goes on working and opens again when somebody acquires; but
        note that ``min_size`` is refilled at once.
        """
        leaving = set(self._ledger.idle)
        self._ledger.quiesce(lent=False)
        self._follow_up()
        await self._until(lambda: leaving.isdisjoint(self._ledger.entries))

    async def drain(self) -> None:
        """Pause, wait until every lease has ended, and close everything; then the pool is empty until `resume`.

        Limit the wait with `trio.move_on_after`; a drain that is cancelled leaves the pool paused.
        """
        self._ledger.pause()
        self._ledger.quiesce(lent=True)
        self._follow_up()
        await self._until(lambda: not self._ledger.entries)

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only jobs bring about."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self._progress.park()

    # Borrowers.

    def _before_acquire(self, lease: _Acquire[T]) -> None:
        """What is done only if asked for, or only at first."""
        if self.limits.record_stacks:
            lease.stack = _stack_of_borrower()
        if self._nesting_checks:
            self._nesting_checks -= 1
            leases = (other for entry in self._ledger.entries for other in entry.leases)
            if any(other.task is lease.task and not hasattr(other, "transferable") for other in leases):
                self._nesting_checks = 0
                logger.warning(
                    "%s: task %s acquires while it already holds a lease; if all resources are held by tasks that "
                    "do, none of them will ever get another. Told once.",
                    self.name,
                    lease.task.name,
                )
        self._watchful = bool(self._nesting_checks or self.limits.record_stacks)

    def _lend_or_enqueue_again(self, lease: _Acquire[T]) -> bool:
        """Serve a lease that has lost what it was given, or let it wait in its old place, which cannot be refused."""
        ledger = self._ledger
        if ledger.closed:
            raise self._closed_error()
        if ledger.hopeless():
            raise self._open_failed_error()
        lent = ledger.lend_or_enqueue_again(lease, self._now())
        self._follow_up()
        return lent

    def _is_forgotten(self) -> bool:
        """Whether another pool has taken this one's place."""
        return self._ledger.closed and self._successor() is not self

    def _timeout(self, lease: _Acquire[T]) -> float:
        """How long `lease` may wait."""
        return self.limits.acquire_timeout if lease._timeout is None else lease._timeout

    def _admit(self, lease: _Acquire[T], now: float, latest_start: float) -> float:
        """How long there will be a point in waiting; at most until `latest_start`. Raises if there is none."""
        ledger = self._ledger
        if ledger.closed:
            raise self._closed_error()
        if now < ledger.retry_at and ledger.hopeless():
            raise self._open_failed_error()
        # Those for whom a resource is being made ready, or can be, do not count: they do not wait for others to finish.
        usable = self.limits.max_size - (0 if lease.line == URGENT else self.limits.reserved)
        if ledger.budget is not None:
            usable = min(usable, len(ledger.entries) + ledger.budget.room())
        coming = max(0, usable - ledger.count(State.LENT)) * ledger.share  # may be lent more than that
        if ledger.queue.size >= self.limits.max_waiting + coming:
            raise self._queue_full_error()
        if ledger.expected_use > _TELLING_USE and ledger.queue.size:
            # To look the deadline up costs a fifth of an acquire, and would tell hardly earlier what the caller's own
            # cancel scope is about to do.
            last_chance = trio.current_effective_deadline() - ledger.expected_use
            if last_chance <= now:
                raise self._too_late_error(0)
            return min(latest_start, last_chance)
        return latest_start

    def _check_in_after(self, error: BaseException, lease: _Acquire[T], now: float) -> None:
        """End a lease whose block ended in `error`."""
        ledger = self._ledger
        verdict = self._verdict(error)
        # An older entry's complaint is old news: it must not cost the resources opened since then.
        if Verdict.RETIRE in verdict and lease.entry and lease.entry.generation == ledger.generation:
            logger.warning("%s: retiring all resources, because of %s", self.name, _brief(error))
            ledger.retire_all(now)
        waited = hasattr(lease, "waits")
        if waited and now < lease.since + self.limits.max_hold and any(map(_is_for_a_deadline, _leaves(error))):
            ledger.queue.served_in_vain()
        ledger.check_in(lease, now, broken=Verdict.DISCARD in verdict)

    def _take_back_unused(self, lease: _Acquire[T], error: BaseException) -> None:
        """End a lease whose ``on_lent`` ended in `error`, so that its block never begins."""
        self._check_in_after(error, lease, self._now())
        self._follow_up()

    def _verdict(self, error: BaseException) -> Verdict:
        verdict = Verdict.KEEP
        for leaf in _leaves(error):
            try:
                verdict |= self.adapter.verdict(leaf)
            except Exception:
                logger.exception("%s: verdict() failed; discarding the resource", self.name)
                verdict |= Verdict.DISCARD
        return verdict

    def _is_clean(self, resource: T) -> bool:
        try:
            return self.adapter.is_clean(resource)
        except Exception:
            logger.exception("%s: is_clean() failed; resetting the resource", self.name)
            return False

    # Jobs and upkeep.

    def _start_jobs(self) -> None:
        """Do what the ledger has ordered."""
        for entry in self._ledger.work:
            self._context.run(self._start_job, entry)
            if entry.discarded is not None:
                self._tell("discarded", entry.discarded.value)
        self._ledger.work.clear()
        self._progress.unpark_all()

    def _start_job(self, entry: Entry[T]) -> None:
        job = _JOBS[entry.state]
        self._nursery.start_soon(job, self, entry, name=f"respool {self.name}: {entry.state.value}")

    def _follow_up(self) -> None:
        """Do what the ledger has ordered, after anything but a borrower's own step."""
        ledger = self._ledger
        self._start_jobs()
        if ledger.due < self._nap_ends:
            self._wake_upkeep()
        self._end_if_empty()

    def _end_if_empty(self) -> None:
        """End a pool that somebody makes anew whenever it is needed; but let it remember that opening fails."""
        ledger = self._ledger
        if self._when_empty and not ledger.closed and ledger.forgettable(self._now()):
            ledger.closed = True
            self._upkeep_scope.cancel()
            self._when_empty()
            self._tell_ended()

    @enable_ki_protection
    async def _open(self, entry: Entry[T]) -> None:
        started = self._now()
        try:
            with self._time_limit(entry, "open_timeout"):
                resource = await awaitable(self.adapter.open(), f"{type(self.adapter).__name__}.open")
        except Exception as error:  # noqa: BLE001  # whatever it is, the waiters are told
            self._open_failed(entry, error)
        except BaseException:
            self._ledger.open_abandoned(entry, self._now())
            raise
        else:
            if entry.job.cancelled_caught:
                self._ledger.open_abandoned(entry, self._now())
            else:
                if self._never_clean is None:
                    self._never_clean = not self._is_clean(resource)
                now = self._now()
                self._ledger.opened(entry, resource, now - started, now)
                self._tell("opened", now - started)
        self._follow_up()

    def _open_failed(self, entry: Entry[T], error: Exception) -> None:
        ledger = self._ledger
        now = self._now()
        verdict = self._verdict(error)
        if Verdict.RETIRE in verdict and entry.generation == ledger.generation:
            ledger.retire_all(now)
        permanent = Verdict.PERMANENT in verdict or isinstance(error, NotAwaitable)
        told = ledger.open_error is not None and _brief(ledger.open_error) == _brief(error)
        ledger.open_failed(entry, error, now, permanent=permanent)
        told = told or bool(self.limits.fail_fast and ledger.queue.size and ledger.hopeless())  # to those, just below
        level = logging.DEBUG if told else logging.WARNING
        logger.log(level, "%s: could not open a resource: %s", self.name, _brief(error))
        self._tell("open_failed", error)
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
                await awaitable(hook(entry.resource), f"{type(self.adapter).__name__}.{doing}")
        except Exception as error:  # noqa: BLE001  # whatever it is, the resource is not lent again
            logger.warning("%s: discarding a resource, because %s failed: %s", self.name, doing, _brief(error))
            self._ledger.unrecoverable(entry, self._now())
        except BaseException:
            self._ledger.unrecoverable(entry, self._now())
            self._start_jobs()  # to close it, before the pool ends
            raise
        else:
            if entry.job.cancelled_caught:
                self._ledger.unrecoverable(entry, self._now())
            elif self._ledger.recovered(entry, self._now()):
                self._never_clean = False
                self._tell("recovered")
            elif self._never_clean:
                self._never_clean = False
                logger.warning(_telling.NEVER_CLEAN, self.name, type(self.adapter).__name__, doing)
        self._follow_up()

    @enable_ki_protection
    async def _close(self, entry: Entry[T]) -> None:
        try:
            with self._time_limit(entry, "close_timeout"):
                await awaitable(self.adapter.close(entry.resource), f"{type(self.adapter).__name__}.close")
        except Exception as error:  # noqa: BLE001  # nobody could do anything about it
            logger.warning("%s: closing a resource failed: %s", self.name, _brief(error))
        finally:
            now = self._now()
            self._ledger.gone(entry, now)
            assert entry.discarded is not None, "bug: closed for no reason"
            self._tell("closed", entry.discarded.value, now - entry.opened_at)
            self._follow_up()

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
        looked_closely = -math.inf
        with self._upkeep_scope:
            while True:
                now = self._now()
                for lease in ledger.queue.expired(now):
                    self._dismiss_late(lease, now)
                if now >= looked_closely + UPKEEP_PERIOD:  # not for each of thousands of leases that run out of time
                    looked_closely = now
                    ledger.take_stock()
                    self._break_deadlock(now)
                ledger.tidy(now)
                self._report_long_holds(now)
                self._end_if_empty()
                self._start_jobs()
                self._nap_ends = ledger.due
                with trio.CancelScope(deadline=ledger.due) as self._nap:
                    await trio.sleep_forever()

    def _dismiss_late(self, lease: Lease[T], now: float) -> None:
        """Its time is up: its own, or what its caller's cancel scopes leave."""
        assert isinstance(lease, _Acquire), "bug: somebody else's lease"
        waited = now - lease.waiting_since
        own = self._timeout(lease)
        in_full = lease.latest_start >= lease.waiting_since + own  # not `waited >= own`, which rounding may make false
        error = self._timeout_error(waited) if in_full else self._too_late_error(waited)
        self._ledger.dismiss(lease, error, late=True)

    def _break_deadlock(self, now: float) -> None:
        """If nobody can ever be served, let the acquire that closed the circle fail."""
        ledger = self._ledger
        all_lent = ledger.count(State.LENT) == len(ledger.entries) >= self.limits.max_size
        held_back = not ledger.entitled()  # from all who wait, as long as nobody gives anything back
        if not ledger.queue.size or not (all_lent or held_back) or ledger.paused:
            return
        leases = [lease for entry in ledger.entries for lease in entry.leases]
        if any(now - lease.since < UPKEEP_PERIOD / 2 for lease in leases):
            return  # somebody has just been served; whoever may close a circle later is looked at then
        if any(hasattr(lease, "transferable") for lease in leases):
            return
        # Whoever waits with a time-out of its own has said what to do then.
        waiting = {
            lease.task for lease in ledger.queue if isinstance(lease, _Acquire) and lease._timeout in (None, math.inf)
        }
        culprits = blocked_for_certain((lease.task for lease in leases), waiting)
        if culprits:
            last = max(
                (lease for lease in ledger.queue if lease.task in culprits), key=lambda lease: lease.waiting_since
            )
            ledger.dismiss(last, self._deadlock_error(last))

    def _report_long_holds(self, now: float) -> None:
        warn_hold = self.limits.warn_hold
        if warn_hold == math.inf:
            return
        next_report = now + max(UPKEEP_PERIOD, warn_hold)  # of whatever is acquired from now on
        for lease in [
            lease for entry in self._ledger.entries for lease in entry.leases if not hasattr(lease, "warned")
        ]:
            if now < lease.since + warn_hold:
                next_report = min(next_report, lease.since + warn_hold)
            else:
                lease.warned = True
                logger.warning("%s: a lease is held for long, by %s", self.name, _telling.holder(lease, now))
        self._ledger.due = min(self._ledger.due, next_report)

    def _wake_upkeep(self) -> None:
        self._nap_ends = self._nap.deadline = self._ledger.due

    def _begin(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        nursery.start_soon(self._upkeep, name=f"respool {self.name}: upkeep")
        self._tell("started")

    async def _end(self) -> None:
        """Close everything: politely and after the outstanding leases, or at once if cancelled."""
        ledger = self._ledger
        ledger.close()
        for lease in list(ledger.queue):
            ledger.dismiss(lease, self._closed_error())
        self._upkeep_scope.cancel()
        self._cut_short(state for state in State if state is not State.CLOSING)
        self._follow_up()
        try:
            with trio.move_on_after(self.limits.drain_timeout):
                await self._until(lambda: not ledger.count(State.LENT))
            self._take_back()
            await self._until(lambda: not ledger.entries)
        finally:
            self._hurry = True
            self._take_back()
            self._cut_short(State)
            if ledger.budget is not None:
                ledger.budget.reserve(-self.limits.min_size)

    def _take_back(self) -> None:
        """Close the resources that are still lent."""
        if self._ledger.count(State.LENT):
            holders = "; ".join(map(str, self.statistics().holders))
            logger.warning("%s: closing with resources still lent to %s", self.name, holders)
            self._ledger.close_lent()
        self._follow_up()

    def _cut_short(self, states: Iterable[State]) -> None:
        """Cancel the jobs at work on entries in `states`; the rest of them goes its usual way from there."""
        states = set(states)
        for entry in self._ledger.entries:
            if entry.job is not None and entry.state in states:
                entry.job.cancel()

    # Telling.

    def _tell(self, event: str, *details: object) -> None:
        """Call the hook `event` of every instrument."""
        for instrument in list(self._instruments):
            try:
                getattr(instrument, event)(self, *details)
            except Exception:
                self._instruments.remove(instrument)
                logger.exception("%s: %r failed in %s() and is detached", self.name, instrument, event)

    def _tell_ended(self) -> None:
        self._tell("ended")
        self._instruments.clear()

    def _timeout_error(self, waited: float) -> PoolTimeout:
        self._ledger.timeouts += 1
        return self._refusal(PoolTimeout, _telling.timed_out(self._ledger, waited, self._now()))

    def _too_late_error(self, waited: float) -> PoolOverloaded:
        self._ledger.refused += 1
        return self._refusal(PoolOverloaded, _telling.too_late(self._ledger, waited))

    def _queue_full_error(self) -> PoolOverloaded:
        self._ledger.refused += 1
        return self._refusal(PoolOverloaded, _telling.queue_full(self._ledger, self._now()))

    def _open_failed_error(self) -> OpenFailed:
        return self._refusal(OpenFailed, _telling.not_opened(self._ledger, self._now()))

    def _deadlock_error(self, last: Lease[T]) -> PoolDeadlock:
        return self._refusal(PoolDeadlock, _telling.deadlocked(self._ledger, last, self._now()))

    def _closed_error(self) -> PoolClosed:
        return self._refusal(PoolClosed, _telling.CLOSED)

    def _refusal(self, kind: type[_Refusal], text: str) -> _Refusal:
        error = kind(f"{self.name}: {text}")
        error.__cause__ = self._ledger.open_error
        self._tell("refused", error)
        return error


_JOBS: dict[State, Callable[[Pool[Any], Entry[Any]], Awaitable[None]]] = {
    State.OPENING: Pool._open,
    State.CHECKING: Pool._recover,
    State.RESETTING: Pool._recover,
    State.CLOSING: Pool._close,
}


@overload
def open_pool(
    adapter: Adapter[T],
    *,
    budget: Budget | None = None,
    instruments: Sequence[Instrument] = (),
    **options: Unpack[Options],
) -> AbstractAsyncContextManager[Pool[T]]: ...


@overload
def open_pool(
    adapter: str,
    *,
    budget: Budget | None = None,
    instruments: Sequence[Instrument] = (),
    **options: Unpack[Options],
) -> AbstractAsyncContextManager[Pool[Any]]: ...


def open_pool(
    adapter: Adapter[Any] | str,
    *,
    budget: Budget | None = None,
    instruments: Sequence[Instrument] = (),
    **options: Unpack[Options],
) -> AbstractAsyncContextManager[Pool[Any]]:
    """Open a pool for the length of an ``async with`` block.

    Nothing is opened until somebody acquires, or in the background if ``min_size`` asks for it. When the block ends
    the pool waits up to ``drain_timeout`` for outstanding leases, then closes everything: no resource, task or socket
    is left. If the block is cancelled it closes everything at once.

    Args:
      adapter: an `Adapter`, or a URL such as ``"postgresql://host/database"``, which an installed adapter package
        must serve. Only an adapter tells type checkers what `Pool.acquire` yields.
      budget: a limit to share with other pools.
      instruments: objects to be told what happens in the pool.
      options: see `Limits`.

    Raises:
      TypeError, ValueError: an option, the URL, the adapter or an instrument is not what it should be.
    """
    if isinstance(adapter, str):
        adapter = adapter_from_url(adapter)
    elif not isinstance(adapter, Adapter):
        # Its type only: it may be a URL in another form, and hold a password.
        raise TypeError(f"open_pool() takes an Adapter or a URL as a str, not {_kind(adapter)}")
    refuse_async_hooks(adapter)
    if budget is not None and not isinstance(budget, Budget):
        raise TypeError(f"budget must be a Budget, not {budget!r}")
    return _running(adapter, limits_from(options), budget, instruments_from(instruments))


@asynccontextmanager
async def _running(
    adapter: Adapter[T], limits: Limits, budget: Budget | None, instruments: Sequence[Instrument]
) -> AsyncIterator[Pool[T]]:
    pool = Pool(adapter, limits, budget=budget, instruments=instruments)
    if budget is not None:
        budget.reserve(limits.min_size)
    error_of_block: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            pool._begin(nursery)
            try:
                yield pool
            except BaseException as error:  # noqa: BLE001  # raised again outside the nursery, which would group it
                error_of_block = error
            try:
                await pool._end()
            except trio.Cancelled as cancelled:
                if error_of_block is None:
                    error_of_block = cancelled  # likewise
    finally:
        pool._tell_ended()
    if error_of_block is not None:
        raise error_of_block


def _wake_lent(task: Any, lease: Any) -> None:
    """`reschedule`, for pools that have seen an ``on_lent``."""
    if lease._on_lent is not None and lease.entry is not None:
        lease.call_on_lent()
    reschedule(task, lease)


def _cut_context(error: BaseException, handled: BaseException | None) -> None:
    """Take `handled` from the end of `error`'s context: it ended another task's block, and is none of its business."""
    while error.__context__ is not None and error.__context__ is not handled:
        error = error.__context__
    error.__context__ = None


def _stack_of_borrower() -> str:
    """The stack up to the line that acquires, without our own frames."""
    frames = (frame for frame, _ in traceback.walk_stack(inspect.currentframe()))
    theirs = next(frame for frame in frames if frame.f_globals.get("__package__") != __package__)
    return "".join(traceback.format_stack(theirs))


def _is_for_a_deadline(error: BaseException) -> bool:
    """Whether `error` is the cancellation of a scope whose deadline has passed."""
    return isinstance(error, trio.Cancelled) and error.source == "deadline"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _kind(thing: object) -> str:
    if isinstance(thing, type):
        return f"the class {thing.__name__} itself: make an instance of it"
    return type(thing).__name__


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
