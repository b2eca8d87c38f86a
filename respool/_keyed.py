"""One pool a key, under one budget.

A `KeyedPool` is a dictionary of ordinary pools that share a `Budget` and a nursery. A key's pool is made when somebody
acquires for it and forgotten as soon as it holds no resource and nobody waits, so that what exists is bounded by the
resources and the waiters, not by the keys there ever were.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import MappingProxyType
from typing import Any, Generic, TypeVar, Unpack

import attrs
import trio
from trio.lowlevel import enable_ki_protection

from ._budget import Budget
from ._errors import PoolClosed
from ._limits import Limits, Options, limits_from
from ._misuse import instruments_from, refuse_async_hooks
from ._pool import Pool
from ._queue import Priority
from ._statistics import PoolStatistics
from .abc import Adapter, Instrument

__all__ = ["KeyedPool", "KeyedPoolStatistics", "open_keyed_pool"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@attrs.frozen(kw_only=True)
class KeyedPoolStatistics(Generic[K]):
    """A keyed pool at one moment."""

    max_size: int
    """The limit on the resources of all keys together."""
    size: int
    """Resources of all keys, counted from before ``open`` until after ``close``. Never more than ``max_size``."""
    waiting: int
    """Tasks waiting to acquire, for any key."""
    keys: Mapping[K, PoolStatistics]
    """The statistics of each key that has resources or waiters. Totals start anew when a key has been forgotten."""


class KeyedPool(Generic[K, T]):
    """Lends resources of one kind by key. Made by `open_keyed_pool`; may be used by any number of tasks."""

    def __init__(
        self,
        adapter_for_key: Callable[[K], Adapter[T]],
        limits: Limits,
        budget: Budget,
        instruments: Sequence[Instrument],
    ) -> None:
        self.limits = limits
        """The options of each key's pool; its ``max_size`` is the limit per key."""
        self._adapter_for_key = adapter_for_key
        self._budget = budget
        self._instruments = instruments
        self._pools: dict[K, Pool[T]] = {}
        self._nursery: trio.Nursery
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._pools)} keys, {self._budget!r}"
        return f"<respool.KeyedPool {self.limits.name!r}: {state}>"

    def acquire(
        self,
        key: K,
        *,
        timeout: float | None = None,
        priority: Priority = Priority.NORMAL,
        transferable: bool = False,
        on_lent: Callable[[T], object] | None = None,
    ) -> AbstractAsyncContextManager[T]:
        """Borrow a resource of `key` for the length of an ``async with`` block. Otherwise as `Pool.acquire`.

        Raises, at once:
          PoolClosed: the keyed pool's block has ended or is ending.
          Exception: whatever ``adapter_for_key(key)`` raises.
        """
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pool(key)
        return pool.acquire(timeout=timeout, priority=priority, transferable=transferable, on_lent=on_lent)

    def room(self, key: K) -> int:
        """How many more resources of `key` could be opened now, at the cost of idle ones of other keys if need be.

        If there is none, whoever acquires waits until another returns one. Costs nothing to ask.
        """
        pool = self._pools.get(key)
        size = 0 if pool is None else len(pool._ledger.entries)
        return min(self.limits.max_size - size, self._budget.room())

    def retire_all(self) -> None:
        """Replace every resource of every key: idle ones now, lent ones when they come back."""
        for pool in list(self._pools.values()):
            pool.retire_all()

    def statistics(self) -> KeyedPoolStatistics[K]:
        """The pool at this moment: a frozen snapshot. Costs some microseconds a resource and a key."""
        keys = {key: pool.statistics() for key, pool in list(self._pools.items())}
        return KeyedPoolStatistics(
            max_size=self._budget.max_size,
            size=self._budget.size,
            waiting=sum(statistics.waiting for statistics in keys.values()),
            keys=MappingProxyType(keys),
        )

    @enable_ki_protection
    def _pool(self, key: K) -> Pool[T]:
        pool = self._pools.get(key)
        if pool is None:
            if self._closed:
                raise PoolClosed("the keyed pool is closed, or closing; acquire only inside open_keyed_pool()'s block")
            adapter = self._adapter_for_key(key)
            if not isinstance(adapter, Adapter):
                raise TypeError(f"adapter_for_key must return an Adapter, not {adapter!r}")
            refuse_async_hooks(adapter)
            pool = Pool(
                adapter,
                self.limits,
                budget=self._budget,
                instruments=self._instruments,
                when_empty=lambda: self._pools.pop(key, None),
                successor=lambda: self._pool(key),
            )
            pool._begin(self._nursery)
            self._pools[key] = pool
        return pool

    def _begin_to_end(self) -> None:
        self._closed = True
        for pool in self._pools.values():
            self._nursery.start_soon(_end, pool, name=f"respool {pool.name}: end")


async def _end(pool: Pool[Any]) -> None:
    with contextlib.suppress(trio.Cancelled):  # raised again by _running, outside the nursery, which would group it
        await pool._end()


def open_keyed_pool(
    adapter_for_key: Callable[[K], Adapter[T]],
    *,
    max_per_key: int | None = None,
    instruments: Sequence[Instrument] = (),
    **options: Unpack[Options],
) -> AbstractAsyncContextManager[KeyedPool[K, T]]:
    """Open a pool of pools, one a key (an HTTP origin, a tenant, a shard), for the length of an ``async with`` block.

    When the limit for all keys is reached, the coldest idle resource of any key is closed to make room; when none is
    idle, keys take turns (see `Budget`). A key costs nothing while it has neither resources nor waiters.

    Args:
      adapter_for_key: called with a key to get the adapter that opens its resources; again after the key was forgotten.
      max_per_key: resources of one key at one time. As many as ``max_size`` if not given.
      instruments: objects to be told what happens in the pools of all keys.
      options: see `Limits`; ``max_size`` limits all keys together, the rest applies to each. ``min_size`` must be 0.

    Raises:
      TypeError, ValueError: an option, or an instrument, is not what it should be.
    """
    if not callable(adapter_for_key):
        raise TypeError(f"adapter_for_key must be callable, not {type(adapter_for_key).__name__}")
    limits = limits_from(options)
    if limits.min_size:
        raise ValueError(f"min_size must be 0 in a keyed pool, not {limits.min_size}")
    budget = Budget(limits.max_size)
    if max_per_key is not None:
        limits = attrs.evolve(limits, max_size=max_per_key)
    return _running(adapter_for_key, limits, budget, instruments_from(instruments))


@asynccontextmanager
async def _running(
    adapter_for_key: Callable[[Any], Adapter[T]], limits: Limits, budget: Budget, instruments: Sequence[Instrument]
) -> AsyncIterator[KeyedPool[Any, T]]:
    pool: KeyedPool[Any, T] = KeyedPool(adapter_for_key, limits, budget, instruments)
    error_of_block: BaseException | None = None
    try:
        async with trio.open_nursery() as pool._nursery:
            try:
                yield pool
            except BaseException as error:  # noqa: BLE001  # raised again outside the nursery, which would group it
                error_of_block = error
            pool._begin_to_end()
    finally:
        for pool_of_key in pool._pools.values():
            pool_of_key._tell_ended()
    if error_of_block is not None:
        raise error_of_block
    await trio.lowlevel.checkpoint_if_cancelled()
