"""The adapters' own examples, run on the demo's servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio
from rich.console import Console
from rich.text import Text

from .subject import Subject

EXAMPLES = Path(__file__).parents[1]


async def run_examples(console: Console, subject: Subject) -> list[str]:
    """Run each example of the subject's adapter, show what it prints, and return those that failed."""
    failed = []
    for program in sorted(EXAMPLES.glob(f"{subject.examples}_*.py")) if subject.examples else ():
        console.print(f"{subject.title}, examples/{program.name}:", highlight=False)
        done = await trio.run_process(
            [sys.executable, str(program)],
            env=os.environ | {f"RESPOOL_{subject.examples.upper()}_URL": subject.url},
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )
        for line in done.stdout.decode().splitlines():
            console.print(Text(f"  {line}"))
        if done.returncode:
            failed.append(program.name)
    return failed
