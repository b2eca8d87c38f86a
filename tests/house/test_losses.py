"""The losses' harness finds what pools broken on purpose lose, and nothing of one that is right. On either loop."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from tests.benchmarks import _losing
from tests.benchmarks._contender import Contender
from tests.benchmarks._losing import Borrowing, Losing
from tests.benchmarks._report import table
from tests.benchmarks._report_losses import goals
from tests.benchmarks._run import Outcome, Result
from tests.benchmarks.losses import http_server


class Plain:
    """A simple pool of HTTP connections, with the given flaw, on whatever loop is running."""

    def __init__(self, url: str, size: int, flaw: str) -> None:
        parts = urlsplit(url)
        self.place = (str(parts.hostname), int(parts.port or 0))
        self.slots = anyio.Semaphore(size)
        self.idle: list[Any] = []
        self.flaw = flaw

    @asynccontextmanager
    async def use(self, question: str) -> AsyncIterator[str]:
        await self.slots.acquire()
        try:
            async with self._connection() as stream:
                yield await self._ask(stream, question)
        except BaseException:
            if self.flaw != "a cancelled user's slot is lost":
                self.slots.release()
            raise
        self.slots.release()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        stream = self.idle.pop() if self.idle else await anyio.connect_tcp(*self.place)
        try:
            yield stream
        except BaseException:
            if self.flaw == "half an exchange is given back":
                self.idle.append(stream)
            elif self.flaw == "a cut connection is not closed":
                LEAKED.append(stream)
            else:
                await anyio.aclose_forcefully(stream)
            raise
        self.idle.append(stream)

    async def _ask(self, stream: Any, question: str) -> str:
        if self.flaw != "cancellation is swallowed":
            return await self._exchange(stream, question)
        try:
            return await self._exchange(stream, question)
        except anyio.get_cancelled_exc_class():
            return question

    async def _exchange(self, stream: Any, question: str) -> str:
        await stream.send(f"GET /{question} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = b""
        while not answer.partition(b"\r\n\r\n")[2]:
            answer += await stream.receive()
        return answer.partition(b"\r\n\r\n/")[2].decode()


LEAKED: list[Any] = []


def opening(flaw: str) -> Any:
    @asynccontextmanager
    async def opened(url: str, size: int) -> AsyncIterator[Borrowing]:
        pool = Plain(url, size, flaw)
        try:
            yield Borrowing(use=pool.use)
        finally:
            for stream in pool.idle:
                await anyio.aclose_forcefully(stream)

    return lambda url: partial(opened, url)


def tried(loop: Any, flaw: str, monkeypatch: pytest.MonkeyPatch) -> Result:
    monkeypatch.setattr(_losing, "SEEDS", 2)
    contender = Contender("plain", opening(flaw), loop)
    losing = Losing(
        name="plain",
        title="Plain",
        contenders=(contender,),
        server=http_server,
        ours=("plain",),
        remade=2,
        patience=0.05 if flaw else 10,  # a right pool needs none, however busy the machine
    )
    with http_server() as url:
        sample = losing.sample(contender, url, 0.1)
    return Result("plain", losing, [Outcome("plain", [sample])])


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
def test_a_right_pool_loses_nothing(loop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All its counts are 0 but those of what was tried."""
    result = tried(loop, "", monkeypatch)
    (outcome,) = result.outcomes
    missed = {goal["goal"]: goal["measured"] for goal in goals(result) if not goal["met"]}
    missed.pop("seconds to leave, median (at most)", None)  # which the machine decides
    assert missed == {}
    assert outcome.samples[0]["points"] > 20
    assert outcome.samples[0]["cancelled"] > 20
    assert "0/8" in table(result)


@pytest.mark.parametrize("loop", ["trio", "asyncio"])
@pytest.mark.parametrize(
    ("flaw", "counts"),
    [
        ("a cancelled user's slot is lost", ["leaked", "not_served", "lost_slots"]),
        ("half an exchange is given back", ["wrong"]),
        ("a cut connection is not closed", ["orphans"]),
        ("cancellation is swallowed", ["swallowed"]),
    ],
)
def test_a_broken_pool_is_found_out(loop: Any, flaw: str, counts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by the counts that are meant for it."""
    result = tried(loop, flaw, monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # which is right
        LEAKED.clear()
        gc.collect()
    assert min(result.outcomes[0].samples[0][count] for count in counts) > 0
    assert "goal MISSED" in table(result)
