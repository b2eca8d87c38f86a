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
        "        self.discards[reason] += 1\n        self.work.append(entry)\n        self.entries.discard(entry)\n",
    ),
    Mutant(
        "a failed open keeps its slot",
        "_ledger.py",
        "        self.entries.discard(entry)\n        self.open_failures += 1\n",
        "        self.open_failures += 1\n",
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
        "        del self.queue[lease]\n        self.cancelled += 1\n",
        "        self.cancelled += 1\n",
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
        "        if entry.lease is not lease:\n            return  # the pool closed the resource under its borrower\n",
        "",
    ),
    # First come, first served; no lost wake-ups.
    Mutant(
        "the last to come is served first",
        "_ledger.py",
        "lease, _ = self.queue.popitem(last=False)",
        "lease, _ = self.queue.popitem()",
    ),
    Mutant(
        "what comes back is made idle although somebody waits",
        "_ledger.py",
        "            entry.become(LENT if self.queue else IDLE)\n        if self.queue:\n",
        "            entry.become(LENT if self.queue else IDLE)\n        if self.queue and len(self.queue) > 1:\n",
    ),
    Mutant(
        "a waiter is not woken",
        "_ledger.py",
        "            lease.since = now\n            self.wake(lease.task)\n",
        "            lease.since = now\n",
    ),
    Mutant(
        "nothing is opened when a slot comes free",
        "_ledger.py",
        "        entry.become(State.GONE)\n        self.entries.discard(entry)\n        self._provide(now)\n",
        "        entry.become(State.GONE)\n        self.entries.discard(entry)\n",
    ),
    Mutant(
        "nothing is opened for a new waiter",
        "_ledger.py",
        "        if self.idle or len(self.entries) < self.limits.max_size:\n            self._provide(now)\n",
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
        "len(self.queue) > self.arriving - self.opening:",
        "len(self.queue) > self.arriving:",
    ),
    Mutant(
        "one fewer is opened than tasks wait",
        "_ledger.py",
        "wanted = len(self.queue) - self.arriving",
        "wanted = len(self.queue) - self.arriving - 1",
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
        "        elif is_clean is None or is_clean(entry.resource):\n            self._place(entry, now)\n",
        "        elif True:\n            self._place(entry, now)\n",
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
        "        if self.is_clean is None or self.is_clean(entry.resource):\n            self._settle(entry, now)\n",
        "        if True:\n            self._settle(entry, now)\n",
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
        "            self._ledger.unrecoverable(entry, self._now())\n        else:\n",
        "            self._ledger.recovered(entry, self._now())\n        else:\n",
    ),
    Mutant(
        "a resource idle for long is not validated",
        "_ledger.py",
        "while idle and now - idle[-1].idle_since < self.limits.validate_after:",
        "while idle:",
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
        "if entry.generation == self.generation and not self.closed:",
        "if not self.closed:",
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
        "            entry = idle.pop()\n            if is_clean",
        "            entry = idle.popleft()\n            if is_clean",
    ),
    # Time limits.
    Mutant(
        "a wait has no end",
        "_ledger.py",
        "            if lease.latest_start <= now:\n                late.append(lease)\n            elif",
        "            if False:\n                late.append(lease)\n            elif",
    ),
    Mutant(
        "a shorter timeout than the default is not noticed in time",
        "_ledger.py",
        "        if latest_start != now + self.limits.acquire_timeout:\n            self._remember_deadline(lease)\n",
        "",
    ),
    Mutant(
        "upkeep is not woken for an earlier deadline",
        "_pool.py",
        "        if ledger.work:\n            self._start_jobs()\n        if ledger.due < self._nap_ends:\n            self._wake_upkeep()\n",
        "        if ledger.work:\n            self._start_jobs()\n",
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
        'waited {waited:.3g} s for a resource; {self._plight()}")\n        error.__cause__ = self._ledger.open_error\n',
        'waited {waited:.3g} s for a resource; {self._plight()}")\n',
    ),
    Mutant(
        "max_waiting refuses one too late",
        "_pool.py",
        "if len(ledger.queue) >= self.limits.max_waiting + coming:",
        "if len(ledger.queue) > self.limits.max_waiting + coming:",
    ),
    # Closing is complete.
    Mutant(
        "closing leaves what is idle open",
        "_ledger.py",
        "            entry = self.idle.popleft()\n            self.discard(entry, self._why_unfit(entry))\n",
        "            entry = self.idle.popleft()\n            entry.become(State.CLOSING)\n            entry.become(State.GONE)\n            self.entries.discard(entry)\n",
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
        "            error_of_block = error\n        try:",
        "            raise\n        try:",
    ),
    # Cancellation.
    Mutant(
        "acquire is no checkpoint when a resource is idle",
        "_pool.py",
        "            await cancel_shielded_checkpoint()\n        else:",
        "            pass\n        else:",
    ),
    Mutant(
        "a cancelled task acquires all the same",
        "_pool.py",
        "        await checkpoint_if_cancelled()\n        if self.task",
        "        if self.task",
    ),
    Mutant(
        "an acquire can be cancelled between taking a resource and its block",
        "_pool.py",
        "            await cancel_shielded_checkpoint()\n        else:",
        "            await trio.lowlevel.checkpoint()\n        else:",
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
        '                logger.exception("%s: %s.verdict() failed; discarding the resource", self.name, self.adapter.name)\n',
        "                raise\n",
    ),
    # The books.
    Mutant(
        "a wait that ended well is not counted",
        "_ledger.py",
        "            self.wait_time.add(now - lease.waiting_since)\n",
        "",
    ),
    Mutant(
        "refusals are not counted",
        "_pool.py",
        "            ledger.refused += 1\n",
        "",
    ),
    Mutant(
        "discards are counted under the wrong reason",
        "_ledger.py",
        "            self.discard(entry, Discard.BROKEN)\n        elif now",
        "            self.discard(entry, Discard.INVALID)\n        elif now",
    ),
]
