"""The list. Each is a bug that a pool has had somewhere, or that a hurried change might bring."""

# ruff: noqa: E501 - a piece of source is as long as it is

from __future__ import annotations

import attrs

__all__ = ["MUTANTS", "Mutant"]


@attrs.frozen
class Mutant:
    """One bug: `old`, which occurs once in ``respool/file``, becomes `new`."""

    story: str
    file: str
    old: str
    new: str


MUTANTS = [
    # Bounds.
    Mutant(
        "opens one more than max_size",
        "_ledger.py",
        "room = min(self.limits.max_size - len(self.entries), ",
        "room = min(self.limits.max_size + 1 - len(self.entries), ",
    ),
    Mutant(
        "a slot is free before its resource is closed",
        "_ledger.py",
        "        self.discards[reason] += 1\n        self.work.append(entry)\n",
        "        self.discards[reason] += 1\n        self.work.append(entry)\n        self.entries.pop(entry, None)\n",
    ),
    Mutant(
        "a failed open keeps its slot",
        "_ledger.py",
        "        self.due = min(self.due, self.retry_at)\n        self.gone(entry, now)\n",
        "        self.due = min(self.due, self.retry_at)\n",
    ),
    Mutant(
        "max_opening is not kept",
        "_ledger.py",
        "at_once = 1 if self.failures else self.limits.max_opening",
        "at_once = self.limits.max_size",
    ),
    Mutant(
        "a server that just failed is stormed",
        "_ledger.py",
        "at_once = 1 if self.failures else self.limits.max_opening",
        "at_once = self.limits.max_opening",
    ),
    # Exactly once.
    Mutant(
        "a cancelled waiter stays in the queue",
        "_ledger.py",
        "        self.queue.remove(lease, late=late)\n        self.cancelled",
        "        self.cancelled",
    ),
    Mutant(
        "an error in the block keeps the resource lent",
        "_pool.py",
        "            pool._check_in_after(exc, self, now)\n",
        "            pool._verdict(exc)\n",
    ),
    Mutant(
        "a cancelled block keeps the resource lent",
        "_pool.py",
        "        if exc is None:\n            ledger.check_in(self, now)\n",
        "        if isinstance(exc, trio.Cancelled):\n            return\n        if exc is None:\n            ledger.check_in(self, now)\n",
    ),
    Mutant(
        "a resource taken back at the end is placed again by its borrower",
        "_ledger.py",
        "        for lease in entry.leases:\n            lease.entry = None\n",
        "",
    ),
    # First come, first served; no lost wake-ups.
    Mutant(
        "the last to come is served first",
        "_queue.py",
        "line.pop() if self.overloaded and self._newest_is_next() else line.popleft()",
        "line.pop()",
    ),
    Mutant(
        "what comes back is made idle although somebody waits",
        "_ledger.py",
        "while queue.size and len(entry.leases) < self.share:",
        "while queue.size > 1 and len(entry.leases) < self.share:",
    ),
    Mutant(
        "a waiter is not woken",
        "_ledger.py",
        "        lease.entry = entry\n        self.wake(lease.task, lease)\n",
        "        lease.entry = entry\n",
    ),
    Mutant(
        "nothing is opened when a slot comes free",
        "_ledger.py",
        "            self.budget.release(entry, now)\n        self.provide(now)\n",
        "            self.budget.release(entry, now)\n",
    ),
    Mutant(
        "nothing is opened for a new waiter",
        "_ledger.py",
        "        if self.idle or len(self.entries) < self.limits.max_size:\n            self.provide(now)\n",
        "",
    ),
    Mutant(
        "nothing is opened again after a failure",
        "_ledger.py",
        "        if now < self.retry_at:\n            due = min(due, self.retry_at)\n",
        "",
    ),
    Mutant(
        "an idle resource is not checked while another is opened",
        "_ledger.py",
        "self.entitled() > self.arriving - self.opening:",
        "self.entitled() > self.arriving:",
    ),
    Mutant(
        "one fewer is opened than tasks wait",
        "_ledger.py",
        "- self.arriving\n        return min(room",
        "- self.arriving - 1\n        return min(room",
    ),
    Mutant(
        "jobs that a check-in orders are not started",
        "_pool.py",
        "            pool._check_in_after(exc, self, now)\n        if ledger.work:\n            pool._start_jobs()\n",
        "            pool._check_in_after(exc, self, now)\n",
    ),
    # No stranger's data.
    Mutant(
        "what comes back is not asked whether it is clean",
        "_ledger.py",
        "elif not entry.leases and is_clean is not None and not is_clean(entry.resource):",
        "elif False:",
    ),
    Mutant(
        "what is lent is not asked whether it is clean",
        "_ledger.py",
        "            if is_clean is None or is_clean(entry.resource):\n                assert",
        "            if True:\n                assert",
    ),
    Mutant(
        "what was reset is not asked whether it is clean now",
        "_ledger.py",
        "        clean = self.is_clean is None or self.is_clean(entry.resource)\n",
        "        clean = True\n",
    ),
    Mutant(
        "a verdict to discard is ignored",
        "_pool.py",
        "broken=Verdict.DISCARD in verdict)",
        "broken=False)",
    ),
    Mutant(
        "a resource whose reset failed is lent again",
        "_pool.py",
        "            self._ledger.unrecoverable(entry, self._now())\n        except BaseException:\n            self._ledger.unrec",
        "            self._ledger.recovered(entry, self._now())\n        except BaseException:\n            self._ledger.unrec",
    ),
    Mutant(
        "a resource idle for long is not validated",
        "_ledger.py",
        "if since <= now - self.limits.validate_after or since <= self.suspect_before:",
        "if since <= self.suspect_before:",
    ),
    Mutant(
        "only the first of several errors is asked about",
        "_pool.py",
        "        for member in error.exceptions:\n            yield from _leaves(member)\n",
        "        yield from _leaves(error.exceptions[0])\n",
    ),
    # Retiring.
    Mutant(
        "a verdict to retire is ignored",
        "_pool.py",
        "if Verdict.RETIRE in verdict and lease.entry and lease.entry.generation == ledger.generation:",
        "if False:",
    ),
    Mutant(
        "an old resource's complaint retires the new ones",
        "_pool.py",
        "if Verdict.RETIRE in verdict and lease.entry and lease.entry.generation == ledger.generation:",
        "if Verdict.RETIRE in verdict:",
    ),
    Mutant(
        "what was being opened when the pool was retired is lent",
        "_ledger.py",
        "        if entry.doom is None:\n            entry.expires_at = now",
        "        if True:\n            entry.expires_at = now",
    ),
    Mutant(
        "max_lifetime is forgotten",
        "_ledger.py",
        "entry.expires_at = now + self.limits.max_lifetime * ",
        "entry.expires_at = math.inf * ",
    ),
    Mutant(
        "max_uses allows one more",
        "_ledger.py",
        "elif now >= entry.expires_at or entry.uses >= self.limits.max_uses:",
        "elif now >= entry.expires_at or entry.uses > self.limits.max_uses:",
    ),
    Mutant(
        "max_idle retires below min_size",
        "_ledger.py",
        "spare = self._staying() - self.limits.min_size",
        "spare = self._staying()",
    ),
    Mutant(
        "resources opened together expire together",
        "_ledger.py",
        "(1 - random.random() * _LIFETIME_JITTER)",
        "1",
    ),
    Mutant(
        "the coldest is lent",
        "_ledger.py",
        "            entry = idle[-1]\n            since",
        "            idle.rotate(-1)\n            entry = idle[-1]\n            since",
    ),
    # Time limits.
    Mutant(
        "a wait has no end",
        "_pool.py",
        "                for lease in ledger.queue.expired(now):\n                    self._dismiss_late(lease, now)\n",
        "",
    ),
    Mutant(
        "a shorter timeout than the default is not noticed in time",
        "_queue.py",
        "        if lease.latest_start < self._horizon:\n            self._keep_in_mind(lease)\n",
        "",
    ),
    Mutant(
        "upkeep is not woken for an earlier deadline",
        "_pool.py",
        "                if ledger.due < pool._nap_ends:\n                    pool._wake_upkeep()\n",
        "",
    ),
    Mutant(
        "nobody looks again beyond the horizon",
        "_queue.py",
        "        if now >= self._horizon:\n            self._look_ahead(now)\n",
        "",
    ),
    Mutant(
        "those who left from the middle of a line are served",
        "_queue.py",
        "        if self._vacant:\n            self._close_up(line)\n",
        "",
    ),
    Mutant(
        "those who left are remembered for as long as somebody waits in front of them",
        "_queue.py",
        "        elif self._vacant > self.size + _SLACK:\n            self._sweep()\n",
        "",
    ),
    Mutant(
        "those who were served are remembered until their time would have been up",
        "_queue.py",
        "        if len(self._soon) > 2 * self.size + _SLACK:\n",
        "        if False:\n",
    ),
    Mutant(
        "a wait that ended in an error goes on with nothing",
        "_pool.py",
        "        if self.error is not None:\n            error, ",
        "        if False:\n            error, ",
    ),
    Mutant(
        "a caller's deadline that cuts its wait or its lease short proves nothing",
        "_pool.py",
        'error.source == "deadline"',
        "False",
    ),
    Mutant(
        "max_hold counts as the caller's deadline",
        "_pool.py",
        "if waited and now < lease.since + self.limits.max_hold and",
        "if waited and",
    ),
    Mutant(
        "hooks have no time limit",
        "_pool.py",
        "deadline = -math.inf if unwanted else self._now() + seconds",
        "deadline = -math.inf if unwanted else math.inf",
    ),
    Mutant(
        "a hook that ran out of time counts as done",
        "_pool.py",
        "        if entry.job.cancelled_caught and not self._ledger.closed:\n            raise TimeoutError",
        "        if False:\n            raise TimeoutError",
    ),
    Mutant(
        "there is no back-off",
        "_ledger.py",
        "self.retry_at = now + random.uniform(0, ceiling)",
        "self.retry_at = now",
    ),
    Mutant(
        "back-off has no ceiling",
        "_ledger.py",
        "ceiling = min(_LONGEST_BACKOFF, ",
        "ceiling = max(_LONGEST_BACKOFF, ",
    ),
    Mutant(
        "a success does not end the back-off",
        "_ledger.py",
        "        self.failures = 0\n        self.retry_at = -math.inf\n",
        "",
    ),
    # Failure is told.
    Mutant(
        "a permanent failure is retried in silence",
        "_pool.py",
        "        if ledger.hopeless():\n            for lease",
        "        if False:\n            for lease",
    ),
    Mutant(
        "a permanent failure fails waiters although resources are in use",
        "_ledger.py",
        "            and all(entry.state is State.CLOSING for entry in self.entries)\n",
        "",
    ),
    Mutant(
        "a time-out does not tell its cause",
        "_pool.py",
        "        error.__cause__ = self._ledger.open_error\n",
        "",
    ),
    Mutant(
        "max_waiting refuses one too late",
        "_pool.py",
        "if ledger.queue.size >= self.limits.max_waiting + coming:",
        "if ledger.queue.size > self.limits.max_waiting + coming:",
    ),
    # Closing is complete.
    Mutant(
        "closing leaves what is idle open",
        "_ledger.py",
        "        for entry in [entry for entry in self.idle if entry.doom is not None]:\n            self._discard_idle(entry, reason)\n",
        "",
    ),
    Mutant(
        "closing does not tell those who wait",
        "_pool.py",
        "        for lease in list(ledger.queue):\n            ledger.dismiss(lease, self._closed_error())\n",
        "",
    ),
    Mutant(
        "closing waits for its leases for ever",
        "_pool.py",
        "with trio.move_on_after(self.limits.drain_timeout):",
        "with trio.move_on_after(math.inf):",
    ),
    Mutant(
        "closing does not wait for its leases",
        "_pool.py",
        "with trio.move_on_after(self.limits.drain_timeout):",
        "with trio.move_on_after(0):",
    ),
    Mutant(
        "closing waits for opens that nobody needs any more",
        "_pool.py",
        "        self._cut_short(state for state in State if state is not State.CLOSING)\n",
        "",
    ),
    Mutant(
        "a cancelled end waits for polite closes",
        "_pool.py",
        "            self._take_back()\n            self._cut_short(State)\n",
        "            self._take_back()\n",
    ),
    Mutant(
        "resources that are taken back when the end is cancelled are closed politely",
        "_pool.py",
        "            self._hurry = True\n",
        "",
    ),
    Mutant(
        "an exception of the block is grouped",
        "_pool.py",
        "                error_of_block = error\n            try:\n",
        "                raise\n            try:\n",
    ),
    # Cancellation.
    Mutant(
        "acquire is no checkpoint when a resource is idle",
        "_pool.py",
        "                    await cancel_shielded_checkpoint()\n                else:",
        "                    pass\n                else:",
    ),
    Mutant(
        "a cancelled task acquires all the same",
        "_pool.py",
        "            await checkpoint_if_cancelled()  # before anything is lent to, or begun for, a caller who is gone\n",
        "            pass\n",
    ),
    Mutant(
        "an acquire can be cancelled between taking a resource and its block",
        "_pool.py",
        "                    await cancel_shielded_checkpoint()\n                else:",
        "                    await trio.lowlevel.checkpoint()\n                else:",
    ),
    Mutant(
        "hooks are cancelled with the task that opened the pool",
        "_pool.py",
        "with trio.CancelScope(deadline=deadline, shield=True) as entry.job:",
        "with trio.CancelScope(deadline=deadline) as entry.job:",
    ),
    Mutant(
        "a failing verdict() costs the lease",
        "_pool.py",
        '                logger.exception("%s: verdict() failed; discarding the resource", self.name)\n',
        "                raise\n",
    ),
    # The books.
    Mutant(
        "a wait that ended well is not counted",
        "_ledger.py",
        "        wait_time.counts[bisect_left(BOUNDS, waited)] += 1  # Histogram.add, without the call\n",
        "",
    ),
    Mutant(
        "refusals are not counted",
        "_pool.py",
        "        self._ledger.refused += 1\n        return self._refusal(PoolOverloaded, _telling.queue_full(",
        "        return self._refusal(PoolOverloaded, _telling.queue_full(",
    ),
    Mutant(
        "discards are counted under the wrong reason",
        "_ledger.py",
        "            self.discard(entry, Discard.BROKEN)\n        elif now",
        "            self.discard(entry, Discard.INVALID)\n        elif now",
    ),
    # Priorities, sharing, changes.
    Mutant(
        "the reserve is open to everybody",
        "_ledger.py",
        "return leases >= (self.limits.max_size - self.limits.reserved) * self.share",
        "return False",
    ),
    Mutant(
        "urgent leases wait behind others",
        "_queue.py",
        "urgent or normal or bulk\n",
        "normal or urgent or bulk\n",
    ),
    Mutant(
        "bulk work is served before others",
        "_queue.py",
        "urgent or normal or bulk\n",
        "urgent or bulk or normal\n",
    ),
    Mutant(
        "a shared resource serves one lease too many",
        "_ledger.py",
        "while queue.size and len(entry.leases) < self.share:",
        "while queue.size and len(entry.leases) <= self.share:",
    ),
    Mutant(
        "what a shared resource has to spare is not lent",
        "_ledger.py",
        "return bool(self.spare) and self._lend_spare(lease, now)",
        "return False",
    ),
    Mutant(
        "a shared resource is reset while somebody holds it",
        "_ledger.py",
        "elif not entry.leases and is_clean is not None and not is_clean(entry.resource):",
        "elif is_clean is not None and not is_clean(entry.resource):",
    ),
    Mutant(
        "the most loaded shared resource is lent",
        "_ledger.py",
        "return min(self.spare, key=_load, default=None)",
        "return max(self.spare, key=_load, default=None)",
    ),
    Mutant(
        "a paused pool lends",
        "_ledger.py",
        "        if self.guarded and self._held_back(lease.line):\n            return False\n        idle",
        "        idle",
    ),
    Mutant(
        "resuming wakes nobody",
        "_ledger.py",
        "        self._guard()\n        self.provide(now)\n\n    def close",
        "        self._guard()\n\n    def close",
    ),
    Mutant(
        "a pool made smaller stays large",
        "_ledger.py",
        "            self._doom([*self.idle, *others][:excess], Discard.RESIZED)\n",
        "",
    ),
    Mutant(
        "a pool made smaller counts on what leaves anyway",
        "_ledger.py",
        "if entry.state is not IDLE and self._stays(entry))",
        "if entry.state not in (IDLE, State.CLOSING))",
    ),
    Mutant(
        "a pool made larger opens nothing for those who wait",
        "_ledger.py",
        "what min_size no longer protects\n        self.provide(now)\n",
        "what min_size no longer protects\n",
    ),
    Mutant(
        "drain does not wait",
        "_pool.py",
        "        await self._until(lambda: not self._ledger.entries)\n",
        "",
    ),
    Mutant(
        "quiesce does not wait",
        "_pool.py",
        "        await self._until(lambda: leaving.isdisjoint(self._ledger.entries))\n",
        "",
    ),
    Mutant(
        "max_hold never ends a block",
        "_pool.py",
        "trio.CancelScope(deadline=self.since + self._pool.limits.max_hold)",
        "trio.CancelScope()",
    ),
    Mutant(
        "a revoked block ends in silence",
        "_pool.py",
        "        if self._scope.cancelled_caught:\n",
        "        if False:\n",
    ),
    Mutant(
        "a deadlock is not broken",
        "_pool.py",
        "            ledger.dismiss(last, self._deadlock_error(last))\n",
        "            pass\n",
    ),
    Mutant(
        "an overload is not noticed",
        "_queue.py",
        "self.overloaded = self.overloaded or",
        "self.overloaded = False and",
    ),
    Mutant(
        "in an overload the oldest is never served",
        "_queue.py",
        "return self._turn > 0",
        "return True",
    ),
    Mutant(
        "an overload lasts until nobody waits any more",
        "_queue.py",
        "        if self._late_share < _RELAXED_SHARE:\n            self.overloaded = False\n",
        "",
    ),
    Mutant(
        "an overload never ends",
        "_queue.py",
        "    def _relax(self) -> None:\n        self.overloaded = False\n",
        "    def _relax(self) -> None:\n",
    ),
    Mutant(
        "a caller without enough time left is served in vain",
        "_pool.py",
        "            if last_chance <= now:\n                raise self._too_late_error(0)\n",
        "",
    ),
    Mutant(
        "a clock that jumped is not noticed",
        "_ledger.py",
        "if now - since > _TRUSTED_IDLE and self.clock_jumped():",
        "if False:",
    ),
    Mutant(
        "a failing instrument fails the pool",
        "_pool.py",
        "                self._instruments.remove(instrument)\n",
        "                raise\n",
    ),
    Mutant(
        "a resource closed at the hand-over is lent",
        "_pool.py",
        "            entry, lent = await self._acquire_again(), False\n",
        "            return None\n",
    ),
    Mutant(
        "whoever lost a resource at the hand-over waits behind everybody",
        "_queue.py",
        "line.insert(bisect_left(line, lease.waiting_since, key=_waiting_since), lease)",
        "line.append(lease)",
    ),
    # Telling.
    Mutant(
        "a resource's age counts from when its opening began, or from never",
        "_ledger.py",
        "        entry.opened_at = now\n",
        "",
    ),
    # Mistakes.
    Mutant(
        "an open that is not async is tried again and again",
        "_pool.py",
        " or isinstance(error, NotAwaitable)",
        "",
    ),
    Mutant(
        "an async is_clean always says yes",
        "_pool.py",
        "    refuse_async_hooks(adapter)\n",
        "",
    ),
    Mutant(
        "what is no instrument is noticed when it is first to be told something",
        "_misuse.py",
        "        if not isinstance(instrument, Instrument):\n",
        "        if instrument is None:\n",
    ),
    Mutant(
        "a lifetime may be over before it has begun",
        "_limits.py",
        "_SHORTEST = 0.001",
        "_SHORTEST = 0",
    ),
    Mutant(
        "upkeep spins while nothing is idle, if max_idle is short",
        "_ledger.py",
        "due = min(due, now + max(UPKEEP_PERIOD, self.limits.max_idle))",
        "due = min(due, now + self.limits.max_idle)",
    ),
    Mutant(
        "upkeep spins if warn_hold is short",
        "_pool.py",
        "now + max(UPKEEP_PERIOD, warn_hold)",
        "now + warn_hold",
    ),
    Mutant(
        "upkeep looks once for each of thousands whose time is up",
        "_ledger.py",
        "max(self.queue.next_look(), now + _REST)",
        "self.queue.next_look()",
    ),
    # Budgets.
    Mutant(
        "a pool gives a resource away that its min_size keeps",
        "_budget.py",
        "if needy is None or not ledger.can_spare_one():",
        "if needy is None:",
    ),
    Mutant(
        "an idle resource gives way that its pool's min_size keeps",
        "_budget.py",
        "            if ledger.can_spare_one():\n                self._leaving",
        "            if True:\n                self._leaving",
    ),
    Mutant(
        "the warmest of all idle resources gives way",
        "_budget.py",
        "for entry, ledger in self._idle.items():",
        "for entry, ledger in reversed(self._idle.items()):",
    ),
    Mutant(
        "room that has been made is offered to nobody",
        "_budget.py",
        "while (line := self._starving or self._wanting or self._filling) and self.size < self.max_size:",
        "while (line := self._filling) and self.size < self.max_size:",
    ),
    Mutant(
        "nothing idle makes room",
        "_budget.py",
        "            self.make_room()\n        return False",
        "        return False",
    ),
    Mutant(
        "the budget is exceeded by one",
        "_budget.py",
        "        if self.size < self.max_size:\n            self.size += 1",
        "        if self.size <= self.max_size:\n            self.size += 1",
    ),
    Mutant(
        "a pool for which nobody waits keeps what others wait for",
        "_budget.py",
        "            not ledger.entitled()\n            or ",
        "            ",
    ),
    Mutant(
        "a paused pool has its turn",
        "_budget.py",
        "if not needy.entitled():",
        "if not needy.queue.size:",
    ),
    Mutant(
        "what min_size no longer keeps does not give way",
        "_ledger.py",
        "        if self.budget is not None:\n            self.budget.make_room()\n",
        "",
    ),
    Mutant(
        "an adapter by which nothing is ever clean is not told of",
        "_pool.py",
        "            elif self._never_clean:",
        "            elif False:",
    ),
    Mutant(
        "the same failure is told again and again",
        "_pool.py",
        "level = logging.DEBUG if told else logging.WARNING",
        "level = logging.WARNING",
    ),
    Mutant(
        "who looks at a socket while it is closed does not learn of it",
        "lowlevel.py",
        "if self._interruptions != interruptions:",
        "if False:",
    ),
    Mutant(
        "a socket is looked at however seldom that helps",
        "lowlevel.py",
        "self._luck = self._luck - 1 if self._luck else -_PAUSE",
        "pass",
    ),
    Mutant(
        "a socket is never looked at again after one disappointment",
        "lowlevel.py",
        "            self._luck += 1\n",
        "            pass\n",
    ),
    Mutant(
        "a cancelled task goes on because something has arrived",
        "lowlevel.py",
        "await checkpoint()",
        "await trio.lowlevel.cancel_shielded_checkpoint()",
    ),
    Mutant(
        "a closed socket's number is watched when it is another's",
        "lowlevel.py",
        "        self._poll = _closed\n",
        "",
    ),
    # The use that begins before its borrower's turn.
    Mutant(
        "on_lent is forgotten when a resource is handed over",
        "_pool.py",
        "    if lease._on_lent is not None and lease.entry is not None:\n        lease.call_on_lent()\n",
        "",
    ),
    Mutant(
        "on_lent is called for who is sent away",
        "_pool.py",
        "if lease._on_lent is not None and lease.entry is not None:",
        "if lease._on_lent is not None:",
    ),
    Mutant(
        "on_lent is called only when the borrower's turn has come",
        "_pool.py",
        "                    self.call_on_lent()\n                    await cancel_shielded_checkpoint()\n",
        "                    await cancel_shielded_checkpoint()\n                    self.call_on_lent()\n",
    ),
    Mutant(
        "what on_lent raises is lost",
        "_pool.py",
        "        except BaseException as error:  # noqa: BLE001\n            self.error = error\n        else",
        "        except BaseException as error:  # noqa: BLE001\n            return\n        else",
    ),
    Mutant(
        "what on_lent raises hits the task that returns the resource",
        "_pool.py",
        "        except BaseException as error:  # noqa: BLE001\n            self.error = error\n        else",
        "        except Exception as error:  # noqa: BLE001\n            self.error = error\n        else",
    ),
    Mutant(
        "what on_lent raises tells a stranger's error",
        "_pool.py",
        "        _cut_context(self.error, sys.exception())\n",
        "",
    ),
    Mutant(
        "a resource is lost when on_lent raises",
        "_pool.py",
        "                self._pool._take_back_unused(self, error)\n",
        "                pass\n",
    ),
    Mutant(
        "a resource on which on_lent failed is not closed",
        "_pool.py",
        "        self._check_in_after(error, lease, self._now())\n        self._follow_up()\n",
        "        self._ledger.check_in(lease, self._now())\n        self._follow_up()\n",
    ),
    Mutant(
        "on_lent is not called for the resource that takes the place of one that broke",
        "_pool.py",
        "            elif self._on_lent is not None:\n                self.call_on_lent()\n                self.unwrap()\n",
        "",
    ),
    Mutant(
        "a lease keeps its borrower alive",
        "_pool.py",
        "            self._on_lent = None\n",
        "            pass\n",
    ),
    Mutant(
        "a lease of a forgotten key finds its pool closed",
        "_pool.py",
        "return self._ledger.closed and self._successor() is not self",
        "return False",
    ),
    Mutant(
        "on_lent is not called in the pool that takes a forgotten one's place",
        "_pool.py",
        "        if self._on_lent is not None:\n            self._pool._ledger.wake = _wake_lent\n",
        "",
    ),
    Mutant(
        "a resource is handed on although another pool has nothing",
        "_budget.py",
        "return bool(self._starving or self._wanting)",
        "return False",
    ),
    Mutant(
        "what is idle again is not known to the budget",
        "_ledger.py",
        "            if self.budget is not None:\n                self.budget.now_idle(entry, self)\n        if self.guarded",
        "        if self.guarded",
    ),
    Mutant(
        "reading right away does not count as a look",
        "lowlevel.py",
        "            self._missed()\n            return None\n",
        "            return None\n",
    ),
    Mutant(
        "reading right away is tried while looking is given up",
        "lowlevel.py",
        "        if self._luck < 0:\n            return None\n",
        "",
    ),
]
