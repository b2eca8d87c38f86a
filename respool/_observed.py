"""What the integrations with metrics libraries have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ._budget import Budget
from ._pool import Pool

__all__ = ["STATES", "common_max_size"]

STATES = ("idle", "lent", "opening", "checking", "resetting", "closing")  # fields of PoolStatistics


def common_max_size(pools: Iterable[Pool[Any]]) -> int:
    """How many resources pools of the same name may have together: their sum, or less if they share a budget."""
    sizes: Counter[Budget | None] = Counter()
    for pool in pools:
        sizes[pool._ledger.budget] += pool.limits.max_size
    return sum(min(size, budget.max_size if budget else size) for budget, size in sizes.items())
