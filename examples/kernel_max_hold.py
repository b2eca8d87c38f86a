"""Reporting, and ending, leases that last too long."""

from __future__ import annotations

import logging
import sys

import trio

import respool
from respool.testing import GatedAdapter

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")


async def main() -> None:
    async with respool.open_pool(GatedAdapter(), warn_hold=0.2, max_hold=0.5, record_stacks=True) as pool:
        try:
            async with pool.acquire():
                await trio.sleep_forever()
        except respool.LeaseRevoked as error:
            print(error)


trio.run(main)
