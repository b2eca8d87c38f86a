"""What tests of pools, of adapters, and of anything else written for Trio can use. Needs no test framework."""

from __future__ import annotations

from ._cancel import CancelReport as CancelReport
from ._cancel import cancel_everywhere as cancel_everywhere
