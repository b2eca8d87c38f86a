"""Every way psycopg and libpq know to say where to connect."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest
import trio
from psycopg import errors as e
from psycopg.rows import dict_row
from respool_postgres import Connection
from respool_postgres._addresses import connection_attempts

from respool.testing import cancel_everywhere
from tests.fault_proxy import Fault, FaultProxy
from tests.servers import PostgresServer


@attrs.frozen
class Names(trio.abc.HostnameResolver):
    """A name server of our own."""

    addresses: dict[str, list[str]]
    asked: list[str] = attrs.field(factory=list)

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        host = host.decode()
        self.asked.append(host)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, int(port))) for a in self.addresses[host]]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


@pytest.fixture
async def names(server: PostgresServer) -> Names:
    """Names that only Trio can resolve: whoever asks the system does not find them. This lasts for a run of Trio."""
    names = Names({"db.test": [server.host], "two.test": ["127.0.0.9", server.host]})
    trio.socket.set_custom_hostname_resolver(names)
    return names


async def connected_to(conninfo: str = "", **kwargs: Any) -> str:
    async with await Connection.connect(conninfo, **kwargs) as connection:
        row = await (await connection.execute("SELECT current_setting('port')")).fetchone()
        assert row is not None
        return f"{connection.info.host}:{row[0]}"


async def test_url(server: PostgresServer) -> None:
    assert await connected_to(server.url) == f"{server.host}:{server.port}"


async def test_keywords_and_a_string_that_they_override(server: PostgresServer) -> None:
    assert await connected_to(f"host={server.host} port=1 user=postgres", port=server.port, dbname="postgres")


async def test_environment(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", server.host)
    monkeypatch.setenv("PGPORT", str(server.port))
    monkeypatch.setenv("PGUSER", "postgres")
    assert await connected_to() == f"{server.host}:{server.port}"


async def test_unix_socket(server: PostgresServer) -> None:
    assert await connected_to(server.socket_url) == f"{server.directory}:{server.port}"


async def test_names_are_resolved_by_trio(server: PostgresServer, names: Names) -> None:
    """So that a slow name server does not stop everything else."""
    assert await connected_to(f"postgresql://postgres@db.test:{server.port}/postgres") == f"db.test:{server.port}"
    assert names.asked == ["db.test"]


async def test_names_in_a_service_file_are_resolved_by_trio(
    server: PostgresServer, names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(f"[shop]\nhost=db.test\nport={server.port}\nuser=postgres\ndbname=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert await connected_to("service=shop") == f"db.test:{server.port}"
    monkeypatch.setenv("PGSERVICE", "shop")
    assert await connected_to() == f"db.test:{server.port}"
    assert names.asked == ["db.test", "db.test"]
    with pytest.raises(e.OperationalError, match='definition of service "none-such" not found'):
        await Connection.connect("service=none-such")


async def test_libpq_is_told_no_more_than_it_does_not_know(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own defaults it knows best. What the environment says must be known here, to make the attempts."""
    for variable in ("PGHOST", "PGPORT"):
        monkeypatch.delenv(variable, raising=False)
    names.addresses["db.test"] = ["127.0.0.9"]
    assert await connection_attempts({}) == [{}]
    assert await connection_attempts({"host": "db.test"}) == [{"host": "db.test", "hostaddr": "127.0.0.9"}]
    monkeypatch.setenv("PGPORT", "1,2")
    assert await connection_attempts({"host": "db.test,127.0.0.8"}) == [
        {"host": "db.test", "hostaddr": "127.0.0.9", "port": "1"},
        {"host": "127.0.0.8", "hostaddr": "127.0.0.8", "port": "2"},
    ]


async def test_every_address_of_a_name_is_tried(server: PostgresServer, names: Names) -> None:
    assert await connected_to(f"host=two.test port={server.port} user=postgres") == f"two.test:{server.port}"


async def test_unknown_names(server: PostgresServer, names: Names) -> None:
    with pytest.raises(e.OperationalError, match=r"failed to resolve host 'none.test'"):
        await Connection.connect("host=none.test")
    assert await connected_to(f"host=none.test,db.test port={server.port} user=postgres")


async def test_several_hosts(server: PostgresServer) -> None:
    """With a port each, or one for all; names, addresses and sockets mixed."""
    refused = f"host={server.directory},127.0.0.9,{server.host} port={server.port + 1},{server.port},{server.port}"
    assert await connected_to(f"{refused} user=postgres") == f"{server.host}:{server.port}"
    assert await connected_to(f"hostaddr=127.0.0.9,{server.host} port={server.port} user=postgres")
    with pytest.raises(e.OperationalError, match="could not match 3 port numbers to 2 hosts"):
        await Connection.connect("host=localhost,localhost port=1,2,3")


async def test_all_failures_are_told(server: PostgresServer) -> None:
    with pytest.raises(e.OperationalError, match="Multiple connection attempts failed") as caught:
        await Connection.connect(f"host=127.0.0.9,127.0.0.8 port={server.port} user=postgres")
    assert isinstance(caught.value.__cause__, ExceptionGroup)
    assert len(caught.value.__cause__.exceptions) == 2


async def test_target_session_attrs(server: PostgresServer) -> None:
    with PostgresServer(settings={"default_transaction_read_only": "on"}) as read_only:
        hosts = f"host={server.host},{server.host} port={read_only.port},{server.port} user=postgres"
        assert await connected_to(hosts) == f"{server.host}:{read_only.port}"
        assert await connected_to(hosts, target_session_attrs="read-write") == f"{server.host}:{server.port}"
        assert await connected_to(hosts, target_session_attrs="prefer-standby")
        with pytest.raises(e.OperationalError):
            await Connection.connect(hosts, target_session_attrs="standby")


async def test_load_balance_hosts(server: PostgresServer, names: Names) -> None:
    names.addresses["many.test"] = ["127.0.0.1", "127.0.0.9"]
    tried = set()
    for _ in range(20):
        conninfo = f"host=many.test port={server.port} user=postgres dbname=none-such load_balance_hosts=random"
        if psycopg.pq.version() < 160000:
            conninfo = conninfo.replace("load_balance_hosts=random", "")
        with pytest.raises(e.OperationalError) as caught:
            await Connection.connect(conninfo)
        tried.add(str(caught.value).splitlines()[0])
    assert len(tried) == (1 if psycopg.pq.version() < 160000 else 2)


async def test_connect_timeout(server: PostgresServer) -> None:
    """Each attempt has that long; then it is the next host's turn."""
    proxy = FaultProxy(server.host, server.port, fault=Fault(silent=True))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        hosts = f"host={proxy.host},{server.host} port={proxy.port},{server.port} user=postgres connect_timeout=2"
        assert await connected_to(hosts) == f"{server.host}:{server.port}"
        refusing = f"{hosts} hostaddr={proxy.host},127.0.0.9"
        with pytest.raises(e.OperationalError) as caught:
            await Connection.connect(refusing)
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert isinstance(caught.value.__cause__.exceptions[0], e.ConnectionTimeout)
        nursery.cancel_scope.cancel()


async def test_tls() -> None:
    with PostgresServer(tls=True) as server:
        settings = {"sslmode": "verify-full", "sslrootcert": str(server.ca_file), "host": "localhost"}
        async with await Connection.connect(server.url, **settings) as connection:  # type: ignore[arg-type]
            assert connection.pgconn.ssl_in_use
            await connection.execute("SELECT %s", ("x" * 1_000_000,))
            await connection.set_autocommit(False) if connection.info.transaction_status == 0 else None
            with trio.move_on_after(0.05) as scope:
                await connection.execute("SELECT pg_sleep(60)")
            assert scope.cancelled_caught
            await connection.rollback()
            assert await (await connection.execute("SELECT 1")).fetchone() == (1,)


async def test_password_and_needs_password() -> None:
    with PostgresServer(authentication="scram-sha-256") as server:
        assert await connected_to(server.url)
        with pytest.raises(e.OperationalError, match="password authentication failed"):
            await Connection.connect(server.url, password="wrong")


async def test_psycopgs_own_arguments(server: PostgresServer) -> None:
    context = psycopg.adapt.AdaptersMap(psycopg.adapters)
    connection = await Connection.connect(
        server.url,
        autocommit=True,
        prepare_threshold=None,
        context=context,
        row_factory=dict_row,
        cursor_factory=psycopg.AsyncClientCursor,
    )
    assert connection.autocommit
    assert connection.prepare_threshold is None
    assert connection.row_factory is dict_row
    assert isinstance(connection.cursor(), psycopg.AsyncClientCursor)
    await connection.close()


async def test_what_libpq_does_not_know_is_refused(server: PostgresServer) -> None:
    with pytest.raises(e.ProgrammingError, match='invalid connection option "hots"'):
        await Connection.connect(server.url, hots="x")
    with pytest.raises(e.ProgrammingError, match="bad value for connect_timeout: 'soon'"):
        await Connection.connect(server.url, connect_timeout="soon")


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def test_cancelled_anywhere_leaves_nothing_open(server: PostgresServer) -> None:
    before = descriptors()

    async def connect() -> None:
        await (await Connection.connect(server.url)).close()

    def check() -> None:
        assert descriptors() == before

    assert (await cancel_everywhere(connect, check=check)).cancelled > 2
