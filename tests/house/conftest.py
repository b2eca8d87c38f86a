from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def servers_directory() -> Iterator[Path]:
    """Where the servers of a program live whose TMPDIR it is. Their own users must be able to pass through."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o711)
        yield Path(path)
