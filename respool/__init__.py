"""Connection and resource pooling for Trio."""

from __future__ import annotations

from ._budget import Budget as Budget
from ._callables import adapter as adapter
from ._errors import LeaseRevoked as LeaseRevoked
from ._errors import OpenFailed as OpenFailed
from ._errors import PoolClosed as PoolClosed
from ._errors import PoolDeadlock as PoolDeadlock
from ._errors import PoolError as PoolError
from ._errors import PoolOverloaded as PoolOverloaded
from ._errors import PoolTimeout as PoolTimeout
from ._keyed import KeyedPool as KeyedPool
from ._keyed import KeyedPoolStatistics as KeyedPoolStatistics
from ._keyed import open_keyed_pool as open_keyed_pool
from ._limits import Limits as Limits
from ._limits import Options as Options
from ._pool import Pool as Pool
from ._pool import open_pool as open_pool
from ._queue import Priority as Priority
from ._statistics import HistogramSnapshot as HistogramSnapshot
from ._statistics import Holder as Holder
from ._statistics import PoolStatistics as PoolStatistics
from .abc import Adapter as Adapter
from .abc import Instrument as Instrument
from .abc import Verdict as Verdict
