"""Connection and resource pooling for Trio."""

from __future__ import annotations

from ._callables import adapter as adapter
from ._errors import OpenFailed as OpenFailed
from ._errors import PoolClosed as PoolClosed
from ._errors import PoolError as PoolError
from ._errors import PoolOverloaded as PoolOverloaded
from ._errors import PoolTimeout as PoolTimeout
from ._limits import Limits as Limits
from ._limits import Options as Options
from ._pool import Pool as Pool
from ._pool import open_pool as open_pool
from ._statistics import HistogramSnapshot as HistogramSnapshot
from ._statistics import Holder as Holder
from ._statistics import PoolStatistics as PoolStatistics
from .abc import Adapter as Adapter
from .abc import Verdict as Verdict
