"""The demo: it shows what it says, sees what is wrong, and leaves nothing running."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
from rich.console import Console

import respool
from examples.demonstration import load
from examples.demonstration.embedded import embedded
from examples.demonstration.programs import run_examples
from tests.house._house import ROOT, processes_in, stopped_by_ctrl_c

TITLES = ("PostgreSQL", "MariaDB", "Redis", "nginx", "embedded server")
COMMAND = [sys.executable, "-W", "error", "-m", "examples.demo", "--plain"]


def test_it_shows_what_pooling_buys_and_survives(servers_directory: Path) -> None:
    """On every real server and on its own: a table, every promise kept, and nothing left behind."""
    done = subprocess.run(
        [*COMMAND, "--seconds=0.3"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(servers_directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for title in TITLES:
        for phase in ("no pool", "pool", "tasks cancelled in mid-query", "server restarted under load"):
            assert any(line.startswith(title) and line.endswith(f", {phase}:") for line in done.stdout.splitlines())
    for program in ROOT.glob("examples/*.py"):
        if program.name.startswith(("postgres_", "mysql_", "redis_", "http_")):
            assert f", examples/{program.name}:\n  " in done.stdout
    assert "BROKEN" not in done.stdout
    assert done.stdout.count("kept ") == len(TITLES) * 12
    assert done.stdout.rstrip().endswith("Nothing lost, nothing wrong.")
    assert not done.stderr
    assert processes_in(servers_directory) == []
    assert list(servers_directory.iterdir()) == []


@pytest.mark.parametrize("phase", ["no pool:", "server restarted under load:"])
def test_ctrl_c_leaves_nothing_running(servers_directory: Path, phase: str) -> None:
    """Wherever it is stopped, its server and its files are gone when it is."""
    stopped_by_ctrl_c(
        [*COMMAND, "postgres", "--seconds=0.4"], servers_directory, at=lambda line: line.rstrip().endswith(phase)
    )


@pytest.mark.parametrize(("name", "server"), [("postgres", "PostgresServer"), ("mariadb", "MariaDBServer")])
def test_what_cannot_be_shown_is_told_in_a_line(servers_directory: Path, name: str, server: str) -> None:
    """Without a server the rest is shown, and one line says what to install."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING, name, server, name, "embedded", "--plain", "--seconds=0.2"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(servers_directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "is not shown" in line]
    assert told == [f"{name} is not shown. {server} is not installed: apt-get install it"]
    assert "embedded server, pool:" in done.stdout


MISSING = """
import importlib
import sys
from examples import demo
from tests.servers import ServerNotInstalled

module, server = sys.argv.pop(1), sys.argv.pop(1)

def not_installed():
    raise ServerNotInstalled(f"{server} is not installed: apt-get install it")

setattr(importlib.import_module(f"examples.demonstration.{module}"), server, not_installed)
sys.exit(demo.main())
"""


async def test_a_wrong_answer_is_seen() -> None:
    """The demo's checks are checks: a server that answers wrong is found out, with a pool and without."""

    async def ask_wrongly(connection: Any, key: int) -> int:
        answer: int = await connection.ask(f"get {key}")
        return answer + 1

    async with embedded() as subject:
        liar = attrs.evolve(subject, ask=ask_wrongly)
        for phase in (load.without_pool, load.with_pool):
            tally = await phase(liar, 0.2, load.View())
            assert tally.wrong == len(tally.latencies) > 0
            assert not tally.checks[0].kept


async def test_an_example_that_fails_is_seen() -> None:
    """One of these needs no server; the others say that theirs is not there."""
    console = Console(file=io.StringIO())
    async with embedded() as subject:
        failed = await run_examples(console, attrs.evolve(subject, examples="http", url="http://127.0.0.1:1"))
    assert failed == ["http_httpx2.py", "http_reverse_proxy.py"]
    assert "refused" in console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO


async def test_lost_connections_are_seen() -> None:
    """An adapter that discards whatever was cancelled is told from one that recovers it."""
    async with embedded() as subject:

        async def refuse(*_: object) -> None:
            raise RuntimeError("cannot be reset")

        hooks = subject.adapter
        wasteful = respool.adapter(open=hooks.open, close=hooks.close, is_clean=hooks.is_clean, reset=refuse)
        tally = await load.cancelled(attrs.evolve(subject, adapter=wasteful), 0.2, load.View())

    broken = [check.promise for check in tally.checks if not check.kept]
    assert "no connection was lost to a cancelled task" in broken


async def test_a_protocol_that_cannot_recover_may_replace_what_was_cancelled() -> None:
    """One connection for each cancelled request, and no more."""
    async with embedded() as subject:

        async def refuse(*_: object) -> None:
            raise RuntimeError("cannot be reset")

        hooks = subject.adapter
        wasteful = respool.adapter(open=hooks.open, close=hooks.close, is_clean=hooks.is_clean, reset=refuse)
        tally = await load.cancelled(attrs.evolve(subject, adapter=wasteful, recovers=False), 0.2, load.View())

    assert tally.opened > load.SIZE
    assert tally.checks[-1].promise == "no connection was lost but to a cancelled task"
    assert tally.checks[-1].kept
