"""The values that core and a provider exchange. Import them from ``ekairos_sandbox.provider``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, Literal, NoReturn, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from ekairos_sandbox.clock import Clock, SystemClock
from ekairos_sandbox.exceptions import CheckpointNotFoundError, SandboxGoneError

ConfigField = Literal["timeout_ms", "vcpus", "runtime", "ports"]
"""The config fields whose meaning differs between providers."""

SandboxRunState = Literal["running", "stopped", "changing", "failed", "unknown"]
"""What a provider says of a sandbox. ``"changing"``: on its way; ask again."""

Ownership = Literal["created", "adopted", "borrowed"]
"""How a ``create`` came by its sandbox: made by this call; found, with all our tags; found under
a name that the user chose, without them."""


class Capability(StrEnum):
    """What a provider can do beyond the common contract."""

    CHECKPOINTS = "checkpoints"
    PREVIEW_URL = "preview_url"
    EXTEND_TIMEOUT = "extend_timeout"
    NATIVE = "native"


def not_stored(**field: Any) -> Any:
    """Declare an options field that never goes into the record, as ``pydantic.Field`` does.

    Its name is kept in the record instead, and a sandbox that was made with it is not recreated
    by itself. ``repr`` leaves it out. Fields of type ``SecretStr`` are treated the same without
    this.
    """
    return Field(json_schema_extra={"stored": False}, repr=False, **field)


class ProviderOptions(BaseModel):
    """Base of a provider's options: unknown fields are errors, inputs are not shown.

    Mark what must not be stored in the record as ``SecretStr`` or with ``not_stored()``:

        class Options(ProviderOptions):
            image: str | None = None
            env_vars: dict[str, str] = not_stored(default_factory=dict)
    """

    model_config = ConfigDict(
        extra="forbid",
        populate_by_name=True,
        hide_input_in_errors=True,
        defer_build=True,
        frozen=True,
        arbitrary_types_allowed=True,
    )


@dataclass(frozen=True, slots=True)
class FieldSupport:
    """What a provider does with a config field.

    Attributes:
        level: ``"enforced"``; ``"recorded"``: stored, not enforced, the caller is warned once;
            ``"refused"``: an error before any call.
        note: Why, in one sentence; part of the warning or error.
    """

    level: Literal["enforced", "recorded", "refused"]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Tags:
    """The marks that every sandbox of ours bears at its provider.

    Attributes:
        owner: Tag of the record store.
        sandbox_id: The durable id.
        incarnation: Which incarnation of that id it is.
    """

    owner: str
    sandbox_id: str
    incarnation: int

    def as_dict(self) -> dict[str, str]:
        """The tags as label names and values."""
        return {
            "ekairos-owner": self.owner,
            "ekairos-id": self.sandbox_id,
            "ekairos-incarnation": str(self.incarnation),
        }

    @classmethod
    def from_dict(cls, labels: Mapping[str, str]) -> Tags | None:
        """Read the tags back; None unless all of them are there and well-formed."""
        number = labels.get("ekairos-incarnation", "")
        owner, sandbox_id = labels.get("ekairos-owner"), labels.get("ekairos-id")
        if not owner or not sandbox_id or not number.isascii() or not number.isdigit():
            return None
        return cls(owner, sandbox_id, int(number))


OptionsT = TypeVar("OptionsT", bound=ProviderOptions)


@dataclass(frozen=True, slots=True)
class CreateSpec(Generic[OptionsT]):
    """What ``Provider.create`` shall make.

    Attributes:
        name: The provider-side name, unique per incarnation: the idempotency key.
        user_chosen_name: Whether the user gave the name; only then may an existing sandbox
            without our tags be borrowed.
        tags: To be put on the sandbox.
        options: The provider's own options, validated.
        timeout_s: Seconds the whole creation may take; no call to the provider starts later.
        runtime: As in the config.
        timeout_ms: Lifetime, as in the config.
        vcpus: As in the config.
        ports: As in the config.
        params: The caller's own, as in the config.
    """

    name: str
    tags: Tags
    options: OptionsT
    timeout_s: float
    user_chosen_name: bool = False
    runtime: str | None = None
    timeout_ms: int | None = None
    vcpus: float | None = None
    ports: tuple[int, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class SandboxRef(Generic[OptionsT]):
    """What the record knows of a sandbox: enough to find it again from any process.

    Attributes:
        name: The provider-side name of the current incarnation.
        external_id: The provider's own id, or None if it was never learnt.
        tags: The tags it was made with; None for records of the TypeScript package.
        data: The record's ``params.<provider name>``: whatever ``Connection.data`` held before.
        options: The provider's options as far as they were stored; None for records of the
            TypeScript package.
        timeout_ms: Lifetime, as in the config.
        ports: As in the config.
        borrowed: The sandbox is not ours: ``stop`` must not delete it; ``destroy`` is explicit.
    """

    name: str
    external_id: str | None = None
    tags: Tags | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    options: OptionsT | None = None
    timeout_ms: int | None = None
    ports: tuple[int, ...] = ()
    borrowed: bool = False


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """What the provider says of one sandbox, without starting it.

    Attributes:
        name: Its provider-side name.
        external_id: The provider's own id.
        state: What it is doing.
        tags: Our tags, or None if it does not bear all of them.
        created_at: Epoch ms, or None if the provider does not say.
        url: Its address, if it has one.
    """

    name: str
    external_id: str
    state: SandboxRunState = "unknown"
    tags: Tags | None = None
    created_at: int | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What core hands to a provider when it is constructed.

    Attributes:
        environ: Environment variables to read settings from; never read ``os.environ`` directly.
        clock: Time and sleep, replaced in tests.
        proxies: Proxies for HTTP as ``requests`` takes them; None means those of the environment.
        verify: TLS verification as ``requests`` takes it: True, or the path of a CA bundle.
        allow_http: Whether plain ``http://`` to other hosts than loopback is allowed.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    clock: Clock = field(default_factory=SystemClock)
    proxies: Mapping[str, str] | None = field(default=None, repr=False)
    verify: bool | str = True
    allow_http: bool = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("the context of a provider is not pickled, as it holds credentials")


class StatedLimit(Protocol):
    """What becomes of a limit here and now; any object with these attributes.

    Attributes:
        name: The option or config field.
        level: ``"enforced"``, ``"best effort"``, or ``"impossible"``: refused when asked for.
        note: What it bounds, or why it cannot, in one sentence.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def level(self) -> str: ...  # noqa: D102
    @property
    def note(self) -> str: ...  # noqa: D102


def may_adopt(spec: CreateSpec[Any], found: SandboxInfo) -> Ownership | None:
    """Decide what a sandbox that already has the wanted name means for a creation.

    Returns:
        ``"adopted"`` if it bears exactly our tags, ``"borrowed"`` if the user chose the name and
        it bears none, None if it is somebody else's.
    """
    if found.tags == spec.tags:
        return "adopted"
    if found.tags is None and spec.user_chosen_name:
        return "borrowed"
    return None


def same_sandbox(ref: SandboxRef[Any], found: SandboxInfo) -> bool:
    """Tell whether a sandbox found by name is the one that the record means."""
    if ref.external_id is not None and found.external_id != ref.external_id:
        return False
    return ref.tags is None or found.tags is None or found.tags == ref.tags


def no_checkpoint(checkpoint_id: str, provider: str) -> CheckpointNotFoundError:
    """Build the error for a checkpoint that a sandbox does not have."""
    return CheckpointNotFoundError(
        f"the sandbox has no checkpoint {checkpoint_id!r}",
        provider=provider,
        operation="restore_checkpoint",
        hint="list_checkpoints tells which there are",
    )


def gone(ref: SandboxRef[Any], provider: str, *, operation: str) -> SandboxGoneError:
    """Build the error for a sandbox that the provider proved not to exist."""
    return SandboxGoneError(
        f"the sandbox {ref.name!r} no longer exists at {provider}",
        provider=provider,
        operation=operation,
        sandbox_id=ref.tags.sandbox_id if ref.tags else None,
    )
