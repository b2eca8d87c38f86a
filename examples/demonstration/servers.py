"""Real servers, started on free ports and thrown away."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from tests.servers import Server, ServerNotInstalled

from .subject import Unavailable

S = TypeVar("S", bound=Server)


@asynccontextmanager
async def started(make: Callable[[], S]) -> AsyncIterator[S]:
    """Run the server that `make` makes for the length of the block.

    Raises:
      Unavailable: it is not installed.
    """
    try:
        server = await trio.to_thread.run_sync(make)
        try:
            yield await server.start_async()
        finally:
            server.close()
    except ServerNotInstalled as error:
        raise Unavailable(str(error)) from error
