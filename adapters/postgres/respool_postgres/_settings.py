"""What a borrower may change on a connection object: looked at twice a lease, and put back for the next one."""

from __future__ import annotations

from copy import copy
from functools import reduce
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from psycopg.adapt import AdaptersMap

if TYPE_CHECKING:
    from ._connection import Connection

__all__ = ["Settings"]

_PLAIN = (
    "row_factory",
    "cursor_factory",
    "server_cursor_factory",
    "_autocommit",
    "_isolation_level",
    "_read_only",
    "_deferrable",
    "_prepared.prepare_threshold",
    "_prepared.prepared_max",
    "_notice_handlers",
    "_notify_handlers",
    "max_result_size",
)
# psycopg copies these maps when they are changed, so that the same objects mean that nothing was.
_MAPS = ("_adapters._dumpers", "_adapters._dumpers_by_oid", "_adapters._loaders")
_REGISTRY = "_adapters.types._registry"

_values_of = attrgetter(*_PLAIN, *_MAPS, _REGISTRY)


class Settings:
    """The attributes of a connection as they were at some moment."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._adapters = AdaptersMap(connection.adapters)
        *values, registry = _values_of(connection)
        self._values = (*map(copy, values), registry)
        self._plain = self._values[: len(_PLAIN)]

    def are_those_of(self, connection: Connection[Any]) -> bool:
        """Whether nothing has been changed since."""
        return bool(_values_of(connection) == self._values)

    def restore(self, connection: Connection[Any]) -> None:
        """Change everything back."""
        for name, value in zip(_PLAIN, self._plain, strict=True):
            *owners, attribute = name.split(".")
            setattr(reduce(getattr, owners, connection), attribute, copy(value))
        setattr(connection, "_adapters", AdaptersMap(self._adapters))  # noqa: B010  # psycopg has no setter
        setattr(connection, "_begin_statement", b"")  # noqa: B010  # which psycopg computes from some of these
