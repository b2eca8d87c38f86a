"""Where everything is, who imports what, and what runs."""

from __future__ import annotations

import ast
import itertools
import os
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "respool"
ADAPTERS = sorted(path.parent for path in ROOT.glob("adapters/*/respool_*/__init__.py"))
PACKAGES = [KERNEL, *ADAPTERS]
PROJECTS = [ROOT / "pyproject.toml", *sorted(ROOT.glob("adapters/*/pyproject.toml"))]


def project(path: Path) -> dict[str, Any]:
    """The ``[project]`` table of a pyproject.toml."""
    table: dict[str, Any] = tomllib.loads(path.read_text())["project"]
    return table


def dependencies(path: Path) -> list[str]:
    """What a pyproject.toml says is needed, extras included."""
    table = project(path)
    return [*table["dependencies"], *itertools.chain(*table.get("optional-dependencies", {}).values())]


def modules(package: Path) -> dict[str, Path]:
    """Every module of a package by its full name."""
    files = sorted(package.rglob("*.py"))
    names = [".".join(file.relative_to(package.parent).with_suffix("").parts) for file in files]
    return {name.removesuffix(".__init__"): file for name, file in zip(names, files, strict=True)}


def imports(module: str, file: Path) -> Iterator[str]:
    """The full name of everything a module imports, wherever in it: ``respool._entry.Entry``.

    But not what it imports for its annotations alone.
    """
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(file.read_text())
    for block in ast.walk(tree):
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
            block.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def stopped_by_ctrl_c(command: Sequence[str], directory: Path, *, at: Callable[[str], bool]) -> None:
    """Run a program whose servers live in a directory, press Ctrl-C when it says a certain line; it leaves nothing."""
    environment = os.environ | {"TMPDIR": str(directory)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as program:
        assert program.stdout is not None
        assert any(map(at, program.stdout))
        assert processes_in(directory)
        program.send_signal(signal.SIGINT)
        rest = program.stdout.read()
        assert program.wait(20) == 130, rest
    assert rest.endswith("Stopped. Nothing is left running.\n")
    assert "Traceback" not in rest
    assert processes_in(directory) == []
    assert list(directory.iterdir()) == []


def processes_in(directory: Path) -> list[str]:
    """The commands of all processes that have to do with a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if str(directory) in command:
            found.append(command)
    return found
