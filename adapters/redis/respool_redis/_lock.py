"""redis-py's distributed lock, waiting and cleaning up as Trio does."""

from __future__ import annotations

import uuid

import redis.asyncio.lock
import trio
from redis.typing import Number

__all__ = ["Lock"]

_RELEASE_TIMEOUT = 1.0  # seconds a cancelled holder may spend on giving the lock back


class Lock(redis.asyncio.lock.Lock):
    """A lock that any number of processes share through one Redis server. See `RedisCommands.lock`."""

    async def acquire(
        self,
        blocking: bool | None = None,
        blocking_timeout: Number | None = None,
        token: str | bytes | None = None,
    ) -> bool:
        """Get the lock. False if it was not free, or did not become free within `blocking_timeout` seconds."""
        token = uuid.uuid4().hex.encode() if token is None else self.redis.get_encoder().encode(token)
        blocking = self.blocking if blocking is None else blocking
        limit = self.blocking_timeout if blocking_timeout is None else blocking_timeout
        give_up_at = None if limit is None else trio.current_time() + limit
        while not await self._try(token):
            if not blocking or (give_up_at is not None and trio.current_time() + self.sleep > give_up_at):
                return False
            await trio.sleep(self.sleep)
        return True

    async def _try(self, token: bytes) -> bool:
        self.local.token = token  # before asking: a cancelled caller may hold the lock without knowing
        if await self.do_acquire(token):
            return True
        self.local.token = None
        return False

    async def __aexit__(self, exc_type: object, exc_value: object, traceback: object) -> None:
        with trio.move_on_after(_RELEASE_TIMEOUT, shield=True):
            await super().__aexit__(exc_type, exc_value, traceback)  # type: ignore[no-untyped-call]
