"""What tests of pools, of adapters, and of anything else written for Trio can use. Needs no test framework."""

from __future__ import annotations

from ._cancel import CancelReport as CancelReport
from ._cancel import cancel_everywhere as cancel_everywhere
from ._check_adapter import AdapterReport as AdapterReport
from ._check_adapter import ContractBroken as ContractBroken
from ._check_adapter import check_adapter as check_adapter
from ._fakes import FakeResource as FakeResource
from ._fakes import Gate as Gate
from ._fakes import GatedAdapter as GatedAdapter
from ._fakes import GatedError as GatedError
from ._fakes import Hook as Hook
