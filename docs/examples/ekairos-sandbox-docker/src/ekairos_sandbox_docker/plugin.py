"""Entry point. Imports nothing heavy: the SDK is loaded when the provider is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ekairos_sandbox.hookspecs import hookimpl

if TYPE_CHECKING:
    from ekairos_sandbox.provider import Provider


@hookimpl
def ekairos_sandbox_provider() -> type[Provider[Any]]:
    """Return the provider class."""
    from ekairos_sandbox_docker.provider import DockerProvider

    return DockerProvider
