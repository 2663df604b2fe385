"""The one service of this process. All threads share it; forked workers may inherit it."""

import functools

from ekairos_sandbox import RaisingService, SandboxService


@functools.cache
def service() -> RaisingService:
    """Return the service over the record store that the environment names."""
    return SandboxService.from_env().raising
