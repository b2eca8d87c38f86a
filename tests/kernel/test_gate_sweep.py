"""Every combination of an adapter's hooks going well, badly, slowly and never, against impatient borrowers.

Nothing is asserted but the promises. The idea is deadpool's ``managed_cancellation.rs``.
"""

from __future__ import annotations

import itertools
import math
import random
from typing import get_args

import pytest

from respool.testing import Gate

from .simulation import Borrow, Ending, Story, run

GATES: tuple[Gate, ...] = get_args(Gate)
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("open_gate", GATES)
def test_the_promises_hold(open_gate: Gate, ending: Ending) -> None:
    """P1 to P6, P9 and P10, whatever the hooks do and however the pool's block ends."""
    for validate, reset, close in itertools.product(GATES, GATES, GATES):
        gates = (open_gate, validate, reset, close)
        run(impatience(gates, ending), seed=(gates, ending))


def impatience(gates: tuple[Gate, Gate, Gate, Gate], ending: Ending) -> Story:
    """Thirty tasks that want more than there is, sooner than they can have it, and do not always behave."""
    chance = random.Random(repr((gates, ending)))
    borrows = [
        Borrow(
            at=chance.uniform(0, 6),
            hold=chance.choice([0, 0, 0.2, 1]),
            doing=chance.choice(["exchange", "exchange", "soil", "break", "fail"]),
            timeout=chance.choice([None, 0, 0.5, 3]),
            patience=chance.choice([0, 0.4, 1.7, math.inf]),
        )
        for _ in range(30)
    ]
    return Story(
        gates=gates,
        steps=[*borrows],
        ending=ending,
        at=chance.uniform(0, 6),
        options={
            "min_size": chance.choice([0, 2]),
            "acquire_timeout": 6.0,
            "validate_after": 0.25,
            "max_idle": 3.0,
            "max_uses": 5,
            "max_waiting": 4,
        },
    )
