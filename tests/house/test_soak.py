"""The endurance test: a short run finds nothing, what is broken on purpose is found, and nothing is left running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import respool_redis
import trio

from tests.house._house import ROOT, processes_in, stopped_by_ctrl_c
from tests.kinds import KINDS, Kind
from tests.soak._account import Account
from tests.soak._soak import soak

COMMAND = [sys.executable, "-W", "error", "-m", "tests.soak"]


@pytest.fixture
def redis() -> Kind:
    return next(kind for kind in KINDS if kind.name == "redis")


async def soaked(kind: Kind, *, patience: float = 20.0, **broken: Any) -> Account:
    """A short run with something else for the kind's own; with less `patience` where what is waited for never comes."""
    return await soak([attrs.evolve(kind, **broken)], seconds=1.5, seed=0, patience=patience)


def test_a_short_run_finds_nothing(servers_directory: Path) -> None:
    """All four adapters; as long runs do, it ends with an account."""
    done = subprocess.run(
        [*COMMAND, "--seconds=3", "--seed=7"],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(servers_directory)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("postgres, mysql, redis, http: 3 s, seed 7\nlap 1, ")
    for line in ("wrong answers", "lost slots", "leaked sockets", "stuck operations"):
        assert f"\n{line:24}" + f"{0:>12}" * 4 in done.stdout
    for line in ("leaked file descriptors", "leaked tasks", "leaked objects"):
        assert f"\n{line:24}{0:>12}" in done.stdout
    assert done.stdout.endswith("\nNothing lost, nothing wrong, nothing left.\n")
    assert not done.stderr
    assert processes_in(servers_directory) == []
    assert list(servers_directory.iterdir()) == []


def test_ctrl_c_leaves_nothing_running(servers_directory: Path) -> None:
    stopped_by_ctrl_c(
        [*COMMAND, "redis", "http", "--seconds=60"], servers_directory, at=lambda line: line.startswith("lap 1,")
    )


async def test_nothing_is_found_where_nothing_is_broken(redis: Kind) -> None:
    account = await soaked(redis)
    assert account.is_clean, account
    assert account.tallies["redis"].losses.cancelled > 0


class ForgetsToClose(respool_redis.RedisAdapter):
    async def close(self, resource: respool_redis.Connection) -> None:
        FORGOTTEN.append(resource)


FORGOTTEN: list[respool_redis.Connection] = []


async def test_connections_that_are_not_closed_are_found(redis: Kind) -> None:
    account = await soaked(redis, adapter=ForgetsToClose.from_url, patience=1)
    for connection in FORGOTTEN:
        connection.close_now()
    FORGOTTEN.clear()
    assert account.tallies["redis"].sockets > 0
    assert account.left["files"] > 0
    assert account.left["respool_redis._connection.Connection"] > 0
    assert not account.is_clean


async def test_wrong_answers_are_found(redis: Kind) -> None:
    async def ask(connection: respool_redis.Connection, question: str) -> str:
        return "no" if question == "7" else await redis.ask(connection, question)

    account = await soaked(redis, ask=ask)
    assert account.tallies["redis"].losses.wrong_answers > 0
    assert not account.is_clean


async def test_errors_that_nobody_expects_are_found(redis: Kind) -> None:
    """And told: that is a bug's whereabouts."""

    async def ask(connection: respool_redis.Connection, question: str) -> str:
        if question == "7":
            raise KeyError(question)
        return await redis.ask(connection, question)

    account = await soaked(redis, ask=ask)
    assert "KeyError" in str(account)
    assert not account.is_clean


class ClosesInItsOwnTime(respool_redis.RedisAdapter):
    async def close(self, resource: respool_redis.Connection) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(4)
        await super().close(resource)


async def test_slots_that_are_lost_are_found(redis: Kind) -> None:
    """For as long as anybody has patience for, anyway."""
    account = await soaked(redis, adapter=ClosesInItsOwnTime.from_url, patience=1)
    assert account.tallies["redis"].losses.lost_slots > 0
    assert not account.is_clean


class LeavesATask(respool_redis.RedisAdapter):
    async def open(self) -> respool_redis.Connection:
        trio.lowlevel.spawn_system_task(trio.sleep_forever)
        return await super().open()


async def test_tasks_that_are_left_are_found(redis: Kind) -> None:
    account = await soaked(redis, adapter=LeavesATask.from_url)
    assert account.left["tasks"] > 0
    assert not account.is_clean
