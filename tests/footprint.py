"""What a program holds: file descriptors, tasks, objects and memory; and what a server sees of it. Linux only."""

from __future__ import annotations

import contextlib
import enum
import functools
import gc
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path

import attrs
import trio
import trio.testing

__all__ = ["Footprint", "Peak", "connections_to", "resident_memory", "watch"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_COUNTED = re.compile("(respool|psycopg|pymysql|greenlet|redis|hiredis|httptools|socket)")


@attrs.frozen
class Footprint:
    """What there is at one moment. Compare two of them with `beyond`."""

    files: int
    """Open file descriptors."""
    tasks: int
    """Trio's tasks."""
    objects: Counter[str]
    """Objects of the pool, the adapters, their drivers and sockets, by type."""
    blocks: int
    """Pieces of memory that Python has allocated."""

    @classmethod
    async def take(cls) -> Footprint:
        """Look once everything that is about to end has ended."""
        await trio.testing.wait_all_tasks_blocked(0.01)
        _clear_caches()
        gc.collect()
        objects = Counter(
            f"{kind.__module__}.{kind.__qualname__}"
            for kind in map(type, gc.get_objects())
            if _COUNTED.match(str(kind.__module__)) and not issubclass(kind, (type, enum.Enum))
        )
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - no objects for each, while they are counted
        return cls(files, trio.lowlevel.current_statistics().tasks_living, objects, sys.getallocatedblocks())

    def beyond(self, before: Footprint) -> dict[str, int]:
        """What is here and was not there then, but for memory."""
        found = {"files": self.files - before.files, "tasks": self.tasks - before.tasks}
        found |= self.objects - before.objects
        return {what: count for what, count in found.items() if count > 0}


def _clear_caches() -> None:
    """What our bounded caches have come to hold is chance, and no leak."""
    caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)]
    for cache in caches:
        if cache.__module__.startswith("respool") and cache.cache_info().maxsize is not None:
            cache.cache_clear()


def resident_memory() -> int:
    """Bytes of memory in use by this process. The drivers' C code counts as well."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def connections_to(port: int) -> int:
    """Sockets of this process that are connected to a local port: what a server there sees of it, accepted or not."""
    found = 0
    for descriptor in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        with contextlib.suppress(OSError):  # not a socket, not connected, or closed since
            end = socket.socket(fileno=descriptor)
            try:
                found += end.family == socket.AF_INET and end.getpeername()[1] == port
            finally:
                end.detach()
    return found


@attrs.define
class Peak:
    """The most connections to a port that were seen at one time."""

    seen: int = 0


async def watch(port: int, task_status: trio.TaskStatus[Peak] = trio.TASK_STATUS_IGNORED) -> None:
    """Count the connections to a port again and again: ``peak = await nursery.start(watch, port)``."""
    peak = Peak()
    task_status.started(peak)
    while True:
        peak.seen = max(peak.seen, connections_to(port))
        await trio.sleep(0.005)
