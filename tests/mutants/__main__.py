"""Apply each seeded bug to a copy of the kernel, run the kernel's tests on it, and print who was caught.

``python -m tests.mutants [WORD...]`` runs those whose story or file contains one of the words, or all. The exit status
is 0 if all were caught.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ._seeded import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
TIMEOUT = 600  # seconds for all tests; a single one that hangs is ended sooner


def main(words: list[str]) -> int:
    chosen = [m for m in MUTANTS if not words or any(word in f"{m.file} {m.story}" for word in words)]
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "respool"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        if verdict(copy) != "survived":
            print("The tests fail without any mutant. Run `pytest tests/kernel`.")
            return 2
        survivors = [mutant for mutant in chosen if try_out(mutant, copy) != "caught"]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} mutants caught")
    return len(survivors) > 0


def try_out(mutant: Mutant, copy: Path) -> str:
    """Run the tests on one mutant."""
    file = copy / "respool" / mutant.file
    healthy = file.read_text()
    started = time.monotonic()
    if healthy.count(mutant.old) != 1:
        result = "stale: the text to replace is not there exactly once"
    else:
        file.write_text(healthy.replace(mutant.old, mutant.new))
        result = verdict(copy)
        file.write_text(healthy)
    print(f"{result:9} {time.monotonic() - started:6.1f} s  {mutant.file}: {mutant.story}", flush=True)
    return result


def verdict(copy: Path) -> str:
    """Whether the tests of the kernel, but for those of the test tools themselves, fail."""
    command = [sys.executable, "-m", "pytest", "tests/kernel", "-x", "-q", "-p", "no:cacheprovider"]
    command += ["--ignore-glob=*/test_testing_*", "--ignore-glob=*/test_storms.py"]  # real time, and found by others
    command += ["-o", "faulthandler_timeout=60", "-o", "faulthandler_exit_on_timeout=true"]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return "caught"
    return "caught" if run.returncode else "survived"


sys.exit(main(sys.argv[1:]))
