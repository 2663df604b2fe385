"""Entry point of the Vercel provider. Imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ekairos_sandbox.hookspecs import hookimpl

if TYPE_CHECKING:
    from ekairos_sandbox.provider import Provider


@hookimpl
def ekairos_sandbox_provider() -> type[Provider[Any]]:
    """Return the provider class."""
    from ekairos_sandbox_vercel.provider import VercelProvider

    return VercelProvider
