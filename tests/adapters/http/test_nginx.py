"""Against a real nginx."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator

import pytest
import trio
from respool_http import Connection, HTTPAdapter, ServerDisconnected

from respool.testing import check_adapter
from tests.fault_proxy import Fault, FaultProxy
from tests.servers import NginxServer

from .scripted import connected

MEGABYTE = bytes(range(256)) * 4096
FILES = {"index.html": b"hello\n", "medium": MEGABYTE[:200_000], "large": MEGABYTE * 8}


@pytest.fixture(scope="module")
def nginx() -> Iterator[NginxServer]:
    with NginxServer(
        files=FILES, extra="location /small { client_max_body_size 1m; proxy_pass http://127.0.0.1:1; }"
    ) as server:
        yield server


async def test_files_large_and_small_on_one_connection(nginx: NginxServer) -> None:
    async with connected(nginx.url) as connection:
        for _ in range(3):
            async with connection.request("GET", "/") as response:
                assert response.status_code == 200
                assert response.headers["content-length"] == "6"
                assert await response.aread() == b"hello\n"
            async with connection.request("GET", "/large") as response:
                assert b"".join([piece async for piece in response]) == FILES["large"]
            async with connection.request("HEAD", "/large") as response:
                assert await response.aread() == b""
            async with connection.request("GET", "/missing") as response:
                assert response.status_code == 404
                assert b"404 Not Found" in await response.aread()
            assert connection.is_clean()
        assert connection.exchanges == 12


async def test_ranges_and_not_modified(nginx: NginxServer) -> None:
    async with connected(nginx.url) as connection:
        async with connection.request("GET", "/large", headers={"Range": "bytes=256-511"}) as response:
            assert response.status_code == 206
            assert await response.aread() == MEGABYTE[256:512]
            etag = response.headers["etag"]
        async with connection.request("GET", "/large", headers={"If-None-Match": etag}) as response:
            assert response.status_code == 304
            assert await response.aread() == b""
        assert connection.is_clean()


async def test_nginx_refuses_a_body_that_is_too_large_while_it_is_sent(nginx: NginxServer) -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield MEGABYTE

    async with connected(nginx.url) as connection:
        async with connection.request("POST", "/small", body=body()) as response:
            assert response.status_code == 413
        assert not connection.is_clean()


async def test_tls_and_the_unix_socket(nginx: NginxServer) -> None:
    async with (
        connected("http://localhost", uds=str(nginx.directory / "socket")) as connection,
        connection.request("GET", "/") as response,
    ):
        assert await response.aread() == b"hello\n"
    with NginxServer(files=FILES, tls=True, extra="ssl_protocols TLSv1.3;") as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        context.set_alpn_protocols(["http/1.1"])
        async with connected(server.url, ssl_context=context) as connection:
            await trio.lowlevel.wait_readable(connection.wire.socket)  # session tickets, which are TLS's own business
            assert connection.is_clean()
            for _ in range(2):
                async with connection.request("GET", "/large") as response:
                    assert await response.aread() == FILES["large"]
                assert connection.is_clean()


async def test_a_network_that_cuts_a_response_short(nginx: NginxServer, nursery: trio.Nursery) -> None:
    proxy = FaultProxy(nginx.host, nginx.port)
    await nursery.start(proxy.serve)
    for fault in (Fault(cut_to_client=100_000), Fault(cut_to_client=100_000, polite=True), Fault(cut_to_client=20)):
        proxy.fault = fault
        async with connected(proxy.redirect(nginx.url)) as connection:
            with pytest.raises(ServerDisconnected):
                async with connection.request("GET", "/large") as response:
                    await response.aread()
            assert not connection.is_clean()


async def test_the_adapters_contract(nginx: NginxServer) -> None:
    async def use(connection: Connection) -> None:
        async with connection.request("POST", "/small", body=[MEGABYTE[:1000]] * 3) as response:
            await response.aread()
        async with connection.request("GET", "/medium") as response:
            async for _ in response:
                pass

    async def check(connection: Connection) -> None:
        async with connection.request("GET", "/") as response:
            assert await response.aread() == b"hello\n"

    report = await check_adapter(
        lambda host, port: HTTPAdapter(f"http://{host}:{port}"),
        server=(nginx.host, nginx.port),
        use=use,
        check=check,
    )
    assert report.points > 30
