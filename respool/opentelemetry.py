"""Metrics for OpenTelemetry: ``pip install respool[opentelemetry]``, and `PoolMetrics` among a pool's instruments.

Names, units and attributes are those of the semantic conventions for `database clients
<https://opentelemetry.io/docs/specs/semconv/db/database-metrics/>`__ and `HTTP clients
<https://opentelemetry.io/docs/specs/semconv/http/http-metrics/>`__ (of version 1.44, where they are still in
development); what those lack is called ``respool.*``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation, get_meter

from ._errors import PoolTimeout
from ._observed import STATES, common_max_size
from ._pool import Pool
from ._statistics import PoolStatistics
from .abc import Instrument

__all__ = ["PoolMetrics"]

_Attributes = Mapping[str, str | int]
_Pools = Sequence[Pool[Any]]

# Those that the conventions prescribe for operations, in seconds. The SDK's own are meant for milliseconds.
_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
# Those that they prescribe for how long a server's connections last, and a few more up to our default max_lifetime.
_AGES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 2700, 3600)


class PoolMetrics(Instrument):
    """Reports the pools to whose ``instruments`` it belongs, from when they start until they end.

    Make one and give it to all pools, keyed pools included: OpenTelemetry cannot forget a metric, and warns of one
    made twice. Pools of the same name, such as those of all keys when a keyed pool was given a ``name``, are reported
    as one; the SDK remembers every name there ever was.

    Args:
      http: the resources are HTTP connections, reported as ``http.client.*`` by server instead of by the pool's name.
        The adapter's name must be ``host:port``, as `respool_http`'s is. One for HTTP and one for databases
        may be in use at the same time.
      meter_provider: where to report to, instead of the global provider.
    """

    def __init__(self, *, http: bool = False, meter_provider: MeterProvider | None = None) -> None:
        self._http = http
        self._pools: dict[Pool[Any], _Attributes] = {}
        self._meter = meter = get_meter("respool.http" if http else "respool", meter_provider=meter_provider)
        prefix = "respool.connection" if http else "db.client.connection"
        self._create_count()
        self._observe(f"{prefix}.idle.max", "{connection}", "Maximum number of idle connections", common_max_size)
        self._observe(f"{prefix}.idle.min", "{connection}", "Minimum number of idle connections", _min_size)
        self._observe(f"{prefix}.max", "{connection}", "Maximum number of connections", common_max_size)
        self._observe(f"{prefix}.pending_requests", "{request}", "Tasks waiting for a connection", _waiting)
        self._timeouts = meter.create_counter(f"{prefix}.timeouts", "{timeout}", "Acquires that ended in PoolTimeout")
        self._create_time = self._histogram(f"{prefix}.create_time", "Time it took to open a connection")
        self._wait_time = self._histogram(f"{prefix}.wait_time", "Time it took to obtain a connection from the pool")
        self._use_time = self._histogram(f"{prefix}.use_time", "Time between borrowing a connection and returning it")
        lifetime = "http.client.connection.duration" if http else "respool.connection.duration"
        self._duration = self._histogram(lifetime, "Time between opening a connection and closing it", _AGES)
        self._refusals = meter.create_counter(
            "respool.refusals", "{acquire}", "Acquires that ended in an error, by error.type"
        )
        self._cancelled = meter.create_counter(
            "respool.cancelled_acquires", "{acquire}", "Acquires whose task was cancelled while it waited"
        )
        self._open_failures = meter.create_counter(
            "respool.open_failures", "{connection}", "Failed attempts to open a connection, by error.type"
        )
        self._discards = meter.create_counter(
            "respool.discards", "{connection}", "Connections discarded, by respool.discard.reason"
        )
        self._gauge("respool.oldest_wait", "Time the longest-waiting task has waited", _oldest_wait)
        self._gauge("respool.longest_hold", "Time the longest of the current leases has lasted", _longest_hold)

    # What happens is recorded as it happens; of errors the class alone, as their texts may tell secrets ...

    def started(self, pool: Pool[Any]) -> None:
        """Begin to report the pool."""
        self._pools[pool] = self._attributes(pool)

    def ended(self, pool: Pool[Any]) -> None:
        """Stop reporting it."""
        del self._pools[pool]

    def acquired(self, pool: Pool[Any], waited: float) -> None:
        """Record the wait."""
        self._wait_time.record(waited, self._pools[pool])

    def returned(self, pool: Pool[Any], used: float, error: BaseException | None) -> None:
        """Record the use."""
        self._use_time.record(used, self._pools[pool])

    def refused(self, pool: Pool[Any], error: Exception) -> None:
        """Count the refusal by the error's class, and once more if it was a time-out."""
        attributes = self._pools[pool]
        self._refusals.add(1, {**attributes, "error.type": type(error).__qualname__})
        if isinstance(error, PoolTimeout):
            self._timeouts.add(1, attributes)

    def cancelled(self, pool: Pool[Any], waited: float) -> None:
        """Count the acquire that was given up."""
        self._cancelled.add(1, self._pools[pool])

    def opened(self, pool: Pool[Any], took: float) -> None:
        """Record what opening took."""
        self._create_time.record(took, self._pools[pool])

    def open_failed(self, pool: Pool[Any], error: Exception) -> None:
        """Count the failure by the error's class."""
        self._open_failures.add(1, {**self._pools[pool], "error.type": type(error).__qualname__})

    def discarded(self, pool: Pool[Any], reason: str) -> None:
        """Count the discard by its reason."""
        self._discards.add(1, {**self._pools[pool], "respool.discard.reason": reason})

    def closed(self, pool: Pool[Any], reason: str, age: float) -> None:
        """Record how long the connection lasted."""
        self._duration.record(age, self._pools[pool])

    # ... and what is so is looked up when the SDK asks, usually in a thread of its own.

    def _groups(self) -> Iterator[tuple[_Attributes, _Pools]]:
        """Pools by what they are reported as: a reader may not report the same attributes twice."""
        groups: dict[tuple[str | int, ...], tuple[_Attributes, list[Pool[Any]]]] = {}
        for pool, attributes in list(self._pools.items()):
            groups.setdefault(tuple(attributes.values()), (attributes, []))[1].append(pool)
        yield from groups.values()

    def _attributes(self, pool: Pool[Any]) -> _Attributes:
        if not self._http:
            return {"db.client.connection.pool.name": pool.name}
        host, _, port = pool.adapter.name.rpartition(":")
        if not (host and port.isdigit()):
            raise ValueError(f"with http=True, an adapter's name must be host:port, not {pool.adapter.name!r}")
        return {"server.address": host.strip("[]"), "server.port": int(port)}

    def _create_count(self) -> None:
        if self._http:
            name, key, lent = "http.client.open_connections", "http.connection.state", "active"
            requests = "http.client.active_requests"
            self._observe(requests, "{request}", "Leases that have begun and not ended", _leases)
        else:
            name, key, lent = "db.client.connection.count", "db.client.connection.state", "used"
        names = {state: lent if state == "lent" else state for state in STATES}

        def count(_: CallbackOptions) -> Iterable[Observation]:
            for attributes, pools in self._groups():
                statistics = _statistics(pools)
                for state in STATES:
                    number = sum(getattr(each, state) for each in statistics)
                    yield Observation(number, {**attributes, key: names[state]})

        description = "Number of connections in the state described by the state attribute"
        self._meter.create_observable_up_down_counter(name, [count], "{connection}", description)

    def _observe(self, name: str, unit: str, description: str, value: Callable[[_Pools], int]) -> None:
        self._meter.create_observable_up_down_counter(name, [self._callback(value)], unit, description)

    def _gauge(self, name: str, description: str, value: Callable[[_Pools], float]) -> None:
        self._meter.create_observable_gauge(name, [self._callback(value)], "s", description)

    def _callback(self, value: Callable[[_Pools], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for attributes, pools in self._groups():
                yield Observation(value(pools), attributes)

        return observe

    def _histogram(self, name: str, description: str, buckets: Sequence[float] = _BUCKETS) -> Histogram:
        return self._meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=buckets)


def _statistics(pools: _Pools) -> list[PoolStatistics]:
    return [pool.statistics() for pool in pools]


def _min_size(pools: _Pools) -> int:
    return sum(pool.limits.min_size for pool in pools)


def _waiting(pools: _Pools) -> int:
    return sum(each.waiting for each in _statistics(pools))


def _leases(pools: _Pools) -> int:
    return sum(each.leases for each in _statistics(pools))


def _oldest_wait(pools: _Pools) -> float:
    return max(each.oldest_wait for each in _statistics(pools))


def _longest_hold(pools: _Pools) -> float:
    return max(each.longest_hold for each in _statistics(pools))
