"""`respool.Limits`: every option takes what it should, and says what is wrong with anything else."""

from __future__ import annotations

import math
import re
from typing import Any

import attrs
import pytest

import respool
from respool import Limits, Options
from respool.testing import GatedAdapter

SECONDS = "must be a number of seconds"
FINITE = "must be a finite number of seconds"  # math.inf would leave unbounded what nobody else can cancel

# option: (good values, [(bad value, error, rule)])
OPTIONS: dict[str, tuple[list[Any], list[tuple[Any, type[Exception], str]]]] = {
    "name": (["", "shop"], [(5, TypeError, "must be a str")]),
    "min_size": (
        [0, 1, 10],
        [
            (-1, ValueError, "must be an int >= 0"),
            (1.0, TypeError, "must be an int >= 0"),
            (True, TypeError, "must be an int >= 0"),
            ("1", TypeError, "must be an int >= 0"),
            (11, ValueError, "must be <= max_size (10)"),
        ],
    ),
    "max_size": (
        [1, 10_000],
        [
            (0, ValueError, "must be an int >= 1"),
            (math.inf, TypeError, "must be an int >= 1"),
            (None, TypeError, "must be an int >= 1"),
        ],
    ),
    "max_waiting": (
        [0, 7, math.inf],
        [
            (-1, ValueError, "must be an int >= 0, or math.inf for no limit"),
            (2.5, TypeError, "must be an int >= 0, or math.inf for no limit"),
            (None, TypeError, "must be an int >= 0, or math.inf for no limit"),
        ],
    ),
    "max_opening": ([1, 50], [(0, ValueError, "must be an int >= 1"), (math.inf, TypeError, "must be an int >= 1")]),
    "acquire_timeout": (
        [0, 0.5, 30, math.inf],
        [
            (-1, ValueError, f"{SECONDS} >= 0"),
            (math.nan, ValueError, f"{SECONDS} >= 0"),
            (None, TypeError, f"{SECONDS} >= 0"),
            ("5", TypeError, f"{SECONDS} >= 0"),
            (True, TypeError, f"{SECONDS} >= 0"),
        ],
    ),
    "max_lifetime": (
        [0.001, 3600, math.inf],
        [
            (0, ValueError, f"{SECONDS} >= 0.001"),
            (1e-9, ValueError, f"{SECONDS} >= 0.001"),
            (math.nan, ValueError, f"{SECONDS} >= 0.001"),
        ],
    ),
    "max_idle": (
        [0.001, 600, math.inf],
        [
            (0, ValueError, f"{SECONDS} >= 0.001"),
            (1e-9, ValueError, f"{SECONDS} >= 0.001"),
            (None, TypeError, f"{SECONDS} >= 0.001"),
        ],
    ),
    "max_hold": ([0.001, math.inf], [(0.0009, ValueError, f"{SECONDS} >= 0.001")]),
    "warn_hold": ([0.001, math.inf], [(0.0009, ValueError, f"{SECONDS} >= 0.001")]),
    "max_uses": (
        [1, 500, math.inf],
        [
            (0, ValueError, "must be an int >= 1, or math.inf for no limit"),
            (1.5, TypeError, "must be an int >= 1, or math.inf for no limit"),
        ],
    ),
    "validate_after": ([0, 0.5, math.inf], [(-0.1, ValueError, f"{SECONDS} >= 0")]),
    "open_timeout": (
        [0.1, 10],
        [(0, ValueError, f"{FINITE} >= 0.001"), (math.inf, ValueError, f"{FINITE} >= 0.001")],
    ),
    "reset_timeout": (
        [0.1, 10],
        [(0, ValueError, f"{FINITE} >= 0.001"), (math.inf, ValueError, f"{FINITE} >= 0.001")],
    ),
    "close_timeout": (
        [0, 10],
        [(-1, ValueError, f"{FINITE} >= 0"), (math.inf, ValueError, f"{FINITE} >= 0")],
    ),
    "drain_timeout": ([0, 10, math.inf], [(-1, ValueError, f"{SECONDS} >= 0"), ("x", TypeError, f"{SECONDS} >= 0")]),
    "record_stacks": ([True, False], [(1, TypeError, "must be a bool"), (None, TypeError, "must be a bool")]),
}


def test_options_are_the_fields_of_limits() -> None:
    """The keyword options of `open_pool` and what documents and checks them do not drift apart."""
    assert [field.name for field in attrs.fields(Limits)] == list(Options.__annotations__)
    assert set(OPTIONS) <= set(Options.__annotations__)


@pytest.mark.parametrize(("option", "value"), [(option, value) for option in OPTIONS for value in OPTIONS[option][0]])
def test_good_values(option: str, value: Any) -> None:
    """Taken as they are."""
    options = {"max_size": 10_000, "min_size": 0} | {option: value}
    assert getattr(Limits(**options), option) == value


@pytest.mark.parametrize(
    ("option", "value", "error", "rule"), [(option, *bad) for option in OPTIONS for bad in OPTIONS[option][1]]
)
def test_bad_values(option: str, value: Any, error: type[Exception], rule: str) -> None:
    """Refused at once, naming the option, the rule and the value."""
    options: Any = {option: value}
    with pytest.raises(error) as raised:
        Limits(**options)
    assert str(raised.value) == f"{option} {rule}, not {value!r}"


async def test_open_pool_refuses_before_its_block_is_entered() -> None:
    """The traceback shows the call with the bad option in it."""
    with pytest.raises(ValueError, match="max_size must be an int >= 1, not 0"):
        respool.open_pool(GatedAdapter(), max_size=0)
    nonsense: Any = 5
    with pytest.raises(TypeError, match=r"open_pool\(\) takes an Adapter or a URL as a str, not int"):
        respool.open_pool(nonsense)


def test_an_unknown_option_is_named() -> None:
    """A slip of the finger is not silently ignored."""
    options: Any = {"max_sise": 5}
    with pytest.raises(TypeError, match="max_sise"):
        Limits(**options)


def test_limits_are_frozen() -> None:
    """A pool's options do not change behind its back."""
    limits: Any = Limits()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        limits.max_size = 5


async def test_a_misspelt_option_is_told_with_the_nearest_that_exists() -> None:
    with pytest.raises(TypeError, match=re.escape("there is no option 'maxsize'; did you mean 'max_size'?")):
        respool.open_pool(GatedAdapter(), maxsize=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=re.escape("there is no option 'maxsize'; did you mean 'max_size'?")):
        respool.open_keyed_pool(lambda _: GatedAdapter(), maxsize=5)  # type: ignore[call-arg]
    for name in ("max_overflow", "timeout"):  # nothing is near enough
        with pytest.raises(TypeError, match=f"there is no option '{name}'$"):
            respool.open_pool(GatedAdapter(), **{name: 5})  # type: ignore[call-overload]
