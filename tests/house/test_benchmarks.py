"""The benchmarks' harness: it measures, checks answers, and reports. Peers are not needed here."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import __main__ as command_line
from tests.benchmarks._benchmark import Benchmark, Contender, Goal, find
from tests.benchmarks._loops import measure
from tests.benchmarks._plot import plot
from tests.benchmarks._report import table
from tests.benchmarks._run import Outcome, Result


def test_everything_is_found_and_can_be_chosen() -> None:
    """Names choose modules and single benchmarks; an unknown one is told what there is."""
    assert {"kernel.alone", "kernel.waiters-100", "kernel.waiters-10000"} <= set(find())
    assert {key.partition(".")[0] for key in find(["kernel"])} == {"kernel"}
    assert list(find(["kernel.alone"])) == ["kernel.alone"]
    with pytest.raises(ValueError, match=r"no benchmark 'kernle': choose from kernel, .*kernel\.alone"):
        find(["kernle"])


def test_names_of_contenders_and_of_goals_belong_together() -> None:
    """A goal names two contenders of its benchmark, and no two contenders have one name."""
    for key, benchmark in find().items():
        names = [contender.name for contender in benchmark.contenders]
        assert len(set(names)) == len(names), key
        for goal in benchmark.goals:
            assert {goal.ours, goal.theirs} <= set(names), key


def test_shares_are_equal_and_complete() -> None:
    """Every task gets the same number of keys; all keys have their turn."""
    shares = Benchmark(name="any", title="any", contenders=(), tasks=3, keys=10).shares(20)

    assert [len(share) for share in shares] == [7, 7, 7]
    assert {key for share in shares for key in share} == set(range(10))


def _double(offset: int) -> Any:
    @asynccontextmanager
    async def prepare(_: str) -> AsyncIterator[Any]:
        async def work(keys: list[int]) -> int:
            return sum(key * (2 * key + offset) for key in keys)

        yield work

    return prepare


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_answers_are_checked(loop: Any) -> None:
    """A contender that answers wrong is an error, not a number."""
    benchmark = Benchmark(name="double", title="Double", contenders=(), tasks=2, answer=lambda key: 2 * key)

    sample = measure(Contender("right", _double(0), loop), "", benchmark.measure(0.001))
    assert sample.operations >= 40
    assert sample.rate > 0
    with pytest.raises(RuntimeError, match="wrong answers"):
        measure(Contender("wrong", _double(1), loop), "", benchmark.measure(0.001))


def test_goals_are_judged_round_by_round() -> None:
    """A slow minute of the machine slows both; what counts is the ratio in each round."""
    benchmark = Benchmark(
        name="any", title="Any", contenders=(), goals=(Goal("a", "b", 2.0), Goal("a", "b", 3.0, "cpu"))
    )
    ours = Outcome("a", rates=[200.0, 20.0, 210.0], cpus=[1.0, 10.0, 1.0])
    theirs = Outcome("b", rates=[100.0, 10.0, 50.0], cpus=[2.0, 20.0, 2.0])
    result = Result("any", benchmark, [ours, theirs, Outcome("c", missing="peer")])

    assert [(verdict.factor, verdict.met) for verdict in result.verdicts()] == [(2.0, True), (2.0, False)]
    assert "not installed: peer" in table(result)
    assert "goal MISSED" in table(result)
    ET.fromstring(plot(result))


def test_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kernel against Trio's primitives, in fresh processes, to tables, JSON and pictures."""
    arguments = ["kernel.alone", "kernel.waiters-100", "--rounds=1", "--seconds=0.001", f"--output={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])

    assert command_line.main() == 0

    shown = capsys.readouterr().out
    assert "Acquire and release, one task" in shown
    written = json.loads((tmp_path / "results.json").read_text())
    assert [result["benchmark"] for result in written["results"]] == ["kernel.alone", "kernel.waiters-100"]
    for result in written["results"]:
        assert len(result["contenders"]) == 4
        for contender in result["contenders"]:
            assert contender["operations_per_second"][0] > 0
        ET.parse(tmp_path / f"{result['benchmark']}.svg")
