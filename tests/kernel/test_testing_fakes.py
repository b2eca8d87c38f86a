"""`respool.testing.GatedAdapter` goes as it is told, and sees what it is there to see."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from respool.abc import Verdict
from respool.testing import GatedAdapter, GatedError, cancel_everywhere


async def test_the_gates(autojump_clock: MockClock) -> None:
    """Well, badly, slowly, never."""
    adapter = GatedAdapter()
    resource = await adapter.open()
    adapter.script("validate", "ok", "error", "slow")
    await adapter.validate(resource)
    with pytest.raises(GatedError, match="validate: the gate says error"):
        await adapter.validate(resource)
    started = trio.current_time()
    await adapter.validate(resource)
    assert trio.current_time() - started == adapter.slow
    adapter.always("validate", "never")
    with trio.move_on_after(1000) as patience:
        await adapter.validate(resource)
    assert patience.cancelled_caught
    assert adapter.calls == ["open", "validate 1", "validate 1", "validate 1", "validate 1"]
    assert adapter.faults == []


async def test_a_script_ends_and_the_default_returns() -> None:
    """Scripted calls first, then the default given at construction."""
    adapter = GatedAdapter(open="error")
    adapter.script("open", "ok", OSError("its own"))
    await adapter.open()
    with pytest.raises(OSError, match="its own"):
        await adapter.open()
    with pytest.raises(GatedError):
        await adapter.open()
    assert (adapter.opened, adapter.present, adapter.most_present) == (1, 1, 2)


async def test_every_hook_obeys_the_adapters_contract() -> None:
    """The fake itself is right wherever it is cancelled: open leaves nothing, close always frees."""
    adapter = GatedAdapter()

    def nothing_is_present(_: object = None) -> None:
        assert adapter.present == len(adapter.resources) == 0

    async def open_and_close() -> None:
        resource = await adapter.open()
        await adapter.close(resource)

    report = await cancel_everywhere(adapter.close, prepare=adapter.open, check=nothing_is_present)
    assert adapter.closed_forcefully == report.cancelled > 0
    assert adapter.opened == adapter.closed == report.points + 1
    assert adapter.faults == []


async def test_a_cancelled_exchange_leaves_its_answer_until_reset(autojump_clock: MockClock) -> None:
    """The stranger's data that a pool must never hand on."""
    adapter = GatedAdapter(exchange="slow")
    resource = await adapter.open()
    assert await adapter.exchange(resource, "mine") == "mine"
    with trio.move_on_after(0.5):
        await adapter.exchange(resource, "theirs")
    assert not adapter.is_clean(resource)
    assert await adapter.exchange(resource, "mine") == "theirs"
    await adapter.reset(resource)
    assert adapter.is_clean(resource)
    assert await adapter.exchange(resource, "mine") == "mine"


async def test_a_broken_resource_cannot_be_used_or_reset() -> None:
    """Its hooks raise, except close."""
    adapter = GatedAdapter()
    resource = await adapter.open()
    resource.broken = True
    assert not adapter.is_clean(resource)
    for hook in (adapter.validate, adapter.reset):
        with pytest.raises(GatedError, match="1 is broken"):
            await hook(resource)
    with pytest.raises(GatedError, match="exchange: 1 is broken"):
        await adapter.exchange(resource, "ping")
    await adapter.close(resource)
    assert adapter.present == 0


async def test_dirt_is_cleared_by_reset() -> None:
    """A mark the test sets, and reset takes away."""
    adapter = GatedAdapter()
    resource = await adapter.open()
    resource.dirty = True
    assert not adapter.is_clean(resource)
    await adapter.reset(resource)
    assert adapter.is_clean(resource)


async def test_wrong_lending_is_a_fault() -> None:
    """Twice, unclean, closed."""
    adapter = GatedAdapter()
    resource = await adapter.open()
    with adapter.lease(resource), adapter.lease(resource):
        pass
    resource.dirty = True
    with adapter.lease(resource):
        pass
    await adapter.close(resource)
    with adapter.lease(resource):
        pass
    assert adapter.faults == [
        "1 was lent to 2",
        "1 was lent unclean",
        "1 was lent unclean",
        "lent of 1 after it was closed",
    ]


async def test_shared_leases_are_no_fault_up_to_their_number() -> None:
    """As many as the adapter says."""
    adapter = GatedAdapter(leases=2)
    resource = await adapter.open()
    with adapter.lease(resource), adapter.lease(resource):
        assert adapter.faults == []
        with adapter.lease(resource):
            assert adapter.faults == ["1 was lent to 3"]


async def test_hooks_at_the_wrong_time_are_faults(autojump_clock: MockClock) -> None:
    """While it is lent, while another hook is at work, after it was closed; closing twice."""
    adapter = GatedAdapter(reset="slow")
    resource = await adapter.open()
    with adapter.lease(resource):
        await adapter.validate(resource)
    assert adapter.faults == ["validate of 1 while it was lent"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(adapter.reset, resource)
        await trio.testing.wait_all_tasks_blocked()
        await adapter.validate(resource)
    assert adapter.faults[1:] == ["validate of 1 during its reset"]
    await adapter.close(resource)
    await adapter.close(resource)
    assert adapter.faults[2:] == ["close of 1 after it was closed"]
    assert (adapter.closed, adapter.present) == (1, 0)


def test_verdicts() -> None:
    """An error says itself what it means; others keep the resource, whose state tells."""
    adapter = GatedAdapter()
    assert adapter.verdict(GatedError("no such database", Verdict.PERMANENT)) is Verdict.PERMANENT
    assert adapter.verdict(GatedError("gone")) is Verdict.DISCARD
    assert adapter.verdict(ZeroDivisionError()) is Verdict.KEEP
