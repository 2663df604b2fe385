"""Daytona provider of ekairos-sandbox.

Nothing is imported until it is used; Daytona's SDK not before the first call to the service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ekairos_sandbox_daytona.options import DaytonaOptions
    from ekairos_sandbox_daytona.provider import DaytonaProvider
    from ekairos_sandbox_daytona.volumes import DaytonaVolumes

__all__ = ["DaytonaOptions", "DaytonaProvider", "DaytonaVolumes"]


def __getattr__(name: str) -> Any:
    if name == "DaytonaOptions":
        from ekairos_sandbox_daytona.options import DaytonaOptions

        return DaytonaOptions
    if name == "DaytonaProvider":
        from ekairos_sandbox_daytona.provider import DaytonaProvider

        return DaytonaProvider
    if name == "DaytonaVolumes":
        from ekairos_sandbox_daytona.volumes import DaytonaVolumes

        return DaytonaVolumes
    raise AttributeError(name)
