"""One test for each bug that a sweep, a simulation or a user has found in the kernel."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from respool import open_pool
from respool.testing import GatedAdapter


async def test_an_idle_resource_is_checked_for_a_waiter_although_another_is_being_opened(
    autojump_clock: MockClock,
) -> None:
    """P4, P7. It stayed idle while the waiter sat out a connect that never came."""
    adapter = GatedAdapter()
    adapter.script("open", "ok", "never")
    async with open_pool(adapter, min_size=2, validate_after=1) as pool:
        await trio.sleep(2)
        async with pool.acquire(timeout=0.5):
            assert adapter.calls == ["open", "open", "validate 1"]
