"""Sphinx builds the documentation; every warning is an error."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "respool"
author = "The respool authors"
copyright = author  # noqa: A001
release = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["version"]

sys.path.insert(0, str(Path(__file__).parent))
extensions = [
    "life_picture",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxcontrib_trio",
]
exclude_patterns = ["_build"]
default_role = "py:obj"
html_theme = "furo"
html_title = f"respool {release}"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False


def keep_attributes_whole(*event: Any) -> None:
    """Napoleon takes what stands before a colon in an attribute's first line for a type. It may be a sentence."""
    what, lines = event[1], event[-1]
    if what in {"attribute", "data", "property"}:
        lines.insert(0, "\\")  # in reStructuredText an escaped line end is nothing at all


def setup(app: Sphinx) -> None:
    """Run before Napoleon, whose priority is 500."""
    app.connect("autodoc-process-docstring", keep_attributes_whole, priority=400)
