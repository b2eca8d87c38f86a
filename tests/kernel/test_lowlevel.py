"""`respool.lowlevel.SocketWatch`: when it looks, when it waits, and whom it lets go."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from respool.lowlevel import SocketWatch
from respool.testing import cancel_everywhere


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets, the first of which is watched."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


class Requests:
    """Awaits a coroutine, and keeps the names of what it asks of Trio on the way.

    `meanwhile` is called once, after the first of these: it is what other tasks do before the coroutine's next turn.
    """

    def __init__(self, coroutine: Coroutine[object, Any, None], meanwhile: Callable[[], object] = bool) -> None:
        self.coroutine = coroutine
        self.meanwhile = meanwhile
        self.names: list[str] = []

    def __await__(self) -> Generator[object, Any, list[str]]:
        answer = None
        while True:
            try:
                request = self.coroutine.send(answer)
            except StopIteration:
                return self.names
            self.names.append(getattr(request, "__name__", type(request).__name__))
            if len(self.names) == 1:
                self.meanwhile()
            answer = yield request


LOOK = ["CancelShieldedCheckpoint"]
WAIT = ["WaitTaskRescheduled"]


async def cancelled(watch: SocketWatch) -> None:
    """Wait, cancelled already."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await watch.wait_readable()
    assert scope.cancelled_caught


async def test_what_arrives_by_the_next_turn_needs_no_event_loop(ends: tuple[socket.socket, socket.socket]) -> None:
    """An answer that comes while other tasks have their turn is found by looking."""
    ours, theirs = ends
    watch = SocketWatch(ours)
    assert await Requests(watch.wait_readable(), lambda: theirs.send(b"x")) == LOOK
    assert ours.recv(1) == b"x"


async def test_a_look_is_a_checkpoint(ends: tuple[socket.socket, socket.socket]) -> None:
    """A cancelled task leaves, even if there is something to be read."""
    ours, theirs = ends
    watch = SocketWatch(ours)
    theirs.send(b"x")
    with assert_checkpoints():
        await watch.wait_readable()
    await cancelled(watch)


async def test_what_is_late_is_waited_for(ends: tuple[socket.socket, socket.socket]) -> None:
    """A look in vain is followed by a wait as long as it takes."""
    ours, theirs = ends
    watch = SocketWatch(ours.fileno())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.wait_readable)
        await wait_all_tasks_blocked()
        assert not watch.is_readable()
        theirs.send(b"x")
    assert watch.is_readable()


async def test_looking_is_given_up_while_it_does_not_pay(ends: tuple[socket.socket, socket.socket]) -> None:
    """After a miss the next sixteen waits go straight to the event loop; after hits it takes five misses."""
    ours, theirs = ends
    watch = SocketWatch(ours)

    async def answer() -> None:
        await wait_all_tasks_blocked()
        theirs.send(b"x")

    async def arrives_late() -> list[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            requests = await Requests(watch.wait_readable())
        ours.recv(1)
        return requests

    assert await arrives_late() == LOOK + WAIT
    for _ in range(16):
        assert await arrives_late() == WAIT
    theirs.send(b"x")
    for _ in range(9):
        assert await Requests(watch.wait_readable()) == LOOK
    ours.recv(1)
    for _ in range(5):
        assert await arrives_late() == LOOK + WAIT
    assert await arrives_late() == WAIT


@pytest.mark.parametrize("looking", [False, True])
@pytest.mark.parametrize("end", ["interrupt", "close"])
async def test_who_waits_can_be_interrupted(
    ends: tuple[socket.socket, socket.socket], end: str, *, looking: bool
) -> None:
    """Whether it looks, even if there is something to see, or waits."""
    ours, theirs = ends
    watch = SocketWatch(ours)
    interrupt = getattr(watch, end)
    if not looking:
        await cancelled(watch)
    else:
        theirs.send(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await Requests(watch.wait_readable(), interrupt)


async def test_a_closed_socket_is_readable(ends: tuple[socket.socket, socket.socket]) -> None:
    """Whoever comes too late is sent to read, which fails, and does not wait for a stranger with the same number."""
    ours, _ = ends
    watch = SocketWatch(ours)
    await cancelled(watch)
    stranger, silent = socket.socketpair()
    number = ours.fileno()
    watch.close()
    ours.close()
    os.dup2(stranger.fileno(), number)
    with stranger, silent, socket.socket(fileno=number) as theirs_now:
        for _ in range(20):
            with assert_checkpoints():
                await watch.wait_readable()
            assert watch.is_readable()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, theirs_now)
            await wait_all_tasks_blocked()
            watch.close()
            silent.send(b"x")


async def test_cancelled_anywhere_it_can_be_used_again(ends: tuple[socket.socket, socket.socket]) -> None:
    """No wait is left behind in the event loop."""
    ours, theirs = ends
    watch = SocketWatch(ours)

    async def wait() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.wait_readable)
            await wait_all_tasks_blocked()
            theirs.send(b"x")

    async def usable() -> None:
        if watch.is_readable():
            ours.recv(16)
        theirs.send(b"x")
        await watch.wait_readable()
        ours.recv(16)

    await cancel_everywhere(wait, check=usable)


async def test_reading_right_away_counts_as_a_look(ends: tuple[socket.socket, socket.socket]) -> None:
    """It is given up as looking is, and tried again as looking is."""
    ours, theirs = ends
    watch = SocketWatch(ours)
    theirs.send(b"12")
    assert watch.read_if_likely(ours.recv, 1) == b"1"
    assert watch.read_if_likely(ours.recv, 1) == b"2"
    for _ in range(3):
        assert watch.read_if_likely(ours.recv, 1) is None  # the third is one too many
    theirs.send(b"3")
    for _ in range(16):
        assert watch.read_if_likely(ours.recv, 1) is None
        await Requests(watch.wait_readable())
    assert watch.read_if_likely(ours.recv, 1) == b"3"


async def test_the_end_of_the_stream_is_something_to_read(ends: tuple[socket.socket, socket.socket]) -> None:
    """And so is an error; only what would block is nothing."""
    ours, theirs = ends
    watch = SocketWatch(ours)
    theirs.close()
    assert watch.read_if_likely(ours.recv, 1) == b""
    watch.close()
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        watch.read_if_likely(ours.recv, 1)
