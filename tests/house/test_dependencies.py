"""What we depend on: bounds for everything, and what ``make audit`` says of it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests import audit
from tests.house._house import ADAPTERS, PACKAGES, PROJECTS, dependencies, imports, modules
from tests.oldest import oldest

SUBCLASSED = {"pymysql"}  # whose classes' own methods are overridden, under public names


def requirements(path: Path) -> list[Requirement]:
    """What a distribution needs from others, extras included."""
    return [each for each in map(Requirement, dependencies(path)) if not each.name.startswith("respool")]


def relied_on() -> set[str]:
    """Packages of whose modules we import some that are private."""
    names = {name for package in PACKAGES for module in modules(package).items() for name in imports(*module)}
    own = {package.name for package in PACKAGES}
    parts = [name.split(".") for name in names if name.split(".")[0] not in own]
    return {top for top, *rest in parts if any(part.startswith("_") for part in rest)} | SUBCLASSED


@pytest.mark.parametrize("path", PROJECTS, ids=lambda path: path.parent.name)
def test_dependencies_have_bounds(path: Path) -> None:
    """From below, so that ``make oldest`` can test it; from above as well where a driver's internals are relied on."""
    for requirement in requirements(path):
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, requirement
        assert ("<" in operators) == (requirement.name in relied_on()), requirement
        assert importlib.metadata.version(requirement.name) in requirement.specifier, "tested with another version"


def test_drivers_internals_are_relied_on() -> None:
    """The test above knows them."""
    assert {"psycopg", "redis"} <= relied_on()


def test_oldest_names_every_dependency() -> None:
    """The constraints of ``make oldest`` are the lower bounds."""
    names = {requirement.name.lower() for path in PROJECTS for requirement in requirements(path)}
    assert set(oldest()) == names
    assert oldest()["psycopg"].startswith("3.")


def test_audit_follows_what_is_needed() -> None:
    """The drivers, and what they need; but none of the tools."""
    needed = audit.closure([package.name.replace("_", "-") for package in PACKAGES])
    assert {"trio", "attrs", "sniffio", "psycopg", "pymysql", "greenlet", "redis", "hiredis", "httptools"} <= needed
    assert not {"pytest", "hypothesis", "respool", *(package.name for package in ADAPTERS)} & needed


VULNERABLE = {"id": "PYSEC-1", "fix_versions": ["9"]}


def looked_up(**vulnerable: dict[str, Any]) -> list[dict[str, Any]]:
    names = audit.closure(audit.DISTRIBUTIONS) | {"pytest"}
    return [{"name": name, "vulns": [vulnerable[name]] if name in vulnerable else []} for name in names]


@pytest.mark.parametrize(
    ("answer", "arguments", "status", "said"),
    [
        ((looked_up(), ""), ["--required"], 0, "packages that respool needs were looked up"),
        ((looked_up(trio=VULNERABLE), ""), [], 1, "trio (needed by respool): PYSEC-1, fixed in 9"),
        ((looked_up(pytest=VULNERABLE), ""), [], 0, "pytest (only used to develop respool): PYSEC-1"),
        (([], "no route to host"), [], 0, "NOT AUDITED, because no route to host: "),
        (([], "no route to host"), ["--required"], 1, "NOT AUDITED"),
        (([{"name": "trio", "skip_reason": "?"}], ""), [], 0, "NOT AUDITED, because the index does not know them: "),
    ],
    ids=["all well", "vulnerable", "a tool is", "offline", "offline at a release", "an index without advisories"],
)
def test_audit_never_passes_in_silence(
    answer: Any,
    arguments: list[str],
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A vulnerability of ours fails; what could not be looked up is said, and fails a release."""
    monkeypatch.setattr(audit, "ask", lambda: answer)
    assert audit.main(arguments) == status
    assert said in capsys.readouterr().out
