"""Every adapter and every fault of its server or of the network: the pool outlives it, and nothing is lost or wrong.

While borrowers ask, patient ones and ones that are cancelled, something happens to the server or the network, and then
it is over. From then on, for all four adapters alike:

* Within `SOON` the pool serves again at full size, and nobody is failed any more.
* No answer was wrong. Each operation ended: with its answer, in its driver's error, or cancelled.
* The server never saw more connections than the pool may have (and those that carry a request to stop a query).
* When the pool is closed nothing is left: no connection, file descriptor, task, object or memory.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import attrs
import pytest
import trio
import trio.testing

from respool import Options, open_pool
from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.footprint import Footprint, Peak, connections_to, watch
from tests.kinds import KINDS, Kind
from tests.servers import Server
from tests.storms import Lender, Losses, Subject, look, opened_pool, use
from tests.troubles import NETWORK_TROUBLES, SERVER_TROUBLES, Stage, Trouble, slow, throttled

SIZE = 4
SOON = 10.0  # seconds; those below, the longest back-off so early, and a busy machine
ALL_BUT_NOTHING = 5_000  # pieces of memory, half a megabyte: the suite's own notes of what happened
OPTIONS: Options = {"max_size": SIZE, "open_timeout": 0.5, "reset_timeout": 0.3, "close_timeout": 0.3}

HARMLESS = (slow, throttled)  # to whoever has time


@attrs.frozen
class Scene:
    """A pool, and where things happen to it."""

    kind: Kind
    stage: Stage
    subject: Subject
    port: int


def make_scene(kind: Kind, stage: Stage, *, direct: bool) -> Scene:
    """The pool's connections go through the proxy, or straight to the server."""
    port = stage.server.port if direct else stage.proxy.port
    adapter = kind.adapter(stage.server.url if direct else stage.proxy.redirect(stage.server.url))
    subject = Subject(
        lambda: open_pool(adapter, **OPTIONS),
        SIZE,
        kind.ask,
        stage.proxy,
        opened=lambda pool: pool.statistics().opened,
        patience=SOON,
        errors=(kind.error,),
    )
    return Scene(kind, stage, subject, port)


@pytest.fixture
def network(kind: Kind, shared_server: Server, shared_server_proxy: FaultProxy) -> Scene:
    return make_scene(kind, Stage(shared_server, shared_server_proxy), direct=False)


@pytest.fixture(scope="module", params=KINDS, ids=[kind.name for kind in KINDS])
def doomed(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, Server]]:
    """A server of this module's own, which it may kill, pause and restart."""
    kind: Kind = request.param
    with kind.server() as server:
        yield kind, server


async def check(scene: Scene, trouble: Trouble) -> None:
    """Let it happen to a pool, and compare with how it was before."""
    async with opened_pool(scene.subject, Losses()) as pool:  # and with it whatever is made only once
        await look(scene.subject, pool, Losses())
    before = await Footprint.take()
    losses = Losses()
    with trio.fail_after(5 * SOON):
        async with trio.open_nursery() as nursery:
            peak: Peak = await nursery.start(watch, scene.port)
            async with opened_pool(scene.subject, losses) as pool:
                await look(scene.subject, pool, losses)
                await suffer(scene, pool, losses, trouble)
                await look(scene.subject, pool, losses)
                await serve(scene.subject, pool)
            nursery.cancel_scope.cancel()
    harmless = trouble in HARMLESS
    assert losses.strange == []
    assert losses.lost_slots == losses.wrong_answers == losses.orphans == 0, losses
    assert not (harmless and losses.failed), losses
    assert losses.cancelled > 0
    assert losses.remade > 0 or (harmless and scene.kind.recovers), losses
    assert peak.seen <= SIZE + scene.kind.stoppers
    assert connections_to(scene.port) == 0
    after = await Footprint.take()
    assert after.beyond(before) == {}
    assert after.blocks - before.blocks < ALL_BUT_NOTHING


async def suffer(scene: Scene, pool: Lender, losses: Losses, trouble: Trouble) -> None:
    """Have borrowers ask while it happens; when it is over, each of them is done soon.

    The patient ones are too few to hold all connections, so that it also meets exchanges that are cancelled.
    """
    over = trio.Event()
    questions = itertools.takewhile(lambda _: not over.is_set(), map(str, itertools.count()))
    async with trio.open_nursery() as users:
        for patient in [0] * (2 * SIZE) + [1] * (SIZE // 2):
            users.start_soon(use, scene.subject, pool, losses, questions, random.Random(0), 0.03, patient)
        await trio.sleep(0.05)
        await trouble(scene.stage, random.Random(0))
        over.set()
        users.cancel_scope.deadline = trio.current_time() + SOON
    assert not users.cancel_scope.cancelled_caught, "an operation did not end"


async def serve(subject: Subject, pool: Lender) -> None:
    """Nobody notices any more what has happened."""
    losses = Losses()
    questions = map(str, range(50))
    async with trio.open_nursery() as users:
        for _ in range(SIZE):
            users.start_soon(use, subject, pool, losses, questions, random.Random(0), 0, 1)
    assert losses == Losses(completed=50)


@pytest.mark.parametrize("trouble", NETWORK_TROUBLES)
async def test_the_pool_outlives_its_network(trouble: Trouble, network: Scene) -> None:
    await check(network, trouble)


@pytest.mark.parametrize("trouble", SERVER_TROUBLES)
async def test_the_pool_outlives_its_server(
    trouble: Trouble, doomed: tuple[Kind, Server], nursery: trio.Nursery
) -> None:
    kind, server = doomed
    proxy = FaultProxy(server.host, server.port)
    await nursery.start(proxy.serve)
    await check(make_scene(kind, Stage(server, proxy), direct=True), trouble)


CUTS = {
    "reply reset": lambda length: Fault(cut_to_client=length),
    "reply closed": lambda length: Fault(cut_to_client=length, polite=True),
    "request reset": lambda length: Fault(cut_to_server=length),
    "request closed": lambda length: Fault(cut_to_server=length, polite=True),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_cut_after_every_byte(cut: Callable[[int], Fault], network: Scene) -> None:
    """An exchange that is cut off raises, at whichever byte; the next one gets its answer, on another connection."""
    subject, proxy = network.subject, network.stage.proxy
    losses, chance = Losses(), random.Random(0)
    async with opened_pool(subject, losses) as pool:
        await look(subject, pool, losses)
        for length in itertools.count():
            proxy.fault = cut(length)
            await use(subject, pool, losses, [f"cut after {length}"], chance, 0, 1)
            proxy.fault = PASS
            if losses.failed == length:
                break
            assert losses.failed == length + 1
            await use(subject, pool, losses, [f"after the cut after {length}"], chance, 0, 1)
            assert losses.failed == length + 1
        await look(subject, pool, losses)
    assert losses.failed > 10
    assert losses.strange == []
    assert losses.lost_slots == losses.wrong_answers == losses.orphans == 0, losses


@attrs.define(eq=False)
class Steps(trio.abc.Instrument):
    """Counts how often a task runs until it waits again."""

    task: trio.lowlevel.Task | None = None
    taken: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.taken += task is self.task


@pytest.mark.parametrize("fault", [Fault(silent=True), Fault(latency=0.5)], ids=["dead", "slow"])
async def test_a_cancelled_borrower_leaves_in_one_step(fault: Fault, network: Scene) -> None:
    """So it is gone as soon as Trio runs it, whatever has become of its server: nothing is awaited on the way out."""
    subject, proxy = network.subject, network.stage.proxy
    steps = Steps()

    async def borrow(pool: Lender, scope: trio.CancelScope) -> None:
        steps.task = trio.lowlevel.current_task()
        with scope:
            async with pool.acquire() as connection:
                await subject.ask(connection, "anybody there?")
        steps.task = None

    trio.lowlevel.add_instrument(steps)
    try:
        async with opened_pool(subject, Losses()) as pool:
            await look(subject, pool, Losses())
            proxy.fault = fault
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()
                nursery.start_soon(borrow, pool, scope)
                await trio.testing.wait_all_tasks_blocked(0.01)
                steps.taken = 0
                scope.cancel()
            proxy.fault = PASS
    finally:
        trio.lowlevel.remove_instrument(steps)
    assert scope.cancelled_caught
    assert steps.taken == 1
