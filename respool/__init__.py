"""Connection and resource pooling for Trio."""

from __future__ import annotations

from ._limits import Limits as Limits
from ._limits import Options as Options
