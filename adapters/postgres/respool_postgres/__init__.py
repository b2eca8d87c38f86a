"""PostgreSQL for respool: psycopg 3, natively on Trio."""

from __future__ import annotations

from ._adapter import PostgresAdapter
from ._connection import Connection

__all__ = [
    "Connection",
    "PostgresAdapter",
]
