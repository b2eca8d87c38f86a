"""What an adapter author implements: :class:`Adapter`, and the :class:`Verdict` it gives on errors."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from ._pool import Pool

__all__ = ["Adapter", "Instrument", "Verdict"]

T = TypeVar("T")


class Verdict(enum.Flag):
    """What an error says about the resource it came from, about its siblings, and about trying again.

    Members combine with ``|``; ``KEEP`` is the empty verdict. The idea is HikariCP's ``SQLExceptionOverride`` and
    SQLAlchemy's ``is_disconnect``, which know only the first two.
    """

    KEEP = 0
    """Nothing against the resource: `Adapter.is_clean` and `Adapter.reset` decide whether it is lent again."""

    DISCARD = enum.auto()
    """This resource must not be lent again."""

    RETIRE = enum.auto()
    """Nor may any other resource opened before now: the server is shutting down, or is no longer the primary."""

    PERMANENT = enum.auto()
    """Opening again with the same settings cannot help: wrong password, no such database."""


class Adapter(ABC, Generic[T]):
    """Knows how to open, validate, reset and close one kind of resource.

    Write `open` and `close`; override the rest as far as the protocol lets you. An adapter is a value: settings only,
    nothing about any one resource, because one adapter may serve several pools.

    The pool calls the asynchronous hooks from tasks of its own, each under a time limit (`respool.Limits`). They may
    be cancelled at any checkpoint, and must not block the event loop. Failure is an exception, never a return
    value, so that its reason survives into logs and statistics.
    """

    @property
    def name(self) -> str:
        """What a pool of these is called unless it is given a name. Never holds a secret.

        Adapters that know where they connect answer ``host:port/database``, as OpenTelemetry's conventions ask.
        """
        return type(self).__name__

    @property
    def leases_per_resource(self) -> int:
        """How many leases one resource serves at the same time. 1, the default, makes every lease exclusive.

        More is for protocols that multiplex. The pool then hands out what open resources have to spare before it
        opens more, the least loaded first; `is_clean` and `reset` are asked only when nobody holds the resource; and
        :attr:`Verdict.DISCARD` closes it under all who share it, whose operations must then fail.
        """
        return 1

    @abstractmethod
    async def open(self) -> T:
        """Open one resource, ready to be lent.

        If this raises or is cancelled, nothing may stay open: the pool has no handle to close.
        """

    @abstractmethod
    async def close(self, resource: T) -> None:
        """Close `resource`: politely if time allows, but always free its handle.

        The handle must be freed even if this is cancelled at its first checkpoint, if the resource is broken or in
        the middle of an exchange, and if it has been closed before. Trio's ``AsyncResource.aclose`` has the same
        contract: cancellation is the forceful mode, so no second method is needed.

        A pool that ends closes what is still lent, too (``drain_timeout``): whoever is waiting on the resource in that
        moment must be woken, and his operation end. Closing a socket wakes nobody; `trio.lowlevel.notify_closing` and
        `respool.lowlevel.SocketWatch.close` do, and so do Trio's own sockets and streams when they are closed.
        """

    async def validate(self, resource: T) -> None:
        """Make a round trip to prove that the peer is there. Return: may be lent. Raise: is discarded.

        Asked before a resource that has been idle for ``validate_after`` seconds is lent. The default believes in
        the resource.
        """

    async def reset(self, resource: T) -> None:
        """Undo the last borrower's traces, finishing or stopping any exchange left half done. Raise: is discarded.

        Asked whenever `is_clean` says no. Once it returns, `is_clean` must say yes. The default has nothing to undo.
        """

    def is_clean(self, resource: T) -> bool:
        """Whether `resource` may be lent as it is: no exchange or transaction under way, peer not gone, nothing unread.

        Asked at every check-in and every check-out, so it must be quick, and synchronous: no I/O that blocks. The
        default says yes.
        """
        return True

    def verdict(self, error: BaseException) -> Verdict:
        """What `error` says. Asked when `open` failed, and when an exception ended a borrower's block.

        Exception groups are taken apart by the pool, and the verdicts on their members combined. `trio.Cancelled`
        is asked about like any other exception.

        The default is :attr:`Verdict.DISCARD`: an adapter that knows nothing about an error cannot know either that
        the resource was not in the middle of an exchange. An adapter whose `is_clean` can tell returns
        :attr:`Verdict.KEEP`, and its resources outlive their borrowers' time-outs.
        """
        return Verdict.DISCARD


class Instrument:
    """Is told what happens in a pool, as it happens. Override what you care about; the rest does nothing.

    Pass instruments to `open_pool`. The hooks are synchronous and run in the middle of the pool's work: they must be
    quick, and must not use the pool. One that raises is logged and not called again; no borrower ever notices. A pool
    without instruments pays nothing for them. The pattern is Trio's ``trio.abc.Instrument``. Times are in seconds.
    """

    def started(self, pool: Pool[Any]) -> None:
        """The pool is ready. A keyed pool starts a pool when somebody acquires for a key that has none."""

    def ended(self, pool: Pool[Any]) -> None:
        """The pool is over. Nothing more is told of it.

        A keyed pool ends a key's pool as soon as it holds no resource and nobody waits.
        """

    def acquired(self, pool: Pool[Any], waited: float) -> None:
        """A lease has begun. `waited` is 0.0 if a resource was free."""

    def returned(self, pool: Pool[Any], used: float, error: BaseException | None) -> None:
        """A lease has ended; `error` is what ended its block, if anything did."""

    def refused(self, pool: Pool[Any], error: Exception) -> None:
        """An acquire has ended in `error`: time-out, overload, failed open, deadlock, or a closed pool."""

    def cancelled(self, pool: Pool[Any], waited: float) -> None:
        """A task was cancelled while it waited to acquire."""

    def opened(self, pool: Pool[Any], took: float) -> None:
        """A resource has been opened."""

    def open_failed(self, pool: Pool[Any], error: Exception) -> None:
        """A resource could not be opened."""

    def discarded(self, pool: Pool[Any], reason: str) -> None:
        """A resource is about to be closed. `reason` is a key of `PoolStatistics.discards`."""

    def closed(self, pool: Pool[Any], reason: str, age: float) -> None:
        """A resource has been closed, `age` seconds after it was opened; `reason` as it was told to `discarded`."""

    def recovered(self, pool: Pool[Any]) -> None:
        """A resource that was left unclean, or was idle for long, has been found or made fit to be lent again."""
