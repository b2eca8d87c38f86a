"""Cancel an operation at every point where Trio could."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, overload

import attrs
import trio

__all__ = ["CancelReport", "CancelledRun", "cancel_everywhere", "place_of"]

P = TypeVar("P")

_TRIO = str(Path(trio.__file__).parent)


@attrs.frozen(kw_only=True)
class CancelReport:
    """What `cancel_everywhere` tried: ``points == cancelled + completed``."""

    points: int
    """How many different moments the operation was cancelled at. The last, undisturbed run is not one of them."""

    cancelled: int
    """How many of these runs ended by the cancellation."""

    completed: int
    """How many completed all the same, because nothing was left to wait for when the cancellation came."""


@overload
async def cancel_everywhere(
    operation: Callable[[], Awaitable[object]],
    *,
    check: Callable[[], object] | None = None,
    timeout: float = 60.0,
) -> CancelReport: ...


@overload
async def cancel_everywhere(
    operation: Callable[[P], Awaitable[object]],
    *,
    prepare: Callable[[], Awaitable[P]],
    check: Callable[[P], object] | None = None,
    timeout: float = 60.0,
) -> CancelReport: ...


async def cancel_everywhere(
    operation: Callable[..., Awaitable[object]],
    *,
    prepare: Callable[[], Awaitable[Any]] | None = None,
    check: Callable[..., object] | None = None,
    timeout: float = 60.0,
) -> CancelReport:
    """Run `operation` again and again, cancelling it one moment later each time, until it completes undisturbed.

    The moments are the borders of its steps, where a step is what a task runs between two checkpoints:

    - before its first step, so that it meets the cancellation at its very first checkpoint;
    - at each checkpoint, while it waits there;
    - after each checkpoint, *just after what it waits for has arrived*: the task is on its way with the result when
      the cancellation comes, and only its next checkpoint raises. This is where results get lost.

    Tasks started in nurseries that `operation` itself opens belong to it, and their steps count; no other task's do.
    It works with real I/O as well as on `trio.testing.MockClock`, and no run needs to take the same steps as the one
    before. An example, where a memory channel must not lose what it was given::

        async def check() -> None:
            assert channel.statistics().current_buffer_used + len(received) == sent

        report = await cancel_everywhere(receive_one, prepare=send_one, check=check)

    Args:
      operation: what to cancel. It runs in a task of its own, and must complete when it is left alone.
      prepare: called before each run, undisturbed. What it returns is passed to `operation` and to `check`.
      check: called after each run, including the last: raises if something that must always hold does not. May be
        asynchronous, and is also the place to clean up, or to see that whoever comes next is served.
      timeout: seconds that `prepare`, one run and its `check` may each take.

    Raises:
      AssertionError: `operation` swallowed its cancellation or turned it into something else, or took longer than
        `timeout`: the fault of `operation`. The message says at which point.
      Exception: what `prepare`, `check` or the uncancelled `operation` raised, with a note that says at which point.

    Not covered: tasks that `operation` starts outside its own nurseries, which are neither counted nor cancelled;
    threads; waits that refuse to be aborted, such as for a thread that may not be abandoned; a second cancellation in
    the same run. One thing is reported that is not wrong: to go on waiting in a shielded scope whose own deadline has
    passed, and then to complete.

    Deadpool's ``managed_cancellation.rs`` and SQLite's tests, which fail every allocation in turn, gave the idea.
    """
    cancelled = completed = 0
    while True:
        run = CancelledRun(cancelled + completed)
        with _during("prepare", run, timeout):
            prepared = () if prepare is None else (await prepare(),)
        with _during("the operation", run, timeout):
            await run.execute(operation, *prepared)
        run.judge()
        if check is not None:
            with _during("the check", run, timeout):
                answer = check(*prepared)
                if inspect.isawaitable(answer):
                    await answer
        if not run.scope.cancel_called:
            return CancelReport(points=cancelled + completed, cancelled=cancelled, completed=completed)
        if run.scope.cancelled_caught:
            cancelled += 1
        else:
            completed += 1


@contextlib.contextmanager
def _during(what: str, run: CancelledRun, timeout: float) -> Iterator[None]:
    with trio.move_on_after(timeout) as run.limit:
        try:
            yield
        except Exception as error:
            error.add_note(f"cancel_everywhere: raised in {what}; this run was {run}")
            raise
    if run.limit.cancelled_caught:
        raise AssertionError(f"cancel_everywhere: {what} took longer than {timeout:g} s; this run was {run}")


class CancelledRun(trio.abc.Instrument):
    """One run of the operation, cancelled at the given border between two steps. Border 0 is before the first step.

    Trio calls an instrument between the steps of tasks, where any other task could have cancelled the scope as well.
    """

    def __init__(self, cancel_at: int) -> None:
        self.scope = trio.CancelScope()
        self.limit = trio.CancelScope()  # around whatever is going on; its end is not a point
        self._borders_to_go = cancel_at
        self._root: trio.lowlevel.Task | None = None  # None again once the operation is over
        self._error: Exception | None = None  # what the operation raised
        self._running: trio.lowlevel.Task | None = None  # which of its tasks is taking a step
        self._cancelling = False
        self._woken_in_own_step = False
        self._cancelled_at = ""
        self._raised_at = ""  # where Trio first raised Cancelled in it

    def __str__(self) -> str:
        return f"cancelled {self._cancelled_at}" if self._cancelled_at else "not cancelled"

    async def execute(self, operation: Callable[..., Awaitable[object]], *args: Any) -> None:
        async def root() -> None:
            try:
                with self.scope:
                    await operation(*args)
            except Exception as error:  # noqa: BLE001 - carried past the nursery, which would wrap it; `judge` raises it
                self._error = error
            finally:
                self._root = None

        trio.lowlevel.add_instrument(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(root)
                (self._root,) = nursery.child_tasks
        finally:
            trio.lowlevel.remove_instrument(self)

    def judge(self) -> None:
        """Raise what the operation raised, or what there is to say against how it took its cancellation."""
        if self._raised_at or self.scope.cancelled_caught:
            if self._error is not None:
                raise AssertionError(
                    f"cancel_everywhere: the operation, {self}, raised {self._error!r} instead of trio.Cancelled alone"
                ) from self._error
            if not self.scope.cancelled_caught:
                raise AssertionError(
                    f"cancel_everywhere: the operation, {self}, swallowed trio.Cancelled and completed; "
                    f"it was raised {self._raised_at}"
                )
        if self._error is not None:
            self._error.add_note(f"cancel_everywhere: raised by the operation, {self}")
            raise self._error

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_ours(task):
            self._running = task
            self._woken_in_own_step = False
            self._pass_border("just before it resumed", task)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if self._cancelling and self._is_ours(task):
            self._note_raised(task)
        elif task is self._running:
            self._woken_in_own_step = True

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is not self._running:
            return
        self._running = None
        # A task that is cancelled already is woken at once when it begins to wait. A shielded checkpoint wakes it too.
        if self._woken_in_own_step and self.scope.cancel_called and _is_cancelled_here(task):
            self._note_raised(task)
        self._pass_border("while it waited", task)

    def _pass_border(self, when: str, task: trio.lowlevel.Task) -> None:
        if self._root is None or self.scope.cancel_called or self.limit.cancel_called:
            return
        if self._borders_to_go:
            self._borders_to_go -= 1
            return
        self._cancelled_at = f"{when} {place_of(task)}"
        self._cancelling = True
        self.scope.cancel()
        self._cancelling = False

    def _note_raised(self, task: trio.lowlevel.Task) -> None:
        self._raised_at = self._raised_at or place_of(task)

    def _is_ours(self, task: trio.lowlevel.Task) -> bool:
        ancestor: trio.lowlevel.Task | None = task
        while ancestor is not None and self._root is not None:
            if ancestor is self._root:
                return True
            ancestor = ancestor.parent_nursery.parent_task if ancestor.parent_nursery else None
        return False


def _is_cancelled_here(task: trio.lowlevel.Task) -> bool:
    """Whether the current task, which has just begun to wait and been woken for it, was woken by its cancellation."""
    shielded = trio.lowlevel.cancel_shielded_checkpoint.__code__
    in_shielded_checkpoint = any(frame.f_code is shielded for frame, _ in task.iter_await_frames())
    return not in_shielded_checkpoint and trio.current_effective_deadline() == -math.inf


def place_of(task: trio.lowlevel.Task) -> str:
    """The line outside Trio that `task` waits on, innermost first."""
    own = {_TRIO, str(Path(__file__).parent)}
    for frame, line in reversed(list(task.iter_await_frames())):
        path = Path(frame.f_code.co_filename)
        if not any(path.is_relative_to(directory) for directory in own):
            return f"in {frame.f_code.co_name} ({path.name}:{line})"
    return "at its start"
