"""Servers as fixtures.

``postgres_server`` and its like are shared by the whole run: leave them as they were found. ``fresh_postgres_server``
and its like belong to one test, which may kill, pause and restart them. For other settings use the classes in
`tests.servers`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import MariaDBServer, NginxServer, PostgresServer, RedisServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def fresh_postgres_server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    with MariaDBServer() as server:
        yield server


@pytest.fixture
def fresh_mariadb_server() -> Iterator[MariaDBServer]:
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def fresh_redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def nginx_server() -> Iterator[NginxServer]:
    with NginxServer() as server:
        yield server
