"""Resources that are not there, behind an adapter that does what a test tells it to."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Literal, TypeAlias, TypeVar

import attrs
import trio

from respool.abc import Adapter, Verdict

__all__ = ["FakeResource", "Gate", "GatedAdapter", "GatedError", "Hook"]

R = TypeVar("R")

Gate: TypeAlias = Literal["ok", "error", "slow", "never"]
"""How one call of a hook goes: well; badly; well, after `GatedAdapter.slow` seconds; on until it is cancelled."""

Hook: TypeAlias = Literal["open", "validate", "reset", "close", "exchange"]


class GatedError(Exception):
    """What a `GatedAdapter` raises. Carries the verdict that the adapter will give on it."""

    def __init__(self, message: str, verdict: Verdict = Verdict.DISCARD) -> None:
        super().__init__(message)
        self.verdict = verdict


@attrs.define(eq=False)
class FakeResource:
    """One resource of a `GatedAdapter`: a connection to nowhere."""

    number: int
    """1 for the first that was opened."""

    dirty: bool = False
    """Set it to say that the borrower left traces: `reset` clears it."""

    broken: bool = False
    """Set it to say that the peer is gone: it is never clean again, and all hooks but ``close`` raise."""

    closed: bool = False
    """Set as soon as ``close`` begins."""

    unread: deque[object] = attrs.field(factory=deque)
    """Answers sent and not yet read, as after a cancelled exchange. `reset` reads and drops them."""

    users: int = 0
    """How many `GatedAdapter.lease` blocks it is in now."""

    hook: Hook | None = None
    """Which hook is at work on it now."""


@attrs.define(eq=False)
class GatedAdapter(Adapter[FakeResource]):
    """An adapter of fake resources: every hook goes as the test says, and whatever a pool may not do is written down.

    ::

        adapter = GatedAdapter(open="slow")     # every open takes a second of the mock clock
        adapter.script("open", "error", "ok")   # but the next fails, and the one after it is quick

        async with respool.open_pool(adapter) as pool:
            async with pool.acquire() as resource:
                with adapter.lease(resource):
                    assert await adapter.exchange(resource, "ping") == "ping"

        assert not adapter.faults
        assert adapter.present == 0

    Deterministic on `trio.testing.MockClock`. NimblePool's scripted workers and deadpool's gates are the models.
    """

    open_gate: Gate = attrs.field(default="ok", alias="open")
    validate_gate: Gate = attrs.field(default="ok", alias="validate")
    reset_gate: Gate = attrs.field(default="ok", alias="reset")
    close_gate: Gate = attrs.field(default="ok", alias="close")
    exchange_gate: Gate = attrs.field(default="ok", alias="exchange", kw_only=True)

    slow: float = attrs.field(default=1.0, kw_only=True)
    """Seconds that the gate ``"slow"`` takes."""

    leases: int = attrs.field(default=1, kw_only=True)
    """How many `lease` blocks may hold one resource at a time."""

    calls: list[str] = attrs.field(factory=list, init=False)
    """Every call of a hook in order, such as ``"reset 3"``: the hook and the number of the resource."""

    faults: list[str] = attrs.field(factory=list, init=False)
    """What no pool may do: lend a resource twice, closed or unclean; close it twice; call a hook while another runs."""

    resources: set[FakeResource] = attrs.field(factory=set, init=False)
    """Those opened and not yet closed."""

    present: int = attrs.field(default=0, init=False)
    """How many a server would see now: from before ``open`` until after ``close``."""

    most_present: int = attrs.field(default=0, init=False)
    """The most that were ever `present`."""

    opened: int = attrs.field(default=0, init=False)
    closed: int = attrs.field(default=0, init=False)
    closed_forcefully: int = attrs.field(default=0, init=False)
    """How many of `closed` were cancelled while being polite."""

    _scripts: dict[Hook, deque[Gate | Exception]] = attrs.field(factory=dict, init=False)

    def script(self, hook: Hook, *gates: Gate | Exception) -> None:
        """Say how the next calls of `hook` go, one by one. An exception is raised as it is; see `GatedError`."""
        self._scripts.setdefault(hook, deque()).extend(gates)

    def always(self, hook: Hook, gate: Gate) -> None:
        """Say how all further calls of `hook` go that are not scripted."""
        setattr(self, f"{hook}_gate", gate)

    @property
    def leases_per_resource(self) -> int:
        """`leases`."""
        return self.leases

    @contextlib.contextmanager
    def lease(self, resource: FakeResource) -> Iterator[None]:
        """Put this around what a borrower does in its block, so that wrong lending shows in `faults`."""
        if resource.users >= self.leases:
            self.faults.append(f"{resource.number} was lent to {resource.users + 1}")
        if not self.is_clean(resource) and resource.users == 0:
            self.faults.append(f"{resource.number} was lent unclean")
        self._check("lent", resource)
        resource.users += 1
        try:
            yield
        finally:
            resource.users -= 1

    async def exchange(self, resource: FakeResource, request: R) -> R:
        """Use `resource`: send `request`, wait, and read the answer, which is the request. The gate is ``exchange``.

        If it is cancelled or fails, its answer stays unread, and the next exchange gets it in place of its own.
        """
        self._expect_peer("exchange", resource)
        resource.unread.append(request)
        await self._pass("exchange")
        self._expect_peer("exchange", resource)
        answer: R = resource.unread.popleft()  # type: ignore[assignment] # a stranger's answer: what tests look for
        return answer

    async def open(self) -> FakeResource:
        """Open a resource. One that is cancelled or fails was `present` all the same."""
        self.present += 1
        self.most_present = max(self.most_present, self.present)
        self.calls.append("open")
        try:
            await self._pass("open")
        except BaseException:
            self.present -= 1
            raise
        self.opened += 1
        resource = FakeResource(self.opened)
        self.resources.add(resource)
        return resource

    async def validate(self, resource: FakeResource) -> None:
        """Find out whether the peer is there."""
        with self._working("validate", resource):
            await self._pass("validate")
            self._expect_peer("validate", resource)

    async def reset(self, resource: FakeResource) -> None:
        """Make it clean, unless the peer is gone."""
        with self._working("reset", resource):
            await self._pass("reset")
            self._expect_peer("reset", resource)
            resource.dirty = False
            resource.unread.clear()

    async def close(self, resource: FakeResource) -> None:
        """Close it; forcefully if this is cancelled. A second time does nothing but show in `faults`."""
        with self._working("close", resource):
            first, resource.closed = not resource.closed, True
            try:
                await self._pass("close")
            except trio.Cancelled:
                self.closed_forcefully += first
                raise
            finally:
                self.closed += first
                self.present -= first
                self.resources.discard(resource)

    def is_clean(self, resource: FakeResource) -> bool:
        """Whether it is open, and neither `dirty`, nor `broken`, nor has `unread` answers."""
        return not (resource.dirty or resource.broken or resource.closed or resource.unread)

    def verdict(self, error: BaseException) -> Verdict:
        """What a `GatedError` carries; otherwise KEEP, because `is_clean` knows."""
        return error.verdict if isinstance(error, GatedError) else Verdict.KEEP

    async def _pass(self, hook: Hook) -> None:
        script = self._scripts.get(hook)
        gate: Gate | Exception = script.popleft() if script else getattr(self, f"{hook}_gate")
        if gate == "slow":
            await trio.sleep(self.slow)
        elif gate == "never":
            await trio.sleep_forever()
        else:
            await trio.lowlevel.checkpoint()
        if isinstance(gate, Exception):
            raise gate
        if gate == "error":
            raise GatedError(f"{hook}: the gate says error")

    @contextlib.contextmanager
    def _working(self, hook: Hook, resource: FakeResource) -> Iterator[None]:
        self.calls.append(f"{hook} {resource.number}")
        if hook != "close" and resource.users:
            self.faults.append(f"{hook} of {resource.number} while it was lent")
        self._check(hook, resource)
        before, resource.hook = resource.hook, hook
        try:
            yield
        finally:
            resource.hook = before

    def _check(self, what: str, resource: FakeResource) -> None:
        if resource.closed:
            self.faults.append(f"{what} of {resource.number} after it was closed")
        if resource.hook is not None:
            self.faults.append(f"{what} of {resource.number} during its {resource.hook}")

    def _expect_peer(self, hook: Hook, resource: FakeResource) -> None:
        if resource.broken or resource.closed:
            raise GatedError(f"{hook}: {resource.number} is {'closed' if resource.closed else 'broken'}")
