"""For adapters that read raw sockets. Named after `trio.lowlevel`, which it is a thin layer over."""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from typing import Final, Protocol

import trio
from trio.lowlevel import checkpoint, wait_readable

__all__ = ["SocketWatch"]

_MOST_LUCK: Final = 4  # misses in a row, after a series of hits, before looking is given up
_PAUSE: Final = 16  # waits until looking is tried again


class _HasFileno(Protocol):
    def fileno(self) -> int: ...


class SocketWatch:
    """Waits for one socket to become readable, again and again, at less cost than `trio.lowlevel.wait_readable`.

    To wait through the event loop takes a system call to register the socket, one to be told, and a wake-up. While a
    loop is busy with other tasks, an answer has often arrived by the time the task's next turn comes. So the task lets
    the others have their turn and looks first, as in adaptive spinning. Where that is in vain, because the loop is idle
    or the server far away, the wait costs half as much again; so it is done only while it pays, which a saturating
    counter tells, as in branch prediction (J. E. Smith, "A study of branch prediction strategies", 1981).

    Args:
      sock: an open socket, or its file descriptor. It stays the caller's.
    """

    __slots__ = ("_fd", "_interruptions", "_luck", "_poll")

    def __init__(self, sock: int | _HasFileno) -> None:
        self._fd = sock if isinstance(sock, int) else sock.fileno()
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        self._poll: Callable[[float], list[tuple[int, int]]] = poll.poll
        self._luck = 0  # looks are tried while it is not negative
        self._interruptions = 0

    def is_readable(self) -> bool:
        """Whether something has arrived, if only the end of the stream or an error. Does not wait."""
        return bool(self._poll(0))

    def read_if_likely(self, read: Callable[[int], bytes], size: int) -> bytes | None:
        """What ``read(size)`` returns if something has arrived, ``None`` if not or if that has proved unlikely.

        The look of `wait_readable` without the turn before it, for a task that has let others have theirs since it
        sent its request; and without a system call to ask first. `read` is a non-blocking socket's ``recv``.
        """
        if self._luck < 0:
            return None
        try:
            data = read(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self._missed()
            return None
        self._luck += self._luck < _MOST_LUCK
        return data

    async def wait_readable(self) -> None:
        """Wait until something has arrived. Always a checkpoint; may return without cause, so be ready to wait again.

        Raises:
          trio.ClosedResourceError: `interrupt` was called meanwhile.
          trio.BusyResourceError: another task waits for this socket. Not always noticed.
        """
        if self._luck < 0:
            self._luck += 1
        else:
            interruptions = self._interruptions
            await checkpoint()
            if self._interruptions != interruptions:
                raise trio.ClosedResourceError("another task closed this socket")
            if self._poll(0):
                self._luck += self._luck < _MOST_LUCK
                return
            self._missed()
        await wait_readable(self._fd)

    def _missed(self) -> None:
        self._luck = self._luck - 1 if self._luck else -_PAUSE

    def interrupt(self) -> None:
        """Make whoever waits for the socket, to read it or to write to it, leave with `trio.ClosedResourceError`."""
        if self._poll is not _closed:  # or the number may be another socket's by now
            self._interruptions += 1
            trio.lowlevel.notify_closing(self._fd)

    def close(self) -> None:
        """Interrupt, and watch no more. Call it before the socket is closed; to call it again does nothing.

        From then on the socket counts as readable, because reading it will say that it is closed.
        """
        self.interrupt()
        self._poll = _closed
        self._luck = 0


def _closed(_: float) -> list[tuple[int, int]]:
    return [(-1, select.POLLNVAL)]
