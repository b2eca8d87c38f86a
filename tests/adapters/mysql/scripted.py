"""A MySQL server that says exactly what a test tells it to."""

from __future__ import annotations

import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import trio
from pymysql.constants import CLIENT

SALT = bytes(range(1, 21))
OK = b"\0\0\0\x02\0\0\0"  # no rows, autocommit on
CAPABILITIES = CLIENT.CAPABILITIES & ~CLIENT.CONNECT_ATTRS


def error(number: int, text: str) -> bytes:
    return b"\xff" + struct.pack("<H", number) + b"#HY000" + text.encode()


def text(value: str | bytes | None) -> bytes:
    """A length-encoded string."""
    if value is None:
        return b"\xfb"
    raw = value.encode() if isinstance(value, str) else value
    assert len(raw) < 251
    return bytes([len(raw)]) + raw


def eof(status: int = 2) -> bytes:
    return b"\xfe\0\0" + struct.pack("<H", status)


def result(*rows: tuple[str | None, ...]) -> list[bytes]:
    """The packets of a result whose columns are all text."""
    width = len(rows[0])
    fixed = b"\x0c" + struct.pack("<HIBHBxx", 45, 100, 253, 0, 0)
    columns = [text("def") + text("") * 3 + text(f"c{i}") + text("") + fixed for i in range(width)]
    return [bytes([width]), *columns, eof(), *(b"".join(map(text, row)) for row in rows), eof()]


def packets(payloads: list[bytes], first: int = 1) -> bytes:
    """Payloads with their headers, numbered from `first`."""
    return b"".join(
        struct.pack("<I", len(payload) | ((first + i) & 0xFF) << 24) + payload for i, payload in enumerate(payloads)
    )


@attrs.define(eq=False)
class Client:
    """The server's side of one connection."""

    stream: trio.abc.Stream
    number: int
    tls: ssl.SSLContext | None = None
    sequence: int = 0
    secure: bool = False

    async def receive(self) -> bytes:
        """The next packet's payload, and not a byte of what follows it, which may be TLS; empty at the end."""
        header = await self._exactly(4)
        if not header:
            return b""
        self.sequence = (header[3] + 1) & 0xFF
        return await self._exactly(int.from_bytes(header[:3], "little"))

    async def _exactly(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = await self.stream.receive_some(size - len(received))
            if not part:
                return b""
            received += part
        return received

    async def send(self, *payloads: bytes) -> None:
        await self.stream.send_all(packets(list(payloads), self.sequence))
        self.sequence += len(payloads)

    async def greet(self, plugin: str, *, also: bytes = b"") -> tuple[str, bytes]:
        """Greet, upgrade to TLS if the client asks for it; return the plugin it chose and its answer."""
        capabilities = CAPABILITIES | (CLIENT.SSL if self.tls else 0)
        low, high = capabilities & 0xFFFF, capabilities >> 16
        head = b"\x0a8.0.99\0" + struct.pack("<I", self.number) + SALT[:8] + b"\0" + struct.pack("<H", low)
        tail = struct.pack("<BHHB", 45, 2, high, 21) + bytes(10) + SALT[8:] + b"\0" + plugin.encode() + b"\0"
        await self.stream.send_all(packets([head + tail], 0) + also)
        answer = await self.receive()
        if len(answer) == 32:
            assert self.tls
            self.stream = trio.SSLStream(self.stream, self.tls, server_side=True)
            self.secure = True
            answer = await self.receive()
        _, _, rest = answer[32:].partition(b"\0")
        size = rest[0]
        response, rest = rest[1 : 1 + size], rest[1 + size :]
        return rest.rstrip(b"\0").split(b"\0")[-1].decode(errors="replace"), response

    async def welcome(self) -> None:
        """Let anybody in, and answer what a connection asks first."""
        await self.greet("mysql_native_password")
        await self.send(OK)
        assert (await self.receive()).startswith(b"\x03SET NAMES")
        await self.send(OK)

    async def command(self) -> str:
        """The next command's text; empty when the client has said goodbye or is gone."""
        payload = await self.receive()
        return "" if payload[:1] in (b"", b"\x01") else payload[1:].decode() or f"<{payload[0]}>"


@asynccontextmanager
async def scripted(
    script: Callable[[Client], Awaitable[None]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve `script` to every client, numbered from 1; yield the port."""
    number = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal number
        number += 1
        client = Client(stream, number, tls)
        try:
            await script(client)
        except trio.BrokenResourceError:
            pass  # the client hung up
        finally:
            await trio.aclose_forcefully(client.stream)

    async with trio.open_nursery() as nursery:
        (listener,) = listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()
