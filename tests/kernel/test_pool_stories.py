"""Hypothesis tells stories about a whole pool, in many orders of its tasks, and shortens those that end badly."""

from __future__ import annotations

import math
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from respool import Options, Priority
from respool.abc import Verdict
from respool.testing import Gate, Hook

from .simulation import Borrow, Change, Ending, Fault, Outage, Story, run

# Few different moments and durations, because bugs live where things happen at the same time.
moments = st.integers(0, 40).map(lambda tenths: tenths / 10)
durations = st.sampled_from([0, 0.1, 0.5, 1, 2])
gates: st.SearchStrategy[Gate] = st.sampled_from(get_args(Gate))

borrows = st.builds(
    Borrow,
    at=moments,
    hold=durations,
    doing=st.sampled_from(["exchange", "soil", "break", "fail", "retire"]),
    timeout=st.none() | durations,
    patience=st.just(math.inf) | durations,
    priority=st.sampled_from(Priority),
)
hooks: st.SearchStrategy[Hook] = st.sampled_from(["open", "validate", "reset", "close"])
faults = st.builds(
    Fault,
    at=moments,
    hook=hooks,
    gate=gates | st.sampled_from([Verdict.PERMANENT, Verdict.RETIRE, Verdict.DISCARD]),
)
exchange_faults = st.builds(Fault, at=moments, hook=st.just("exchange"), gate=st.sampled_from(["error", "slow"]))
outages = st.builds(Outage, at=moments)
changes = st.builds(
    Change,
    at=moments,
    what=st.sampled_from(["retire", "pause", "resume", "shrink", "grow", "quiesce", "drain"]),
)
options: st.SearchStrategy[Options] = st.fixed_dictionaries(  # type: ignore[assignment]
    {},
    optional={
        "max_size": st.integers(2, 4),
        "min_size": st.integers(0, 2),
        "max_opening": st.integers(1, 3),
        "max_waiting": st.integers(0, 3),
        "max_uses": st.integers(1, 3),
        "max_idle": durations.filter(bool),
        "max_lifetime": durations.filter(bool),
        "validate_after": durations,
        "acquire_timeout": durations,
        "max_hold": durations.filter(bool),
        "reserved": st.integers(0, 1),
        "fail_fast": st.booleans(),
    },
)
stories = st.builds(
    Story,
    steps=st.lists(st.one_of(*[borrows] * 4, faults, exchange_faults, outages, changes), max_size=12),
    ending=st.sampled_from(get_args(Ending)),
    at=moments,
    options=options,
    leases_per_resource=st.sampled_from([1, 1, 3]),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(story=stories, seed=st.integers(0, 1000))
def test_every_story_ends_well(story: Story, seed: int) -> None:
    """P1 to P6, P8 to P10: any tasks, faults and options, at any time, in any order."""
    run(story, seed)
