"""`respool.opentelemetry` and `respool.prometheus`, through the real SDKs: what readers are told, and until when."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import FrameType
from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from trio.testing import MockClock, wait_all_tasks_blocked

import respool
from respool._entry import Entry, Lease
from respool.opentelemetry import PoolMetrics
from respool.prometheus import PoolCollector
from respool.testing import FakeResource, GatedAdapter, GatedError

FakePool = respool.Pool[FakeResource]
KeyedPools = AbstractAsyncContextManager[respool.KeyedPool[Any, Any]]

# semantic conventions 1.44, model/db/metrics.yaml
CONVENTIONS = {
    "db.client.connection.count": "{connection}",
    "db.client.connection.idle.max": "{connection}",
    "db.client.connection.idle.min": "{connection}",
    "db.client.connection.max": "{connection}",
    "db.client.connection.pending_requests": "{request}",
    "db.client.connection.timeouts": "{timeout}",
    "db.client.connection.create_time": "s",
    "db.client.connection.wait_time": "s",
    "db.client.connection.use_time": "s",
}
POOL = "db.client.connection.pool.name"
STATE = "db.client.connection.state"


class Reader:
    """What an application sets up, and what it then sees."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.data.data_points
        ]
        assert len({metric.name for metric in found}) == len(found)
        return {metric.name: metric for metric in found}

    def read(self) -> dict[str, dict[frozenset[Any], Any]]:
        """Values, or counts and sums of histograms, by name and the values of the attributes."""
        return {
            name: {
                frozenset(point.attributes.values()): (point.count, point.sum)
                if isinstance(point, HistogramDataPoint)
                else point.value
                for point in metric.data.data_points
            }
            for name, metric in self.metrics().items()
        }


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.provider.shutdown()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def scrape(registry: CollectorRegistry) -> dict[str, float]:
    lines = generate_latest(registry).decode().splitlines()
    pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
    assert len(dict(pairs)) == len(pairs), "Prometheus refuses a sample told twice"
    return {series: float(value) for series, value in pairs}


def of(name: str, *others: Any) -> frozenset[Any]:
    return frozenset({name, *others})


async def use(pool: FakePool, seconds: float) -> None:
    async with pool.acquire():
        await trio.sleep(seconds)


async def make() -> object:
    return object()


async def drop(_: object) -> None:
    pass


async def one_of_everything(pool: FakePool, adapter: GatedAdapter) -> None:
    """Of a pool with ``max_size=1, max_waiting=3``: leases of 4, 2, 1, 0 and 0.5 s, and all that can go wrong once."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, pool, 4)
        await trio.sleep(0.5)
        nursery.start_soon(use, pool, 2)
        await wait_all_tasks_blocked()
        nursery.start_soon(time_out, pool)
        with trio.move_on_after(0.5):
            await use(pool, 1)
        nursery.start_soon(use, pool, 1)
        await wait_all_tasks_blocked()
        with pytest.raises(respool.PoolOverloaded):
            await use(pool, 1)
    with pytest.raises(GatedError):
        async with pool.acquire():
            raise GatedError("s3cret")
    adapter.script("open", GatedError("s3cret"))
    await use(pool, 0.5)


async def time_out(pool: FakePool) -> None:
    with pytest.raises(respool.PoolTimeout):
        await pool.acquire(timeout=1).__aenter__()


def slow_opens() -> GatedAdapter:
    return GatedAdapter(open="slow", slow=0.25)


# OpenTelemetry.


async def test_names_and_units_are_those_of_the_conventions(reader: Reader, autojump_clock: MockClock) -> None:
    """All nine, and none beside them but our own."""
    adapter = slow_opens()
    metrics = [PoolMetrics(meter_provider=reader.provider)]
    async with respool.open_pool(adapter, max_size=1, max_waiting=3, instruments=metrics) as pool:
        await one_of_everything(pool, adapter)
        found = reader.metrics()
    standard = {name: metric.unit for name, metric in found.items() if not name.startswith("respool.")}
    assert standard == CONVENTIONS
    assert {name for name in found if name not in standard} == {
        "respool.refusals",
        "respool.cancelled_acquires",
        "respool.open_failures",
        "respool.discards",
        "respool.connection.duration",
        "respool.oldest_wait",
        "respool.longest_hold",
    }
    bounds = found["db.client.connection.use_time"].data.data_points[0].explicit_bounds
    assert tuple(bounds) == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    assert not found["db.client.connection.count"].data.is_monotonic  # an UpDownCounter, not a Counter
    assert found["db.client.connection.timeouts"].data.is_monotonic


async def test_totals_are_recorded_as_they_happen(reader: Reader, autojump_clock: MockClock) -> None:
    """And agree with the pool's statistics."""
    adapter = slow_opens()
    metrics = [PoolMetrics(meter_provider=reader.provider)]
    async with respool.open_pool(adapter, name="shop", max_size=1, max_waiting=3, instruments=metrics) as pool:
        await one_of_everything(pool, adapter)
        told = reader.read()
        statistics = pool.statistics()
    shop = of("shop")
    assert told["db.client.connection.timeouts"] == {shop: 1} == {shop: statistics.timeouts}
    assert told["respool.cancelled_acquires"] == {shop: 1} == {shop: statistics.cancelled}
    assert told["respool.refusals"] == {of("shop", "PoolTimeout"): 1, of("shop", "PoolOverloaded"): 1}
    assert told["respool.open_failures"] == {of("shop", "GatedError"): 1}
    assert told["respool.discards"] == {of("shop", "broken"): 1}
    assert told["db.client.connection.create_time"] == {shop: (2, 0.5)}
    assert told["db.client.connection.use_time"] == {shop: (5, pytest.approx(statistics.use_time.sum))}
    assert told["db.client.connection.wait_time"] == {shop: (5, pytest.approx(statistics.wait_time.sum))}


async def test_states_are_those_of_the_moment(reader: Reader, autojump_clock: MockClock) -> None:
    """What is lent, idle, being opened and waited for, and for how long."""
    adapter = GatedAdapter(open="slow", reset="never")
    metrics = [PoolMetrics(meter_provider=reader.provider)]
    options: respool.Options = {"name": "shop", "min_size": 2, "max_size": 3}
    async with respool.open_pool(adapter, instruments=metrics, **options) as pool:
        await trio.sleep(2)
        adapter.always("open", "never")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use, pool, 100)
            await trio.sleep(1)
            before = reader.read()
            nursery.start_soon(use, pool, 100)
            await trio.sleep(0.5)
            nursery.start_soon(use, pool, 100)
            await trio.sleep(2)
            after = reader.read()
            nursery.cancel_scope.cancel()
    count = "db.client.connection.count"
    nothing = {of("shop", state): 0 for state in ("idle", "used", "opening", "checking", "resetting", "closing")}
    assert before[count] == {**nothing, of("shop", "idle"): 1, of("shop", "used"): 1}
    assert after[count] == {**nothing, of("shop", "used"): 2, of("shop", "opening"): 1}
    assert [told["db.client.connection.pending_requests"] for told in (before, after)] == [
        {of("shop"): 0},
        {of("shop"): 1},
    ]
    assert [told["respool.oldest_wait"] for told in (before, after)] == [{of("shop"): 0}, {of("shop"): 2}]
    assert [told["respool.longest_hold"] for told in (before, after)] == [{of("shop"): 1}, {of("shop"): 3.5}]
    assert after["db.client.connection.max"] == after["db.client.connection.idle.max"] == {of("shop"): 3}
    assert after["db.client.connection.idle.min"] == {of("shop"): 2}


async def test_several_pools_until_each_ends(reader: Reader, autojump_clock: MockClock) -> None:
    """Each by its name; those of one name as one; nothing of a pool that has ended."""
    metrics = [PoolMetrics(meter_provider=reader.provider)]
    name = "db.client.connection.max"
    async with respool.open_pool(GatedAdapter(), name="shop", max_size=2, instruments=metrics):
        async with respool.open_pool(GatedAdapter(), name="till", max_size=3, instruments=metrics):
            async with respool.open_pool(GatedAdapter(), name="till", max_size=4, instruments=metrics):
                assert reader.read()[name] == {of("shop"): 2, of("till"): 7}
            assert reader.read()[name] == {of("shop"): 2, of("till"): 3}
        assert reader.read()[name] == {of("shop"): 2}
    assert name not in reader.read()
    assert metrics[0]._pools == {}


async def test_keys_come_and_go(reader: Reader, autojump_clock: MockClock) -> None:
    """Each key by its adapter's name, as long as it has resources; or all as one, by the keyed pool's name."""
    metrics = [PoolMetrics(meter_provider=reader.provider)]
    adapters = {key: respool.adapter(open=make, close=drop, name=f"{key}:80") for key in "ab"}
    name = "db.client.connection.max"
    scenarios: list[tuple[respool.Options, dict[frozenset[Any], int]]] = [
        ({"max_size": 6, "max_idle": 10}, {of("a:80"): 5, of("b:80"): 5}),
        ({"max_size": 6, "max_idle": 10, "name": "web"}, {of("web"): 6}),  # not 10: there are never more
    ]
    for options, expected in scenarios:
        keyed = respool.open_keyed_pool(adapters.__getitem__, max_per_key=5, instruments=metrics, **options)
        async with keyed as pool:
            async with pool.acquire("a"), pool.acquire("b"):
                assert reader.read()[name] == expected
            await trio.sleep(30)
            assert name not in reader.read()
            async with pool.acquire("a"):
                assert len(reader.read()[name]) == 1
        assert name not in reader.read()
    assert metrics[0]._pools == {}


async def test_http_names(reader: Reader, autojump_clock: MockClock) -> None:
    """HTTP's own conventions, by server, whatever the pool is called."""
    metrics = [PoolMetrics(http=True, meter_provider=reader.provider)]
    adapter = respool.adapter(open=make, close=drop, name="::1:8080")
    async with respool.open_pool(adapter, name="web", max_size=3, min_size=2, instruments=metrics) as pool:
        await wait_all_tasks_blocked()
        async with pool.acquire():
            told = reader.read()
            found = reader.metrics()
    here = "::1", 8080
    assert {key: value for key, value in told["http.client.open_connections"].items() if value} == {
        of(*here, "active"): 1,
        of(*here, "idle"): 1,
    }
    assert told["http.client.active_requests"] == {of(*here): 1}
    points = found["http.client.open_connections"].data.data_points
    assert set(points[0].attributes) == {"http.connection.state", "server.address", "server.port"}
    assert [name for name in found if name.startswith("db.")] == []
    assert told["respool.connection.wait_time"] == {of(*here): (1, 0)}


@pytest.mark.parametrize(
    ("http", "name", "attributes"),
    [
        (True, "http.client.connection.duration", {"server.address": "shop.example", "server.port": 80}),
        (False, "respool.connection.duration", {POOL: "shop.example:80"}),
    ],
)
async def test_how_long_connections_lasted(
    http: bool, name: str, attributes: dict[str, Any], reader: Reader, autojump_clock: MockClock
) -> None:
    """Under HTTP's name for it, by server; in databases' conventions there is none."""
    metrics = [PoolMetrics(http=http, meter_provider=reader.provider)]
    adapter = respool.adapter(open=make, close=drop, name="shop.example:80")
    async with respool.open_pool(adapter, min_size=2, instruments=metrics):
        await trio.sleep(700)
    metric = reader.metrics()[name]
    (point,) = metric.data.data_points
    assert (metric.unit, point.count, point.sum) == ("s", 2, 1400)
    assert point.bucket_counts[point.explicit_bounds.index(1200)] == 2
    assert point.attributes == attributes


async def test_http_needs_a_server(reader: Reader, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """An adapter that does not say where it connects is told of in the log; its borrowers do not notice."""
    metrics = [PoolMetrics(http=True, meter_provider=reader.provider)]
    async with respool.open_pool(GatedAdapter(), instruments=metrics) as pool:
        await use(pool, 1)
        assert reader.read() == {}
    assert "must be host:port, not 'GatedAdapter'" in caplog.text
    caplog.clear()


# Prometheus.


async def test_a_scrape_tells_everything(registry: CollectorRegistry, autojump_clock: MockClock) -> None:
    """Gauges of the moment and totals of all time agree with the pool's statistics."""
    adapter = slow_opens()
    collector = [PoolCollector(registry)]
    async with respool.open_pool(adapter, name="shop", max_size=1, max_waiting=3, instruments=collector) as pool:
        await one_of_everything(pool, adapter)
        async with pool.acquire(), trio.open_nursery() as nursery:
            nursery.start_soon(use, pool, 1)
            await trio.sleep(2)
            told = scrape(registry)
            statistics = pool.statistics()
            nursery.cancel_scope.cancel()
    assert {name: number for name, number in told.items() if number and "_bucket" not in name} == {
        'respool_resources{pool="shop",state="lent"}': 1,
        'respool_max_size{pool="shop"}': 1,
        'respool_leases{pool="shop"}': 1,
        'respool_waiting{pool="shop"}': 1,
        'respool_oldest_wait_seconds{pool="shop"}': 2,
        'respool_longest_hold_seconds{pool="shop"}': 2,
        'respool_timeouts_total{pool="shop"}': 1,
        'respool_refused_total{pool="shop"}': 1,
        'respool_cancelled_total{pool="shop"}': 1,
        'respool_opened_total{pool="shop"}': 2,
        'respool_open_failures_total{pool="shop"}': 1,
        'respool_discards_total{pool="shop",reason="broken"}': 1,
        'respool_wait_time_seconds_count{pool="shop"}': statistics.wait_time.count,
        'respool_wait_time_seconds_sum{pool="shop"}': pytest.approx(statistics.wait_time.sum),
        'respool_use_time_seconds_count{pool="shop"}': 5,
        'respool_use_time_seconds_sum{pool="shop"}': pytest.approx(7.5),
        'respool_open_time_seconds_count{pool="shop"}': 2,
        'respool_open_time_seconds_sum{pool="shop"}': 0.5,
    }
    bucket = 'respool_use_time_seconds_bucket{le="%s",pool="shop"}'
    assert [told[bucket % bound] for bound in ("1e-05", "0.65536", "1.31072", "2.62144", "+Inf")] == [1, 2, 3, 4, 5]
    assert scrape(registry) == {}


async def test_counters_go_on_while_keys_come_and_go(registry: CollectorRegistry, autojump_clock: MockClock) -> None:
    """A counter that shrank would be taken for a restart of the process."""
    collector = PoolCollector(registry)
    keyed: KeyedPools = respool.open_keyed_pool(
        lambda _: GatedAdapter(), name="web", max_size=6, max_per_key=5, max_idle=10, instruments=[collector]
    )
    async with keyed as pool, pool.acquire("stays"):
        for number in range(1, 4):
            async with pool.acquire(number):
                told = scrape(registry)
                assert told['respool_opened_total{pool="web"}'] == number + 1
                assert told['respool_max_size{pool="web"}'] == 6
            await trio.sleep(30)
            told = scrape(registry)
            assert len(pool.statistics().keys) == 1
            assert told['respool_opened_total{pool="web"}'] == number + 1
            assert told['respool_discards_total{pool="web",reason="unused"}'] == number
            assert told['respool_use_time_seconds_bucket{le="+Inf",pool="web"}'] == number
    assert scrape(registry) == {}
    assert collector._groups == {}


def test_one_collector_a_registry(registry: CollectorRegistry) -> None:
    """Two would tell everything twice. What is unregistered makes room for another."""
    collector = PoolCollector(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PoolCollector(registry)
    registry.unregister(collector)
    registry.register(PoolCollector(None))


async def test_no_text_of_an_error(registry: CollectorRegistry, reader: Reader, autojump_clock: MockClock) -> None:
    """No text of an error, which might hold a secret, reaches a metric."""
    adapter = slow_opens()
    instruments = [PoolCollector(registry), PoolMetrics(meter_provider=reader.provider)]
    async with respool.open_pool(adapter, max_size=1, max_waiting=3, instruments=instruments) as pool:
        await one_of_everything(pool, adapter)
        assert "s3cret" not in generate_latest(registry).decode()
        assert "s3cret" not in str(reader.metrics())


# Other threads: OpenTelemetry's exporter and prometheus_client's server read in threads of their own.


@contextmanager
def between_steps(module: str, call: Callable[[], object]) -> Iterator[None]:
    """Call something between any two bytecodes of a module of the kernel, where another thread may come between."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(f"/respool/{module}.py"):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            call()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("module", ["_telling", "_queue"])
async def test_a_snapshot_while_anything_changes(module: str, autojump_clock: MockClock) -> None:
    """Sets and lines may change between any two steps of `statistics`."""
    async with respool.open_pool(GatedAdapter(), max_size=5) as pool, pool.acquire():
        ledger = pool._ledger
        (entry,) = ledger.entries
        (lease,) = entry.leases
        newcomer: Lease[Any] = Lease()
        newcomer.line, newcomer.waiting_since, newcomer.since = 1, 0.0, 0.0
        newcomer.latest_start = 0.0
        other: Entry[Any] = Entry()

        def change() -> None:
            if other in ledger.entries:
                del ledger.entries[other]
                entry.leases.remove(newcomer)
                newcomer.task = None
                ledger.queue.remove(newcomer, late=False)
            else:
                ledger.entries[other] = None
                newcomer.task = lease.task
                entry.leases.add(newcomer)
                ledger.queue.push(newcomer)

        for _ in range(2):  # starting with and without
            change()
            with between_steps(module, change):
                pool.statistics()
        if other in ledger.entries:
            change()


async def test_a_snapshot_between_any_two_steps(autojump_clock: MockClock) -> None:
    """Whatever the ledger is about to do, others may look."""
    looks = 0
    async with respool.open_pool(GatedAdapter(), max_size=1) as pool:

        def look() -> None:
            nonlocal looks
            looks += 1
            statistics = pool.statistics()
            assert statistics.size <= 1
            assert statistics.longest_hold <= 2

        with between_steps("_ledger", look):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(use, pool, 1)
            await use(pool, 1)
        assert looks > 100


async def test_metrics_are_read_in_other_threads(registry: CollectorRegistry, reader: Reader) -> None:
    """While resources and tasks come and go: never an exception, never a counter that shrinks."""
    instruments = [PoolCollector(registry), PoolMetrics(meter_provider=reader.provider)]
    seen = 0.0
    over = False

    def read() -> None:
        nonlocal seen
        while not over:
            now = scrape(registry).get('respool_use_time_seconds_count{pool="shop"}', 0)
            assert now >= seen
            seen = now
            reader.read()

    async def borrow(pool: FakePool, number: int) -> None:
        for turn in range(60):
            with trio.move_on_after(0.0001 if (number + turn) % 5 == 0 else 10):
                async with pool.acquire():
                    await trio.lowlevel.checkpoint()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        async with (
            respool.open_pool(
                GatedAdapter(), name="shop", max_size=20, max_uses=2, max_waiting=1000, instruments=instruments
            ) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(trio.to_thread.run_sync, read)
            async with trio.open_nursery() as borrowers:
                for number in range(60):
                    borrowers.start_soon(borrow, pool, number)
            over = True
    finally:
        over = True
        sys.setswitchinterval(interval)
    assert seen > 0


# The hooks behind them.


class Log(respool.Instrument):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def started(self, pool: respool.Pool[Any]) -> None:
        self.lines.append(f"started {pool.name}")

    def ended(self, pool: respool.Pool[Any]) -> None:
        self.lines.append(f"ended {pool.name} with {pool.statistics().size}")

    def discarded(self, pool: respool.Pool[Any], reason: str) -> None:
        self.lines.append(f"discarded {reason}")


@pytest.mark.parametrize("way", ["in peace", "by an error", "cancelled", "cancelled while closing"])
async def test_started_first_and_ended_last(way: str, autojump_clock: MockClock) -> None:
    """However the pool's block is left."""
    log = Log()
    adapter = GatedAdapter(close="slow")
    with trio.CancelScope() as scope:
        try:
            async with respool.open_pool(adapter, name="shop", instruments=[log]) as pool:
                await use(pool, 1)
                if way == "by an error":
                    raise GatedError("broken")
                if way == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
                if way == "cancelled while closing":
                    scope.deadline = trio.current_time() + 0.5
        except GatedError:
            assert way == "by an error"
    assert log.lines == ["started shop", "discarded closed", "ended shop with 0"]


async def test_each_key_starts_and_ends_once(autojump_clock: MockClock) -> None:
    """When it is forgotten, or with the keyed pool, even if its server was down."""
    log = Log()
    down = GatedAdapter(open="error")
    adapters = {key: respool.adapter(open=make, close=drop, name=key) for key in ("first", "second")}
    keyed: KeyedPools = respool.open_keyed_pool(lambda key: adapters.get(key, down), max_idle=10, instruments=[log])
    async with keyed as pool:
        async with pool.acquire("first"):
            pass
        await trio.sleep(30)
        assert log.lines == ["started first", "discarded unused", "ended first with 0"]
        log.lines.clear()
        async with pool.acquire("second"):
            pass
        with pytest.raises(respool.PoolTimeout):
            await pool.acquire("down", timeout=0.1).__aenter__()
    assert sorted(log.lines) == [
        "discarded closed",
        "ended GatedAdapter with 0",
        "ended second with 0",
        "started GatedAdapter",
        "started second",
    ]


async def test_a_failing_instrument_is_detached(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """It is logged, and neither borrowers nor other instruments notice."""

    class Failing(respool.Instrument):
        def started(self, pool: respool.Pool[Any]) -> None:
            raise GatedError("no")

        def ended(self, pool: respool.Pool[Any]) -> None:
            raise AssertionError("called again")

    log = Log()
    async with respool.open_pool(GatedAdapter(), name="shop", instruments=[Failing(), log]) as pool:
        await use(pool, 1)
    assert log.lines == ["started shop", "discarded closed", "ended shop with 0"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "failed in started() and is detached" in caplog.text
