"""One limit for several pools.

Each pool's ledger asks before it opens and tells when a resource is gone. When there is no room, the coldest idle
resource of any pool makes some; and a pool with more than its part gives up a resource at check-in rather than lend it
again. Synchronous, like the ledgers it serves.

Every step costs the same however many pools there are, except that finding an idle resource to close skips those
that their pools' ``min_size`` protects.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from ._entry import Discard, Entry

if TYPE_CHECKING:
    from ._ledger import Ledger  # which imports this module

__all__ = ["Budget"]


class Budget:
    """A limit on the resources of several pools together: pass it to each as ``open_pool(..., budget=budget)``.

    An idle resource of one pool is closed when a task waits for another pool. When all are lent, pools take turns:
    a pool that has at least two resources more than one with tasks waiting gives one up at check-in, and so does any
    pool to one that has none at all and whose first waiter came before its own. None gives up what its ``min_size``
    keeps. Pools in one process and one event loop only.

    Args:
      max_size: resources all the pools together ever have at one time.

    """

    def __init__(self, max_size: int) -> None:
        if not isinstance(max_size, int) or isinstance(max_size, bool):
            raise TypeError(f"max_size must be an int >= 1, not {max_size!r}")
        if max_size < 1:
            raise ValueError(f"max_size must be an int >= 1, not {max_size!r}")
        self.max_size = max_size
        """The limit."""
        self.size = 0
        """Resources that the pools have now, counted from before ``open`` until after ``close``."""
        self._protected = 0  # sum of the pools' min_size
        self._idle: OrderedDict[Entry[Any], Ledger[Any]] = OrderedDict()  # of all pools, coldest first
        # Pools with waiters but no room for what they need, in turn: those that have nothing at all come first.
        self._starving: OrderedDict[Ledger[Any], None] = OrderedDict()
        self._wanting: OrderedDict[Ledger[Any], None] = OrderedDict()
        self._filling: OrderedDict[Ledger[Any], None] = OrderedDict()  # pools that lack only what min_size asks for
        self._leaving: set[Entry[Any]] = set()  # being closed to make room

    def __repr__(self) -> str:
        waiting = len(self._starving) + len(self._wanting)
        return f"<respool.Budget: {self.size} of {self.max_size}, {waiting} pools waiting>"

    def reserve(self, min_size: int) -> None:
        """A pool begins to ask for `min_size` resources, or for so many more, or fewer."""
        if min_size > 0 and self._protected + min_size >= self.max_size:
            raise ValueError(
                f"the min_size of all pools that share a budget must add up to less than its max_size "
                f"({self.max_size}), not {self._protected + min_size}"
            )
        self._protected += min_size

    def room(self) -> int:
        """How many more resources the pools could open, if all that are idle made room as those do that are leaving."""
        return self.max_size - self.size + len(self._idle) + len(self._leaving)

    def take(self, ledger: Ledger[Any], now: float, *, waited_for: bool) -> bool:
        """Ask for room for one resource of `ledger`'s. If there is none, it is called when its turn has come."""
        if self.size < self.max_size:
            self.size += 1
            return True
        if not waited_for:
            self._filling.setdefault(ledger)
        else:
            line, other = (self._wanting, self._starving) if ledger.entries else (self._starving, self._wanting)
            line.setdefault(ledger)
            other.pop(ledger, None)
            self.make_room()
        return False

    def release(self, entry: Entry[Any], now: float) -> None:
        """`entry`'s resource is gone."""
        self._leaving.discard(entry)
        self.size -= 1
        while (line := self._starving or self._wanting or self._filling) and self.size < self.max_size:
            ledger, _ = line.popitem(last=False)
            ledger.provide(now)
            ledger.nudge()

    def contended(self) -> bool:
        """Whether a pool waits for room. Asked at every check-in."""
        return bool(self._starving or self._wanting)

    def must_give_way(self, ledger: Ledger[Any], entry: Entry[Any]) -> bool:
        """Whether `ledger` should close a resource it has just got back, in favour of the pool whose turn it is."""
        if not self.contended():
            return False
        needy = self._next_needy(besides=ledger)
        if needy is None or not ledger.can_spare_one():
            return False
        give = (
            not ledger.entitled()
            or len(ledger.entries) > len(needy.entries) + 1
            or (not needy.entries and needy.queue.oldest_since() < ledger.queue.oldest_since())
        )
        if give:
            self._leaving.add(entry)
        return give

    def now_idle(self, entry: Entry[Any], ledger: Ledger[Any]) -> None:
        self._idle[entry] = ledger

    def not_idle(self, entry: Entry[Any]) -> None:
        del self._idle[entry]

    def _next_needy(self, *, besides: Ledger[Any] | None = None) -> Ledger[Any] | None:
        """Whose turn it is to get the next room, unless enough is being made already."""
        for line in (self._starving, self._wanting):
            for needy in list(line):
                if not needy.entitled():
                    del line[needy]  # its waiters have been served otherwise, have left, or are held back
                elif needy is not besides:
                    return needy if len(self._starving) + len(self._wanting) > len(self._leaving) else None
        return None

    def make_room(self) -> None:
        """Have the coldest idle resource closed that may be, if a pool waits for room that nobody is making yet."""
        if self._next_needy() is None:
            return
        for entry, ledger in self._idle.items():
            if ledger.can_spare_one():
                self._leaving.add(entry)
                ledger.take_idle(entry)
                ledger.discard(entry, Discard.MADE_ROOM)
                ledger.nudge()
                return
