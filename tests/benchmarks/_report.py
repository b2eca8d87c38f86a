"""What was measured, as text, for machines and as a picture, whichever kind of benchmark it was."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from . import _report_losses, _report_surge, _report_throughput
from ._losing import Losing
from ._run import Result
from ._surge import Surge

PACKAGES = (
    *("trio", "uvloop", "psycopg", "psycopg_pool", "asyncpg", "SQLAlchemy", "PyMySQL", "aiomysql", "asyncmy"),
    *("redis", "hiredis", "coredis", "httptools", "aiohttp", "httpcore", "httpcore2", "httpx2"),
)


def _kind(result: Result) -> ModuleType:
    match result.benchmark:
        case Surge():
            return _report_surge
        case Losing():
            return _report_losses
    return _report_throughput


def table(result: Result) -> str:
    """A result for people."""
    missing = [
        f"  {outcome.contender}: {outcome.missing} is not installed" for outcome in result.outcomes if outcome.missing
    ]
    return "\n".join([result.benchmark.title, "", *_kind(result).lines(result), *missing]).rstrip() + "\n"


def plot(result: Result) -> str:
    """A result as an SVG picture; empty if there is none."""
    picture: str = _kind(result).plot(result)
    return picture


def document(results: Sequence[Result], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything, for machines."""
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "packages": {name: _version(name) for name in PACKAGES},
        },
        "rounds": rounds,
        "seconds": seconds,
        "results": [_entry(result) for result in results],
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _entry(result: Result) -> dict[str, Any]:
    contenders = [
        {"name": outcome.contender, "missing": outcome.missing or None, "samples": outcome.samples}
        for outcome in result.outcomes
    ]
    return {
        "benchmark": result.key,
        "title": result.benchmark.title,
        "contenders": contenders,
        "goals": _kind(result).goals(result),
    }
