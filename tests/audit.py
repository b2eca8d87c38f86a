"""Whether what respool needs at run time has known vulnerabilities: ``make audit``, which is part of ``make check``.

pip-audit asks the package index. Where that cannot be reached, nothing is known, and that is what is said; it is no
failure, because ``make check`` also has to work on a train. ``--required``, for a release, makes it one.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house._house import PROJECTS, project

DISTRIBUTIONS = [project(path)["name"] for path in PROJECTS]


def main(arguments: list[str]) -> int:
    found, why_not = ask()
    needed = closure(DISTRIBUTIONS)
    known = {canonical(entry["name"]): entry["vulns"] for entry in found if "vulns" in entry}
    unknown = sorted(needed - known.keys())
    for name, vulnerabilities in sorted(known.items()):
        for vulnerability in vulnerabilities:
            fixed = ", ".join(vulnerability["fix_versions"]) or "nothing"
            role = "needed by respool" if name in needed else "only used to develop respool"
            print(f"audit: {name} ({role}): {vulnerability['id']}, fixed in {fixed}")
    if unknown:
        print(f"audit: NOT AUDITED, because {why_not or 'the index does not know them'}: {', '.join(unknown)}")
    else:
        print(f"audit: {len(needed)} packages that respool needs were looked up")
    return any(known.get(name) for name in needed) or (bool(unknown) and "--required" in arguments)


def ask() -> tuple[list[dict[str, Any]], str]:
    """What pip-audit says of each installed package, and why it says nothing, if that is so."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable"]
    run = subprocess.run([*command, "--timeout", "10"], capture_output=True, text=True, check=False)
    if not run.stdout:
        reasons = run.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return [], reasons[-1].partition(":")[0]
    found: list[dict[str, Any]] = json.loads(run.stdout)["dependencies"]
    return found, ""


def closure(names: list[str]) -> set[str]:
    """What `names` need, directly or not, extras included, as far as it is installed; without themselves."""
    seen: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        try:
            requirements = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        ours = name in names
        todo += [
            canonical(requirement)
            for requirement in requirements
            if (ours or "extra ==" not in requirement) and canonical(requirement) not in seen
        ]
    return seen - set(names)


def canonical(requirement: str) -> str:
    """A requirement's name, as pip-audit spells it."""
    return canonicalize_name(Requirement(requirement).name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
