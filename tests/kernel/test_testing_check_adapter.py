"""`respool.testing.check_adapter` passes an adapter that is right, and names the clause that another one breaks."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio

from respool.abc import Verdict
from respool.testing import ContractBroken, GatedAdapter, check_adapter
from respool.testing._proxy import open_proxy

from .echo import Connection, EchoAdapter, echo_server


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    with echo_server() as address:
        yield address


async def use(connection: Connection) -> None:
    await connection.ask("theirs")


async def check(connection: Connection) -> None:
    answer = await connection.ask("mine")
    assert answer == "mine"


async def test_a_right_adapter_passes(server: tuple[str, int]) -> None:
    """All clauses, with faults; and interrupted resources are recovered."""
    report = await check_adapter(EchoAdapter, server=server, use=use, check=check)
    assert len(report.clauses) == 17
    assert report.points > 15
    assert report.recovered > 3
    assert report.longest_step < 0.1


async def test_without_a_server_the_rest_is_checked() -> None:
    """An adapter of something that is not at the other end of a network."""
    report = await check_adapter(GatedAdapter())
    assert len(report.clauses) == 8


class LeaksWhenOpenIsCancelled(EchoAdapter):
    leaked: list[Connection] = []  # noqa: RUF012

    async def open(self) -> Connection:
        connection = Connection(trio.socket.socket(), owed=1)
        self.leaked.append(connection)
        await connection.socket.connect((self.host, self.port))
        await connection.read()
        return connection


class ForgetsWhenOpenIsCancelled(EchoAdapter):
    async def open(self) -> Connection:
        connection = Connection(trio.socket.socket(), owed=1)
        await connection.socket.connect((self.host, self.port))
        await connection.read()
        return connection


class LeavesATaskWhenOpenIsCancelled(EchoAdapter):
    async def open(self) -> Connection:
        try:
            return await super().open()
        except trio.Cancelled:
            trio.lowlevel.spawn_system_task(trio.sleep, 3)
            raise


class OpensWithoutAnAnswer(EchoAdapter):
    async def open(self) -> Connection:
        connection = Connection(trio.socket.socket(), owed=1)
        try:
            await connection.socket.connect((self.host, self.port))
            await connection.socket.recv(100)
        except trio.Cancelled:
            connection.socket.close()
            raise
        except OSError:
            pass
        connection.owed = 0
        return connection


class OpensTheSameAgain(EchoAdapter):
    opened: list[Connection] = []  # noqa: RUF012

    async def open(self) -> Connection:
        if not self.opened:
            self.opened.append(await super().open())
        return self.opened[0]


class DoesNotFreeWhenCloseIsCancelled(EchoAdapter):
    async def close(self, resource: Connection) -> None:
        if resource.socket.fileno() != -1:
            await trio.lowlevel.checkpoint()
        resource.socket.close()


class CannotCloseTwice(EchoAdapter):
    async def close(self, resource: Connection) -> None:
        if resource.socket.fileno() == -1:
            raise ValueError("already closed")
        await super().close(resource)


class DoesNotFreeWhatIsBroken(EchoAdapter):
    async def close(self, resource: Connection) -> None:
        if resource.socket.fileno() == -1:
            return
        with trio.CancelScope() as scope:
            await resource.ask("goodbye")
            resource.socket.close()
        if scope.cancelled_caught:
            resource.socket.close()


class ClosesWithoutAWord(EchoAdapter):
    async def close(self, resource: Connection) -> None:
        resource.socket._sock.close()  # type: ignore[attr-defined]  # Trio's own close would wake who waits
        await trio.lowlevel.checkpoint()


class SwallowsCancellation(EchoAdapter):
    async def validate(self, resource: Connection) -> None:
        try:
            await super().validate(resource)
        except trio.Cancelled:
            resource.owed += 1


class ConvertsCancellation(EchoAdapter):
    async def validate(self, resource: Connection) -> None:
        try:
            await super().validate(resource)
        except trio.Cancelled:
            raise ConnectionError("validate failed") from None


class SaysCleanOfEverything(EchoAdapter):
    def is_clean(self, resource: Connection) -> bool:
        return True


class SaysCleanOfAClosedPeer(EchoAdapter):
    def is_clean(self, resource: Connection) -> bool:
        return not (resource.owed or resource.received or resource.unsent)


class SaysCleanSlowly(EchoAdapter):
    def is_clean(self, resource: Connection) -> bool:
        select.select([resource.socket.fileno()], [], [], 0.002)
        return super().is_clean(resource)


class ResetsWithoutReading(EchoAdapter):
    async def reset(self, resource: Connection) -> None:
        await trio.lowlevel.checkpoint()
        resource.owed = 0
        resource.unsent = b""


class ResetsADeadPeer(EchoAdapter):
    async def reset(self, resource: Connection) -> None:
        try:
            await super().reset(resource)
        except ConnectionError:
            resource.owed = -1

    def is_clean(self, resource: Connection) -> bool:
        return resource.owed == -1 or super().is_clean(resource)


class ValidatesWithoutAsking(EchoAdapter):
    async def validate(self, resource: Connection) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_clean(resource):
            raise ConnectionError("gone")


class IsDeafToCancellation(EchoAdapter):
    async def validate(self, resource: Connection) -> None:
        with trio.move_on_after(1.3, shield=True):
            await resource.ask("ping")
        await trio.lowlevel.checkpoint()


class Blocks(EchoAdapter):
    async def validate(self, resource: Connection) -> None:
        resource.socket._sock.setblocking(True)  # type: ignore[attr-defined]
        try:
            resource.socket._sock.send(b"ping\n")  # type: ignore[attr-defined]
            resource.socket._sock.recv(100)  # type: ignore[attr-defined]
        finally:
            resource.socket._sock.setblocking(False)  # type: ignore[attr-defined]
        await trio.lowlevel.checkpoint()


class HasNoVerdict(EchoAdapter):
    def verdict(self, error: BaseException) -> Verdict:
        return None  # type: ignore[return-value]


class OpensInNoTask(EchoAdapter):
    def open(self) -> Any:
        return None


class ClosesInNoTask(EchoAdapter):
    def close(self, resource: Connection) -> Any:
        resource.socket.close()


class IsCleanInATask(EchoAdapter):
    async def is_clean(self, resource: Connection) -> bool:  # type: ignore[override]
        return super().is_clean(resource)


class HasItsVerdictInATask(EchoAdapter):
    async def verdict(self, error: BaseException) -> Verdict:  # type: ignore[override]
        return super().verdict(error)


BROKEN = {
    OpensInNoTask: r"open\(\) returns .*OpensInNoTask\.open must be an async function; it returned NoneType",
    ClosesInNoTask: r"open\(\) returns .*ClosesInNoTask\.close must be an async function; it returned NoneType",
    IsCleanInATask: r"open\(\) returns .*IsCleanInATask\.is_clean must not be an async function",
    HasItsVerdictInATask: r"verdict\(\) returns .*HasItsVerdictInATask\.verdict must not be an async function",
    LeaksWhenOpenIsCancelled: r"open\(\) leaves nothing open when it is cancelled: left over: 1 connection",
    ForgetsWhenOpenIsCancelled: r"open\(\) leaves nothing open when it is cancelled: left over: .*never closed",
    LeavesATaskWhenOpenIsCancelled: r"open\(\) leaves nothing open when it is cancelled: left over: 1 running task",
    OpensTheSameAgain: r"open\(\) returns a new resource each time.*: the second call returned the same object",
    OpensWithoutAnAnswer: r"open\(\) raises when the server refuses, and leaves nothing open: it returned",
    DoesNotFreeWhenCloseIsCancelled: r"close\(\) frees the handle even when it is cancelled: left over: 1 connection",
    CannotCloseTwice: r"close\(\) may be called again: ValueError\('already closed'\)",
    DoesNotFreeWhatIsBroken: r"close\(\) frees the handle even when",
    ClosesWithoutAWord: r"close\(\) ends a use that is under way.* still waited 1 s later\. Wake .*SocketWatch\.close",
    SwallowsCancellation: r"validate\(\) and reset\(\) may be cancelled anywhere.* swallowed trio\.Cancelled",
    ConvertsCancellation: r"validate\(\) and reset\(\) may be cancelled anywhere.* raised ConnectionError",
    SaysCleanOfEverything: r"discarded, or answers the next borrower and nobody else: it passed for fit to be lent",
    SaysCleanOfAClosedPeer: r"A resource that the peer has closed is not clean.*: is_clean\(\) is True",
    SaysCleanSlowly: r"is_clean\(\) answers at once with True or False: it took 2\.",
    ResetsWithoutReading: r"it passed for fit to be lent, and then .* AssertionError",
    ResetsADeadPeer: r"A resource that the peer has closed .*: reset\(\) returned instead of raising",
    ValidatesWithoutAsking: r"validate\(\) returned, although the peer had not answered",
    IsDeafToCancellation: r"validate\(\) went on for 1\.2 s after it had been cancelled",
    Blocks: r"Nothing blocks the event loop, however long the server takes: the event loop was blocked for 0\.2",
    HasNoVerdict: r"verdict\(\) returns a Verdict on any exception: it returned None",
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # some of them leak
@pytest.mark.parametrize(("adapter", "message"), BROKEN.items(), ids=[adapter.__name__ for adapter in BROKEN])
async def test_a_broken_adapter_is_caught(adapter: type[EchoAdapter], message: str, server: tuple[str, int]) -> None:
    """Each breaks one clause, and is told which."""
    with pytest.raises(ContractBroken, match=message):
        await check_adapter(adapter, server=server, use=use, check=check)


class BlocksForEver(EchoAdapter):
    async def open(self) -> Connection:
        connection = Connection(trio.socket.socket(), owed=1)
        with connection.socket:
            connection.socket._sock.setblocking(True)  # type: ignore[attr-defined]
            connection.socket._sock.connect((self.host, self.port))  # type: ignore[attr-defined]
            connection.socket._sock.recv(100)  # type: ignore[attr-defined]  # the server's turn to speak never comes
        return await super().open()


async def test_a_loop_that_is_blocked_for_ever_is_freed() -> None:
    """The server runs in the loop that waits for it. The error shows the line at which it was blocked."""

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"welcome\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, greet, 0, host="127.0.0.1"))
        with pytest.raises(ContractBroken, match=r"(?s)blocked for more than 2 s.* in open\n *connection.*recv\(100\)"):
            await check_adapter(BlocksForEver, server=listener.socket.getsockname(), timeout=2)
        nursery.cancel_scope.cancel()


async def test_what_thinks_it_is_connected_is_cut_off(server: tuple[str, int]) -> None:
    """A client is connected before the proxy has accepted it; if it is to be cut off by then, it is."""
    async with open_proxy(server, patience=10) as proxy:
        clients = [socket.create_connection((proxy.host, proxy.port), timeout=5) for _ in range(50)]
        await proxy.cut("reset")
        for client in clients:
            with client, pytest.raises(ConnectionResetError):
                while client.recv(100):
                    pass
