"""What the losses' harness needs of an event loop, for each: most of all, to cancel at the n-th point.

There are two kinds of points, where a task waits for the n-th time: while it waits, and just after that for which it
waits has arrived, before the task has run. The second kind is where things get lost.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Literal, Protocol

import trio

from respool.testing._cancel import CancelledRun

Outcome = Literal["cancelled", "swallowed", "failed", "undisturbed"]
"""How a function ended that was to be cancelled; the last: it was not, because it ended before."""

Function = Callable[[], Awaitable[object]]


class Event(Protocol):
    """Trio's and asyncio's are alike."""

    def set(self) -> Any: ...

    async def wait(self) -> Any: ...


class Loop(Protocol):
    """An event loop."""

    def run(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any: ...

    def event(self) -> Event: ...

    async def sleep(self, seconds: float) -> None: ...

    async def together(self, functions: Sequence[Function]) -> None:
        """Run all, each in a task."""

    def background(self, function: Function) -> AbstractAsyncContextManager[None]:
        """Run it as long as the block lasts."""

    async def within(self, seconds: float, function: Function) -> Outcome:
        """Cancel it after so many seconds, as one does on this loop."""

    async def cancel_at(self, point: int, function: Function) -> Outcome:
        """Cancel it at its `point`, counting from 0."""


class OnTrio:
    """With `respool.testing.cancel_everywhere`'s own way to cancel at a point."""

    run = staticmethod(trio.run)
    event = staticmethod(trio.Event)
    sleep = staticmethod(trio.sleep)

    async def together(self, functions: Sequence[Function]) -> None:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)

    @asynccontextmanager
    async def background(self, function: Function) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(function)
            yield
            nursery.cancel_scope.cancel()

    async def within(self, seconds: float, function: Function) -> Outcome:
        with trio.move_on_after(seconds) as scope:
            await function()
        return "cancelled" if scope.cancelled_caught else "undisturbed"

    async def cancel_at(self, point: int, function: Function) -> Outcome:
        run = CancelledRun(point)
        await run.execute(function)
        try:
            run.judge()
        except AssertionError:
            return "swallowed"
        except Exception:
            if not run.scope.cancel_called:
                raise
            return "failed"
        return "cancelled" if run.scope.cancel_called else "undisturbed"


class OnAsyncio:
    """With `asyncio.timeout`, and ``Task.cancel`` at a point."""

    event = staticmethod(asyncio.Event)
    sleep = staticmethod(asyncio.sleep)

    def run(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        return asyncio.run(function(*args))

    async def together(self, functions: Sequence[Function]) -> None:
        await asyncio.gather(*(function() for function in functions))

    @asynccontextmanager
    async def background(self, function: Function) -> AsyncIterator[None]:
        task = asyncio.ensure_future(function())
        yield
        task.cancel()
        await asyncio.wait([task], timeout=2.0)

    async def within(self, seconds: float, function: Function) -> Outcome:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                await function()
        except TimeoutError:
            if scope.expired():
                return "cancelled"
            raise
        return "swallowed" if scope.expired() else "undisturbed"

    async def cancel_at(self, point: int, function: Function) -> Outcome:
        stepping = _Stepping(function(), point)
        task = asyncio.ensure_future(stepping)
        await asyncio.wait([task])
        if task.cancelled():
            return "cancelled"
        if (error := task.exception()) is not None:
            if not stepping.cancelled:
                raise error
            return "failed"
        return "swallowed" if stepping.cancelled else "undisturbed"


class _Stepping:
    """Awaits `awaitable`, and has its own task cancelled at a point: even ones while it waits, odd ones just after.

    asyncio raises `CancelledError` in a task that was cancelled whatever has arrived for it meanwhile, so one that ends
    in anything else has swallowed it.
    """

    def __init__(self, awaitable: Awaitable[object], point: int) -> None:
        self._steps = awaitable.__await__()
        self._turn, self._after = divmod(point, 2)
        self.cancelled = False

    def __await__(self) -> Generator[Any, Any, Any]:
        self._task = asyncio.current_task()
        sent, thrown = None, None
        for turn in itertools.count():
            try:
                future = self._steps.send(sent) if thrown is None else self._steps.throw(thrown)
            except StopIteration as done:
                return done.value
            if turn == self._turn:
                if self._after and future is not None:
                    future.add_done_callback(self._cancel)  # before the task's own, so the task has yet to run
                else:
                    self._cancel()
            try:
                sent, thrown = (yield future), None
            except BaseException as error:  # noqa: BLE001 - handed on
                sent, thrown = None, error

    def _cancel(self, _: object = None) -> None:
        assert self._task is not None
        self.cancelled = True
        self._task.cancel()


LOOPS: dict[str, Loop] = {"trio": OnTrio(), "asyncio": OnAsyncio()}
