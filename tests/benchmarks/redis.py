"""GET and SET, small values and 10 KB: respool_redis beside redis.asyncio, coredis, threads and redis-benchmark.

Everybody has ten connections and is asked for one key at a time, from 50 tasks and from 200. redis-py and coredis take
a connection from their pool for each command by themselves; for respool that is "exclusive". "Shared" is the everyday
client, whose tasks' commands travel together. The bare loops are what Trio's sockets and hiredis can do if nobody
checks or pools anything, survives a cancellation, or has redis-py's methods. redis-benchmark is a C program that checks
nothing: it shows what the server has to give, asked one thing at a time on each of ten connections, or many things at
once on one.
"""

from __future__ import annotations

import csv
import socket
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import hiredis
import outcome
import trio

from tests.servers import RedisServer

from ._benchmark import Benchmark, Goal
from ._contender import Contender, Program, Sample, Share, output_of

SIZE = 10
KEYS = 1000
LARGE = 10_000
RECEIVED = 1 << 18  # bytes at a time, by the bare loops: of what was tried, the best for large values


def number(key: int) -> int:
    return key * 7919 % 10007


def value(key: int, length: int) -> bytes:
    """A number, filled up with spaces."""
    return b"%d" % number(key) + b" " * (length - 5)


@contextmanager
def server() -> Iterator[str]:
    import redis

    with RedisServer() as running:
        with redis.Redis.from_url(running.url) as client:
            for key in range(KEYS):
                for name in (str(key), f"{key:012}"):  # redis-benchmark's names are of this length
                    client.set(f"small:{name}", value(key, 5))
                    client.set(f"large:{name}", value(key, LARGE))
        yield running.url


# The clients.


class Exclusive:
    """One lease a command, under the same two names."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def get(self, key: str) -> Any:
        async with self.pool.acquire() as connection:
            return await connection.get(key)

    async def set(self, key: str, value: bytes) -> Any:
        async with self.pool.acquire() as connection:
            return await connection.set(key, value)


@asynccontextmanager
async def exclusive(url: str) -> AsyncIterator[Any]:
    from respool_redis import RedisAdapter

    import respool

    async with respool.open_pool(RedisAdapter(url), min_size=SIZE, max_size=SIZE) as pool:
        yield Exclusive(pool)


@asynccontextmanager
async def shared(url: str) -> AsyncIterator[Any]:
    from respool_redis import open_redis

    async with open_redis(url, max_size=SIZE) as client:
        yield client


@asynccontextmanager
async def redis_asyncio(url: str) -> AsyncIterator[Any]:
    import redis.asyncio

    pool = redis.asyncio.BlockingConnectionPool.from_url(url, max_connections=SIZE)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        yield client


@asynccontextmanager
async def coredis(url: str) -> AsyncIterator[Any]:
    import coredis

    pool = coredis.ConnectionPool.from_url(url, max_connections=SIZE, timeout=30)
    async with coredis.Redis(connection_pool=pool) as client:
        yield client


@contextmanager
def threads(url: str) -> Iterator[Any]:
    import redis

    pool = redis.BlockingConnectionPool.from_url(url, max_connections=SIZE)
    with redis.Redis(connection_pool=pool) as client:
        yield client


class BareExclusive:
    """A socket for each command. Looks before it waits, as HTTP's bare loop does. Must not be cancelled."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.idle_in, self.idle_out = trio.open_memory_channel[tuple[socket.socket, hiredis.Reader]](len(sockets))
        for sock in sockets:
            self.idle_in.send_nowait((sock, hiredis.Reader()))

    async def ask(self, *command: Any) -> Any:
        sock, reader = connection = await self.idle_out.receive()
        sock.send(hiredis.pack_command(command))
        await trio.lowlevel.checkpoint()
        reply: Any = False
        while reply is False:
            try:
                reader.feed(sock.recv(RECEIVED))
            except BlockingIOError:
                await trio.lowlevel.wait_readable(sock)
            else:
                reply = reader.gets()
        self.idle_in.send_nowait(connection)
        return reply


class BareShared:
    """One socket for all; one task writes what the others ask, and one gives them the replies. Not to be cancelled."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.unsent: list[bytes] = []
        self.asking: deque[trio.lowlevel.Task] = deque()
        self.writer: trio.lowlevel.Task | None = None  # while it has nothing to do

    async def ask(self, *command: Any) -> Any:
        self.unsent.append(hiredis.pack_command(command))
        self.asking.append(trio.lowlevel.current_task())
        if self.writer is not None:
            trio.lowlevel.reschedule(self.writer)
            self.writer = None
        return await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    async def write(self) -> None:
        while True:
            self.writer = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)
            while self.unsent:
                data = memoryview(b"".join(self.unsent))
                self.unsent.clear()
                while data:
                    try:
                        data = data[self.sock.send(data) :]
                    except BlockingIOError:
                        await trio.lowlevel.wait_writable(self.sock)

    async def read(self) -> None:
        reader = hiredis.Reader()
        while True:
            await trio.lowlevel.wait_readable(self.sock)
            reader.feed(self.sock.recv(RECEIVED))
            while (reply := reader.gets()) is not False:
                trio.lowlevel.reschedule(self.asking.popleft(), outcome.Value(reply))


class BareCommands:
    """GET and SET of what can `ask`."""

    def __init__(self, ask: Callable[..., Awaitable[Any]]) -> None:
        self.ask = ask

    def get(self, key: str) -> Awaitable[Any]:
        return self.ask("GET", key)

    def set(self, key: str, value: bytes) -> Awaitable[Any]:
        return self.ask("SET", key, value)


@contextmanager
def bare_socket(url: str) -> Iterator[socket.socket]:
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield sock


@asynccontextmanager
async def bare_exclusive(url: str) -> AsyncIterator[Any]:
    with ExitStack() as stack:
        yield BareCommands(BareExclusive([stack.enter_context(bare_socket(url)) for _ in range(SIZE)]).ask)


@asynccontextmanager
async def bare_shared(url: str) -> AsyncIterator[Any]:
    with bare_socket(url) as sock:
        bare = BareShared(sock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bare.read)
            nursery.start_soon(bare.write)
            yield BareCommands(bare.ask)
            nursery.cancel_scope.cancel()


# What the work is, for clients with redis-py's methods: all of them.


def getting(prefix: str, length: int) -> Any:
    def of(client: Any) -> Any:
        @asynccontextmanager
        async def contender(url: str) -> AsyncIterator[Any]:
            async with client(url) as opened:

                async def work(keys: Share) -> int:
                    total = 0
                    for key in keys:
                        total += key * int(await opened.get(f"{prefix}:{key}"))
                    return total

                yield work

        return contender

    @contextmanager
    def in_threads(url: str) -> Iterator[Any]:
        with threads(url) as opened:
            yield lambda keys: sum(key * int(opened.get(f"{prefix}:{key}")) for key in keys)

    return of, in_threads


def setting(prefix: str, length: int) -> Any:
    filled = value(0, length)

    def of(client: Any) -> Any:
        @asynccontextmanager
        async def contender(url: str) -> AsyncIterator[Any]:
            async with client(url) as opened:

                async def work(keys: Share) -> int:
                    total = 0
                    for key in keys:
                        total += key * bool(await opened.set(f"set:{prefix}:{key}", filled))
                    return total

                yield work

        return contender

    @contextmanager
    def in_threads(url: str) -> Iterator[Any]:
        with threads(url) as opened:
            yield lambda keys: sum(key * bool(opened.set(f"set:{prefix}:{key}", filled)) for key in keys)

    return of, in_threads


# redis-benchmark measures itself.


def redis_benchmark(what: str, prefix: str, length: int, *, connections: int, at_once: int) -> Any:
    """The program, asking `at_once` things on each of its `connections` before it waits for the replies."""
    command = (
        ["GET", f"{prefix}:__rand_int__"] if what == "get" else ["SET", f"set:{prefix}:__rand_int__", "x" * length]
    )

    def measure(url: str, seconds: float) -> Sample:
        where = urlsplit(url)
        options = ["-h", where.hostname, "-p", where.port, "-c", connections, "-P", at_once, "-r", KEYS, "--csv"]

        def ask(number: int) -> Sample:
            words = ["redis-benchmark", *options, "-n", number, *command]
            said, cpu_seconds = output_of([str(word) for word in words], "redis-tools")
            rate = float(next(csv.DictReader(said.splitlines()))["rps"])
            return Sample(number, rate, cpu_seconds * 1e6 / number)

        # Whole batches: otherwise it counts more replies than it wanted, and may take that for a failure.
        return ask(max(1, round(ask(20_000).rate * seconds / at_once)) * at_once)

    return measure


PEERS = ("redis.asyncio", "redis.asyncio, uvloop", "coredis, asyncio", "coredis, trio", "redis-py, threads")


def benchmark(what: str, size: str, length: int, tasks: int) -> Benchmark:
    of, in_threads = (getting if what == "get" else setting)(size, length)
    ours = "respool_redis, shared" if tasks > 50 else "respool_redis, exclusive"
    one_by_one = Program(
        f"redis-benchmark, {SIZE} conn.", redis_benchmark(what, size, length, connections=SIZE, at_once=1)
    )
    together = Program(
        f"redis-benchmark, 1 conn., {tasks} at once",
        redis_benchmark(what, size, length, connections=1, at_once=tasks),
    )
    return Benchmark(
        name=f"{what}-{size}-{tasks}",
        title=f"{what.upper()} of {size} values ({length} bytes), {tasks} tasks over {SIZE} connections",
        contenders=(
            Contender("respool_redis, shared", of(shared)),
            Contender("respool_redis, exclusive", of(exclusive)),
            Contender("bare Trio sockets, shared", of(bare_shared)),
            Contender("bare Trio sockets, exclusive", of(bare_exclusive)),
            Contender("redis.asyncio", of(redis_asyncio), "asyncio"),
            Contender("redis.asyncio, uvloop", of(redis_asyncio), "uvloop"),
            Contender("coredis, asyncio", of(coredis), "asyncio"),
            Contender("coredis, trio", of(coredis)),
            Contender("redis-py, threads", in_threads, "threads"),
            together,
            one_by_one,
        ),
        tasks=tasks,
        keys=KEYS,
        answer=number if what == "get" else (lambda _: 1),
        server=server,
        goals=tuple(Goal(ours, peer, 10 if tasks > 50 else 2.5) for peer in PEERS),
        fractions=(("respool_redis, shared", together.name), ("respool_redis, exclusive", one_by_one.name)),
    )


BENCHMARKS = tuple(
    benchmark(what, size, length, tasks)
    for tasks in (50, 200)
    for what in ("get", "set")
    for size, length in (("small", 5), ("large", LARGE))
)
