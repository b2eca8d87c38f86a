"""Connection and resource pooling for Trio."""

from __future__ import annotations

from ._budget import Budget
from ._callables import adapter
from ._errors import LeaseRevoked, OpenFailed, PoolClosed, PoolDeadlock, PoolError, PoolOverloaded, PoolTimeout
from ._keyed import KeyedPool, KeyedPoolStatistics, open_keyed_pool
from ._limits import Limits, Options
from ._pool import Pool, open_pool
from ._queue import Priority
from ._statistics import HistogramSnapshot, Holder, PoolStatistics
from .abc import Adapter, Instrument, Verdict

__all__ = [
    "Adapter",
    "Budget",
    "HistogramSnapshot",
    "Holder",
    "Instrument",
    "KeyedPool",
    "KeyedPoolStatistics",
    "LeaseRevoked",
    "Limits",
    "OpenFailed",
    "Options",
    "Pool",
    "PoolClosed",
    "PoolDeadlock",
    "PoolError",
    "PoolOverloaded",
    "PoolStatistics",
    "PoolTimeout",
    "Priority",
    "Verdict",
    "adapter",
    "open_keyed_pool",
    "open_pool",
]
