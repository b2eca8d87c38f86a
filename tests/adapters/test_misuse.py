"""What newcomers give adapters by mistake is refused by the constructor, in words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from respool_http import HTTPAdapter
from respool_mysql import MySQLAdapter
from respool_postgres import PostgresAdapter
from respool_redis import RedisAdapter

NOTHING: Any = None  # what os.environ.get gives for a variable that is not set


@pytest.mark.parametrize("adapter", [PostgresAdapter, MySQLAdapter, RedisAdapter, HTTPAdapter])
def test_a_url_from_a_variable_that_is_not_set(adapter: Callable[..., object]) -> None:
    """Not taken for the default, and not an error from deep inside."""
    with pytest.raises(TypeError, match="must be a str, not NoneType"):
        adapter(NOTHING)


@pytest.mark.parametrize(
    ("adapter", "option"),
    [(PostgresAdapter, "max_result_size"), (MySQLAdapter, "max_result_size"), (RedisAdapter, "max_reply_size")],
)
def test_a_limit_that_nothing_can_keep(adapter: Callable[..., object], option: str) -> None:
    """It would fail each query, or none."""
    with pytest.raises(ValueError, match=f"'?{option}'? must be"):
        adapter(**{option: 0})
    adapter(**{option: 1})


@pytest.mark.parametrize("adapter", [PostgresAdapter, RedisAdapter])
def test_the_pools_options(adapter: Callable[..., object]) -> None:
    """The text says whose they are."""
    with pytest.raises(TypeError, match="open_pool"):
        adapter(max_size=3)
