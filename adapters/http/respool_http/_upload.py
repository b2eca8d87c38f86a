"""A request's body on its way out: the caller's iterable, framed piece by piece."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

import trio

from ._errors import InvalidRequest

if TYPE_CHECKING:
    from ._request import Body, Outgoing

__all__ = ["Upload", "known_content"]

Chunks: TypeAlias = Iterator[bytes] | AsyncIterator[bytes]


def known_content(body: Body) -> bytes | None:
    """A body whose length is known, or ``None`` for what has to be iterated over."""
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    if isinstance(body, io.IOBase):
        raise InvalidRequest("body is an ordinary file, whose reads would block the event loop: use trio.open_file")
    if isinstance(body, Mapping):
        raise InvalidRequest("body must be bytes, str, or an iterable of bytes: of a mapping make json.dumps(...)")
    if isinstance(body, (AsyncIterable, Iterable)):
        return None
    raise InvalidRequest(f"body must be bytes, str, or an iterable of bytes, not {type(body).__name__}")


def _chunks(body: Body) -> Chunks:
    if isinstance(body, AsyncIterable):
        return aiter(body)
    if isinstance(body, bytes):
        return iter((body,))
    return iter(cast("Iterable[bytes]", body))


class Upload:
    """What is still to be sent of a request. `pending` is ready to go; `load` gets more.

    The caller's iterable is asked for a piece only when everything before it has been handed to the kernel: that is
    the back-pressure.
    """

    __slots__ = ("_chunks", "_length", "_remaining", "pending")

    def __init__(self, request: Outgoing) -> None:
        self.pending = memoryview(request.wire)
        self._chunks: Chunks | None = _chunks(request.body)
        self._length = request.length
        self._remaining = request.length

    @classmethod
    def of_rest(cls, pending: memoryview) -> Upload:
        """The end of a request that is already framed."""
        self = cls.__new__(cls)
        self.pending = pending
        self._chunks = self._length = self._remaining = None
        return self

    async def load(self) -> bool:
        """Put the next piece into `pending`; say whether there was one. A checkpoint, unless the body is at its end.

        Raises whatever the caller's iterable raises, and `InvalidRequest` if it does not yield what it should.
        """
        if self._chunks is None:
            return False
        await trio.lowlevel.checkpoint()
        try:
            chunk = next(self._chunks) if isinstance(self._chunks, Iterator) else await anext(self._chunks)
        except (StopIteration, StopAsyncIteration):
            return self._end()
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise InvalidRequest(f"a request's body must yield bytes, not {type(chunk).__name__}")
        self.pending = self._framed(memoryview(chunk).cast("B"))
        return True

    def _framed(self, chunk: memoryview) -> memoryview:
        if self._remaining is None:
            return memoryview(b"".join((b"%x\r\n" % len(chunk), chunk, b"\r\n"))) if chunk else chunk
        if len(chunk) > self._remaining:
            raise InvalidRequest(f"the request's body is longer than its 'content-length' ({self._length})")
        self._remaining -= len(chunk)
        return chunk

    def _end(self) -> bool:
        self._chunks = None
        if self._remaining is None:
            self.pending = memoryview(b"0\r\n\r\n")
            return True
        if self._remaining:
            raise InvalidRequest(
                f"the request's body ended {self._remaining} bytes before its 'content-length' ({self._length})"
            )
        return False

    async def aclose(self) -> None:
        """Let a half-used asynchronous generator run its ``finally`` now, rather than when garbage is collected."""
        chunks, self._chunks = self._chunks, None
        if inspect.isasyncgen(chunks):
            await chunks.aclose()
