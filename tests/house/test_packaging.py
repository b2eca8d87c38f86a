"""One version, one changelog, and nothing of the machine it was written on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house._house import ADAPTERS, PROJECTS, ROOT, project

VERSION = project(ROOT / "pyproject.toml")["version"]
ADAPTER_PROJECTS = [path for path in PROJECTS if path.parent != ROOT]


@pytest.mark.parametrize("path", ADAPTER_PROJECTS, ids=lambda path: path.parent.name)
def test_adapters_move_in_lock_step(path: Path) -> None:
    """An adapter has the kernel's version, asks for exactly that kernel, and is what ``respool[name]`` installs."""
    table = project(path)
    assert table["name"] == f"respool-{path.parent.name}"
    assert table["version"] == VERSION
    assert f"respool=={VERSION}" in table["dependencies"]
    extras = project(ROOT / "pyproject.toml")["optional-dependencies"]
    assert extras.get(path.parent.name) == [f"respool-{path.parent.name}=={VERSION}"]


@pytest.mark.parametrize("package", ADAPTERS, ids=lambda path: path.name)
def test_adapters_ship_types_licence_and_readme(package: Path) -> None:
    """Type checkers find py.typed, readers find README.md, lawyers find LICENSE."""
    assert (package.parent / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert (package / "py.typed").exists()
    assert (package.parent / "README.md").read_text().startswith(f"# respool-{package.parent.name}\n")
    assert project(package.parent / "pyproject.toml")["license"] == "MIT"


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_the_same_commit_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    """Wherever and whenever it is built, so that anybody can check that what is published was built from it."""
    built = [_build(path.parent, tmp_path / name, moment) for name, moment in (("here", 1e9), ("elsewhere", 1.5e9))]
    assert len(built[0]) == 2
    assert built[0] == built[1]


def _build(distribution: Path, place: Path, moment: float) -> dict[str, bytes]:
    """Copy a distribution to a place, date all its files to a moment, and build them."""
    ignored = shutil.ignore_patterns(".*", "adapters", "build", "dist", "docs", "tests", "__pycache__")
    shutil.copytree(distribution, place / "source", ignore=ignored)
    for file in (place / "source").rglob("*"):
        os.utime(file, (moment, moment))
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(place / "dist")]
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(command, cwd=place / "source", env=environment, capture_output=True, check=True)
    return {file.name: file.read_bytes() for file in (place / "dist").iterdir()}


def test_changelog_has_room_for_the_next_change() -> None:
    """The first section is Unreleased."""
    sections = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased"


def test_no_path_of_a_machine_in_any_file() -> None:
    """The repository speaks of itself alone."""
    forbidden = ["/" + directory + "/" for directory in ("work", "root", "tmp", "home")]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).exists()]
    found = [
        f"{file.relative_to(ROOT)}: {path}"
        for file in files
        for path in forbidden
        if re.search(rf"(?<![\w.\]}}]){path}", file.read_text(errors="replace"))
    ]
    assert found == []


def test_make_says_in_a_sentence_what_it_installs(tmp_path: Path) -> None:
    """Whoever types `make demo` for the first time sees no commands, but why it takes a while."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    python = tmp_path / "python"  # makes an environment with a pip that does nothing
    python.write_text('#!/bin/sh\n[ "$2" != venv ] || { mkdir -p "$3/bin" && ln -s /bin/true "$3/bin/pip"; }\n')
    python.chmod(0o755)
    command = ["make", "PYTHON=./python", ".venv/installed"]
    alone = {"PATH": os.environ["PATH"]}  # not as part of `make test`
    made = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True, check=True)
    assert (made.stdout, made.stderr) == ("Installing what this needs into .venv, for a minute or so\n", "")
    assert (tmp_path / ".venv/installed").exists()
