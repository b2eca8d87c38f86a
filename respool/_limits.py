"""A pool's options: one frozen value, validated once."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from typing import Any, TypedDict

import attrs

__all__ = ["Limits", "Options", "limits_from"]

# Seconds. What is over sooner is over before it can be of use: resources too old to be lent as soon as they are open,
# upkeep that does nothing but look at the clock.
_SHORTEST = 0.001

_LIKENESS = 0.8  # of 1, of a name worth suggesting: a wrong guess misleads more than none


def _count(minimum: int, *, unlimited: bool = False) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if unlimited and value == math.inf:
            return
        rule = f"an int >= {minimum}" + (", or math.inf for no limit" if unlimited else "")
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{attribute.name} must be {rule}, not {value!r}")
        if value < minimum:
            raise ValueError(f"{attribute.name} must be {rule}, not {value!r}")

    return check


def _seconds(minimum: float = 0, *, finite: bool = False) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        rule = f"a {'finite ' if finite else ''}number of seconds >= {minimum:g}"
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(f"{attribute.name} must be {rule}, not {value!r}")
        if not value >= minimum or (finite and math.isinf(value)):  # nan is not >= anything
            raise ValueError(f"{attribute.name} must be {rule}, not {value!r}")

    return check


def _is_a(kind: type) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not isinstance(value, kind):
            raise TypeError(f"{attribute.name} must be a {kind.__name__}, not {value!r}")

    return check


class Options(TypedDict, total=False):
    """The keyword options of `respool.open_pool`: the fields of `Limits`, which documents and checks them."""

    name: str
    min_size: int
    max_size: int
    reserved: int
    max_waiting: float
    max_opening: int
    acquire_timeout: float
    max_lifetime: float
    max_idle: float
    max_uses: float
    validate_after: float
    open_timeout: float
    reset_timeout: float
    close_timeout: float
    drain_timeout: float
    max_hold: float
    warn_hold: float
    fail_fast: bool
    record_stacks: bool


@attrs.frozen(kw_only=True)
class Limits:
    """How many resources a pool may hold, and for how long anything may last.

    Durations are in seconds, counts are integers, and ``math.inf`` means no limit where a limit is optional. Where 0
    would make no sense, the shortest duration is a millisecond. Names follow psycopg_pool and asyncpg.

    Raises:
      TypeError, ValueError: naming the option, the value and the rule it broke.
    """

    name: str = attrs.field(default="", validator=_is_a(str))
    """What logs, errors and metrics call the pool. Empty: the adapter's own name."""

    min_size: int = attrs.field(default=0, validator=_count(0))
    """Resources kept open even when nobody needs them. They are opened in the background."""

    max_size: int = attrs.field(default=10, validator=_count(1))
    """Resources the pool ever has at one time, counted from before ``open`` until after ``close``."""

    reserved: int = attrs.field(default=0, validator=_count(0))
    """Resources of ``max_size`` that only `Priority.URGENT` leases may use, so that no surge can starve them."""

    max_waiting: float = attrs.field(default=math.inf, validator=_count(0, unlimited=True))
    """Tasks that may wait for others to be done; the next is refused with `PoolOverloaded`. Those for whom a resource
    is being opened or validated, or can be, come on top."""

    max_opening: int = attrs.field(default=3, validator=_count(1))
    """Resources being opened at one time. Bounds the connect storm after a restart (MongoDB's ``maxConnecting``)."""

    acquire_timeout: float = attrs.field(default=30.0, validator=_seconds())
    """Longest wait of one acquire, unless the call says otherwise. Only waiting is limited: never the use."""

    max_lifetime: float = attrs.field(default=3600.0, validator=_seconds(_SHORTEST))
    """Age at which a resource is closed once nobody uses it. Each resource's own limit is up to 10 % shorter, drawn
    at random, so that what was opened together does not end together."""

    max_idle: float = attrs.field(default=600.0, validator=_seconds(_SHORTEST))
    """Idle time after which a resource is closed, as long as ``min_size`` remain."""

    max_uses: float = attrs.field(default=math.inf, validator=_count(1, unlimited=True))
    """Leases after which a resource is closed."""

    validate_after: float = attrs.field(default=30.0, validator=_seconds())
    """Idle time after which a resource is validated before it is lent. 0 validates every time an idle resource is
    lent, ``math.inf`` never. `Adapter.is_clean` is asked in any case; where an adapter has one, it already
    notices a peer that closed."""

    open_timeout: float = attrs.field(default=10.0, validator=_seconds(_SHORTEST, finite=True))
    """Longest time one ``open`` may take."""

    reset_timeout: float = attrs.field(default=5.0, validator=_seconds(_SHORTEST, finite=True))
    """Longest time one ``reset`` or ``validate`` may take. A resource that takes longer is discarded."""

    close_timeout: float = attrs.field(default=5.0, validator=_seconds(finite=True))
    """Longest time one ``close`` may be polite; then it is cancelled, which makes it forceful."""

    drain_timeout: float = attrs.field(default=10.0, validator=_seconds())
    """How long the end of `open_pool`'s block waits for outstanding leases before it closes their resources."""

    max_hold: float = attrs.field(default=math.inf, validator=_seconds(_SHORTEST))
    """Longest time a lease may last. Then its block is cancelled and ends in `LeaseRevoked`. Costs a cancel scope a
    lease."""

    warn_hold: float = attrs.field(default=math.inf, validator=_seconds(_SHORTEST))
    """Time after which a lease that is still held is reported in the log, once, with its task and how long it has
    held the resource: most likely a leak."""

    fail_fast: bool = attrs.field(default=False, validator=_is_a(bool))
    """While resources cannot be opened and none is in use, end every acquire in `OpenFailed` at once instead of
    letting it wait for the server to come back."""

    record_stacks: bool = attrs.field(default=False, validator=_is_a(bool))
    """Remember where each lease was acquired, for error messages. Costs some microseconds a lease."""

    def __attrs_post_init__(self) -> None:
        if self.min_size > self.max_size:
            raise ValueError(f"min_size must be <= max_size ({self.max_size}), not {self.min_size}")
        if self.reserved >= self.max_size:
            raise ValueError(f"reserved must be < max_size ({self.max_size}), not {self.reserved}")


def limits_from(options: Options) -> Limits:
    """The limits with these options. Raises TypeError for a name that is not one, with the nearest that is."""
    for name in options:
        if name not in Options.__annotations__:
            near = difflib.get_close_matches(name, Options.__annotations__, n=1, cutoff=_LIKENESS)
            raise TypeError(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return Limits(**options)
