"""What the demo has to know of a server and its adapter."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from respool import Adapter

ROWS = 1000
SLOWLY = 0.02  # seconds


def right_answer(key: int) -> int:
    """What every server here answers to `key`."""
    return key * 7919 % 10007


class Unavailable(Exception):
    """The server cannot be shown on this machine. The message is one line that says what to do."""


@attrs.frozen(kw_only=True)
class Subject:
    """A server that is running, and how to use it."""

    title: str
    adapter: Adapter[Any]
    ask: Callable[[Any, int], Awaitable[int]]
    """One request on one connection: its answer must be `right_answer` of the key."""
    ask_slowly: Callable[[Any, int], Awaitable[int]]
    """The same, but it keeps the server busy for `SLOWLY` seconds."""
    failures: tuple[type[Exception], ...]
    """What connecting and asking raise when the server is not there."""
    count: Callable[[], Awaitable[tuple[int, int]]]
    """As the server itself counts them: connections, and requests it is working on. Raises `failures`."""
    restart: Callable[[], Awaitable[None]]
    """Take the server away and bring it back."""
    examples: str = ""
    """What the names of its adapter's examples begin with, if it has some."""
    url: str = ""
    """The server's, for the examples."""
    recovers: bool = True
    """Whether a connection can be used on after a request on it was cancelled. HTTP/1.1 has no way to tell where the
    next answer begins, so there it is replaced."""
