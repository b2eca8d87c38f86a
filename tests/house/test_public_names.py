"""The public surface, name by name. A change here is a change for users: it needs a line in CHANGELOG.md."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.house._house import PACKAGES, modules

PUBLIC = {
    "respool": """
        Adapter Budget HistogramSnapshot Holder Instrument KeyedPool KeyedPoolStatistics LeaseRevoked Limits OpenFailed
        Options Pool PoolClosed PoolDeadlock PoolError PoolOverloaded PoolStatistics PoolTimeout Priority Verdict
        adapter open_keyed_pool open_pool
    """,
    "respool.abc": "Adapter Instrument Verdict",
    "respool.lowlevel": "SocketWatch",
    "respool.opentelemetry": "PoolMetrics",
    "respool.prometheus": "PoolCollector",
    "respool.testing": """
        AdapterReport CancelReport ContractBroken FakeResource Gate GatedAdapter GatedError Hook cancel_everywhere
        check_adapter
    """,
    "respool_http": """
        Body Connection HTTPAdapter HTTPError HTTPPool HeaderInput Headers InvalidRequest NotReusable Origin
        ProtocolError Proxy ProxyError ReadTimeout RequestContext RequestOptions Response ServerDisconnected
        UpgradedStream WriteTimeout open_http_pool
    """,
    "respool_http.httpx": "PoolTransport",
    "respool_http.httpx2": "PoolTransport",
    "respool_mysql": "Connection Cursor DictCursor MySQLAdapter SSCursor SSDictCursor connect",
    "respool_postgres": "Connection PostgresAdapter",
    "respool_redis": "Connection NotSent Redis RedisAdapter Sentinel SentinelAdapter open_redis",
}

MODULES = {
    name: file
    for package in PACKAGES
    for name, file in modules(package).items()
    if not any(part.startswith("_") for part in name.split("."))
}


def public_names(file: Path) -> set[str]:
    """What a module exports: its ``__all__``, or else what it imports ``as`` itself."""
    tree = ast.parse(file.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    aliases = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    return {alias.name for alias in aliases if alias.name == alias.asname}


def test_every_public_module_is_listed() -> None:
    """A module without a leading underscore is a promise."""
    assert set(MODULES) == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_as_listed(name: str) -> None:
    """Nothing appears or disappears by accident."""
    assert public_names(MODULES[name]) == set(PUBLIC[name].split())
