"""psycopg without its C accelerator, and with the system's libpq, which may be too old to cancel without blocking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_features_and_cancellation_in_pure_python() -> None:
    """The same tests once more, in a process of their own: psycopg chooses its implementation when it is imported."""
    files = [str(HERE / "test_features.py"), str(HERE / "test_cancellation.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files],
        env={**os.environ, "PSYCOPG_IMPL": "python"},
        cwd=HERE.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
