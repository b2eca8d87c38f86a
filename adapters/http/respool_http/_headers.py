"""A response's header fields: many values a name, names in any case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["Headers"]


class Headers(Mapping[str, str]):
    """Header fields as they arrived, looked up by name in any case.

    ``headers["vary"]`` joins a repeated field's values with a comma, as RFC 9110 section 5.2 allows; `get_list` keeps
    them apart, which ``Set-Cookie`` needs. `raw` is what was on the wire. The names are httpx's.
    """

    __slots__ = ("_index", "raw")

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self.raw = raw
        self._index: dict[str, list[str]] | None = None

    def _values(self) -> dict[str, list[str]]:
        if self._index is None:
            self._index = {}
            for name, value in self.raw:
                self._index.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        return self._index

    def __getitem__(self, name: str) -> str:
        return ", ".join(self._values()[name.lower()])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values())

    def __len__(self) -> int:
        return len(self._values())

    def get_list(self, name: str) -> list[str]:
        """Every value of the field called `name`, in the order they arrived."""
        return list(self._values().get(name.lower(), ()))

    def multi_items(self) -> list[tuple[str, str]]:
        """Every field in the order it arrived, its name in lower case."""
        return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self.raw]

    def __repr__(self) -> str:
        # Only names: values include cookies and tokens.
        return f"<Headers {', '.join(self)}>"
