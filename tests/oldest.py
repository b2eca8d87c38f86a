"""Print constraints for pip under which respool's dependencies are the oldest that it says it works with."""

from __future__ import annotations

import re

from tests.house._house import PROJECTS, dependencies


def oldest() -> dict[str, str]:
    """By package, the lower bound that our distributions give for what they need."""
    bounds = {}
    for path in PROJECTS:
        for requirement in dependencies(path):
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?>=([0-9.]+)", requirement)
            if match is not None:
                bounds[match[1].lower()] = match[2]
    return bounds


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in oldest().items()))
