"""Waiting on Trio for what psycopg's generators ask for.

psycopg's protocol code is generators that never wait: they yield `Wait.R`, `Wait.W` or both, and are sent a `Ready`
once the socket is. psycopg has one driver for them per world (select, poll, asyncio); here is Trio's.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from psycopg import errors as e
from psycopg.abc import PQGenConn
from psycopg.waiting import Ready

__all__ = ["READ_OR_WRITE", "ExchangeLock", "readiness", "run_unconnected", "surplus", "wait_for"]

RV = TypeVar("RV")

READ_OR_WRITE = select.POLLIN | select.POLLOUT

# psycopg gives Wait and Ready the same numbers: what is wanted and what is ready compare as they are.
_READY_R = Ready.R
_READY_W = Ready.W

_MAX_WELCOME = 1 << 20  # bytes from connecting to being connected, certificates included
_TCP_INFO = struct.Struct("=120x QQ")  # of Linux's struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received


class ExchangeLock:
    """Keeps exchanges on one connection apart, first come, first served. Stands in for psycopg's ``asyncio.Lock``.

    Taking it while it is free is not a checkpoint: what is done under it always is. `fresh` tells the holder's first
    wait that an exchange begins here, so that anything still under way was left behind by somebody else.
    """

    __slots__ = ("_holder", "_waiting", "fresh")

    def __init__(self) -> None:
        self._holder: trio.lowlevel.Task | None = None
        self._waiting = trio.lowlevel.ParkingLot()
        self.fresh = False

    def locked(self) -> bool:
        """Whether an exchange is under way."""
        return self._holder is not None

    async def __aenter__(self) -> None:
        task = trio.lowlevel.current_task()
        if self._holder is None:
            self._holder = task
        elif self._holder is task:
            raise RuntimeError(
                "this task already has an operation open on this connection: leave the notifies(), stream() or copy() "
                "it is in first, or use a second connection"
            )
        else:
            await self._waiting.park()
        self.fresh = True

    async def __aexit__(self, *_: object) -> None:
        self.fresh = False
        if self._waiting:
            (self._holder,) = self._waiting.unpark(count=1)
        else:
            self._holder = None


def readiness(poll: select.poll, wants: int) -> int:
    """What `poll` finds ready right now of what is wanted. Asks the kernel once, and never waits."""
    ready = 0
    for _, events in poll.poll(0):
        if events & ~READ_OR_WRITE:
            return wants  # an error or a hang-up: libpq finds out by itself when it touches the socket
        ready |= (_READY_R if events & select.POLLIN else 0) | (_READY_W if events & select.POLLOUT else 0)
    return ready & wants


async def wait_for(fd: int, wants: int) -> int:
    """Wait until `fd` is ready for some of what is wanted, and say for which."""
    if wants == _READY_R:
        await trio.lowlevel.wait_readable(fd)
        return _READY_R
    if wants == _READY_W:
        await trio.lowlevel.wait_writable(fd)
        return _READY_W
    return await _readable_or_writable(fd)


async def _readable_or_writable(fd: int) -> int:
    """Wait for either. Two tasks, because one can wait for only one: needed only when the socket's buffer is full."""
    ready = 0

    async def wait_one(wait: Callable[[int], Awaitable[None]], state: int) -> None:
        nonlocal ready
        await wait(fd)
        ready |= state
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_one, trio.lowlevel.wait_readable, _READY_R)
            nursery.start_soon(wait_one, trio.lowlevel.wait_writable, _READY_W)
    except BaseExceptionGroup as group:
        await trio.lowlevel.checkpoint_if_cancelled()  # cancelled: leave as one plain Cancelled, not as a group
        raise group.exceptions[0] from None
    return ready


def surplus(fd: int) -> int:
    """How many bytes more than it was sent the peer of a TCP connection has sent. 0 where the kernel does not say."""
    if sys.platform != "linux":
        return 0
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=fd)
    try:
        sent, received = _TCP_INFO.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
    except (OSError, struct.error):
        return 0  # a Unix socket, or a kernel before 4.1
    finally:
        sock.detach()
    return int(received) - int(sent)


async def run_unconnected(generator: PQGenConn[RV]) -> RV:
    """Drive a generator that opens its own socket, such as psycopg's connect. Interrupted, its socket is closed."""
    try:
        fd, wants = next(generator)
        while True:
            ready = await wait_for(fd, wants)
            if surplus(fd) > _MAX_WELCOME:
                raise e.OperationalError("the server says too much before it lets anybody in")
            fd, wants = generator.send(ready)
    except StopIteration as done:
        value: RV = done.value
        return value
    except OSError as error:
        raise e.OperationalError("connection socket closed") from error
    finally:
        generator.close()
