"""The adapter that the documentation shows keeps the contract that it explains."""

from __future__ import annotations

import runpy
import socketserver
from pathlib import Path
from typing import Any

from respool.testing import check_adapter

from .echo import echo_server

EXAMPLE = Path(__file__).parents[2] / "examples" / "kernel_adapter.py"


class Shout(socketserver.StreamRequestHandler):
    """Says nothing until it is asked."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


async def test_documented_adapter() -> None:
    """It hears nothing from the server on opening, so that it may be cut off before it has been accepted."""

    async def use(connection: Any) -> None:
        await connection.ask("theirs")

    async def check(connection: Any) -> None:
        answer = await connection.ask("mine")
        assert answer == "MINE"

    adapter = runpy.run_path(str(EXAMPLE))["ShoutingAdapter"]
    with echo_server(Shout) as server:
        report = await check_adapter(adapter, server=server, use=use, check=check)
    assert report.recovered > 0
