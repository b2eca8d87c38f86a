"""Secrets go to the server, and nowhere else: not into a repr, an error, a log, a statistic or a metric.

Each test is given secrets that nobody else could have made up, and `Ears` that hear all that can be heard of a pool.
"""

from __future__ import annotations

import base64
import logging
import secrets
import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import prometheus_client
import pytest
import redis
import respool_http
import respool_mysql
import respool_postgres
import respool_redis
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from respool_http.httpx2 import PoolTransport

import respool
from respool import opentelemetry, prometheus
from respool.abc import Adapter, Instrument
from tests.adapters.misbehaving import Talk, babbling, closing, serving, silent
from tests.adapters.mysql import scripted
from tests.servers import MariaDBServer, NginxServer, PostgresServer, RedisServer


class Ears(logging.Handler):
    """Hears everything."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: list[str] = []
        self.heard: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s %(args)s"))

    def secret(self) -> str:
        """A new one, which no file has in it, so that a traceback's source lines have not either."""
        self.secrets.append(f"canary-{secrets.token_hex(8)}")
        return self.secrets[-1]

    def hear(self, *things: object) -> None:
        """Listen to what anybody might print, log or send to a service that collects errors."""
        for thing in things:
            self.heard += [str(thing), repr(thing)]
            if isinstance(thing, BaseException):
                self.heard.append("".join(traceback.format_exception(thing)))

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))

    def instrument(self) -> Instrument:
        """Hears what a pool tells its instruments, by every hook there is."""
        instrument = Instrument()
        for hook in vars(Instrument):
            if not hook.startswith("_"):
                setattr(instrument, hook, self.hear)
        return instrument

    def check(self) -> None:
        """Nothing heard has a secret in it, in any form in which one may be written."""
        assert self.secrets
        assert len(self.heard) > 10
        forms = {form: secret for secret in self.secrets for form in (secret, quote(secret), _in_base64(secret))}
        told = [(forms[form], text) for text in self.heard for form in forms if form in text]
        assert not told, told[0]


def _in_base64(secret: str) -> str:
    """As Basic authentication sends it behind a user's name of one letter, without what depends on what follows."""
    return base64.b64encode(f"u:{secret}".encode()).decode()[4:-4]


@pytest.fixture
def ears() -> Iterator[Ears]:
    ears = Ears()
    root = logging.getLogger()
    level = root.level
    root.addHandler(ears)
    root.setLevel(logging.DEBUG)
    yield ears
    root.removeHandler(ears)
    root.setLevel(level)
    ears.check()


@asynccontextmanager
async def observed(ears: Ears, **options: Any) -> AsyncIterator[dict[str, Any]]:
    """Options for a pool that is heard by everybody who can listen."""
    reader, registry = InMemoryMetricReader(), prometheus_client.CollectorRegistry()
    metrics = opentelemetry.PoolMetrics(meter_provider=MeterProvider([reader]))
    collector = prometheus.PoolCollector(registry=registry)
    yield {"instruments": [ears.instrument(), metrics, collector], **options}
    ears.hear(prometheus_client.generate_latest(registry).decode(), reader.get_metrics_data())
    ears.hear(metrics, collector)


async def use(ears: Ears, adapter: Adapter[Any], work: Callable[[Any], Awaitable[object]] | None = None) -> None:
    """Borrow a connection, do `work` with it, and hear all there is to hear; errors too."""
    ears.hear(adapter, adapter.name)
    patience = {"acquire_timeout": 0.3, "open_timeout": 0.2, "close_timeout": 0.2, "warn_hold": 0.001}
    async with observed(ears, **patience) as options, respool.open_pool(adapter, **options) as pool:
        ears.hear(pool, pool.limits, pool.statistics(), pool.acquire())
        for _ in range(2):
            try:
                async with pool.acquire() as connection:
                    ears.hear(connection, pool.statistics())
                    if work is not None:
                        await work(connection)
            except Exception as error:  # noqa: BLE001 - all are to be heard
                ears.hear(error)
        ears.hear(pool.statistics())
    with pytest.raises(respool.PoolClosed) as caught:
        await pool.acquire().__aenter__()
    ears.hear(pool, caught.value)


# Servers that let nobody in. Each says no in its own way.


async def wrong_password_at_postgres(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"R\0\0\0\x08\0\0\0\x03")  # asks for it in clear
    await stream.receive_some()
    text = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "u"\0\0'
    await stream.send_all(b"E" + (len(text) + 4).to_bytes(4, "big") + text)


async def wrong_password_at_mysql(stream: trio.SocketStream) -> None:
    client = scripted.Client(stream, 1)
    await client.greet("mysql_native_password")
    await client.send(scripted.error(1045, "Access denied for user 'u'@'localhost' (using password: YES)"))


async def too_old_for_hello(stream: trio.SocketStream) -> None:
    """Redis 5 answers like this, and repeats what it was asked."""
    words = (await stream.receive_some()).split(b"\r\n")[4::2]
    said = b" ".join(b"`%b`," % word for word in words)
    await stream.send_all(b"-ERR unknown command `HELLO`, with args beginning with: %b \r\n" % said)
    await silent(stream)


async def wrong_password_at_redis(stream: trio.SocketStream) -> None:
    said = (await stream.receive_some()).replace(b"\r\n", b" ")
    await stream.send_all(b"-WRONGPASS invalid username-password pair or user is disabled: %b\r\n" % said)
    await silent(stream)


async def wrong_password_at_proxy(stream: trio.SocketStream) -> None:
    said = (await stream.receive_some()).replace(b"\r\n", b" ")
    await stream.send_all(b"HTTP/1.1 407 Not you %b\r\nContent-Length: 0\r\n\r\n" % said)
    await silent(stream)


REFUSALS: dict[str, Talk | None] = {
    "nobody listens": None,
    "silent": silent,
    "closing": closing,
    "babbling": babbling,
}


# Adapters with secrets in all the places where they may stand.


def postgres(ears: Ears, port: int) -> Iterator[Adapter[Any]]:
    place = f"127.0.0.1:{port}/db"

    async def token() -> str:
        await trio.lowlevel.checkpoint()
        return ears.secret()

    for url in (f"postgresql://u:{ears.secret()}@{place}", f"postgresql://{place}?user=u&password={ears.secret()}"):
        yield respool_postgres.PostgresAdapter(url, sslpassword=ears.secret())
    yield respool_postgres.PostgresAdapter(f"postgresql://u@{place}", password=ears.secret())
    yield respool_postgres.PostgresAdapter(f"postgresql://u@{place}", password=token)
    yield respool_postgres.PostgresAdapter(f"postgresql://u@127.0.0.1:{port},127.0.0.1:{port}/db", password=ears.secret)


def mysql(ears: Ears, port: int) -> Iterator[Adapter[Any]]:
    yield respool_mysql.MySQLAdapter(f"mysql://u:{ears.secret()}@127.0.0.1:{port}/db")
    yield respool_mysql.MySQLAdapter(host="127.0.0.1", port=port, user="u", password=ears.secret())


def redis_(ears: Ears, port: int) -> Iterator[Adapter[Any]]:
    secret = ears.secret()
    provider = redis.UsernamePasswordCredentialProvider("u", ears.secret())
    yield respool_redis.RedisAdapter(f"redis://u:{ears.secret()}@127.0.0.1:{port}/0")
    yield respool_redis.RedisAdapter(f"redis://127.0.0.1:{port}/0?password={ears.secret()}&protocol=2")
    yield respool_redis.RedisAdapter(f"redis://127.0.0.1:{port}", username="u", password=ears.secret())
    yield respool_redis.RedisAdapter(f"redis://127.0.0.1:{port}", credential_provider=provider)
    yield respool_redis.RedisAdapter(f"rediss://127.0.0.1:{port}", password=ears.secret(), ssl_password=ears.secret())
    sentinel = respool_redis.Sentinel(
        [("127.0.0.1", port)],
        sentinel_kwargs={"username": "u", "password": ears.secret(), "socket_timeout": 0.1},
        password=secret,
    )
    ears.hear(sentinel, *sentinel.sentinels)
    yield sentinel.master_for("main")
    yield sentinel.replica_for("main", password=ears.secret())


def http(ears: Ears, port: int) -> Iterator[Adapter[Any]]:
    proxy = f"http://u:{ears.secret()}@127.0.0.1:{port}"
    ears.hear(respool_http.Proxy.parse(proxy))
    yield respool_http.HTTPAdapter("http://origin.test", proxy=proxy)
    yield respool_http.HTTPAdapter("https://origin.test", proxy=f"http://u:{quote(ears.secret())}@127.0.0.1:{port}")
    yield respool_http.HTTPAdapter(f"http://127.0.0.1:{port}")


async def ask_with_secrets(ears: Ears, connection: respool_http.Connection) -> None:
    for headers in ({"Authorization": f"Bearer {ears.secret()}"}, {"Cookie": ears.secret()}):
        request = connection.request("GET", f"/?token={ears.secret()}", headers=headers, read_timeout=0.1)
        ears.hear(request)
        async with request as response:
            ears.hear(response, response.headers)


KINDS: dict[str, tuple[Callable[[Ears, int], Iterator[Adapter[Any]]], list[Talk]]] = {
    "postgres": (postgres, [wrong_password_at_postgres]),
    "mysql": (mysql, [wrong_password_at_mysql]),
    "redis": (redis_, [too_old_for_hello, wrong_password_at_redis]),
    "http": (http, [wrong_password_at_proxy]),
}


@pytest.mark.parametrize(
    ("kind", "talk"),
    [
        pytest.param(kind, talk, id=f"{kind}: {name}")
        for kind, (_, own) in KINDS.items()
        for name, talk in {**REFUSALS, **{talk.__name__: talk for talk in own}}.items()
    ],
)
async def test_when_nobody_is_let_in(kind: str, talk: Talk | None, ears: Ears) -> None:
    """No connection comes about, for every reason there is, and nothing that tells of it tells a secret."""

    async def work(connection: Any) -> None:
        if kind == "http":
            await ask_with_secrets(ears, connection)

    async with serving(talk) as port:
        for adapter in KINDS[kind][0](ears, port):
            await use(ears, adapter, work)


async def test_postgres(postgres_server: PostgresServer, ears: Ears) -> None:
    """Connected: queries that fail, and a task that leaves."""

    async def work(connection: respool_postgres.Connection) -> None:
        ears.hear(connection.info.dsn, connection.pgconn)
        with trio.move_on_after(0.01):
            await connection.execute("SELECT pg_sleep(1)")
        await connection.execute("SELEC")

    await use(ears, respool_postgres.PostgresAdapter(postgres_server.url, password=ears.secret()), work)
    await use(ears, respool_postgres.PostgresAdapter(postgres_server.url, password=ears.secret, dbname="none"), work)


async def test_mysql(mariadb_server: MariaDBServer, ears: Ears) -> None:
    """Connected, also a second time to stop a query."""
    secret = ears.secret()

    async def work(connection: respool_mysql.Connection) -> None:
        with trio.move_on_after(0.01):
            await connection.execute("SELECT SLEEP(1)")
        ears.hear(connection.cursor())
        await connection.execute("SELEC")

    async with await respool_mysql.connect(mariadb_server.url) as root:
        await root.execute("CREATE OR REPLACE USER canary@'%%' IDENTIFIED BY %s", [secret])
        place: Any = {"host": mariadb_server.host, "port": mariadb_server.port, "user": "canary"}
        for password in (secret, ears.secret()):
            await use(ears, respool_mysql.MySQLAdapter(**place, password=password), work)
        await root.execute("DROP USER canary@'%'")


async def test_redis(fresh_redis_server: RedisServer, ears: Ears) -> None:
    """Connected as an ACL user; wrong and right passwords said by hand; the everyday client, the pipeline, pub/sub."""
    secret = ears.secret()
    server = fresh_redis_server
    admin = await respool_redis.RedisAdapter(server.url).open()
    await admin.acl_setuser("u", enabled=True, passwords=[f"+{secret}"], categories=["+@all"], keys=["*"])
    admin.close_now()
    url = f"redis://u:{secret}@{server.host}:{server.port}/0"

    async def work(connection: respool_redis.Connection) -> None:
        pipeline = connection.pipeline()
        for password in (secret, ears.secret()):
            pipeline.auth(password, "u")
        ears.hear(pipeline, connection.pubsub(), connection.connection_pool)
        with trio.move_on_after(0.01):
            await connection.blpop("nothing", timeout=0.05)
        with pytest.raises(redis.ResponseError) as caught:
            await pipeline.execute()
        ears.hear(caught.value)
        await connection.auth(ears.secret(), "u")

    for password in (secret, ears.secret()):
        await use(ears, respool_redis.RedisAdapter(url.replace(secret, password)), work)
    async with respool_redis.open_redis(url) as client:
        await client.set("k", ears.secret())
        ears.hear(client, client.pool, client.pubsub(), client.pipeline(), client.lock("k"), client.connection_pool)


async def test_a_handshake_cut_off_is_told_to_nobody(ears: Ears) -> None:
    """Those who are told of commands that nobody waits for any more are not told of AUTH."""

    def orphaned(commands: object, outcome: object) -> None:
        ears.hear(commands, outcome)

    async with serving(silent) as port:
        adapter = respool_redis.RedisAdapter(
            f"redis://127.0.0.1:{port}", username="u", password=ears.secret(), orphaned=orphaned
        )
        await use(ears, adapter)


async def test_http(nginx_server: NginxServer, ears: Ears) -> None:
    """Connected: requests that succeed, that cannot be sent, and through httpx2."""
    async with respool_http.open_http_pool() as pool:
        headers = {"Authorization": f"Bearer {ears.secret()}"}
        response = await pool.request("GET", f"{nginx_server.url}/?token={ears.secret()}", headers=headers)
        ears.hear(response, response.headers, pool, pool.connections, pool.connections.statistics())
        for bad in (f"{ears.secret()}\n", f" {ears.secret()}", f"{ears.secret()}ä"):
            with pytest.raises(respool_http.InvalidRequest) as caught:
                await pool.request("GET", nginx_server.url, headers={"Authorization": bad})
            ears.hear(caught.value)
        for target in (f"/{ears.secret()} ", ears.secret()):
            with pytest.raises(ValueError, match="URL") as wrong:
                await pool.request("GET", f"{nginx_server.url}{target}")
            ears.hear(wrong.value)
        ears.hear(PoolTransport(pool))


async def test_passphrases_of_keys(redis_server: RedisServer, tmp_path: Path, ears: Ears) -> None:
    """Right and wrong ones, for the key of a client's certificate."""
    certificate = trustme.CA().issue_cert("client.test")
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    right = ears.secret()
    locked = serialization.BestAvailableEncryption(right.encode())
    files = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    files["key"].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))
    for passphrase in (right, ears.secret()):
        address = f"rediss://127.0.0.1:{redis_server.port}"  # which does not speak TLS
        of_redis: Any = {
            "ssl_certfile": str(files["cert"]),
            "ssl_keyfile": str(files["key"]),
            "ssl_password": passphrase,
        }
        await use(ears, respool_redis.RedisAdapter(address, **of_redis))
        of_mysql: Any = {"ssl_cert": str(files["cert"]), "ssl_key": str(files["key"]), "ssl_key_password": passphrase}
        try:
            ears.hear(respool_mysql.MySQLAdapter(**of_mysql))
        except ssl.SSLError as error:
            ears.hear(error)


# What cannot be read must not be repeated.

ADAPTERS: dict[str, Callable[[str], object]] = {
    "postgresql": respool_postgres.PostgresAdapter,
    "mysql": respool_mysql.MySQLAdapter,
    "redis": respool_redis.RedisAdapter,
    "unix": respool_redis.RedisAdapter,
    "https": respool_http.HTTPAdapter,
    "http": respool_http.Proxy.parse,
}
UNESCAPED = ["{}", "a/{}", "1/{}", "a#{}", "1#{}", "a?{}", "1?{}", "a@{}", "{}/b", "{}#b", "{}?b", "{}@b", "a:{}"]
UNESCAPED += ["{}%zz", "{} b", 'a"{}%zz', "{}]b", "[{}"]
UNESCAPED += ["a@b/{}", "a@b?{}", "a@b?{}=c", "a@{}?b", "a@1/{}", "a@b/{}=c?d"]
FORMS = ["{scheme}://u:{password}@h.test:99/1", "{scheme}://:{password}@h.test/1", "{scheme}://u:{password}@h.test:x/1"]
FORMS += ["{scheme}:/u:{password}@h.test", "//u:{password}@h.test", "u:{password}@h.test:99"]
FORMS += ["{scheme}://h.test/1?password={password}", "{scheme}://h.test/1?colour={password}", "host=h {password}"]


@pytest.mark.parametrize("scheme", ADAPTERS)
def test_urls_written_wrong(scheme: str, ears: Ears) -> None:
    """Special characters left unescaped move a password into a host, a port, a path, and so into names and errors."""
    refused = 0
    for password in UNESCAPED:
        for form in FORMS:
            url = form.format(scheme=scheme, password=password.format(ears.secret()))
            try:
                made = ADAPTERS[scheme](url)
            except (ValueError, TypeError) as error:
                refused += 1
                ears.hear(error)
            else:
                ears.hear(made, getattr(made, "name", ""))
    assert refused > 0


async def test_urls_written_wrong_without_a_pool(ears: Ears) -> None:
    """`Connection.connect` repeats no more than the adapter does."""
    for password in UNESCAPED:
        url = f"postgresql://u:{password.format(ears.secret())}@127.0.0.1:1/db"
        with pytest.raises(respool_postgres.Connection.Error) as caught:
            await respool_postgres.Connection.connect(url)
        ears.hear(caught.value)


def test_what_is_no_adapter(ears: Ears) -> None:
    """The kernel is given a URL where none is expected, or as something else than a str."""
    url = f"postgresql://u:{ears.secret()}@h"
    wrong: list[Callable[[], object]] = [
        lambda: respool.open_pool(url.encode()),  # type: ignore[call-overload]
        lambda: respool.open_pool((url,)),  # type: ignore[call-overload]
        lambda: respool.open_pool(url.replace("postgresql", "nosql")),
        lambda: respool.open_keyed_pool(url),  # type: ignore[arg-type]
        lambda: respool.adapter(open=url, close=url),  # type: ignore[arg-type]
        lambda: respool.open_pool(respool_redis.RedisAdapter(), password=url),  # type: ignore[call-overload]
        lambda: respool_postgres.PostgresAdapter(url, passwort=url),
        lambda: respool_mysql.MySQLAdapter(password=url, passwort=url),  # type: ignore[call-arg]
        lambda: respool_redis.RedisAdapter(password=url, passwort=url),
        lambda: respool_redis.RedisAdapter("rediss://", ssl_password=url, ssl_passwort=url),
        lambda: respool_redis.RedisAdapter(password=url, credential_provider=url),
    ]
    for make in wrong:
        with pytest.raises((TypeError, ValueError)) as caught:
            make()
        ears.hear(caught.value)
