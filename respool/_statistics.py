"""What a pool tells about itself: frozen snapshots, and the histogram behind them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import attrs

__all__ = ["Histogram", "HistogramSnapshot", "Holder", "PoolStatistics"]

# 10 µs to 164 s, two buckets an octave: fine enough to read a quantile off to within a factor of 1.41.
BOUNDS = tuple(1e-5 * 2 ** (step / 2) for step in range(49))


@attrs.frozen
class HistogramSnapshot:
    """Durations seen so far, in seconds."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, inclusive, in seconds. One more bucket holds what is longer than the last."""
    counts: tuple[int, ...]
    """Durations in each bucket: one more number than there are bounds."""
    sum: float
    """Total of all durations, in seconds."""

    @property
    def count(self) -> int:
        """How many durations were seen."""
        return sum(self.counts)

    def quantile(self, fraction: float) -> float:
        """The upper bound of the bucket in which the given fraction of durations is reached; 0.0 with none seen."""
        wanted = fraction * self.count
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return 0.0


class Histogram:
    """Counts durations in exponential buckets; adding one costs a bisection in C."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    @property
    def count(self) -> int:
        return sum(self.counts)

    def snapshot(self) -> HistogramSnapshot:
        return HistogramSnapshot(BOUNDS, tuple(self.counts), self.sum)


@attrs.frozen
class Holder:
    """One lease: who holds a resource, and since when."""

    task: str
    """Name of the task that acquired."""
    seconds: float
    """How long it has held the resource."""
    stack: str | None
    """Where it acquired, formatted like a traceback; ``None`` unless the pool was opened with ``record_stacks``."""

    def __str__(self) -> str:
        where = f", acquired at\n{self.stack.rstrip()}\n" if self.stack else ""
        return f"{self.task} for {self.seconds:.3g} s{where}"


@attrs.frozen(kw_only=True)
class PoolStatistics:
    """A pool at one moment. Counts of resources by state add up to ``size``; totals run since the pool was opened."""

    name: str
    """The pool's name."""
    min_size: int
    """The option."""
    max_size: int
    """The option."""
    size: int
    """Resources in the ledger, from before ``open`` until after ``close``. Never more than ``max_size``."""
    idle: int
    """Resources waiting to be lent."""
    lent: int
    """Resources held by a lease."""
    leases: int
    """Leases that hold a resource. More than ``lent`` only where one resource serves several."""
    opening: int
    """Resources being opened."""
    checking: int
    """Resources being validated before they are lent."""
    resetting: int
    """Resources whose last borrower's traces are being undone."""
    closing: int
    """Resources being closed."""
    waiting: int
    """Tasks waiting to acquire."""
    oldest_wait: float
    """Seconds the longest-waiting task has waited; 0.0 if none waits."""
    overloaded: bool
    """Whether waiters run out of time although they are first in line, so that the newest is served first now."""
    holders: tuple[Holder, ...]
    """Who holds the leases, longest first."""
    acquired: int
    """Leases given out."""
    timeouts: int
    """Acquires that ended in `PoolTimeout`."""
    refused: int
    """Acquires that ended in `PoolOverloaded`."""
    cancelled: int
    """Acquires whose task was cancelled while it waited."""
    opened: int
    """Resources opened."""
    open_failures: int
    """Failed calls of `Adapter.open`, time-outs included."""
    discards: Mapping[str, int]
    """Resources discarded, by reason."""
    wait_time: HistogramSnapshot
    """How long the leases that had to wait did so; its ``count`` is the queue's share of ``acquired``."""
    use_time: HistogramSnapshot
    """How long the leases that have ended were held."""
    open_time: HistogramSnapshot
    """How long it took to open each resource."""

    @property
    def longest_hold(self) -> float:
        """Seconds the longest of the current leases has lasted; 0.0 if there is none."""
        return self.holders[0].seconds if self.holders else 0.0
