"""httpcore's ``trace`` extension: a program's own function, told of a request's steps as they begin and end.

The steps are those of httpcore's connections: ``http11.send_request_headers``, ``send_request_body``,
``receive_response_headers``, ``receive_response_body`` and ``response_closed``, each with ``.started`` and then
``.complete`` or ``.failed``. There is no ``connection.connect_tcp`` or ``start_tls``: the pool connects on nobody's
behalf, and a request takes whichever connection comes first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

__all__ = ["Trace"]

TraceFunction: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[object]]

_HEADERS: Final = "send_request_headers"
_BODY: Final = "send_request_body"
_RESPONSE: Final = "receive_response_headers"


class Trace:
    """One request's steps, one at a time."""

    def __init__(self, function: TraceFunction, request: object) -> None:
        self._function = function
        self._request = request
        self._step = ""  # under way

    async def start(self, step: str) -> None:
        """A step begins."""
        self._step = step
        await self._function(f"http11.{step}.started", {"request": self._request})

    async def complete(self, result: object = None) -> None:
        """The step under way has ended well."""
        await self._end("complete", {"return_value": result})

    async def failed(self, error: BaseException) -> None:
        """The step under way, if any, ended in `error`."""
        if self._step:
            await self._end("failed", {"exception": error})

    async def _end(self, how: str, info: Mapping[str, Any]) -> None:
        step, self._step = self._step, ""
        await self._function(f"http11.{step}.{how}", info)

    # What `respool_http._connection.Progress` asks for

    async def sending(self) -> None:
        """The request's head is about to be sent."""
        await self.start(_HEADERS)

    async def sending_body(self) -> None:
        """The head has left, the body has not: may be told more than once."""
        if self._step == _HEADERS:
            await self.complete()
            await self.start(_BODY)

    async def sent(self) -> None:
        """The whole request has left, or the response came before it had. May be told more than once."""
        await self.sending_body()
        if self._step == _BODY:
            await self.complete()
            await self.start(_RESPONSE)
