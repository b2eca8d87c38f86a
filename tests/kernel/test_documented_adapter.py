"""The adapters that the documentation shows keep the contract that it explains."""

from __future__ import annotations

import runpy
import socketserver
from pathlib import Path
from typing import Any

import pytest

from respool.testing import check_adapter

from .echo import echo_server

EXAMPLES = Path(__file__).parents[2] / "examples"


class Shout(socketserver.StreamRequestHandler):
    """Says nothing until it is asked."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line.upper())


@pytest.mark.parametrize("example", ["kernel_adapter.py", "kernel_raw_socket.py"])
async def test_documented_adapter(example: str) -> None:
    """They hear nothing from the server on opening, so that they may be cut off before they have been accepted."""

    async def use(connection: Any) -> None:
        await connection.ask("theirs")

    async def check(connection: Any) -> None:
        answer = await connection.ask("mine")
        assert answer == "MINE"

    adapter = runpy.run_path(str(EXAMPLES / example))["ShoutingAdapter"]
    with echo_server(Shout) as server:
        report = await check_adapter(adapter, server=server, use=use, check=check)
    assert report.recovered > 0
