"""Opening connections: TLS, Unix sockets, proxies, and what an error says."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme
from respool_http import HTTPAdapter, Origin, ProtocolError, Proxy, ProxyError, ServerDisconnected

import respool
from respool.abc import Verdict
from respool.testing import cancel_everywhere

from .scripted import OK, Peer, Script, always, connected, once, serve

# What an adapter is made of


@pytest.mark.parametrize(
    ("url", "origin", "host_field"),
    [
        ("http://example.com", Origin("http", "example.com", 80), b"example.com"),
        ("https://Example.COM/", Origin("https", "example.com", 443), b"example.com"),
        ("https://example.com:8443", Origin("https", "example.com", 8443), b"example.com:8443"),
        ("http://[::1]:8080", Origin("http", "::1", 8080), b"[::1]:8080"),
        ("http://bücher.example", Origin("http", "xn--bcher-kva.example", 80), b"xn--bcher-kva.example"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: Origin, host_field: bytes) -> None:
    assert HTTPAdapter(url).origin == origin
    assert origin.host_field == host_field


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "empty"),
        ("http://a b", "spaces"),
        ("http://a\r\nb", "control characters"),
        ("example.com", "must begin with http:// or https://"),
        ("ftp://example.com", "must begin with http:// or https://"),
        ("http://", "no host"),
        ("http://user:secret@example.com", "Authorization"),
        ("http://example.com/path", "path"),
        ("http://example.com?a=b", "path"),
        ("http://exa<mple.com", "not a host name"),
        ("http://[::x]", "."),
        ("http://example.com:99999", "."),
    ],
)
def test_what_is_not_an_origin_is_refused(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        HTTPAdapter(url)
    assert "secret" not in str(caught.value)


def test_a_proxy_may_have_credentials_and_keeps_them_to_itself() -> None:
    adapter = HTTPAdapter("https://example.com", proxy="http://user:sec%20ret@proxy.example:3128")
    assert adapter.proxy == Proxy("proxy.example", 3128, (("Proxy-Authorization", "Basic dXNlcjpzZWMgcmV0"),))
    assert "dXNl" not in repr(adapter)
    assert "ret" not in repr(adapter)


@pytest.mark.parametrize("proxy", ["https://proxy.example", "socks5://proxy.example", "proxy.example:3128", "http://"])
def test_what_is_not_a_proxy_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match=r"proxy's URL|no host"):
        HTTPAdapter("https://example.com", proxy=proxy)


def test_a_proxy_and_a_unix_socket_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        HTTPAdapter("http://example.com", proxy="http://proxy", uds="/socket")


def test_name_and_url_are_what_the_kernel_expects() -> None:
    assert HTTPAdapter.from_url("https://example.com").name == "example.com:443"


def test_what_errors_say() -> None:
    adapter = HTTPAdapter("http://example.com")
    for error, verdict in (
        (ssl.SSLCertVerificationError(), Verdict.PERMANENT),
        (ProxyError("no", status_code=407), Verdict.PERMANENT),
        (ProxyError("not now", status_code=502), Verdict.KEEP),
        (ProxyError("what?"), Verdict.KEEP),
        (socket.gaierror(socket.EAI_NONAME, "no such host"), Verdict.PERMANENT),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), Verdict.KEEP),
        (FileNotFoundError(errno.ENOENT, "the server is just restarting"), Verdict.KEEP),
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), Verdict.KEEP),
        (ValueError("the caller's own"), Verdict.KEEP),
    ):
        assert adapter.verdict(error) == verdict


# In a pool


async def test_a_pool_lends_only_connections_whose_last_exchange_ended(nursery: trio.Nursery) -> None:
    served = []

    async def script(peer: Peer) -> None:
        while head := await peer.read_head():
            served.append(peer.number)
            close = b"Connection: close\r\n" if b"/close" in head else b""
            await peer.send(b"HTTP/1.1 200 OK\r\n%bContent-Length: 6\r\n\r\nsec" % close)
            await trio.lowlevel.checkpoint()
            if b"/slow" not in head:
                await peer.send(b"ret")

    async def get(target: str) -> bytes:
        async with pool.acquire() as connection, connection.request("GET", target) as response:
            return await response.aread()

    async def get_and_fail() -> None:
        async with pool.acquire() as connection, connection.request("GET", "/") as response:
            await response.aread()
            raise ZeroDivisionError

    async with respool.open_pool(HTTPAdapter(await serve(nursery, script)), max_size=1) as pool:
        for _ in range(3):
            assert await get("/") == b"secret"
        assert served == [1, 1, 1]
        assert await get("/close") == b"secret"
        assert await get("/") == b"secret"
        assert served == [1, 1, 1, 1, 2]
        with trio.move_on_after(0.05):
            await get("/slow")
        assert await get("/") == b"secret"
        assert served == [1, 1, 1, 1, 2, 2, 3]
        with pytest.raises(ZeroDivisionError):
            await get_and_fail()
        assert await get("/") == b"secret"
        assert served == [1, 1, 1, 1, 2, 2, 3, 3, 3], "an error after the exchange says nothing about the connection"


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    authority.configure_trust(context)
    return context


MakeContext = Callable[..., ssl.SSLContext]


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> MakeContext:
    def make(*names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
        return context

    return make


async def test_tls_with_sni_and_alpn(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    context = server_context("respool.example")
    context.set_alpn_protocols(["h2", "http/1.1"])
    names: list[str | None] = []
    chosen: list[str | None] = []

    def note_name(_socket: object, name: str | None, _context: object) -> None:
        names.append(name)

    context.sni_callback = note_name

    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.read_head()
        chosen.append(peer.stream.selected_alpn_protocol())
        await peer.send(OK)
        await peer.receive()

    origin = await serve(nursery, script, context=context)
    async with connected(origin, ssl_context=client_context, server_hostname="respool.example") as connection:
        async with connection.request("GET", "/") as response:
            assert await response.aread() == b"ok"
        assert connection.is_clean()
    assert names == ["respool.example"]
    assert chosen == ["http/1.1"]


async def test_a_server_that_insists_on_http_2_is_refused(
    nursery: trio.Nursery, authority: trustme.CA, server_context: MakeContext
) -> None:
    """Which it can only if the caller's own context offers it."""
    context = server_context()
    context.set_alpn_protocols(["h2"])
    offering = ssl.create_default_context()
    offering.set_alpn_protocols(["h2", "http/1.1"])
    authority.configure_trust(offering)
    origin = await serve(nursery, always(OK), context=context)
    with pytest.raises(ProtocolError, match="chose 'h2'"):
        await HTTPAdapter(origin, ssl_context=offering).open()


async def test_certificates_are_verified_unless_you_say_otherwise(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()  # the client never gets that far

    trusted = await serve(nursery, script, context=server_context())
    misnamed = await serve(nursery, script, context=server_context("another.example"))
    for origin, context in ((trusted, None), (misnamed, client_context)):
        with pytest.raises(ssl.SSLCertVerificationError):
            await HTTPAdapter(origin, ssl_context=context).open()


async def test_bodies_and_idle_connections_over_tls(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    """Session tickets that arrive late are TLS's business: they do not make a connection unclean."""
    size = 5_000_000

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.read_head()
            received = 0
            await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while chunk := await peer.read_chunk():
                received += len(chunk)
                await peer.send(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            assert received == size
            await peer.send(b"0\r\n\r\n")
        await peer.receive()

    origin = await serve(nursery, script, context=server_context())
    async with connected(origin, ssl_context=client_context) as connection:
        await trio.testing.wait_all_tasks_blocked(0.01)  # the tickets are there now
        for _ in range(2):
            assert connection.is_clean()
            async with connection.request("POST", "/", body=[bytes(100_000)] * (size // 100_000)) as response:
                assert sum([len(piece) async for piece in response]) == size
        assert connection.is_clean()


async def test_a_body_cut_off_without_a_tls_goodbye_is_not_whole(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    """RFC 9112, 9.8: anybody on the way could have cut it."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\nhalf of it")

    origin = await serve(nursery, script, context=server_context())
    async with connected(origin, ssl_context=client_context) as connection:
        with pytest.raises(ServerDisconnected):
            async with connection.request("GET", "/") as response:
                await response.aread()


async def test_a_tls_goodbye_ends_an_idle_connection(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(OK)
        assert isinstance(peer.stream, trio.SSLStream)
        await peer.stream.unwrap()

    origin = await serve(nursery, script, context=server_context())
    async with connected(origin, ssl_context=client_context) as connection:
        async with connection.request("GET", "/") as response:
            await response.aread()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not connection.is_clean()


# Unix sockets and proxies


async def test_a_unix_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with trio.socket.socket(trio.socket.AF_UNIX) as listening:
        await listening.bind(path)
        listening.listen()

        async def answer(stream: trio.SocketStream) -> None:
            assert b"\r\nHost: example.com\r\n" in await stream.receive_some()
            await stream.send_all(OK)
            await stream.receive_some()

        nursery.start_soon(trio.serve_listeners, answer, [trio.SocketListener(listening)])
        async with (
            connected("http://example.com", uds=path) as connection,
            connection.request("GET", "/") as response,
        ):
            assert await response.aread() == b"ok"
        nursery.cancel_scope.cancel()


def tunnel(heads: list[bytes]) -> Script:
    """A proxy that does what it is told."""

    async def script(peer: Peer) -> None:
        head = await peer.read_head()
        if not head:
            return
        heads.append(head)
        host, _, port = head.split()[1].decode().rpartition(":")
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with await trio.open_tcp_stream(host, int(port)) as other, trio.open_nursery() as both:

            async def forwards() -> None:
                while data := await peer.receive():
                    await other.send_all(data)
                await other.send_eof()

            both.start_soon(forwards)
            while data := await other.receive_some():
                await peer.send(data)
            both.cancel_scope.cancel()

    return script


async def test_tls_through_a_connect_proxy(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    heads: list[bytes] = []
    origin = await serve(nursery, always(OK), context=server_context())
    proxy = (await serve(nursery, tunnel(heads))).replace("//", "//user:secret@")
    async with connected(origin, ssl_context=client_context, proxy=proxy) as connection:
        async with connection.request("GET", "/") as response:
            assert await response.aread() == b"ok"
        assert connection.is_clean()
    authority = origin.removeprefix("https://").encode()
    credentials = b"Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="
    assert heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n\r\n" % (authority, authority, credentials)]


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not answer as a proxy"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "407 Proxy Authentication"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "bytes of its own"),
    ],
)
async def test_a_proxy_that_does_not_open_a_clean_tunnel(nursery: trio.Nursery, response: bytes, message: str) -> None:
    proxy = (await serve(nursery, once(response))).replace("//", "//user:secret@")
    with pytest.raises(ProxyError, match=message) as caught:
        await HTTPAdapter("http://example.com", proxy=proxy).open()
    assert "secret" not in str(caught.value)


# Nothing stays open


async def test_cancelled_anywhere_open_leaves_nothing_open(
    nursery: trio.Nursery, client_context: ssl.SSLContext, server_context: MakeContext
) -> None:
    """Warnings about sockets left to the garbage collector are errors in this suite."""
    origin = await serve(nursery, always(OK), context=server_context())
    proxy = await serve(nursery, tunnel([]))
    adapter = HTTPAdapter(origin, ssl_context=client_context, proxy=proxy)

    async def open_and_close() -> None:
        connection = await adapter.open()
        await adapter.close(connection)

    await cancel_everywhere(open_and_close)


async def test_a_server_that_does_not_speak_tls(nursery: trio.Nursery, client_context: ssl.SSLContext) -> None:
    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(OK)

    origin = (await serve(nursery, script)).replace("http:", "https:")
    with pytest.raises(ssl.SSLError):
        await HTTPAdapter(origin, ssl_context=client_context).open()
