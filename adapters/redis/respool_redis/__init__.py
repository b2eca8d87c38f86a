"""Redis for respool: redis-py's commands over hiredis, natively on Trio."""

from __future__ import annotations

from ._adapter import RedisAdapter as RedisAdapter
from ._client import Redis as Redis
from ._client import open_redis as open_redis
from ._connection import Connection as Connection
from ._sentinel import Sentinel as Sentinel
from ._sentinel import SentinelAdapter as SentinelAdapter
from ._wire import NotSent as NotSent
