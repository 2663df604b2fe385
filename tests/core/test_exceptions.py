from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import re
from collections.abc import Iterator

import pytest

import ekairos_sandbox
from ekairos_sandbox import exceptions
from ekairos_sandbox.exceptions import (
    CommandFailedError,
    ConfigurationError,
    OutcomeUnknownError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    RecordConflictError,
    RecordNotFoundError,
    RemoteFileNotFoundError,
    SandboxError,
)
from ekairos_sandbox.results import CommandResult

CODES = {
    "SandboxError": "sandbox_error",
    "ConfigurationError": "configuration_error",
    "WrongAccountError": "wrong_account",
    "PluginError": "plugin_error",
    "ProviderNotInstalledError": "provider_not_installed",
    "ProviderLoadError": "provider_load_error",
    "ProviderConflictError": "provider_conflict",
    "RepositoryError": "repository_error",
    "RecordNotFoundError": "record_not_found",
    "RecordConflictError": "record_conflict",
    "SchemaError": "schema_error",
    "RepositoryUnavailableError": "repository_unavailable",
    "LifecycleError": "lifecycle_error",
    "SandboxStoppedError": "sandbox_stopped",
    "SandboxNotReadyError": "sandbox_not_ready",
    "SandboxFailedError": "sandbox_failed",
    "IdConflictError": "id_conflict",
    "EpochMismatchError": "epoch_mismatch",
    "ProviderError": "provider_error",
    "ProviderAuthError": "provider_auth",
    "ProviderRateLimitedError": "provider_rate_limited",
    "ProviderTimeoutError": "provider_timeout",
    "ProviderUnavailableError": "provider_unavailable",
    "SandboxGoneError": "sandbox_not_found",
    "SandboxNotRunningError": "sandbox_not_running",
    "CheckpointNotFoundError": "checkpoint_not_found",
    "UnsupportedOperationError": "unsupported_operation",
    "OutcomeUnknownError": "outcome_unknown",
    "CommandError": "command_error",
    "CommandFailedError": "command_failed",
    "CommandStartError": "command_start_failed",
    "CommandNotFoundError": "command_not_found",
    "CommandStillRunningError": "command_running",
    "RemoteFileError": "file_error",
    "RemoteFileNotFoundError": "file_not_found",
    "TransferError": "transfer_failed",
}
BUILTINS = {
    "ProviderNotInstalledError": LookupError,
    "RecordNotFoundError": LookupError,
    "CheckpointNotFoundError": LookupError,
    "CommandNotFoundError": LookupError,
    "CommandStillRunningError": TimeoutError,
    "ProviderTimeoutError": TimeoutError,
    "RemoteFileNotFoundError": FileNotFoundError,
}
RETRYABLE = {
    "RecordConflictError",
    "RepositoryUnavailableError",
    "SandboxNotReadyError",
    "ProviderRateLimitedError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "SandboxNotRunningError",
    "CommandStillRunningError",
    "TransferError",
}
CONTEXT = {
    "provider": "local",
    "operation": "create",
    "sandbox_id": "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21",
    "retryable": True,
    "outcome": "unknown",
    "hint": "do this",
}


def defined() -> dict[str, type[SandboxError]]:
    return {
        name: cls
        for name, cls in vars(exceptions).items()
        if isinstance(cls, type) and issubclass(cls, SandboxError)
    }


def every_class(cls: type[SandboxError] = SandboxError) -> Iterator[type[SandboxError]]:
    yield cls
    for sub in cls.__subclasses__():
        yield from every_class(sub)


def drawn() -> dict[str, str | None]:
    """Name and parent of every class in the tree of the docstring."""
    found: dict[str, str | None] = {}
    open_at: list[tuple[int, str]] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"( {4,})([A-Z]\w+Error)\b", line)
        if match is None:
            continue
        indent, name = len(match[1]), match[2]
        while open_at and open_at[-1][0] >= indent:
            open_at.pop()
        found[name] = open_at[-1][1] if open_at else None
        open_at.append((indent, name))
    return found


classes = pytest.mark.parametrize(
    "cls",
    defined().values(),
    ids=lambda cls: cls.__name__,
)


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        name: None if cls is SandboxError else cls.__mro__[1].__name__
        for name, cls in defined().items()
    }
    assert drawn() == real


def test_builtin_bases_are_drawn() -> None:
    for name, builtin in BUILTINS.items():
        line = next(
            line for line in (exceptions.__doc__ or "").splitlines() if f"  {name} " in line
        )
        assert f"({builtin.__name__})" in line


def test_every_code_is_the_published_one() -> None:
    assert {name: cls.code for name, cls in defined().items()} == CODES


def test_codes_are_unique_and_public_classes_are_exported() -> None:
    for module in pkgutil.walk_packages(ekairos_sandbox.__path__, "ekairos_sandbox."):
        if ".testing" not in module.name:
            importlib.import_module(module.name)
    public = [cls for cls in every_class() if cls.__module__.startswith("ekairos_sandbox.")]
    own_codes = [cls.code for cls in public if "code" in vars(cls)]
    assert len(own_codes) == len(set(own_codes))
    assert set(own_codes) == set(CODES.values())
    assert {name for name in CODES if not hasattr(ekairos_sandbox, name)} == set()


@classes
def test_builtin_meaning_is_kept(cls: type[SandboxError]) -> None:
    builtin = BUILTINS.get(cls.__name__)
    assert builtin is None or issubclass(cls, builtin)


@classes
def test_an_error_can_be_made_from_a_message_alone(cls: type[SandboxError]) -> None:
    error = cls("what went wrong")
    assert str(error) == "what went wrong"
    assert error.message == "what went wrong"
    assert (error.provider, error.operation, error.sandbox_id, error.hint) == (None,) * 4
    assert error.outcome == ("unknown" if cls is OutcomeUnknownError else "failed")
    assert str(cls()) == ""


@classes
def test_context_is_kept(cls: type[SandboxError]) -> None:
    error = cls("what went wrong", **CONTEXT)  # type: ignore[arg-type]
    assert {name: getattr(error, name) for name in CONTEXT} == CONTEXT
    assert str(error) == "what went wrong (do this)"
    assert error.message == "what went wrong"


@classes
def test_context_is_given_by_keyword_only(cls: type[SandboxError]) -> None:
    with pytest.raises(TypeError):
        cls("what went wrong", "local")  # type: ignore[call-arg]


@classes
def test_every_attribute_survives_pickling_and_copying(cls: type[SandboxError]) -> None:
    error = cls("what went wrong", **CONTEXT)  # type: ignore[arg-type]
    for name, value in {
        "status": 503,
        "request_id": "r-1",
        "retry_after_s": 2.5,
        "command_id": "c-1",
        "path": "/x",
        "stdout": b"out",
        "stderr": b"err",
        "result": CommandResult("c-1", ("false",), 1),
    }.items():
        if name in vars(error):
            setattr(error, name, value)
    error.add_note("a note")
    for again in (
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
        copy.copy(error),
    ):
        assert type(again) is cls
        assert vars(again) == vars(error)
        assert again.args == error.args
        assert str(again) == str(error)


@classes
def test_whether_to_try_again_is_said_unless_the_caller_knows_better(
    cls: type[SandboxError],
) -> None:
    name = cls.__name__
    if name in RETRYABLE:
        assert cls().retryable is True
    elif cls is ProviderError:
        assert cls().retryable is None
    else:
        assert cls().retryable is False
    assert cls(retryable=False).retryable is False
    assert cls(retryable=True).retryable is True


def test_extra_attributes_have_defaults() -> None:
    assert ProviderError("x").status is None
    assert ProviderError("x", status=404, request_id="r").request_id == "r"
    assert ProviderRateLimitedError("x").retry_after_s is None
    assert ProviderRateLimitedError("x", retry_after_s=3, status=429).status == 429
    assert CommandFailedError("x").result is None
    assert OutcomeUnknownError("x", command_id="c", stdout=b"o").stdout == b"o"
    assert RemoteFileNotFoundError("x", path="/y").path == "/y"


def test_os_error_bases_do_not_change_the_text() -> None:
    assert str(ProviderTimeoutError("slow", hint="wait")) == "slow (wait)"
    assert str(RemoteFileNotFoundError("no file", path="/y")) == "no file"
    assert RemoteFileNotFoundError("no file").errno is None


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        ConfigurationError("x", wrong=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        ProviderError("x", wrong=1)


def test_an_error_is_caught_as_the_builtin() -> None:
    with pytest.raises(LookupError):
        raise RecordNotFoundError("x")
    with pytest.raises(TimeoutError):
        raise ProviderTimeoutError("x")
    with pytest.raises(FileNotFoundError):
        raise RemoteFileNotFoundError("x")
    with pytest.raises(SandboxError):
        raise RecordConflictError("x")
