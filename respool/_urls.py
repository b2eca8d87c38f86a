"""From a URL to an adapter, through the entry points of whatever adapter packages are installed."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from typing import Any

from .abc import Adapter

__all__ = ["adapter_from_url"]

_GROUP = "respool.adapters"
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)  # RFC 3986, 3.1


def adapter_from_url(url: str) -> Adapter[Any]:
    """The adapter for `url`, made by the ``from_url`` that an installed package registered for its scheme.

    Raises:
      ValueError: `url` has no scheme, or no installed package serves it. The text never repeats the URL, which may
        hold a password.
    """
    match = _SCHEME.match(url)
    if match is None:
        raise ValueError("a URL such as 'postgresql://host/database' is needed: this one has no scheme")
    scheme = match[1].lower()
    matches = entry_points(group=_GROUP, name=scheme)
    if not matches:
        known = ", ".join(sorted(entry_points(group=_GROUP).names)) or "none"
        raise ValueError(
            f"no installed adapter serves {scheme!r} URLs (those installed serve: {known}); "
            "install its package, for instance respool[postgres]"
        )
    adapter: Adapter[Any] = next(iter(matches)).load()(url)
    return adapter
