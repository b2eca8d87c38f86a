"""Noticing that the process, or its machine, stood still while its clocks did not agree on it.

A suspended laptop or a frozen serverless function wakes up with connections that its peers gave up long ago, and with
a monotonic clock that may not have counted the time. The boot-time clock counts suspension; the wall clock, once it
has been set right, counts whatever happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["ClockWatch", "read_clocks"]

_TOLERANCE = 1.0  # seconds: more than clocks are ever slewed apart, less than any peer's patience


def read_clocks() -> tuple[float, ...]:
    """By how many seconds the other clocks are ahead of the monotonic one."""
    monotonic = time.monotonic()
    wall = time.time() - monotonic
    if hasattr(time, "CLOCK_BOOTTIME"):
        return wall, time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic
    return (wall,)


class ClockWatch:
    """Tells whether the clocks have moved against each other since it was last asked."""

    def __init__(self, read: Callable[[], tuple[float, ...]] = read_clocks) -> None:
        self._read = read
        self._seen = read()

    def jumped(self) -> bool:
        before, self._seen = self._seen, self._read()
        return any(abs(now - then) > _TOLERANCE for now, then in zip(self._seen, before, strict=True))
