"""Where a server is and how to talk to it, as redis-py's users write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import redis
import trio
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, ConnectionError
from respool_redis import RedisAdapter, open_redis

import respool
from respool.testing import cancel_everywhere
from tests.adapters.misbehaving import serving, silent
from tests.servers import RedisServer


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0, "username": None, "password": None}),
        ("redis://example.com:7000/3", {"host": "example.com", "port": 7000, "db": 3}),
        ("redis://example.com/%33/", {"host": "example.com", "db": 3}),
        ("redis://me:p%40ss@[::1]", {"host": "::1", "username": "me", "password": "p@ss"}),
        ("redis://:secret@localhost?db=2", {"password": "secret", "username": None, "db": 2}),
        (
            "redis://localhost?decode_responses=no&socket_timeout=2.5",
            {"decode_responses": False, "socket_timeout": 2.5},
        ),
        ("redis://localhost?decode_responses=True&protocol=2", {"decode_responses": True, "protocol": 2}),
        ("redis://localhost?client_name=app&encoding=latin-1", {"client_name": "app", "encoding": "latin-1"}),
        ("redis://localhost?socket_keepalive=0&lib_name=app", {"socket_keepalive": False}),
        ("unix:///run/redis.sock?db=1&password=x", {"path": "/run/redis.sock", "db": 1, "password": "x"}),
    ],
)
def test_urls_are_redis_pys(url: str, expected: dict[str, Any]) -> None:
    settings = RedisAdapter(url).settings
    assert {name: getattr(settings, name) for name in expected} == expected


def test_the_url_wins_over_options() -> None:
    assert RedisAdapter("redis://localhost/1", db=2, client_name="x").settings.db == 1
    assert RedisAdapter("redis://localhost", db=2).settings.db == 2


@pytest.mark.parametrize(
    ("url", "options", "error", "message"),
    [
        ("http://localhost", {}, ValueError, "redis://, rediss://, unix://"),
        ("redis://localhost?db=x", {}, ValueError, "Invalid value for 'db'"),
        *(
            (f"redis://localhost/{path}", {}, ValueError, "path must be a database's number")
            for path in ("zero", "1.0", "-1", "0/1", "/1", "%20", "x?db=1")
        ),
        ("redis://localhost:0", {}, ValueError, "port must not be 0"),
        ("redis://localhost/0#1", {}, ValueError, "write # as %23"),
        ("redis://localhost?password=a#b", {}, ValueError, "write # as %23"),
        ("redis://localhost?max_connections=5", {}, TypeError, "give the pool max_size"),
        ("redis://localhost?timeout=5", {}, TypeError, "acquire_timeout"),
        ("redis://localhost?retry_on_timeout=yes", {}, TypeError, "not supported: use"),
        ("redis://localhost", {"colour": "red"}, TypeError, "unknown Redis setting 'colour'$"),
        ("redis://localhost", {"maxsize": 3}, TypeError, "unknown Redis setting 'maxsize'; did you mean 'max_size'"),
        ("redis://localhost", {"protocol": 4}, ValueError, "protocol must be 2 or 3, not 4"),
        ("redis://localhost", {"ssl_ca_certs": "ca.pem"}, TypeError, "needs a rediss:// URL"),
        ("rediss://localhost", {"ssl_colour": "red"}, TypeError, "ssl_colour"),
        ("redis://me@localhost", {"credential_provider": CredentialProvider()}, ValueError, "not both"),
    ],
)
def test_what_is_wrong_is_said(url: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        RedisAdapter(url, **options)


async def test_a_unix_socket(redis_server: RedisServer) -> None:
    for url in (f"unix://{redis_server.socket_path}?db=3", f"redis+unix://{redis_server.socket_path}?db=3"):
        async with respool.open_pool(url) as pool, pool.acquire() as conn:
            assert (await conn.client_info())["db"] == 3
            assert pool.name == f"{redis_server.socket_path}/3"


@pytest.fixture(scope="module")
def tls_server() -> Any:
    with RedisServer(tls=True) as server:
        yield server


@pytest.mark.parametrize("version", [2, 3])
async def test_tls(tls_server: RedisServer, version: int) -> None:
    """Small and large, one caller and many, cancelled anywhere."""
    ca = str(tls_server.ca_file)
    async with open_redis(tls_server.url, ssl_ca_certs=ca, protocol=version) as redis:
        large = b"x" * 3_000_000
        assert await redis.set("large", large)
        assert await redis.get("large") == large

        async def one(n: int) -> None:
            assert await redis.echo(str(n)) == str(n).encode()

        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(one, n)

        async def check() -> None:
            assert await redis.echo("mine") == b"mine"

        report = await cancel_everywhere(lambda: redis.echo("theirs"), check=check)
        assert report.cancelled
        async with redis.client() as connection:
            pass
        assert connection.is_clean
        await redis.delete("large")


async def test_a_certificate_must_be_trusted(tls_server: RedisServer, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        await RedisAdapter(tls_server.url).open()
    async with respool.open_pool(tls_server.url) as pool:
        with trio.fail_after(5), pytest.raises(respool.OpenFailed):
            async with pool.acquire():
                pass
    lax = await RedisAdapter(tls_server.url, ssl_cert_reqs="none").open()
    assert await lax.ping()
    lax.close_now()


async def test_tls_that_ends_is_noticed(tls_server: RedisServer) -> None:
    conn = await RedisAdapter(tls_server.url, ssl_ca_certs=str(tls_server.ca_file)).open()
    other = await RedisAdapter(tls_server.url, ssl_ca_certs=str(tls_server.ca_file)).open()
    await other.client_kill_filter(_id=str(await conn.client_id()))
    with pytest.raises(ConnectionError, match="closed by server"):
        await conn.ping()
    assert not conn.is_clean
    other.close_now()


@pytest.mark.parametrize("protocol", [None, 2, 3])
async def test_users_and_names(fresh_redis_server: RedisServer, protocol: int | None) -> None:
    """ACL users, the default user's password, and what the server is told about us."""
    admin = await RedisAdapter(fresh_redis_server.url).open()
    await admin.acl_setuser("me", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"])
    conn = await RedisAdapter(
        fresh_redis_server.url.removesuffix("/0"),
        username="me",
        password="secret",
        client_name="app",
        db=2,
        protocol=protocol,
    ).open()
    info = await conn.client_info()
    assert (info["user"], info["name"], info["db"]) == ("me", "app", 2)
    assert info["resp"] == str(protocol or 3)
    conn.close_now()
    await admin.config_set("requirepass", "hunter2")
    url = fresh_redis_server.url.replace("redis://", "redis://:hunter2@")
    conn = await RedisAdapter(url, protocol=protocol).open()
    assert await conn.acl_whoami() in {"default", b"default"}
    conn.close_now()
    for wrong in (url.replace("hunter2", "wrong"), fresh_redis_server.url):
        with pytest.raises((AuthenticationError, redis.ResponseError)) as caught:
            await RedisAdapter(wrong, protocol=protocol, db=1).open()
        assert RedisAdapter().verdict(caught.value) & respool.Verdict.PERMANENT
    admin.close_now()


async def test_credentials_are_asked_for_anew(fresh_redis_server: RedisServer) -> None:
    """For every connection: passwords may be tokens that expire."""

    class Provider(CredentialProvider):
        asked = 0

        def get_credentials(self) -> tuple[str, str]:
            self.asked += 1
            return ("default", "secret")

    admin = await RedisAdapter(fresh_redis_server.url).open()
    await admin.config_set("requirepass", "secret")
    provider = Provider()
    for _ in range(2):
        conn = await RedisAdapter(fresh_redis_server.url, credential_provider=provider).open()
        assert await conn.ping()
        conn.close_now()
    assert provider.asked == 2
    admin.close_now()


async def test_one_round_trip_opens_a_session() -> None:
    """HELLO with AUTH and SETNAME, SELECT and SETINFO travel together, before anything is answered."""
    asked: list[bytes] = []

    async def answer_once(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some()))
        await stream.send_all(b"%1\r\n+proto\r\n:3\r\n" + b"+OK\r\n" * 3 + b"+PONG\r\n")
        await silent(stream)

    async with serving(answer_once) as port:
        conn = await RedisAdapter(f"redis://127.0.0.1:{port}/4", password="secret", client_name="app").open()
        conn.close_now()
    assert re.findall(rb"HELLO|AUTH|SETNAME|SELECT|LIB-NAME|LIB-VER|PING", asked[0]) == [
        b"HELLO", b"AUTH", b"SETNAME", b"SELECT", b"LIB-NAME", b"LIB-VER", b"PING",
    ]  # fmt: skip


async def test_opening_can_be_cancelled_anywhere(tls_server: RedisServer, redis_server: RedisServer) -> None:
    """Nothing stays open; a leftover socket would be a ResourceWarning, which is an error here."""
    for url in (tls_server.url, redis_server.url):
        options: dict[str, Any] = {"ssl_ca_certs": str(tls_server.ca_file)} if url == tls_server.url else {}
        adapter = RedisAdapter(url, **options)

        async def operation(adapter: RedisAdapter = adapter) -> None:
            (await adapter.open()).close_now()

        assert (await cancel_everywhere(operation)).cancelled
