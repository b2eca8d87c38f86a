"""Finding tasks that wait for each other's resources, from what Trio's task tree shows.

A task that holds a lease is blocked for certain if it waits for the same pool itself, or if it stands at the end of a
nursery block all of whose tasks are blocked. If that is true of every holder, and the pool may not open more, nobody
will ever be served. Tasks that wait for each other by other means (events, channels, locks) cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trio.lowlevel import Task

__all__ = ["blocked_for_certain"]


def blocked_for_certain(holders: Iterable[Any], waiting: set[Any]) -> set[Any] | None:
    """The tasks among `waiting` that keep `holders` blocked, or ``None`` if any of the holders is not."""
    culprits: set[Any] = set()
    if all(_is_blocked(task, waiting, culprits) for task in holders):
        return culprits
    return None


def _is_blocked(task: Task, waiting: set[Any], culprits: set[Any]) -> bool:
    if task in waiting:
        culprits.add(task)
        return True
    if not task.child_nurseries or not _stands_at_end_of_nursery(task):
        return False
    children = task.child_nurseries[-1].child_tasks
    return bool(children) and all(_is_blocked(child, waiting, culprits) for child in children)


def _stands_at_end_of_nursery(task: Task) -> bool:
    # The name of the method in which Trio's nurseries wait for their tasks; a test notices if Trio changes it.
    return any(frame.f_code.co_name == "_nested_child_finished" for frame, _ in task.iter_await_frames())
