"""The Daytona provider, as core sees it."""

from __future__ import annotations

from typing import ClassVar

from ekairos_sandbox.provider import Provider
from ekairos_sandbox_daytona.options import DaytonaOptions


class DaytonaProvider(Provider[DaytonaOptions]):
    """Sandboxes at Daytona."""

    name: ClassVar[str] = "daytona"
    options_model = DaytonaOptions
