"""Remote sandboxes by a durable id, over any provider. See ``SandboxService``.

Names are loaded from their modules at first use, so importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ekairos_sandbox.commands import RaisingCommand
    from ekairos_sandbox.exceptions import (
        CheckpointNotFoundError,
        CommandError,
        CommandFailedError,
        CommandNotFoundError,
        CommandStartError,
        CommandStillRunningError,
        ConfigurationError,
        EpochMismatchError,
        FieldNotEnforcedWarning,
        IdConflictError,
        LifecycleError,
        LikelySecretWarning,
        OutcomeUnknownError,
        PluginError,
        ProviderAuthError,
        ProviderConflictError,
        ProviderError,
        ProviderLoadError,
        ProviderNotInstalledError,
        ProviderRateLimitedError,
        ProviderTimeoutError,
        ProviderUnavailableError,
        RecordConflictError,
        RecordNotFoundError,
        RemoteFileError,
        RemoteFileNotFoundError,
        RepositoryError,
        RepositoryUnavailableError,
        SandboxError,
        SandboxFailedError,
        SandboxGoneError,
        SandboxNotReadyError,
        SandboxNotRunningError,
        SandboxStoppedError,
        SchemaError,
        TransferError,
        UnsupportedOperationError,
        WrongAccountError,
    )
    from ekairos_sandbox.files.content import FileWrite
    from ekairos_sandbox.hookspecs import hookimpl
    from ekairos_sandbox.jobs.stream import CommandStream
    from ekairos_sandbox.models import Resources, SandboxConfig, SandboxRecord
    from ekairos_sandbox.plugins import PluginRegistry
    from ekairos_sandbox.raising import RaisingSandbox, RaisingService
    from ekairos_sandbox.repository.base import SandboxRepository
    from ekairos_sandbox.repository.instantdb.client import InstantClient
    from ekairos_sandbox.repository.instantdb.domain import (
        push_rules,
        push_schema,
        sandbox_domain,
    )
    from ekairos_sandbox.repository.instantdb.schema import compose_schema
    from ekairos_sandbox.results import (
        Checkpoint,
        CommandResult,
        Err,
        Ok,
        OutputChunk,
        PreviewUrl,
        ReconcileAction,
        ReconcileReport,
        RecordPage,
        ServiceResult,
        TransferStats,
    )
    from ekairos_sandbox.service import Command, Reconnected, Sandbox, SandboxService

__all__ = [
    "Checkpoint",
    "CheckpointNotFoundError",
    "Command",
    "CommandError",
    "CommandFailedError",
    "CommandNotFoundError",
    "CommandResult",
    "CommandStartError",
    "CommandStillRunningError",
    "CommandStream",
    "ConfigurationError",
    "EpochMismatchError",
    "Err",
    "FieldNotEnforcedWarning",
    "FileWrite",
    "IdConflictError",
    "InstantClient",
    "LifecycleError",
    "LikelySecretWarning",
    "Ok",
    "OutcomeUnknownError",
    "OutputChunk",
    "PluginError",
    "PluginRegistry",
    "PreviewUrl",
    "ProviderAuthError",
    "ProviderConflictError",
    "ProviderError",
    "ProviderLoadError",
    "ProviderNotInstalledError",
    "ProviderRateLimitedError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "RaisingCommand",
    "RaisingSandbox",
    "RaisingService",
    "ReconcileAction",
    "ReconcileReport",
    "Reconnected",
    "RecordConflictError",
    "RecordNotFoundError",
    "RecordPage",
    "RemoteFileError",
    "RemoteFileNotFoundError",
    "RepositoryError",
    "RepositoryUnavailableError",
    "Resources",
    "Sandbox",
    "SandboxConfig",
    "SandboxError",
    "SandboxFailedError",
    "SandboxGoneError",
    "SandboxNotReadyError",
    "SandboxNotRunningError",
    "SandboxRecord",
    "SandboxRepository",
    "SandboxService",
    "SandboxStoppedError",
    "SchemaError",
    "ServiceResult",
    "TransferError",
    "TransferStats",
    "UnsupportedOperationError",
    "WrongAccountError",
    "compose_schema",
    "hookimpl",
    "push_rules",
    "push_schema",
    "sandbox_domain",
]

_HOMES = {
    "commands": "RaisingCommand",
    "exceptions": (
        "CheckpointNotFoundError CommandError CommandFailedError CommandNotFoundError "
        "CommandStartError CommandStillRunningError ConfigurationError EpochMismatchError "
        "FieldNotEnforcedWarning IdConflictError LifecycleError LikelySecretWarning "
        "OutcomeUnknownError PluginError ProviderAuthError ProviderConflictError "
        "ProviderError ProviderLoadError ProviderNotInstalledError "
        "ProviderRateLimitedError ProviderTimeoutError ProviderUnavailableError "
        "RecordConflictError RecordNotFoundError RemoteFileError RemoteFileNotFoundError "
        "RepositoryError RepositoryUnavailableError SandboxError SandboxFailedError "
        "SandboxGoneError SandboxNotReadyError SandboxNotRunningError SandboxStoppedError "
        "SchemaError TransferError UnsupportedOperationError WrongAccountError"
    ),
    "files.content": "FileWrite",
    "hookspecs": "hookimpl",
    "jobs.stream": "CommandStream",
    "models": "Resources SandboxConfig SandboxRecord",
    "plugins": "PluginRegistry",
    "raising": "RaisingSandbox RaisingService",
    "repository.base": "SandboxRepository",
    "repository.instantdb.client": "InstantClient",
    "repository.instantdb.domain": "push_rules push_schema sandbox_domain",
    "repository.instantdb.schema": "compose_schema",
    "results": (
        "Checkpoint CommandResult Err Ok OutputChunk PreviewUrl ReconcileAction "
        "ReconcileReport RecordPage ServiceResult TransferStats"
    ),
    "service": "Command Reconnected Sandbox SandboxService",
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
