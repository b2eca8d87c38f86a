"""MySQL and MariaDB for respool: PyMySQL's protocol code, natively on Trio."""

from ._adapter import MySQLAdapter as MySQLAdapter
from ._adapter import connect as connect
from ._connection import Connection as Connection
from ._cursors import Cursor as Cursor
from ._cursors import DictCursor as DictCursor
from ._cursors import SSCursor as SSCursor
from ._cursors import SSDictCursor as SSDictCursor
