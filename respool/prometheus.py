"""Metrics for Prometheus: ``pip install respool[prometheus]``, and a `PoolCollector` among a pool's instruments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

import attrs
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ._observed import STATES, common_max_size
from ._pool import Pool
from ._statistics import BOUNDS, HistogramSnapshot, PoolStatistics
from .abc import Instrument

__all__ = ["PoolCollector"]

# By field of PoolStatistics.
_COUNTERS = {
    "timeouts": "Acquires that ended in PoolTimeout",
    "refused": "Acquires that ended in PoolOverloaded",
    "cancelled": "Acquires whose task was cancelled while it waited",
    "opened": "Resources opened",
    "open_failures": "Failed attempts to open a resource",
}
_HISTOGRAMS = {
    "wait_time": "How long the leases that had to wait did so",
    "use_time": "How long the leases that have ended were held",
    "open_time": "How long it took to open a resource",
}
_BUCKETS = [str(bound) for bound in BOUNDS]
_EVERY = 2  # of those is told: powers of two of 10 µs

_Totals = Mapping[tuple[str, str], float]  # by field, and by reason or bucket


@attrs.frozen
class _Group:
    """The pools of one name. Replaced as a whole, so that a scrape in another thread never sees half a change."""

    pools: tuple[Pool[Any], ...] = ()
    past: _Totals = attrs.Factory(dict[tuple[str, str], float])  # of those that have ended


class PoolCollector(Instrument, Collector):
    """Reports the pools to whose ``instruments`` it belongs, from when they start until they end.

    Make one and give it to all pools, keyed pools included. It reads their statistics whenever it is scraped, in
    whichever thread; between scrapes it costs nothing. Pools of the same name, such as those of all keys when a keyed
    pool was given a ``name``, are reported as one, and their counters go on when one of them ends.

    Args:
      registry: where to register, like prometheus_client's own metrics; ``None`` leaves that to the caller.
        ``registry.unregister(collector)`` undoes it.

    Raises:
      ValueError: `registry` has a collector of pools already.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        self._groups: dict[str, _Group] = {}
        if registry is not None:
            registry.register(self)

    def started(self, pool: Pool[Any]) -> None:
        """Begin to report the pool."""
        group = self._groups.get(pool.name, _Group())
        self._groups[pool.name] = attrs.evolve(group, pools=(*group.pools, pool))

    def ended(self, pool: Pool[Any]) -> None:
        """Stop reporting it, but keep its totals as long as there are other pools of its name."""
        group = self._groups[pool.name]
        rest = tuple(other for other in group.pools if other is not pool)
        if rest:
            self._groups[pool.name] = _Group(rest, _sum(group.past, _totals(pool.statistics())))
        else:
            del self._groups[pool.name]

    def describe(self) -> Iterator[Metric]:
        """Tell the registry the names of the metrics, so that it refuses a second collector."""
        return _families({})

    def collect(self) -> Iterator[Metric]:
        """Called by the registry when it is scraped."""
        return _families(dict(self._groups))


def _families(groups: Mapping[str, _Group]) -> Iterator[Metric]:
    """All metrics, of the pools as they are now."""
    now = {name: [pool.statistics() for pool in group.pools] for name, group in groups.items()}
    totals = {name: _sum(group.past, *map(_totals, now[name])) for name, group in groups.items()}

    resources = GaugeMetricFamily("respool_resources", "Resources, by state", labels=["pool", "state"])
    max_size = GaugeMetricFamily("respool_max_size", "Limit on the number of resources", labels=["pool"])
    leases = GaugeMetricFamily("respool_leases", "Leases that hold a resource", labels=["pool"])
    waiting = GaugeMetricFamily("respool_waiting", "Tasks waiting to acquire", labels=["pool"])
    oldest = "respool_oldest_wait_seconds", "How long the longest-waiting task has waited"
    oldest_wait = GaugeMetricFamily(*oldest, labels=["pool"])
    longest = "respool_longest_hold_seconds", "How long the longest of the current leases has lasted"
    longest_hold = GaugeMetricFamily(*longest, labels=["pool"])
    overloaded = GaugeMetricFamily("respool_overloaded", "1 while the newest is served first", labels=["pool"])
    for name, statistics in now.items():
        for state in STATES:
            resources.add_metric([name, state], sum(getattr(each, state) for each in statistics))
        max_size.add_metric([name], common_max_size(groups[name].pools))
        leases.add_metric([name], sum(each.leases for each in statistics))
        waiting.add_metric([name], sum(each.waiting for each in statistics))
        oldest_wait.add_metric([name], max(each.oldest_wait for each in statistics))
        longest_hold.add_metric([name], max(each.longest_hold for each in statistics))
        overloaded.add_metric([name], any(each.overloaded for each in statistics))
    yield from (resources, max_size, leases, waiting, oldest_wait, longest_hold, overloaded)

    for field, description in _COUNTERS.items():
        counter = CounterMetricFamily(f"respool_{field}", description, labels=["pool"])
        for name in groups:
            counter.add_metric([name], totals[name][field, ""])
        yield counter

    discards = CounterMetricFamily("respool_discards", "Resources discarded, by reason", labels=["pool", "reason"])
    for name in groups:
        for (field, reason), number in totals[name].items():
            if field == "discards":
                discards.add_metric([name, reason], number)
    yield discards

    for field, description in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"respool_{field}_seconds", description, labels=["pool"])
        for name in groups:
            buckets = [(bucket, totals[name][field, bucket]) for bucket in (*_BUCKETS[::_EVERY], "+Inf")]
            histogram.add_metric([name], buckets, totals[name][field, "sum"])
        yield histogram


def _totals(statistics: PoolStatistics) -> _Totals:
    """What only ever grows. Not `acquired`: seen from another thread, it might seem to shrink by a lease."""
    totals: dict[tuple[str, str], float] = {(field, ""): getattr(statistics, field) for field in _COUNTERS}
    totals |= {("discards", reason): number for reason, number in statistics.discards.items()}
    for field in _HISTOGRAMS:
        histogram: HistogramSnapshot = getattr(statistics, field)
        cumulated = zip((*_BUCKETS, "+Inf"), accumulate(histogram.counts), strict=True)
        totals |= {(field, bucket): number for bucket, number in cumulated}
        totals[field, "sum"] = histogram.sum
    return totals


def _sum(*all_totals: _Totals) -> _Totals:
    added: dict[tuple[str, str], float] = {}
    for totals in all_totals:
        for key, number in totals.items():
            added[key] = added.get(key, 0) + number
    return added
