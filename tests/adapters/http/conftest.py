"""What the tests of HTTP have in common."""

from __future__ import annotations

import pytest
from respool_http import Connection


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a server has closed a connection, as if it had done so a moment later."""
    monkeypatch.setattr(Connection, "is_clean", lambda connection: connection._clean)
