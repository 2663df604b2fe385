"""Options of the Daytona provider."""

from __future__ import annotations

from ekairos_sandbox.provider import ProviderOptions


class DaytonaOptions(ProviderOptions):
    """How a Daytona sandbox is made."""
