"""Opening the record store that the environment names."""

from __future__ import annotations

from collections.abc import Mapping

from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.settings import StoreSetting


def open_repository(setting: StoreSetting, environ: Mapping[str, str]) -> SandboxRepository:
    """Return the record store of a setting. No I/O; imports only what this store needs.

    Raises:
        ConfigurationError: A variable that the store needs is missing or wrong.
    """
    if setting.kind == "instantdb":
        from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository

        return InstantSandboxRepository(InstantClient(environ=environ))
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

    return SqliteSandboxRepository(setting.path)
