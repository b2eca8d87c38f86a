"""What may happen to a server, and to the network before it: one function each, which returns when it is over.

For the fault tests, and for the soak, which picks them at random.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import attrs
import trio

from tests.fault_proxy import PASS, Fault, FaultProxy
from tests.servers import Server

__all__ = ["NETWORK_TROUBLES", "SERVER_TROUBLES", "Stage", "Trouble"]


@attrs.frozen
class Stage:
    """A server, and the proxy that stands for the network."""

    server: Server
    proxy: FaultProxy

    async def suffer(self, fault: Fault, seconds: float) -> None:
        """Have a network with a fault for a while."""
        self.proxy.fault = fault
        await trio.sleep(seconds)
        self.proxy.fault = PASS


Trouble = Callable[[Stage, random.Random], Awaitable[None]]


def _while(chance: random.Random) -> float:
    return chance.uniform(0.1, 0.4)


def _length(chance: random.Random) -> int:
    """Bytes, as many tens as hundreds: an exchange has tens, a handshake hundreds."""
    return int(600 ** chance.random())


async def killed(stage: Stage, chance: random.Random) -> None:
    """The server's processes get SIGKILL, all of them; later it starts again."""
    await stage.server.kill_async()
    await trio.sleep(_while(chance))
    await stage.server.start_async()


async def paused(stage: Stage, chance: random.Random) -> None:
    """The server's processes get SIGSTOP; its port accepts, and nothing answers. Later, SIGCONT."""
    stage.server.pause()
    try:
        await trio.sleep(0.4 + _while(chance))
    finally:
        stage.server.resume()


async def restarted(stage: Stage, chance: random.Random) -> None:
    """The server is shut down as an administrator would; later it starts again."""
    await stage.server.stop_async()
    await trio.sleep(_while(chance))
    await stage.server.start_async()


async def refused(stage: Stage, chance: random.Random) -> None:
    """New connections are refused, open ones reset."""
    stage.proxy.refuse()
    stage.proxy.reset_all()
    await trio.sleep(_while(chance))
    stage.proxy.listen()


async def black_holed(stage: Stage, chance: random.Random) -> None:
    """The network accepts, and says nothing. What it swallowed arrives later."""
    await stage.suffer(Fault(silent=True), 0.4 + _while(chance))


async def reset(stage: Stage, chance: random.Random) -> None:
    """Open connections are reset in the middle of whatever they are at, several times."""
    for _ in range(10):
        stage.proxy.reset_all()
        await trio.sleep(chance.uniform(0, 0.03))


async def cut_in_replies(stage: Stage, chance: random.Random) -> None:
    """Each connection is reset or closed after so many bytes of replies, of the handshake or later."""
    for _ in range(10):
        fault = Fault(cut_to_client=_length(chance), polite=chance.random() < 0.5)
        await stage.suffer(fault, chance.uniform(0.01, 0.05))


async def cut_in_requests(stage: Stage, chance: random.Random) -> None:
    """Each connection is reset or closed after so many bytes of requests, of the handshake or later."""
    for _ in range(10):
        fault = Fault(cut_to_server=_length(chance), polite=chance.random() < 0.5)
        await stage.suffer(fault, chance.uniform(0.01, 0.05))


async def slow(stage: Stage, chance: random.Random) -> None:
    """Everything takes its time."""
    await stage.suffer(Fault(latency=chance.uniform(0.005, 0.03)), _while(chance))


async def throttled(stage: Stage, chance: random.Random) -> None:
    """Bytes trickle."""
    await stage.suffer(Fault(bytes_per_second=chance.uniform(1_000, 10_000)), _while(chance))


SERVER_TROUBLES: list[Trouble] = [killed, paused, restarted]
NETWORK_TROUBLES: list[Trouble] = [
    refused,
    black_holed,
    reset,
    cut_in_replies,
    cut_in_requests,
    slow,
    throttled,
]
