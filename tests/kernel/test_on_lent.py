"""``acquire(on_lent=...)``: a use that begins before its borrower's turn is the borrower's all the same."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from respool import KeyedPool, Pool, PoolTimeout, open_keyed_pool, open_pool
from respool.abc import Verdict
from respool.testing import FakeResource, GatedAdapter, GatedError, cancel_everywhere

FakePool = Pool[FakeResource]


class Lost(BaseException):
    """Not an `Exception`: nobody but the borrower may meet it either."""


def send(resource: FakeResource) -> None:
    """The first half of an exchange: there is an answer to be read, by the borrower and nobody else."""
    resource.unread.append("answer")


async def receive(resource: FakeResource) -> None:
    """The other half."""
    await trio.lowlevel.checkpoint()
    assert resource.unread.popleft() == "answer"


async def exchange(pool: FakePool | KeyedPool[str, FakeResource], *key: str) -> None:
    async with pool.acquire(*key, on_lent=send) as resource:
        await receive(resource)


def fail(error: BaseException, _: FakeResource) -> None:
    raise error


async def borrow(pool: FakePool, record: list[str], on_lent: Callable[[FakeResource], object]) -> None:
    async with pool.acquire(on_lent=on_lent):
        record.append("turn")


async def test_it_is_called_before_the_borrowers_next_turn(autojump_clock: MockClock) -> None:
    """With an idle resource, with one that is opened first, and with one that another task returns."""
    record: list[str] = []

    def note(resource: FakeResource) -> None:
        record.append(f"lent {resource.number}")

    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        await borrow(pool, record, note)
        assert record == ["lent 1", "turn"]
        nursery.start_soon(borrow, pool, record, note)
        async with pool.acquire():
            record.clear()
            await wait_all_tasks_blocked()
            assert pool.statistics().waiting == 1
            assert record == []
        assert record == ["lent 1"]  # this task has not waited since
        await wait_all_tasks_blocked()
        assert record == ["lent 1", "turn"]


async def test_acquiring_is_a_checkpoint_after_it(autojump_clock: MockClock) -> None:
    """Others have their turn between the call and the block: an answer may come meanwhile."""
    record: list[str] = []

    async def other() -> None:
        record.append("other")

    async with open_pool(GatedAdapter(), max_size=1) as pool:
        await exchange(pool)
        for _ in range(10):  # Trio runs the tasks in random order
            record.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                with assert_checkpoints():
                    await borrow(pool, record, lambda _: record.append("lent"))
            assert record[0] == "lent"
            assert sorted(record) == ["lent", "other", "turn"]


async def test_who_does_without_is_served_as_ever(autojump_clock: MockClock) -> None:
    """Also beside those who do not; and whoever is not served at all is not called either."""
    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=1) as pool, trio.open_nursery() as nursery:
        await exchange(pool)
        async with pool.acquire():
            with pytest.raises(PoolTimeout):
                async with pool.acquire(timeout=1, on_lent=send):
                    pass
            for _ in range(3):
                nursery.start_soon(exchange, pool)
                nursery.start_soon(borrow, pool, [], bool)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as inner:
                inner.start_soon(pool.acquire().__aenter__)
                await wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
    assert adapter.calls == ["open", "close 1"]


@pytest.mark.parametrize("error", [GatedError("refused", Verdict.KEEP), GatedError("broken"), Lost("lost")])
@pytest.mark.parametrize("contended", [False, True])
async def test_what_it_raises_is_the_borrowers(
    autojump_clock: MockClock, error: BaseException, *, contended: bool
) -> None:
    """Raised on entering the block, which never begins; the resource is returned, or closed if the error says so."""
    adapter = GatedAdapter()
    record: list[str] = []

    async def expect() -> None:
        with pytest.raises(type(error)) as raised:
            await borrow(pool, record, partial(fail, error))
        assert raised.value is error

    async with open_pool(adapter, max_size=1) as pool:
        await exchange(pool)
        async with trio.open_nursery() as nursery:
            if not contended:
                await expect()
            else:
                async with pool.acquire():
                    nursery.start_soon(expect)
                    await wait_all_tasks_blocked()
        assert record == []
        assert pool.statistics().lent == 0
        await exchange(pool)
        assert adapter.opened == (2 if error.args == ("broken",) else 1)


async def test_what_it_raises_does_not_tell_why_the_resource_was_returned(autojump_clock: MockClock) -> None:
    """P5: the error that ended another task's block, and what its frames hold, is not this borrower's."""

    def begin(_: FakeResource) -> None:
        try:
            raise GatedError("cause", Verdict.KEEP)
        except GatedError as error:
            raise GatedError("refused", Verdict.KEEP) from error

    async def expect() -> None:
        with pytest.raises(GatedError, match="refused") as raised:
            await borrow(pool, [], begin)
        cause = raised.value.__cause__
        assert isinstance(cause, GatedError)
        assert raised.value.__context__ is cause
        assert cause.__context__ is None

    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        with pytest.raises(GatedError, match="secret"):
            async with pool.acquire():
                nursery.start_soon(expect)
                await wait_all_tasks_blocked()
                raise GatedError("secret", Verdict.KEEP)
        await expect()


async def test_it_must_not_be_an_async_function(autojump_clock: MockClock) -> None:
    """Which nobody would await; Python alone would only warn of that."""
    async with open_pool(GatedAdapter(), max_size=1) as pool:
        with pytest.raises(TypeError, match="on_lent must not be an async function"):
            await borrow(pool, [], receive)
        await exchange(pool)


async def test_who_is_cancelled_after_it_leaves_the_resource_to_be_reset(autojump_clock: MockClock) -> None:
    """P5: what was begun on a borrower's behalf is undone as if it had begun it itself."""
    adapter = GatedAdapter()

    async def wait_and_exchange() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            await exchange(pool)

    async def hold() -> None:
        async with pool.acquire() as resource:
            assert not resource.unread
            await wait_all_tasks_blocked(0.001)

    async def check() -> None:
        await wait_all_tasks_blocked()
        statistics = pool.statistics()
        assert (statistics.lent, statistics.waiting) == (0, 0)
        assert not any(resource.unread for resource in adapter.resources)

    async with open_pool(adapter, max_size=1) as pool:
        for operation in (partial(exchange, pool), wait_and_exchange):
            report = await cancel_everywhere(operation, check=check)
            assert report.points >= 3
    assert "reset 1" in adapter.calls
    assert adapter.opened == 1
    assert not adapter.faults


@pytest.mark.parametrize("max_size", [1, 2])
async def test_a_shared_resource_that_breaks_before_the_turn(autojump_clock: MockClock, max_size: int) -> None:
    """The block begins with another, for which it was called as well, whether that has to be opened or is there."""
    lent: list[int] = []

    async def share(error: Exception | None) -> None:
        with pytest.raises(GatedError) if error else trio.CancelScope():
            async with pool.acquire():
                await go.wait()
                if error is not None:
                    raise error

    async def last() -> None:
        async with pool.acquire(on_lent=lambda resource: lent.append(resource.number)) as resource:
            assert lent[-1] == resource.number
            again.append(len(lent))
            lent.clear()

    again: list[int] = []
    async with open_pool(GatedAdapter(leases=2), max_size=max_size) as pool:
        for _ in range(30):  # Trio runs the tasks in random order
            go = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(share, GatedError("broken"))
                for _ in range(2 * max_size - 1):
                    nursery.start_soon(share, None)
                await wait_all_tasks_blocked()
                nursery.start_soon(last)
                await wait_all_tasks_blocked()
                go.set()
    assert set(again) == {1, 2}


class Borrower:
    """Holds its lease, which holds it."""

    def __init__(self, pool: FakePool, *, failing: bool) -> None:
        self.lease = pool.acquire(timeout=1, on_lent=self.begin)
        self.failing = failing

    def begin(self, _: FakeResource) -> None:
        if self.failing:
            raise GatedError("refused", Verdict.KEEP)


@pytest.mark.parametrize("failing", [False, True])
@pytest.mark.parametrize("wait", [0, 0.5, 2])
async def test_a_borrower_that_holds_its_lease_is_freed_at_once(
    autojump_clock: MockClock, wait: float, *, failing: bool
) -> None:
    """Not by the garbage collector, which costs a busy program time; whether it was served at once, late or never."""

    async def use() -> None:
        borrower = Borrower(pool, failing=failing)
        freed.append(weakref.ref(borrower))
        with suppress(GatedError, PoolTimeout):
            async with borrower.lease:
                pass

    freed: list[weakref.ref[Borrower]] = []
    async with open_pool(GatedAdapter(), max_size=1) as pool, trio.open_nursery() as nursery:
        await exchange(pool)
        async with pool.acquire() if wait else nullcontext():
            nursery.start_soon(use)
            await trio.sleep(wait)
        await wait_all_tasks_blocked()
        assert [borrower() for borrower in freed] == [None]


async def test_a_keyed_pool_passes_it_on(autojump_clock: MockClock) -> None:
    adapter = GatedAdapter()
    async with open_keyed_pool({"key": adapter}.__getitem__, max_size=1) as pool:
        await exchange(pool, "key")
        with pytest.raises(KeyError):
            pool.acquire("no such key", on_lent=send)
    assert adapter.calls == ["open", "close 1"]


async def test_a_key_forgotten_before_the_block_is_entered(autojump_clock: MockClock) -> None:
    """The pool that takes the place of the forgotten one calls it, too, when somebody else returns or opens."""
    adapter = GatedAdapter()
    async with open_keyed_pool({"key": adapter}.__getitem__, max_size=1) as pool:
        lease = pool.acquire("key", on_lent=send)
        await wait_all_tasks_blocked()
        assert not pool.statistics().keys
        async with lease as resource:
            await receive(resource)


async def test_max_hold_and_instruments_do_not_mind(autojump_clock: MockClock) -> None:
    """A block that never begins is neither revoked nor told of."""
    record: list[str] = []

    class Told:
        def __getattr__(self, event: str) -> Any:
            return lambda *_: record.append(event)

    adapter = GatedAdapter()
    async with open_pool(adapter, max_size=1, max_hold=5) as pool:
        pool._instruments.append(Told())  # type: ignore[arg-type]
        await exchange(pool)
        record.clear()
        with pytest.raises(GatedError):
            await borrow(pool, [], partial(fail, GatedError("refused", Verdict.KEEP)))
        await trio.sleep(10)
        assert record == []
        await exchange(pool)
        assert record == ["acquired", "returned"]
