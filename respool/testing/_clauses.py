"""The clauses of the adapter contract, each a method whose docstring is the clause."""

from __future__ import annotations

import contextlib
import inspect
import math
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import trio

from respool.abc import Adapter, Verdict

from ._cancel import cancel_everywhere
from ._proxy import Cut, Proxy

__all__ = ["Contract", "FaultContract", "expect"]

T = TypeVar("T")

DELAY = 0.2  # seconds the server takes to answer while somebody watches for the event loop being blocked
PATIENCE = 0.1  # seconds after which what waits for a silent peer is cancelled
PROMPT = 1.0  # seconds it may then take to end
CUTS = 20  # places, at most, at which the server is cut off in one conversation

_DESCRIPTORS = Path("/dev/fd")


def expect(truth: object, message: str) -> None:
    """Assert, also under ``python -O``."""
    if not truth:
        raise AssertionError(message)


def expect_synchronous(hook: Callable[..., object]) -> None:
    """Assert that `hook` is not an async function, as the pool does."""
    name = getattr(hook, "__qualname__", repr(hook))
    expect(not inspect.iscoroutinefunction(hook), f"{name} must not be an async function: the pool cannot await it")


class Contract(Generic[T]):
    """What can be checked without a faulty peer."""

    def __init__(
        self,
        adapter: Adapter[T],
        *,
        use: Callable[[T], Awaitable[object]] | None,
        check: Callable[[T], Awaitable[object]] | None,
        timeout: float,
    ) -> None:
        self.adapter = adapter
        self.use = use or adapter.validate
        self.check = check or adapter.validate
        self.timeout = timeout
        self.points = self.recovered = self.discarded = 0
        self.verdict = Verdict.KEEP  # on what ended the last `block`
        self._resources: list[T] = []  # opened in the present clause
        self.warned: list[warnings.WarningMessage] = []
        self._descriptors = _descriptors()
        self._tasks = trio.lowlevel.current_statistics().tasks_living

    def clauses(self) -> list[Callable[[], Awaitable[None]]]:
        """In the order in which failures are easiest to understand."""
        return [
            self.opens,
            self.gives_verdicts,
            self.is_clean_is_quick,
            self.open_cancelled,
            self.close_cancelled,
            self.close_twice,
            self.hooks_cancelled,
            self.use_cancelled,
        ]

    async def opens(self) -> None:
        """open() returns a new resource each time, which is clean, validates, resets and answers."""
        expect_synchronous(self.adapter.is_clean)
        one, other = await self.open(), await self.open()
        expect(one is not other, "the second call returned the same object as the first")
        expect(self.adapter.is_clean(one) is True, f"is_clean() is {self.adapter.is_clean(one)!r} after open()")
        await self.within_limit("validate() of a new resource", self.adapter.validate, one)
        await self.within_limit("reset() of a new resource", self.adapter.reset, one)
        expect(self.adapter.is_clean(one) is True, "is_clean() is not True after validate() and reset()")
        await self.within_limit("the exchange given as check", self.check, one)
        await self.close(one)
        await self.within_limit("the exchange given as check, on a resource when another was closed", self.check, other)
        await self.close(other)
        await self.expect_nothing_left()

    async def gives_verdicts(self) -> None:
        """verdict() returns a Verdict on any exception."""
        expect_synchronous(self.adapter.verdict)
        for error in (ValueError("it"), OSError("it"), TimeoutError(), trio.BrokenResourceError(), KeyboardInterrupt()):
            verdict = self.adapter.verdict(error)
            expect(isinstance(verdict, Verdict), f"it returned {verdict!r} on {error!r}")

    async def is_clean_is_quick(self) -> None:
        """is_clean() answers at once with True or False."""
        resource = await self.open()
        quickest = math.inf
        for _ in range(100):
            started = time.perf_counter()
            answer = self.adapter.is_clean(resource)
            quickest = min(quickest, time.perf_counter() - started)
            expect(isinstance(answer, bool), f"it returned {answer!r}")
        expect(quickest < 0.001, f"it took {quickest * 1e3:.1f} ms, and is asked twice a lease")
        await self.close(resource)

    async def open_cancelled(self) -> None:
        """open() leaves nothing open when it is cancelled."""
        opened: list[T] = []

        async def operation() -> None:
            opened.append(await self.adapter.open())

        async def check() -> None:
            while opened:
                await self.close(opened.pop())
            await self.expect_nothing_left()

        await self.cancel(operation, check=check)

    async def close_cancelled(self) -> None:
        """close() frees the handle even when it is cancelled."""
        await self.cancel(self.adapter.close, prepare=self.open, check=self.expect_nothing_left)

    async def close_twice(self) -> None:
        """close() may be called again."""
        resource = await self.open()
        await self.close(resource)
        await self.within_limit("close() of a closed resource", self.adapter.close, resource)
        await self.expect_nothing_left()

    async def hooks_cancelled(self) -> None:
        """validate() and reset() may be cancelled anywhere, and close() frees the handle afterwards."""
        await self.cancel(self.adapter.validate, prepare=self.open, check=self.free)
        await self.cancel(self.adapter.reset, prepare=self.open_and_interrupt, check=self.free)

    async def use_cancelled(self) -> None:
        """A resource whose borrower was cancelled is discarded, or answers the next borrower and nobody else."""
        await self.cancel(self.block, prepare=self.open, check=self.expect_no_strangers_data)

    @property
    def blocked(self) -> str:
        """Where the event loop was blocked until somebody ended that."""
        return ""

    # What the clauses are made of.

    async def open(self) -> T:
        """Open a resource that is expected to open."""
        resource: T = await self.within_limit("open()", self.adapter.open)
        self._resources.append(resource)
        return resource

    async def close(self, resource: T) -> None:
        """Close a resource that is expected to close politely."""
        await self.within_limit("close()", self.adapter.close, resource)

    async def clean_up(self, *, failed: bool) -> None:
        """End a clause."""
        for resource in self._resources if failed else ():
            await self.give_up("close()", self.adapter.close, resource)
        self._resources.clear()

    async def free(self, resource: T) -> None:
        """Close a resource that may be broken: close() may raise or take long then, but must free the handle."""
        await self.give_up("close()", self.adapter.close, resource)
        await self.expect_nothing_left()

    async def open_and_interrupt(self) -> T:
        """Open a resource and leave it in the middle of an exchange, as far as that is possible."""
        resource = await self.open()
        with trio.CancelScope() as scope:
            scope.cancel()
            await self.block(resource)
        return resource

    async def block(self, resource: T) -> None:
        """What a borrower does, and what the pool makes of how it ends."""
        self.verdict = Verdict.KEEP
        try:
            await self.use(resource)
        except BaseException as error:
            self.verdict = self.adapter.verdict(error)
            raise

    async def expect_no_strangers_data(self, resource: T) -> None:
        """Do with `resource` what a pool does after a `block`."""
        if await self.is_fit_to_lend(resource):
            self.recovered += 1
            try:
                await self.within_limit("the exchange given as check", self.check, resource)
            except Exception as error:
                raise AssertionError(
                    f"it passed for fit to be lent, and then the exchange given as check raised {error!r}"
                ) from error
        else:
            self.discarded += 1
        await self.free(resource)

    async def is_fit_to_lend(self, resource: T) -> bool:
        """Ask the adapter the way a pool does at check-in."""
        if Verdict.DISCARD in self.verdict:
            return False
        if self.adapter.is_clean(resource):
            return True
        try:
            await self.within_limit("reset()", self.adapter.reset, resource)
        except _TookTooLongError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is, it says that the resource is to be discarded
            return False
        clean = self.adapter.is_clean(resource)
        inherited = type(self.adapter).reset is Adapter.reset  # it knows of nothing to undo: what is not clean is lost
        expect(clean is True or inherited, "reset() returned, and is_clean() is not True")
        return clean

    async def cancel(self, operation: Callable[..., Awaitable[object]], **options: Any) -> None:
        """Cancel `operation` everywhere."""
        report = await cancel_everywhere(operation, timeout=self.timeout, **options)
        self.points += report.points

    async def within_limit(self, what: str, hook: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Call `hook`, which has `timeout` seconds."""
        with trio.move_on_after(self.timeout):
            returned = hook(*args)
            name = getattr(hook, "__qualname__", what)
            expect(
                inspect.isawaitable(returned),
                f"{name} must be an async function; it returned {type(returned).__name__}, not an awaitable",
            )
            return await returned
        raise _TookTooLongError(f"{what} took longer than {self.timeout:g} s")

    async def give_up(
        self, what: str, hook: Callable[..., Awaitable[object]], *args: Any, patience: float = PATIENCE
    ) -> Exception | str:
        """Call `hook`, cancel it soon, and expect it to end promptly. Return how: "returned", "cancelled", an error."""
        started = trio.current_time()
        ended: Exception | str = "cancelled"
        with trio.move_on_after(patience):
            try:
                await hook(*args)
                ended = "returned"
            except Exception as error:  # noqa: BLE001 - the caller says whether it may fail
                ended = error
        late = trio.current_time() - started - patience
        expect(late < PROMPT, f"{what} went on for {late:.1f} s after it had been cancelled")
        return ended

    async def expect_nothing_left(self, _: object = None) -> None:
        """Nothing is open or running that was not when the check began. The world gets a moment to agree."""
        with trio.move_on_after(PROMPT):
            while self._left_over():  # noqa: ASYNC110 - sockets and servers tell nobody when they are done
                await trio.sleep(0.001)
            return
        raise AssertionError(f"left over: {', '.join(self._left_over())}")

    def _left_over(self) -> list[str]:
        found = [f"file descriptor {number} ({what})" for number, what in _descriptors() - self._descriptors]
        tasks = trio.lowlevel.current_statistics().tasks_living - self._tasks
        if tasks > 0:
            found.append(f"{tasks} running task{'s' * (tasks > 1)}")
        found += [
            f"something that was never closed, only forgotten ({warning.message})"
            for warning in self.warned
            if issubclass(warning.category, ResourceWarning)
        ]
        return found


class FaultContract(Contract[T]):
    """What needs a peer that can be delayed, silenced and cut off."""

    def __init__(self, adapter: Adapter[T], proxy: Proxy, refused: Adapter[T], **options: Any) -> None:
        self.proxy = proxy
        self.refused = refused
        super().__init__(adapter, **options)

    def clauses(self) -> list[Callable[[], Awaitable[None]]]:
        """All of them."""
        first, *others = super().clauses()
        return [
            first,
            self.blocks_nobody,
            *others,
            self.answers_come_late,
            self.open_refused,
            self.open_cut_off,
            self.use_cut_off,
            self.closed_in_use,
            self.peer_closes,
            self.peer_resets,
            self.peer_falls_silent,
        ]

    async def blocks_nobody(self) -> None:
        """Nothing blocks the event loop, however long the server takes."""
        with self.delayed(DELAY):
            resource = await self.open()
            await self.within_limit("the exchange given as use", self.use, resource)
            await self.within_limit("reset()", self.adapter.reset, resource)
            await self.within_limit("validate()", self.adapter.validate, resource)
            await self.close(resource)
        await self.expect_nothing_left()

    async def use_cancelled(self) -> None:
        """A resource whose borrower was cancelled is discarded, or answers the next borrower and nobody else."""
        with self.delayed(0.002):
            await super().use_cancelled()

    async def answers_come_late(self) -> None:
        """An answer that comes after its borrower has given up is given to nobody."""
        resource = await self.open_and_interrupt()
        await self.expect_no_strangers_data(resource)
        resource = await self.open()
        await self.proxy.pause()
        await self.give_up("the exchange given as use", self.block, resource)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._resume_soon)
            await self.expect_no_strangers_data(resource)

    async def open_refused(self) -> None:
        """open() raises when the server refuses, and leaves nothing open."""
        try:
            await self.within_limit("open()", self.refused.open)
        except _TookTooLongError:
            raise
        except Exception:  # noqa: BLE001 - any will do
            await self.expect_nothing_left()
        else:
            raise AssertionError("it returned although nobody listens")

    async def open_cut_off(self) -> None:
        """open() raises when the server is cut off in the middle of a word, and leaves nothing open."""
        before = self.proxy.answered
        await self.close(await self.open())
        said = self.proxy.answered - before
        for how, places in _cuts(said):
            for place in places:
                await self.proxy.cut_after(place, how)
                await self._open_and_close(f"open(), cut off after {place} of {said} bytes ({how}),")
                await self.expect_nothing_left()
        await self.proxy.cut_after(math.inf, "reset")

    async def use_cut_off(self) -> None:
        """An exchange that is cut off raises, or gives the right answer, and the resource is discarded."""
        resource = await self.open()
        before = self.proxy.answered
        await self.check(resource)
        said = self.proxy.answered - before
        await self.close(resource)
        for how, places in _cuts(said):
            for place in places:
                resource = await self.open()
                await self.proxy.cut_after(place, how)
                ended = await self.give_up("the exchange given as check", self.check, resource)
                wrong = isinstance(ended, AssertionError)
                expect(not wrong, f"after {place} of {said} bytes ({how}) the answer was wrong: {ended}")
                await self.proxy.cut_after(math.inf, "reset")
                await self.free(resource)

    async def closed_in_use(self) -> None:
        """close() ends a use that is under way, with an error or not, even when it is cancelled."""
        await self._close_in_use(PATIENCE)
        await self._close_in_use(0.0)

    async def peer_closes(self) -> None:
        """A resource that the peer has closed is not clean, not valid, cannot be reset, and can be closed."""
        await self._peer_is_gone("closed")

    async def peer_resets(self) -> None:
        """A resource that the peer has reset is not clean, not valid, cannot be reset, and can be closed."""
        await self._peer_is_gone("reset")

    async def peer_falls_silent(self) -> None:
        """Whatever waits for a peer that has fallen silent ends promptly when it is cancelled, and frees the handle."""
        await self._with_silent_peer("the exchange given as use", self.use, await self.open())
        await self._with_silent_peer("reset()", self.adapter.reset, await self.open_and_interrupt())
        await self._with_silent_peer("close()", self.adapter.close, await self.open_and_interrupt())
        ended = await self._with_silent_peer("validate()", self.adapter.validate, await self.open())
        inherited = type(self.adapter).validate is Adapter.validate
        expect(inherited or ended != "returned", "validate() returned, although the peer had not answered")
        await self.proxy.pause()
        await self._open_and_close("open() when the server says nothing")
        await self.proxy.resume()
        await self.expect_nothing_left()

    @property
    def blocked(self) -> str:
        """Where the event loop was blocked until the proxy ended that."""
        return self.proxy.blocked

    # What the clauses are made of.

    async def open_and_interrupt(self) -> T:
        """Open a resource and leave it in the middle of an exchange."""
        resource = await self.open()
        await self.proxy.pause()
        await self.give_up("the exchange given as use", self.block, resource)
        await self.proxy.resume()
        return resource

    async def _resume_soon(self) -> None:
        await trio.sleep(PATIENCE / 2)
        await self.proxy.resume()

    async def _open_and_close(self, what: str) -> None:
        opened: list[T] = []

        async def open_it() -> None:
            opened.append(await self.adapter.open())

        await self.give_up(what, open_it)
        for resource in opened:
            await self.give_up("close()", self.adapter.close, resource)

    async def _close_in_use(self, patience: float) -> None:
        resource = await self.open()
        ended = trio.Event()

        async def use() -> None:
            with contextlib.suppress(Exception):  # how it ends is its own affair
                await self.use(resource)
            ended.set()

        await self.proxy.pause()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await trio.sleep(PATIENCE)  # by then it waits for the answer
            await self.give_up("close()", self.adapter.close, resource, patience=patience)
            with trio.move_on_after(PROMPT):
                await ended.wait()
            nursery.cancel_scope.cancel()
        await self.proxy.resume()
        expect(
            ended.is_set(),
            f"the exchange given as use still waited {PROMPT:g} s later. Wake whoever waits for a socket before it is "
            "closed: call SocketWatch.close(), or trio.lowlevel.notify_closing(), first",
        )
        await self.expect_nothing_left()

    async def _peer_is_gone(self, how: Cut) -> None:
        for hook in (self.adapter.validate, self.adapter.reset, self.use, self.adapter.close):
            resource = await self.open()
            await self.within_limit("the exchange given as check", self.check, resource)  # the proxy knows it by then
            await self.proxy.cut(how)
            await trio.lowlevel.checkpoint()
            if type(self.adapter).is_clean is not Adapter.is_clean:
                expect(not self.adapter.is_clean(resource), "is_clean() is True")
            if hook != self.adapter.close:
                await self._expect_failure(hook, resource)
            await self.free(resource)

    async def _expect_failure(self, hook: Callable[[T], Awaitable[object]], resource: T) -> None:
        name = getattr(hook, "__name__", repr(hook))
        try:
            await self.within_limit(f"{name}()", hook, resource)
        except _TookTooLongError:
            raise
        except Exception:  # noqa: BLE001 - raising is right
            return
        inherited = getattr(Adapter, name, None) is getattr(hook, "__func__", hook)
        expect(
            inherited or (hook == self.adapter.reset and not self.adapter.is_clean(resource)),
            f"{name}() returned instead of raising",
        )

    async def _with_silent_peer(
        self, what: str, hook: Callable[[T], Awaitable[object]], resource: T
    ) -> Exception | str:
        await self.proxy.pause()
        ended = await self.give_up(what, hook, resource)
        await self.give_up("close()", self.adapter.close, resource)
        await self.proxy.resume()
        await self.expect_nothing_left()
        return ended

    @contextlib.contextmanager
    def delayed(self, seconds: float) -> Iterator[None]:
        """Let the server answer `seconds` later."""
        self.proxy.delay = seconds
        try:
            yield
        finally:
            self.proxy.delay = 0.0

    def _left_over(self) -> list[str]:
        connections = self.proxy.connections
        if connections:
            # The proxy's descriptors are this process's as well. Once it has none, all that are left are the adapter's.
            return [f"{connections} connection{'s' * (connections > 1)} to the server"]
        return super()._left_over()


class _TookTooLongError(AssertionError):
    """Not to be taken for the failure that a clause asks for."""


def _descriptors() -> set[tuple[str, str]]:
    """All open file descriptors of this process, but for the one that lists them."""
    found = set()
    for path in _DESCRIPTORS.iterdir() if _DESCRIPTORS.exists() else ():
        with contextlib.suppress(OSError):
            found.add((path.name, str(path.readlink())))
    return found


def _cuts(said: int) -> Iterator[tuple[Cut, list[int]]]:
    """Where to cut a conversation of `said` bytes: the first byte, the last, and places between. Silence is slow."""
    for how, places in (("reset", CUTS), ("closed", CUTS), ("silent", CUTS // 5)):
        yield how, sorted({1 + (said - 1) * place // max(1, places - 1) for place in range(min(places, said))})  # type: ignore[misc]
