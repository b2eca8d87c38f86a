"""MySQL and MariaDB for respool: PyMySQL's protocol code, natively on Trio."""

from ._adapter import MySQLAdapter, connect
from ._connection import Connection
from ._cursors import Cursor, DictCursor, SSCursor, SSDictCursor

__all__ = [
    "Connection",
    "Cursor",
    "DictCursor",
    "MySQLAdapter",
    "SSCursor",
    "SSDictCursor",
    "connect",
]
