"""A `FaultProxy` in a thread, for contenders on any event loop."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import trio

from tests.fault_proxy import Fault, FaultProxy


class Proxied:
    """Use it as a context manager; connect to `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._proxy = FaultProxy(parts.hostname, parts.port)
        self.url = self._proxy.redirect(url)
        self._started = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), name="proxy")

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            await nursery.start(self._proxy.serve)
            self._started.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def change(self, fault: Fault) -> None:
        """Set what is wrong with the network, and wait until it is."""
        changed = threading.Event()

        def change() -> None:
            self._proxy.fault = fault
            changed.set()

        self._token.run_sync_soon(change)
        changed.wait()

    @property
    def open(self) -> int:
        """Connections open now."""
        return self._proxy.open

    @property
    def answered(self) -> int:
        """Connections so far on which the server has said something. It says nothing to a Postgres cancel request."""
        return self._proxy.answered
