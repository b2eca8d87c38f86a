"""Redis for respool: redis-py's commands over hiredis, natively on Trio."""

from __future__ import annotations

from ._adapter import RedisAdapter
from ._client import Redis, open_redis
from ._connection import Connection
from ._sentinel import Sentinel, SentinelAdapter
from ._wire import NotSent

__all__ = [
    "Connection",
    "NotSent",
    "Redis",
    "RedisAdapter",
    "Sentinel",
    "SentinelAdapter",
    "open_redis",
]
