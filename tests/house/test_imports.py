"""Who may import whom: the house's plan, held by parsing every import."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.house._house import ADAPTERS, KERNEL, PACKAGES, imports, modules, project

BOOKS = {"_entry", "_limits", "_queue", "_statistics"}
BELOW_THE_POOL = {
    *BOOKS,
    "_budget",
    "_callables",
    "_clocks",
    "_deadlock",
    "_errors",
    "_ledger",
    "_misuse",
    "_telling",
    "_urls",
    "abc",
}

# Each kernel module, and which others it may import. A new module is added here, in its place.
MAY_IMPORT: dict[str, set[str]] = {
    "_errors": set(),
    "_limits": set(),
    "_statistics": set(),
    "abc": set(),
    "_entry": {"_errors"},
    "_clocks": set(),
    "_deadlock": set(),
    "_queue": {"_entry"},
    "_budget": {"_entry"},
    "_ledger": {*BOOKS, "_budget"},
    "_telling": {"_entry", "_ledger", "_statistics"},
    "_misuse": {"abc"},
    "_callables": {"_misuse", "abc"},
    "_urls": {"abc"},
    "_pool": BELOW_THE_POOL,
    "_keyed": {*BELOW_THE_POOL, "_pool"},
    "_observed": {"_budget", "_pool"},
}

# Modules that work on plain values, with the time as an argument.
WITHOUT_TRIO = {*BOOKS, "_budget", "_clocks", "_ledger", "_misuse", "_telling", "abc"}

# Modules that users import by name, when they have what it integrates with.
INTEGRATIONS = {"respool.opentelemetry": {"opentelemetry"}, "respool.prometheus": {"prometheus_client"}}

PRIVATE_MODULES = {name.partition(".")[2]: file for name, file in modules(KERNEL).items() if name.count(".") == 1}


def is_private(name: str) -> bool:
    return re.search(r"(^|\.)_[^_]", name) is not None


@pytest.mark.parametrize("name", [name for name in PRIVATE_MODULES if name.startswith("_") or name == "abc"])
def test_kernel_modules_import_only_what_is_below_them(name: str) -> None:
    """No cycles, and nothing of a higher floor."""
    assert name in MAY_IMPORT, f"say in MAY_IMPORT which modules respool/{name}.py may import"
    found = {
        origin.split(".")[1] for origin in imports(f"respool.{name}", KERNEL / f"{name}.py") if "respool." in origin
    }
    assert found <= MAY_IMPORT[name]


@pytest.mark.parametrize("name", sorted(WITHOUT_TRIO))
def test_bookkeeping_does_not_know_trio(name: str) -> None:
    """Every count, list and queue is kept without Trio: no import of it, and nothing asynchronous in the ledger."""
    file = KERNEL / f"{name}.py"
    assert "trio" not in {origin.partition(".")[0] for origin in imports(f"respool.{name}", file)}
    if name != "abc":  # which declares asynchronous hooks
        asynchronous = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
        assert [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, asynchronous)] == []


@pytest.mark.parametrize(("name", "file"), modules(KERNEL).items(), ids=lambda value: str(value).rpartition("/")[2])
def test_kernel_depends_on_trio_and_attrs_alone(name: str, file: Path) -> None:
    """Beside the standard library, except where a module exists to integrate with something."""
    allowed = {"respool", "trio", "attrs", *sys.stdlib_module_names, *INTEGRATIONS.get(name, ())}
    assert {origin.partition(".")[0] for origin in imports(name, file)} <= allowed


@pytest.mark.parametrize(
    ("name", "file"),
    [item for package in [KERNEL / "testing", *ADAPTERS] for item in modules(package).items()],
    ids=lambda value: str(value).rpartition("/")[2],
)
def test_adapters_and_testing_use_public_names_only(name: str, file: Path) -> None:
    """What we give adapter authors is what we live on ourselves. No adapter imports another."""
    if name.startswith("testing"):
        name = f"respool.{name}"
    own = ("respool.testing" if name.startswith("respool.") else name.partition(".")[0]) + "."
    others = {
        origin for origin in imports(name, file) if origin.startswith("respool") and not f"{origin}.".startswith(own)
    }
    assert {origin for origin in others if is_private(origin) or origin.startswith("respool_")} == set()


@pytest.mark.parametrize("package", ADAPTERS, ids=lambda path: path.name)
def test_adapters_declare_what_they_import(package: Path) -> None:
    """Every import of an adapter is the standard library's, a declared dependency's, or one the kernel brings along."""
    declared = project(package.parent / "pyproject.toml")
    extras = declared.get("optional-dependencies", {}).values()
    requirements = [*declared.get("dependencies", ()), *(line for extra in extras for line in extra)]
    names = {canonical(re.split(r"[^\w.-]", line)[0]) for line in requirements}
    distributions = packages_distributions()
    found = {origin.partition(".")[0] for name, file in modules(package).items() for origin in imports(name, file)}
    for name in found - {package.name, "trio", "attrs", *sys.stdlib_module_names}:
        assert names & {canonical(owner) for owner in distributions.get(name, [name])}, f"{name} is not declared"


def canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_no_asyncio_and_no_threads(package: Path) -> None:
    """Everything waits on Trio itself. Only the conformance check runs its proxy in a thread of its own."""
    files = {name: file for name, file in modules(package).items() if name != "respool.testing._proxy"}
    found = {origin for name, file in files.items() for origin in imports(name, file)}
    assert {origin for origin in found if origin.partition(".")[0] in {"asyncio", "threading", "concurrent"}} == set()
