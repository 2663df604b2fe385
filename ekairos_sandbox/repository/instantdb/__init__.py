"""The record store in InstantDB, hosted or self-hosted."""

from ekairos_sandbox.repository.instantdb.client import InstantClient
from ekairos_sandbox.repository.instantdb.domain import (
    SandboxDomain,
    SchemaPush,
    check,
    push_rules,
    push_schema,
    sandbox_domain,
)
from ekairos_sandbox.repository.instantdb.errors import RefusedError, ServerBusyError
from ekairos_sandbox.repository.instantdb.files import InstantFile
from ekairos_sandbox.repository.instantdb.repository import InstantSandboxRepository
from ekairos_sandbox.repository.instantdb.schema import compose_schema
from ekairos_sandbox.repository.instantdb.temporary import TemporaryApp, create_temporary_app

__all__ = [
    "InstantClient",
    "InstantFile",
    "InstantSandboxRepository",
    "RefusedError",
    "SandboxDomain",
    "SchemaPush",
    "ServerBusyError",
    "TemporaryApp",
    "check",
    "compose_schema",
    "create_temporary_app",
    "push_rules",
    "push_schema",
    "sandbox_domain",
]
