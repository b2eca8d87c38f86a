"""The adapter contract, checked by `respool.testing.check_adapter`."""

from __future__ import annotations

import pytest
from respool_mysql import Connection, MySQLAdapter, SSCursor

from respool.testing import check_adapter
from tests.servers import MariaDBServer


async def check(connection: Connection) -> None:
    cursor = await connection.execute("SELECT 'mine'")
    assert await cursor.fetchall() == (("mine",),)


async def query(connection: Connection) -> None:
    await connection.execute("SELECT 'theirs', SLEEP(0.01)")


async def stream(connection: Connection) -> None:
    async with connection.cursor(SSCursor) as cursor:
        await cursor.execute("SELECT seq FROM seq_1_to_20000")
        await cursor.fetchmany(3_000)


async def transaction(connection: Connection) -> None:
    async with connection.transaction():
        await connection.execute("SELECT 'theirs', SLEEP(0.005)")


@pytest.mark.parametrize("use", [query, stream, transaction])
async def test_contract(server: MariaDBServer, use: object) -> None:
    report = await check_adapter(
        lambda host, port: MySQLAdapter(f"mysql://respool@{host}:{port}/test"),
        server=(server.host, server.port),
        use=use,  # type: ignore[call-overload]
        check=check,
    )
    assert report.points > 20
    assert report.recovered > 0


async def test_contract_over_tls(tls_server: MariaDBServer) -> None:
    adapter = MySQLAdapter(tls_server.url, ssl_ca=str(tls_server.ca_file), ssl_verify_identity=True)
    report = await check_adapter(adapter, use=query, check=check)
    assert report.recovered > 0


async def test_contract_over_a_unix_socket(server: MariaDBServer) -> None:
    adapter = MySQLAdapter(user="respool", unix_socket=str(server.socket_path), reset_session=True)
    report = await check_adapter(adapter, use=query, check=check)
    assert report.recovered > 0
