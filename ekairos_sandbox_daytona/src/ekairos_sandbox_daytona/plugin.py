"""Entry point of the Daytona provider. Imports nothing heavy, on any platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ekairos_sandbox.hookspecs import hookimpl

if TYPE_CHECKING:
    from ekairos_sandbox.provider import Provider


@hookimpl
def ekairos_sandbox_provider() -> type[Provider[Any]]:
    """Return the provider class."""
    from ekairos_sandbox_daytona.provider import DaytonaProvider

    return DaytonaProvider
