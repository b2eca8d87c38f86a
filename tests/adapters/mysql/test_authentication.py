"""Signing in: MySQL 8's plugins against a scripted server, MariaDB's against a real one; TLS and Unix sockets."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pymysql import err
from pymysql._auth import scramble_caching_sha2, scramble_native_password
from respool_mysql import Connection, MySQLAdapter, connect

from respool.abc import Verdict
from tests.adapters.mysql.scripted import OK, SALT, Client, error, scripted
from tests.servers import MariaDBServer

PASSWORD = b"s3cret"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
CA = trustme.CA()


def server_tls() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    CA.issue_cert("127.0.0.1").configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CA.configure_trust(context)
    return context


def decrypt(secret: bytes) -> bytes:
    """What a server makes of the password that a client encrypted with its public key."""
    mask = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
    return bytes(byte ^ SALT[i % 20] for i, byte in enumerate(KEY.decrypt(secret, mask)))


async def full(client: Client) -> bytes:
    """The second half of caching_sha2_password, when the server does not have the password in its cache."""
    await client.send(b"\x01\x04")
    answer = await client.receive()
    if client.secure:
        return answer
    if answer == b"\x02":
        await client.send(b"\x01" + PUBLIC)
        answer = await client.receive()
    return decrypt(answer)


async def caching_fast(client: Client) -> None:
    assert await client.greet("caching_sha2_password") == (
        "caching_sha2_password",
        scramble_caching_sha2(PASSWORD, SALT),
    )
    await client.send(b"\x01\x03", OK)


async def caching_full(client: Client) -> None:
    await client.greet("caching_sha2_password")
    assert await full(client) == PASSWORD + b"\0"
    await client.send(OK)


async def caching_after_a_switch(client: Client) -> None:
    await client.greet("mysql_native_password")
    await client.send(b"\xfecaching_sha2_password\0" + SALT + b"\0")
    assert await client.receive() == scramble_caching_sha2(PASSWORD, SALT)
    assert await full(client) == PASSWORD + b"\0"
    await client.send(OK)


async def sha256(client: Client) -> None:
    _, answer = await client.greet("sha256_password")
    if client.secure:
        assert answer == PASSWORD + b"\0"
    else:
        assert answer == b"\x01"
        await client.send(b"\x01" + PUBLIC)
        assert decrypt(await client.receive()) == PASSWORD + b"\0"
    await client.send(OK)


async def native_after_a_switch(client: Client) -> None:
    await client.greet("caching_sha2_password")
    await client.send(b"\xfemysql_native_password\0" + SALT + b"\0")
    assert await client.receive() == scramble_native_password(PASSWORD, SALT)
    await client.send(OK)


PLUGINS = [caching_fast, caching_full, caching_after_a_switch, sha256, native_after_a_switch]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("secure", [False, True], ids=["in the clear", "over TLS"])
async def test_plugins_of_mysql_8(plugin: Callable[[Client], Any], secure: bool) -> None:
    """Each plugin's exchange, to the byte; and a password never goes over an open network as it is."""

    async def script(client: Client) -> None:
        await plugin(client)
        assert client.secure is secure
        assert "SET NAMES" in await client.command()
        await client.send(OK)
        assert await client.command() == "SELECT 1"
        await client.send(OK)

    options: dict[str, Any] = {"ssl": client_tls()} if secure else {}
    async with scripted(script, tls=server_tls() if secure else None) as port:
        connection = await connect(
            host="127.0.0.1", port=port, user="me", password=PASSWORD, autocommit=True, **options
        )
        await connection.execute("SELECT 1")
        connection.close()


@pytest.mark.parametrize("plugin", ["mysql_clear_password", "dialog"])
@pytest.mark.parametrize("secure", [False, True], ids=["in the clear", "over TLS"])
async def test_a_password_is_sent_as_it_is_over_tls_only(plugin: str, secure: bool) -> None:
    """Whoever stands between client and server could ask for it otherwise."""
    answers: list[bytes] = []

    async def script(client: Client) -> None:
        await client.greet("caching_sha2_password")
        await client.send(b"\xfe" + plugin.encode() + b"\0" + (b"\x03Password: " if plugin == "dialog" else b""))
        answers.append(await client.receive())
        await client.send(error(1045, "wrong"))

    options: dict[str, Any] = {"ssl": client_tls()} if secure else {}
    async with scripted(script, tls=server_tls() if secure else None) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", password=PASSWORD.decode(), **options)
        with pytest.raises(err.OperationalError, match="wrong" if secure else "use TLS") as caught:
            await adapter.open()
    assert adapter.verdict(caught.value) == Verdict.PERMANENT
    assert (PASSWORD + b"\0" in answers) is secure


async def test_a_known_public_key_is_not_asked_for() -> None:
    async def script(client: Client) -> None:
        await client.greet("caching_sha2_password")
        await client.send(b"\x01\x04")
        assert decrypt(await client.receive()) == PASSWORD + b"\0"
        await client.send(OK)
        await client.receive()
        await client.send(OK)

    async with scripted(script) as port:
        connection = await connect(
            host="127.0.0.1", port=port, user="me", password=PASSWORD, autocommit=None, server_public_key=PUBLIC
        )
        connection.close()


async def test_a_refusal_is_permanent_and_does_not_tell_the_password() -> None:
    async def script(client: Client) -> None:
        await client.greet("caching_sha2_password")
        await client.send(error(1045, "Access denied for user 'me'"))

    async with scripted(script) as port:
        adapter = MySQLAdapter(f"mysql://me:{PASSWORD.decode()}@127.0.0.1:{port}/")
        with pytest.raises(err.OperationalError, match="Access denied") as caught:
            await adapter.open()
    assert adapter.verdict(caught.value) == Verdict.PERMANENT
    assert PASSWORD.decode() not in repr(adapter) + adapter.name + repr(caught.value)


async def test_nothing_said_before_tls_is_believed() -> None:
    """Bytes that somebody on the way puts behind the greeting are not taken for the server's."""

    async def script(client: Client) -> None:
        await client.greet("mysql_native_password", also=b"\x07\0\0\x02" + OK)
        await client.send(error(1045, "the real answer"))

    async with scripted(script, tls=server_tls()) as port:
        with pytest.raises(err.OperationalError, match="the real answer"):
            await connect(host="127.0.0.1", port=port, user="me", ssl=client_tls())


async def test_tls_that_must_be_but_is_not_offered() -> None:
    async def script(client: Client) -> None:
        await client.greet("mysql_native_password")

    async with scripted(script) as port:
        adapter = MySQLAdapter(host="127.0.0.1", port=port, user="me", ssl=client_tls())
        with pytest.raises(err.OperationalError, match="SSL is required") as caught:
            await adapter.open()
    assert adapter.verdict(caught.value) == Verdict.PERMANENT


async def cipher(connection: Connection) -> str:
    ((_, name),) = await (await connection.execute("SHOW STATUS LIKE 'Ssl_cipher'")).fetchall()
    return str(name)


async def test_tls(tls_server: MariaDBServer) -> None:
    """Every ``ssl_*`` argument; the default is TLS where the server has it, as in PyMySQL."""
    trusted: Any = {"ssl_ca": str(tls_server.ca_file)}
    for options in ({}, trusted, {**trusted, "ssl_verify_cert": True}, {**trusted, "ssl_verify_identity": True}):
        async with await connect(tls_server.url, **options) as connection:
            assert await cipher(connection)
            cursor = await connection.execute("SELECT REPEAT('x', 1000000), %s", ("y" * 1_000_000,))
            assert await cursor.fetchone() == ("x" * 1_000_000, "y" * 1_000_000)
    async with await connect(tls_server.url, ssl_disabled=True) as connection:
        assert not await cipher(connection)
    async with await connect(tls_server.url + "?ssl_disabled=true") as connection:
        assert not await cipher(connection)


async def test_a_server_nobody_vouches_for(tls_server: MariaDBServer, tmp_path: Path) -> None:
    """The certificate is refused, for good."""
    stranger = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    adapter = MySQLAdapter(tls_server.url, ssl_ca=str(stranger), ssl_verify_cert=True)
    with pytest.raises(err.OperationalError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        await adapter.open()
    assert adapter.verdict(caught.value) == Verdict.PERMANENT


async def test_a_server_with_somebody_elses_certificate(tmp_path: Path) -> None:
    """``ssl_verify_identity``: whoever signed it, it must be for the host that was asked for."""
    CA.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def script(client: Client) -> None:
        await client.greet("mysql_native_password")

    async with scripted(script, tls=server_tls()) as port:
        adapter = MySQLAdapter(
            host="localhost", port=port, user="me", ssl_ca=str(tmp_path / "ca.pem"), ssl_verify_identity=True
        )
        with pytest.raises(err.OperationalError, match="not valid for 'localhost'") as caught:
            await adapter.open()
    assert adapter.verdict(caught.value) == Verdict.PERMANENT


async def test_certificates_of_clients(tls_server: MariaDBServer, tmp_path: Path) -> None:
    """``ssl_cert``, ``ssl_key`` and ``ssl_key_password``, or all in a dict ``ssl``, for a user who needs one."""
    async with await connect(tls_server.url) as root:
        await root.execute("CREATE OR REPLACE USER certified@'%' REQUIRE X509")
    place: Any = {"host": tls_server.host, "port": tls_server.port, "user": "certified"}
    certificate, key, locked = str(tls_server.certificate_file), str(tls_server.key_file), tmp_path / "locked"
    encryption = serialization.BestAvailableEncryption(PASSWORD)
    locked.write_bytes(
        serialization.load_pem_private_key(tls_server.key_file.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
        )
    )
    for options in (
        {"ssl_cert": certificate, "ssl_key": key},
        {"ssl_cert": certificate, "ssl_key": str(locked), "ssl_key_password": PASSWORD.decode()},
        {"ssl": {"cert": certificate, "key": str(locked), "password": PASSWORD.decode()}},
    ):
        async with await connect(**place, **options) as connection:
            assert await cipher(connection)
    with pytest.raises(err.OperationalError, match="Access denied"):
        await connect(**place, ssl_ca=str(tls_server.ca_file))


@pytest.mark.parametrize("plugin", ["mysql_native_password", "ed25519"])
async def test_plugins_of_mariadb(tls_server: MariaDBServer, plugin: str) -> None:
    async with await connect(tls_server.url) as root:
        await root.execute(f"CREATE OR REPLACE USER me@'%' IDENTIFIED VIA {plugin} USING PASSWORD('grün &/#?')")
    url = f"mysql://me:gr%C3%BCn%20%26%2F%23%3F@{tls_server.host}:{tls_server.port}/"
    with pytest.raises(err.OperationalError, match="denied"):
        await connect(url.replace("gr%", "Gr%"))
    async with await connect(
        host=tls_server.host, port=tls_server.port, user="me", password="grün &/#?".encode()
    ) as it:
        assert await (await it.execute("SELECT CURRENT_USER()")).fetchone() == ("me@%",)


async def test_unix_socket(server: MariaDBServer) -> None:
    async with await connect(f"mysql://respool@localhost/test?unix_socket={server.socket_path}") as connection:
        assert connection.get_host_info() == "Localhost via UNIX socket"
        assert await (await connection.execute("SELECT DATABASE()")).fetchone() == ("test",)


async def test_bind_address(server: MariaDBServer, observer: Connection) -> None:
    async with await connect(server.url, bind_address="127.0.0.7") as connection:
        cursor = await observer.execute("SHOW PROCESSLIST")
        assert any(
            row[0] == connection.thread_id() and row[2].startswith("127.0.0.7:") for row in await cursor.fetchall()
        )
