"""Signals for whole process trees, and the program that outlives a run to end what it started.

Postgres puts each of its processes into a session of its own, so a process group does not reach them: the tree is
walked instead. PR_SET_PDEATHSIG would not do either: it fires when the *thread* that started a server ends, and
Trio's worker threads come and go.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # A process may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # "pid (command) state ppid ...", and the command may hold anything.
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    return children


def _tree(root: int) -> list[int]:
    children, tree = _children(), [root]
    for process in tree:
        tree.extend(children.get(process, ()))
    return tree


def _signal(process: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def pause_tree(root: int) -> list[int]:
    """Stop `root` and all its descendants; none is missed, as a stopped process starts no others."""
    stopped: list[int] = []
    while new := [process for process in _tree(root) if process not in stopped]:
        for process in new:
            _signal(process, signal.SIGSTOP)
        stopped += new
    return stopped


def resume_tree(root: int) -> None:
    """Continue `root` and all its descendants."""
    for process in reversed(_tree(root)):
        _signal(process, signal.SIGCONT)


def kill_tree(root: int) -> None:
    """Kill `root` and all its descendants, none of which gets to see another one die first, and wait for their end.

    Until the last one has ended it may hold the listening socket, and a client may still connect.
    """
    handles: list[int] = []
    for process in pause_tree(root):
        with contextlib.suppress(ProcessLookupError):
            handles.append(os.pidfd_open(process))
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [])  # readable once the process has ended
        os.close(handle)


def start_reaper(directory: Path) -> subprocess.Popen[str]:
    """Start the program below. It ends, and ends everything, when its standard input does."""
    command = [sys.executable, "-I", "-S", __file__, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)


def _reap(directory: str) -> None:
    running: set[int] = set()
    for line in sys.stdin:
        verb, process = line.split()
        (running.add if verb == "started" else running.discard)(int(process))
    for process in running:
        kill_tree(process)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    _reap(sys.argv[1])
