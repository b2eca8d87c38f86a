"""Cancellation at every point and in storms, over all four adapters and real servers: nothing lost, nothing wrong."""

from __future__ import annotations

import pytest

from respool import open_pool
from tests.fault_proxy import Fault, FaultProxy
from tests.kinds import Kind
from tests.servers import Server
from tests.storms import Losses, Subject, at_every_point, in_a_storm

SIZE = 4


@pytest.fixture
def subject(kind: Kind, shared_server: Server, shared_server_proxy: FaultProxy) -> Subject:
    adapter = kind.adapter(shared_server_proxy.redirect(shared_server.url))
    return Subject(
        lambda: open_pool(adapter, max_size=SIZE, acquire_timeout=5),
        SIZE,
        kind.ask,
        shared_server_proxy,
        opened=lambda pool: pool.statistics().opened,  # the proxy sees connections that carry cancel requests, too
    )


def assert_nothing_lost(losses: Losses) -> None:
    assert losses.cancelled > 0
    assert losses.lost_slots == losses.wrong_answers == losses.failed == losses.swallowed == losses.orphans == 0, losses
    assert not losses.strange


@pytest.mark.parametrize("latency", [0, 0.002], ids=["on loopback", "behind 2 ms"])
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_nothing_is_lost_at_any_point(*, warm: bool, latency: float, subject: Subject) -> None:
    """Cancelled at every point, a borrower costs nobody anything."""
    subject.proxy.fault = Fault(latency=latency)
    assert_nothing_lost(await at_every_point(subject, warm=warm))


@pytest.mark.parametrize("seed", range(4))
async def test_nothing_is_lost_in_storms(seed: int, kind: Kind, subject: Subject) -> None:
    """2,000 operations by 50 tasks on 4 connections, each cancelled at a random moment; every other behind 2 ms."""
    subject.proxy.fault = Fault(latency=0.002 * (seed % 2))
    losses = await in_a_storm(subject, seed=seed, longest=0.1)
    assert_nothing_lost(losses)
    if kind.recovers:
        assert losses.remade < 0.05 * losses.cancelled
