"""The benchmarks' harness: it measures, checks answers, and reports. Peers are not needed here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import trio

from tests.benchmarks import __main__ as command_line
from tests.benchmarks._benchmark import Benchmark, Goal, find
from tests.benchmarks._contender import Contender, Program, Sample, output_of
from tests.benchmarks._loops import drive
from tests.benchmarks._losing import Losing
from tests.benchmarks._report import plot, table
from tests.benchmarks._report_throughput import verdicts
from tests.benchmarks._run import Outcome, Result
from tests.benchmarks._surge import LOADS, TIME_TO_LIVE, Caller, Surge, arrivals, summary


def test_everything_is_found_and_can_be_chosen() -> None:
    """Names choose modules and single benchmarks; an unknown one is told what there is."""
    assert {"kernel.alone", "kernel.waiters-100", "kernel.waiters-10000"} <= set(find())
    assert {key.partition(".")[0] for key in find(["kernel"])} == {"kernel"}
    assert list(find(["kernel.alone"])) == ["kernel.alone"]
    with pytest.raises(ValueError, match=r"no benchmark 'kernle': choose from .*kernel, .*kernel\.alone"):
        find(["kernle"])


def test_names_of_contenders_and_of_goals_belong_together() -> None:
    """A goal names two contenders of its benchmark, and no two contenders have one name."""
    for key, benchmark in find().items():
        names = [contender.name for contender in benchmark.contenders]
        assert len(set(names)) == len(names), key
        goals = [(goal.ours, goal.theirs) for goal in benchmark.goals] if isinstance(benchmark, Benchmark) else []
        wanted = benchmark.ours if isinstance(benchmark, Surge | Losing) else [name for goal in goals for name in goal]
        assert set(wanted) <= set(names), key


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

    sample = drive(Contender("right", _double(0), loop), "", benchmark.measure(0.001))
    assert sample.operations >= 40
    assert sample.rate > 0
    with pytest.raises(RuntimeError, match="wrong answers"):
        drive(Contender("wrong", _double(1), loop), "", benchmark.measure(0.001))


def test_goals_are_judged_round_by_round() -> None:
    """A slow minute of the machine slows both; what counts is the ratio in each round."""
    benchmark = Benchmark(
        name="any", title="Any", contenders=(), goals=(Goal("a", "b", 2.0), Goal("a", "b", 3.0, "cpu"))
    )
    ours = Outcome("a", [{"rate": 200.0, "cpu": 1.0}, {"rate": 20.0, "cpu": 10.0}, {"rate": 210.0, "cpu": 1.0}])
    theirs = Outcome("b", [{"rate": 100.0, "cpu": 2.0}, {"rate": 10.0, "cpu": 20.0}, {"rate": 50.0, "cpu": 2.0}])
    result = Result("any", benchmark, [ours, theirs, Outcome("c", missing="peer")])

    assert [(verdict.factor, verdict.met) for verdict in verdicts(result)] == [(2.0, True), (2.0, False)]
    assert "peer is not installed" in table(result)
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
            assert contender["samples"][0]["rate"] > 0
        ET.parse(tmp_path / f"{result['benchmark']}.svg")


def test_a_surge_comes_as_announced() -> None:
    """The same callers every time, as many in each phase as its load says."""
    callers = arrivals(2.0)

    assert callers == arrivals(2.0) == sorted(callers)
    for number, load in enumerate(LOADS):
        arrived = sum(number * 2.0 <= due < (number + 1) * 2.0 for due in callers)
        assert arrived == pytest.approx(load * 2000, rel=0.1)


def test_goodput_counts_only_who_was_served_in_time() -> None:
    """Too late, refused and given up are all the same to the caller."""
    callers = [Caller(due / 100, served=due / 100 + 0.01) for due in range(100)]
    callers[1].served = callers[1].due + TIME_TO_LIVE * 1.01
    callers[2].served, callers[2].refused = None, True
    callers[3].served = None

    first = summary(callers, 1.0, 1000.0, 0.0)["phases"][0]

    assert (first["arrived"], first["goodput"], first["refused"]) == (100, 97, 1)
    assert first["p50"] == pytest.approx(0.01)


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_a_surge_is_measured_and_shown(loop: Any) -> None:
    """On either loop: those who cannot be served in time leave, and the reports tell."""

    @asynccontextmanager
    async def one_at_a_time(_: str) -> AsyncIterator[Any]:
        limiter = trio.CapacityLimiter(1) if loop == "trio" else asyncio.Semaphore(1)
        sleep: Any = trio.sleep if loop == "trio" else asyncio.sleep

        async def use() -> None:
            async with limiter:
                await sleep(0.005)

        yield use

    surge = Surge(name="any", title="Any", contenders=(Contender("slow", one_at_a_time, loop),), ours=("slow",))
    sample = surge.sample(surge.contenders[0], "", 0.05)

    assert 0 < sample["capacity"] < 500
    assert sample["phases"][3]["goodput"] < sample["phases"][3]["arrived"]
    result = Result("any", surge, [Outcome("slow", [sample])])
    assert "goal" in table(result)
    ET.fromstring(plot(result))


def test_a_program_that_is_not_there_is_told_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program like wrk is no Python package, and still costs nothing but its own line."""
    benchmark = find(["http.small"])["http.small"]
    wrk = next(contender for contender in benchmark.contenders if contender.name == "wrk")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(ModuleNotFoundError) as caught:
        benchmark.sample(wrk, "http://127.0.0.1:1", 1.0)

    missing = caught.value.name
    assert missing is not None
    assert "wrk: wrk, a Debian package, is not installed" in table(
        Result("http.small", benchmark, [Outcome("wrk", missing=missing)])
    )


def test_programs_measure_themselves_and_are_shown_beside_ours() -> None:
    """And one that is not installed is a line in the table, no failure."""
    program = Program("load", lambda _, seconds: Sample(100, 100 / seconds, 1.0))
    benchmark = Benchmark(name="any", title="Any", contenders=(program,), fractions=(("a", "load"), ("a", "other")))

    assert benchmark.sample(program, "", 0.5)["rate"] == 200
    result = Result(
        "any", benchmark, [Outcome("a", [{"rate": 50.0, "cpu": 2.0}]), Outcome("load", [{"rate": 200.0, "cpu": 1.0}])]
    )
    assert "a: 0.25 of the operations/s of load" in table(result)
    with pytest.raises(ModuleNotFoundError) as caught:
        output_of(["no-such-program"], "no-such-tools")
    assert caught.value.name == "no-such-tools, a Debian package,"
    said, cpu_seconds = output_of(["python3", "-c", "print('done')"], "python3")
    assert said == "done\n"
    assert cpu_seconds > 0
