"""Listen to notifications on a connection of one's own, without a pool."""

from __future__ import annotations

import os
from contextlib import aclosing

import trio
from respool_postgres import Connection

URL = os.environ.get("RESPOOL_POSTGRES_URL", "postgresql://postgres@localhost/postgres")


async def listen(task_status: trio.TaskStatus[None]) -> None:
    async with await Connection.connect(URL, autocommit=True) as connection:
        await connection.execute("LISTEN example_orders")
        task_status.started()
        async with aclosing(connection.notifies(stop_after=3)) as notifications:
            async for notification in notifications:
                print("order", notification.payload)


async def main() -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(listen)
        async with await Connection.connect(URL, autocommit=True) as connection:
            for order in ("tea", "milk", "biscuits"):
                await connection.execute("SELECT pg_notify('example_orders', %s)", (order,))


trio.run(main)
