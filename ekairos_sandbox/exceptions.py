"""Every exception the library raises on purpose.

::

    SandboxError                         + code, provider, operation, sandbox_id, retryable,
                                         outcome, hint
      ConfigurationError                 a setting is missing or wrong; names it, never its value
        WrongAccountError                the record was made in another account
      PluginError
        ProviderNotInstalledError        (LookupError) nothing installed has this name
        ProviderLoadError                cannot be imported, or is not a provider
        ProviderConflictError            two distributions claim one provider name
      RepositoryError
        RecordNotFoundError              (LookupError) no record has this id
        RecordConflictError              somebody else changed the record first; read it again
        SchemaError                      the store lacks what the library needs, or is not ours
        RepositoryUnavailableError       the store could not be reached or did not answer
      LifecycleError
        SandboxStoppedError              the sandbox was stopped on request
        SandboxNotReadyError             its creation is still under way
        SandboxFailedError               its creation failed; says why
        IdConflictError                  the caller-chosen id is taken by something else
        EpochMismatchError               the sandbox is not the one that was prepared for commands
      ProviderError                      + status, request_id
        ProviderAuthError                credentials refused
        ProviderRateLimitedError         + retry_after_s
        ProviderTimeoutError             (TimeoutError) no answer in time
        ProviderUnavailableError         no connection, or the provider cannot serve
        SandboxGoneError                 the provider proved that the sandbox no longer exists
        SandboxNotRunningError           it exists but is stopped; connecting may start it
        CheckpointNotFoundError          (LookupError) the sandbox has no checkpoint of this id
        UnsupportedOperationError        the provider cannot do this; nothing was attempted
      OutcomeUnknownError                it may have happened; finding out was impossible
      CommandError                       + command_id
        CommandFailedError               raised by ``CommandResult.check()``; + result
        CommandStartError                the command provably did not run
        CommandNotFoundError             (LookupError) the sandbox knows no command of this id
        CommandStillRunningError         (TimeoutError) it goes on; only the caller's time is up
      RemoteFileError                    + path; a file operation was refused inside the sandbox
        RemoteFileNotFoundError          (FileNotFoundError)
      TransferError                      an upload or download was cut short or its content refused

Branch on classes and attributes, never on message text. Mistakes in the calling program stay
``TypeError`` and ``ValueError``. Instances survive pickling and hold no secrets, no request and
no response objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from ekairos_sandbox.results import CommandResult

Outcome = Literal["failed", "unknown"]
"""``"failed"``: it provably had no effect. ``"unknown"``: it may have happened."""


class SandboxError(Exception):
    """Base of everything the library raises on purpose.

    Attributes:
        code: Stable identifier of the kind of error, also found in ``Err.code``.
        provider: Name of the provider involved, if any.
        operation: The verb that failed, e.g. ``"create"``.
        sandbox_id: The durable id involved, if any.
        retryable: True when the same call may succeed later unchanged, False when it will not,
            None when that cannot be told.
        outcome: ``"failed"`` when it provably had no effect, ``"unknown"`` when it may have.
        hint: One sentence on what to do about it, or None.
    """

    code: ClassVar[str] = "sandbox_error"
    default_retryable: ClassVar[bool | None] = False

    def __init__(
        self,
        message: str = "",
        *,
        provider: str | None = None,
        operation: str | None = None,
        sandbox_id: str | None = None,
        retryable: bool | None = None,
        outcome: Outcome = "failed",
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.operation = operation
        self.sandbox_id = sandbox_id
        self.retryable = self.default_retryable if retryable is None else retryable
        self.outcome: Outcome = outcome
        self.hint = hint

    @property
    def message(self) -> str:
        """The error text without the hint."""
        return str(self.args[0]) if self.args else ""

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigurationError(SandboxError):
    """A setting or config field is missing, wrong or not allowed here. Nothing was attempted."""

    code = "configuration_error"


class WrongAccountError(ConfigurationError):
    """The credentials in use belong to another account than the one the record was made in."""

    code = "wrong_account"


class PluginError(SandboxError):
    """A provider plugin cannot be used."""

    code = "plugin_error"


class ProviderNotInstalledError(PluginError, LookupError):
    """No installed distribution offers a provider of this name."""

    code = "provider_not_installed"


class ProviderLoadError(PluginError):
    """An installed provider could not be imported, or is not a valid provider."""

    code = "provider_load_error"


class ProviderConflictError(PluginError):
    """Two installed distributions offer the same provider name."""

    code = "provider_conflict"


class RepositoryError(SandboxError):
    """The record store refused or failed."""

    code = "repository_error"


class RecordNotFoundError(RepositoryError, LookupError):
    """No record has this id."""

    code = "record_not_found"


class RecordConflictError(RepositoryError):
    """The record was changed by somebody else since it was read."""

    code = "record_conflict"
    default_retryable = True


class SchemaError(RepositoryError):
    """The store lacks what the library needs, is newer than this library, or is not ours."""

    code = "schema_error"


class RepositoryUnavailableError(RepositoryError):
    """The store could not be reached, is full, or did not answer."""

    code = "repository_unavailable"
    default_retryable = True


class LifecycleError(SandboxError):
    """The sandbox is not in a state that allows the operation."""

    code = "lifecycle_error"


class SandboxStoppedError(LifecycleError):
    """The sandbox was stopped on request; ``reconnect_to_sandbox`` may start it again."""

    code = "sandbox_stopped"


class SandboxNotReadyError(LifecycleError):
    """The sandbox is still being created."""

    code = "sandbox_not_ready"
    default_retryable = True


class SandboxFailedError(LifecycleError):
    """The sandbox could not be created; the message holds the stored reason."""

    code = "sandbox_failed"


class IdConflictError(LifecycleError):
    """The id chosen by the caller already stands for another config or another command."""

    code = "id_conflict"


class EpochMismatchError(LifecycleError):
    """The sandbox is not the one that was prepared: restored, replaced or never prepared.

    The command provably did not run. The verbs prepare such a sandbox and try again by themselves.
    """

    code = "epoch_mismatch"


class ProviderError(SandboxError):
    """The provider refused or failed.

    Attributes:
        status: HTTP status, if the provider speaks HTTP.
        request_id: The provider's id of the request, for its support.
    """

    code = "provider_error"
    default_retryable: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        request_id: str | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.request_id = request_id


class ProviderAuthError(ProviderError):
    """The provider refused the credentials."""

    code = "provider_auth"
    default_retryable = False


class ProviderRateLimitedError(ProviderError):
    """The provider asked to slow down.

    Attributes:
        retry_after_s: Seconds the provider asked to wait, or None if it did not say.
    """

    code = "provider_rate_limited"
    default_retryable = True

    def __init__(
        self, message: str = "", *, retry_after_s: float | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.retry_after_s = retry_after_s


class ProviderTimeoutError(ProviderError, TimeoutError):
    """The provider did not answer in time."""

    code = "provider_timeout"
    default_retryable = True


class ProviderUnavailableError(ProviderError):
    """The provider could not be reached, or answered that it cannot serve now."""

    code = "provider_unavailable"
    default_retryable = True


class SandboxGoneError(ProviderError):
    """The provider proved, for the right account, that the sandbox no longer exists."""

    code = "sandbox_not_found"
    default_retryable = False


class SandboxNotRunningError(ProviderError):
    """The provider's sandbox exists but is not running; connecting may start it."""

    code = "sandbox_not_running"
    default_retryable = True


class CheckpointNotFoundError(ProviderError, LookupError):
    """The sandbox has no checkpoint of this id. Nothing has changed."""

    code = "checkpoint_not_found"
    default_retryable = False


class UnsupportedOperationError(ProviderError):
    """The provider cannot do this, or not in this configuration. Nothing was attempted."""

    code = "unsupported_operation"
    default_retryable = False


class OutcomeUnknownError(SandboxError):
    """It may or may not have happened, and finding out was impossible.

    A command behind this error is never run again by the library.
    """

    code = "outcome_unknown"
    default_retryable = False

    def __init__(
        self,
        message: str = "",
        *,
        command_id: str | None = None,
        stdout: bytes = b"",
        stderr: bytes = b"",
        outcome: Outcome = "unknown",
        **context: Any,
    ) -> None:
        super().__init__(message, outcome=outcome, **context)
        self.command_id = command_id
        self.stdout = stdout
        self.stderr = stderr


class CommandError(SandboxError):
    """A command could not be started, or did not succeed.

    Attributes:
        command_id: Id of the command, if it has one already.
    """

    code = "command_error"

    def __init__(self, message: str = "", *, command_id: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.command_id = command_id


class CommandFailedError(CommandError):
    """Raised by ``CommandResult.check()``.

    Attributes:
        result: The result that was checked.
    """

    code = "command_failed"

    def __init__(
        self, message: str = "", *, result: CommandResult | None = None, **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.result = result


class CommandStartError(CommandError):
    """The command provably did not run: bad working directory, missing tools, no space, ..."""

    code = "command_start_failed"


class CommandNotFoundError(CommandError, LookupError):
    """The sandbox knows no command of this id: never started, purged, or rolled back."""

    code = "command_not_found"


class CommandStillRunningError(CommandError, TimeoutError):
    """The command had not ended when the caller's patience had; it goes on running."""

    code = "command_running"
    default_retryable = True


class RemoteFileError(SandboxError):
    """A file operation was refused inside the sandbox.

    Attributes:
        path: The path inside the sandbox.
    """

    code = "file_error"

    def __init__(self, message: str = "", *, path: str | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path


class RemoteFileNotFoundError(RemoteFileError, FileNotFoundError):
    """The sandbox has no such file."""

    code = "file_not_found"


class TransferError(SandboxError):
    """A transfer was cut short, or its content was refused. Nothing was replaced."""

    code = "transfer_failed"
    default_retryable = True


class FieldNotEnforcedWarning(UserWarning):
    """A config field was stored, but the provider does not enforce it. Given once per field."""


class LikelySecretWarning(UserWarning):
    """``params`` are stored with the record as they are, and one of them looks like a secret."""
