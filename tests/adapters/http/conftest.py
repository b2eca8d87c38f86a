"""What the tests of HTTP have in common."""

from __future__ import annotations

import pytest
from respool_http._socket import Wire


@pytest.fixture
def unnoticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether a server has closed a connection, as if it had done so a moment later."""
    monkeypatch.setattr(Wire, "is_quiet", lambda _: True)
