"""The adapter contract as assertions: `check_adapter`."""

from __future__ import annotations

import gc
import resource
import socket
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import attrs
import trio

from respool.abc import Adapter

from ._cancel import place_of
from ._clauses import Contract, FaultContract, expect
from ._proxy import open_proxy

__all__ = ["AdapterReport", "ContractBroken", "check_adapter"]

T = TypeVar("T")


class ContractBroken(AssertionError):
    """An adapter does not keep its contract. The message says which clause, why, and where it was cancelled."""


@attrs.frozen(kw_only=True)
class AdapterReport:
    """What `check_adapter` did. Nothing in it is a verdict: an adapter that breaks its contract raises."""

    clauses: tuple[str, ...]
    """The clauses of the contract that were checked."""

    points: int
    """How many moments hooks and exchanges were cancelled at, in all."""

    recovered: int
    """How many resources were fit to be lent again after an exchange on them had been cancelled or cut off."""

    discarded: int
    """How many were not. An adapter that can finish or stop a cancelled exchange keeps this low."""

    longest_step: float
    """The longest time in seconds the event loop was kept from other tasks while it was looked for."""


@overload
async def check_adapter(
    adapter: Adapter[T],
    *,
    use: Callable[[T], Awaitable[object]] | None = None,
    check: Callable[[T], Awaitable[object]] | None = None,
    timeout: float = 10.0,
    longest_step: float = 0.1,
) -> AdapterReport: ...


@overload
async def check_adapter(
    adapter: Callable[[str, int], Adapter[T]],
    *,
    server: tuple[str, int],
    use: Callable[[T], Awaitable[object]] | None = None,
    check: Callable[[T], Awaitable[object]] | None = None,
    timeout: float = 10.0,
    longest_step: float = 0.1,
) -> AdapterReport: ...


async def check_adapter(
    adapter: Any,
    *,
    server: tuple[str, int] | None = None,
    use: Callable[[T], Awaitable[object]] | None = None,
    check: Callable[[T], Awaitable[object]] | None = None,
    timeout: float = 10.0,
    longest_step: float = 0.1,
) -> AdapterReport:
    """Check everything a pool relies on in an adapter, against a real server.

    One call is an adapter's whole test::

        async def test_contract() -> None:
            async def use(connection: Connection) -> None:
                await connection.execute("select 'theirs', pg_sleep(0.01)")

            async def check(connection: Connection) -> None:
                cursor = await connection.execute("select 'mine'")
                assert await cursor.fetchone() == ("mine",)

            await check_adapter(
                lambda host, port: PostgresAdapter(f"postgresql://{host}:{port}/test"),
                server=("127.0.0.1", 5432),
                use=use,
                check=check,
            )

    It opens, validates, resets and closes resources, cancels each of these and `use` wherever Trio could, and puts a
    proxy in front of the server which delays, pauses and cuts off what it says. After everything it does it looks for
    file descriptors, connections and tasks left over. It runs on the real clock, takes some seconds, and needs no test
    framework. Nothing else should open sockets in this process meanwhile.

    Args:
      adapter: with `server`, a function that makes the adapter for a host and port; those of the proxy. Without, the
        adapter itself; then only what needs no faults is checked.
      server: host and port of a server the adapter can connect to.
      use: what a borrower might do that leaves a resource in the middle of something when it is cut off. Default:
        ``adapter.validate``.
      check: raises unless a resource answers this, and not some earlier, question. Default: ``adapter.validate``.
      timeout: seconds any single step of the check may take.
      longest_step: seconds any task may keep the event loop from the others. A clause in which a step is longer is
        checked once more, because a busy machine does that too.

    An adapter that blocks the event loop for longer than `timeout`, or for ever, because the server runs in the same
    one and so is blocked as well, has its connections cut; the error then shows the stack. Without `server`, or if it
    waits for something else than the server, nobody can end that.

    Raises:
      ContractBroken: the adapter (or its driver) breaks a clause of the contract in `respool.abc.Adapter`.
    """
    if server is None:
        return await _run(Contract(adapter, use=use, check=check, timeout=timeout), longest_step)
    async with open_proxy(server, patience=timeout) as proxy:
        with socket.socket() as deaf:
            deaf.bind((proxy.host, 0))  # and never listens
            contract = FaultContract(
                adapter(proxy.host, proxy.port),
                proxy,
                refused=adapter(*deaf.getsockname()),
                use=use,
                check=check,
                timeout=timeout,
            )
            return await _run(contract, longest_step)


async def _run(contract: Contract[T], limit: float) -> AdapterReport:
    done: list[str] = []
    longest = 0.0
    for clause in contract.clauses():
        name = (clause.__doc__ or "").rstrip(".")
        watch = await _check_clause(contract, clause, name)
        if watch.longest > limit:
            watch = await _check_clause(contract, clause, name)
        if watch.longest > limit:
            raise ContractBroken(f"{name}: the event loop was blocked for {watch.longest:.2f} s, before {watch.place}")
        longest = max(longest, watch.longest)
        done.append(name)
    return AdapterReport(
        clauses=tuple(done),
        points=contract.points,
        recovered=contract.recovered,
        discarded=contract.discarded,
        longest_step=longest,
    )


async def _check_clause(contract: Contract[T], clause: Callable[[], Awaitable[None]], name: str) -> _Watch:
    watch = _Watch()
    try:
        with warnings.catch_warnings(record=True) as contract.warned:
            warnings.simplefilter("always")
            trio.lowlevel.add_instrument(watch)
            try:
                await clause()
                await trio.lowlevel.checkpoint()  # ends the clause's last step
            finally:
                trio.lowlevel.remove_instrument(watch)
            gc.collect()  # not watched: in a large program it takes as long as a blocking call
            await contract.expect_nothing_left()
        await contract.clean_up(failed=False)
        expect(not contract.blocked, "it ended all the same")
    except Exception as error:
        if contract.blocked:  # and no cleaning up, which might be blocked as well
            raise ContractBroken(
                f"{name}: the event loop was blocked for more than {contract.timeout:g} s, until the check cut all "
                f"connections. Is a socket not non-blocking? It was blocked here:\n{contract.blocked}"
            ) from error
        await contract.clean_up(failed=True)
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        reason = str(error) if isinstance(error, AssertionError) else repr(error)
        raise ContractBroken(f"{name}: {reason}{where}") from error
    return watch


class _Watch(trio.abc.Instrument):
    """Finds the longest step of any task: one that computed for long, or that waited in the kernel.

    A step also takes long if the machine is busy with something else. Then the thread was pushed off its processor,
    which the kernel counts apart from giving it up to wait.
    """

    def __init__(self) -> None:
        self.longest = 0.0
        self.place = ""
        self.before_task_step(trio.lowlevel.current_task())

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._started = time.perf_counter()
        self._worked = time.thread_time()
        self._waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > self._waits
        took = time.perf_counter() - self._started if waited else time.thread_time() - self._worked
        if took > self.longest:
            self.longest = took
            self.place = f"{task.name} {place_of(task)}"
