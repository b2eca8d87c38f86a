"""The command line."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ._benchmark import find
from ._report import document, plot, table
from ._run import REPOSITORY, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure respool and its peers.")
    parser.add_argument("names", nargs="*", help="modules (kernel) or single benchmarks (kernel.alone); default: all")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one measurement")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "build" / "benchmarks")
    parser.add_argument("--list", action="store_true", help="say what there is, and stop")
    arguments = parser.parse_args()
    try:
        benchmarks = find(arguments.names)
    except ValueError as error:
        parser.error(str(error))
    if arguments.list:
        print("\n".join(f"{key}: {benchmark.title}" for key, benchmark in benchmarks.items()))
        return 0
    rounds, seconds = (2, 0.1) if arguments.quick else (arguments.rounds, arguments.seconds)
    results = run(benchmarks, rounds=rounds, seconds=seconds, tell=lambda line: print(line, file=sys.stderr))
    arguments.output.mkdir(parents=True, exist_ok=True)
    tables = "\n".join(map(table, results))
    (arguments.output / "results.txt").write_text(tables)
    report = document(results, rounds=rounds, seconds=seconds)
    (arguments.output / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    for result in results:
        if picture := plot(result):
            (arguments.output / f"{result.key}.svg").write_text(picture)
    print(tables)
    print(f"Written to {arguments.output}: results.txt, results.json, and a plot for each.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
