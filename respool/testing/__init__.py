"""What tests of pools, of adapters, and of anything else written for Trio can use. Needs no test framework."""

from __future__ import annotations

from ._cancel import CancelReport, cancel_everywhere
from ._check_adapter import AdapterReport, ContractBroken, check_adapter
from ._fakes import FakeResource, Gate, GatedAdapter, GatedError, Hook

__all__ = [
    "AdapterReport",
    "CancelReport",
    "ContractBroken",
    "FakeResource",
    "Gate",
    "GatedAdapter",
    "GatedError",
    "Hook",
    "cancel_everywhere",
    "check_adapter",
]
