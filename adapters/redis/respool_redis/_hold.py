"""A connection of one's own, from the first use until it is let go."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._commands import RedisCommands
    from ._connection import Connection

__all__ = ["Hold"]


class Hold:
    """What a pipeline that watches, a subscriber and a monitor have in common: they keep one connection for a while.

    From a pool this is a lease; from a `Connection` it is that connection.
    """

    def __init__(self, source: RedisCommands) -> None:
        self._source = source
        self._stack = AsyncExitStack()
        self.connection: Connection | None = None

    async def take(self) -> Connection:
        """The connection held; taken now if there is none."""
        if self.connection is None:
            self.connection = await self._stack.enter_async_context(self._source._own_connection())
        return self.connection

    async def let_go(self, error: BaseException | None = None) -> None:
        """Give the connection back, saying which error ended its use. No connection: nothing happens."""
        self.connection = None
        stack, self._stack = self._stack, AsyncExitStack()
        if error is None:
            await stack.aclose()
        else:
            await stack.__aexit__(type(error), error, error.__traceback__)
