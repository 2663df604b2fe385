"""Records, config and the library's own state inside a record. No I/O.

A record has exactly the attributes of the InstantDB entity ``sandbox_sandboxes`` of the
TypeScript package ``@ekairos/sandbox``: camelCase on the wire, snake_case here. What belongs to
this library alone lives under ``params.ekairos``. Attributes and keys that are not known here
survive every read and write.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from ekairos_sandbox.exceptions import ConfigurationError, SchemaError

SandboxStatus = Literal["creating", "active", "recreating", "shutdown", "error"]
"""The statuses this library writes. Records of other writers may hold others."""

STATE_KEY = "ekairos"
"""Key in ``params`` under which this library keeps its own state."""

STATE_VERSION = 1
"""Version of that state; a release that changes the meaning of what is there raises it."""

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NO_ENV_TEXT = re.compile("[\0\ud800-\udc7f\udd00-\udfff]")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_UUID_TEXT = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
PROVIDER_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")

MAX_TIMEOUT_MS = 10**12
"""Longest lifetime of a sandbox that may be asked for: 31 years, which every store can hold."""

_EpochMs = Annotated[int, Field(ge=-(2**53), le=2**53)]


def check_sandbox_id(sandbox_id: str) -> str:
    """Return a durable id in its canonical form: lower-case UUID text.

    Raises:
        ConfigurationError: It is not a UUID.
    """
    text = str(sandbox_id).strip()
    try:
        canonical = str(uuid.UUID(text))
    except ValueError:
        canonical = ""
    if not canonical or canonical != text.lower():
        raise ConfigurationError(
            "a sandbox id is a UUID like 6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21",
            hint="pass the id that create_sandbox returned",
        )
    return canonical


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True, defer_build=True, frozen=True)


class SandboxState(_Model):
    """This library's own part of a record, stored as ``params.ekairos``.

    Attributes:
        v: Version of this state. A record of a later one is not read: what it says may mean
            something else.
        rev: Counts the transitions of the record; the basis of compare-and-set.
        incarnation: Which sandbox at the provider stands for the record, 1 for the first.
        name: The provider-side name of this incarnation; the idempotency key of its creation.
            None in a record that another program made and this library only stopped.
        owner: Tag of the record store that made it.
        account: The provider account it was made in.
        epoch: Mark written into the sandbox; a start that expects another one is refused.
        home: Directory inside the sandbox under which jobs are kept, fixed when it was prepared.
        deadline: Until when its creation may be under way, epoch ms; None when it is not.
        expires_at: When its lifetime ends, epoch ms; None without a limit.
        config: The storable part of the config it was made from.
        withheld: Names of config fields that were not stored because they are secret.
        borrowed: The sandbox existed already and is not ours: it is used, never deleted unasked.
        stop: Why it is shut down.
        release: What the provider has not been told yet.
    """

    model_config = ConfigDict(
        extra="allow", hide_input_in_errors=True, defer_build=True, frozen=True
    )

    v: int = Field(default=STATE_VERSION, le=STATE_VERSION)
    rev: int = Field(default=0, ge=0, le=2**53)
    incarnation: int = Field(default=1, ge=1)
    name: str | None = None
    owner: str = ""
    account: str | None = None
    epoch: str = ""
    home: str | None = None
    deadline: int | None = None
    expires_at: int | None = None
    config: dict[str, JsonValue] = Field(default_factory=dict)
    withheld: list[str] = Field(default_factory=list)
    borrowed: bool = False
    stop: Literal["requested", "lost", "expired"] | None = None
    release: Literal["stop", "destroy"] | None = None


class SandboxRecord(BaseModel):
    """The durable record of a sandbox.

    Times are epoch milliseconds as on the wire. ``status`` is open text when reading, because
    other programs write these records too; see ``SandboxStatus`` for what this library writes.
    """

    model_config = ConfigDict(
        extra="allow",
        alias_generator=to_camel,
        populate_by_name=True,
        # What JSON does not know is refused when it is stored, not turned into null.
        ser_json_inf_nan="constants",
        hide_input_in_errors=True,
        defer_build=True,
        frozen=True,
    )

    id: str
    provider: str
    status: str
    external_sandbox_id: str | None = None
    sandbox_url: str | None = None
    timeout: int | None = None
    runtime: str | None = None
    vcpus: float | None = None
    ports: list[int] | None = None
    purpose: str | None = None
    params: dict[str, Any] | None = None
    created_at: _EpochMs
    updated_at: _EpochMs | None = None
    shutdown_at: _EpochMs | None = None

    @property
    def state(self) -> SandboxState | None:
        """This library's own state, or None if it never changed the record."""
        raw = (self.params or {}).get(STATE_KEY)
        return SandboxState.model_validate(raw) if isinstance(raw, Mapping) else None

    @property
    def ours(self) -> bool:
        """Whether this library made the sandbox, so that it may make it anew."""
        state = self.state
        return state is not None and state.name is not None

    @property
    def rev(self) -> int:
        """Revision for compare-and-set; 0 for a record that this library never changed."""
        state = self.state
        return state.rev if state else 0

    @property
    def created(self) -> datetime:
        """``created_at`` as an aware UTC datetime."""
        return datetime.fromtimestamp(self.created_at / 1000, UTC)

    @property
    def user_params(self) -> dict[str, Any]:
        """``params`` without this library's own key."""
        return {k: v for k, v in (self.params or {}).items() if k != STATE_KEY}

    def wire(self) -> dict[str, Any]:
        """The record as stored: camelCase, unknown attributes included, absent ones left out."""
        dumped = self.model_dump(mode="json", by_alias=True)
        return {key: value for key, value in dumped.items() if value is not None}

    def with_changes(self, changes: RecordChanges, rev: int) -> SandboxRecord:
        """Return the record as it is after a transition to revision ``rev``."""
        params = dict(changes.get("params", self.params or {}))
        state = params.get(STATE_KEY)
        params[STATE_KEY] = {**(state if isinstance(state, Mapping) else {"v": 1}), "rev": rev}
        return self.model_copy(update=lower_uuids({**changes, "params": params}))

    def canonical(self) -> SandboxRecord:
        """Return the record as every store keeps it: UUID texts in lower case, its id's too."""
        return self.model_copy(update=lower_uuids(dict(self)))


class RecordChanges(TypedDict, total=False):
    """The attributes that a transition may write; an absent key is left as it is."""

    status: SandboxStatus
    external_sandbox_id: str | None
    sandbox_url: str | None
    timeout: int | None
    params: dict[str, Any]
    shutdown_at: int | None
    updated_at: int


class RecordQuery(_Model):
    """Which records to list.

    Attributes:
        status: Only this status, or any of these.
        provider: Only this provider.
        purpose: Only this purpose.
        created_after: Only records created at or after this time, epoch ms.
        created_before: Only records created before this time, epoch ms.
        limit: Records per page, 1 to 500.
        cursor: ``RecordPage.cursor`` of the page before; None for the first page.
    """

    status: tuple[str, ...] | None = None
    provider: str | None = None
    purpose: str | None = None
    created_after: _EpochMs | None = None
    created_before: _EpochMs | None = None
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = None

    @field_validator("status", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("status", "provider", "purpose", "cursor")
    @classmethod
    def _storable(cls, value: object) -> object:
        for text in (value,) if isinstance(value, str) else value or ():  # type: ignore[attr-defined]
            if _NO_TEXT.search(text):
                raise ValueError("holds a NUL character or half a character")
        return value

    @field_validator("provider", "purpose")
    @classmethod
    def _as_stored(cls, value: str | None) -> str | None:
        found: str | None = lower_uuids(value)
        return found


def unreadable(sandbox_id: str, error: ValidationError) -> SchemaError:
    """Build the error for a record that is stored and is none."""
    items = error.errors()
    if any((item["loc"], item["type"]) == (("v",), "less_than_equal") for item in items):
        why, hint = "it was written by a newer release", "upgrade ekairos-sandbox"
    else:
        why, hint = ", ".join(".".join(map(str, i["loc"])) or "the record" for i in items), None
    return SchemaError(
        f"the record {sandbox_id} cannot be read: {why}", sandbox_id=sandbox_id, hint=hint
    )


def lower_uuids(value: Any) -> Any:
    """Return JSON with every UUID text in lower case, keys included.

    InstantDB stores them so, wherever they stand; the other stores do the same to agree with it.
    """
    if isinstance(value, str):
        return value.lower() if _UUID_TEXT.fullmatch(value) else value
    if isinstance(value, Mapping):
        return {lower_uuids(key): lower_uuids(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [lower_uuids(item) for item in value]
    return value


def _holds_nul(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_holds_nul(part) for item in value.items() for part in item)
    if isinstance(value, list | tuple):
        return any(_holds_nul(item) for item in value)
    return isinstance(value, str) and "\0" in value


def _env_names(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not ENV_NAME.fullmatch(name):
            raise ValueError("is not a variable name; use letters, digits and underscores")
    return names


def _ports(ports: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(ports)) != len(ports):
        raise ValueError("holds a port twice")
    return ports


class Resources(_Model):
    """What the sandbox should have.

    Attributes:
        vcpus: Number of virtual CPUs; None leaves it to the provider.
    """

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, defer_build=True, frozen=True
    )

    vcpus: float | None = Field(default=None, gt=0, le=256, allow_inf_nan=False)


class SandboxConfig(_Model):
    """What sandbox to create.

    Attributes:
        provider: Provider name; None means ``SANDBOX_PROVIDER``, then ``"sprites"``.
        runtime: What should be installed, e.g. ``"python3.12"``; None leaves it to the provider.
        timeout_ms: Lifetime of the sandbox in milliseconds, from 1000 to 10**12; None means the
            provider's default.
        ports: Ports to be reachable from outside.
        resources: Size of the machine.
        purpose: Free text for the record, at most 200 characters, e.g. ``"dataset-import"``.
        params: JSON stored with the record; the keys ``ekairos``, ``error`` and the provider's
            name are reserved.
        env: Environment of every command. Kept inside the sandbox, not in the record.
        env_from: Names of variables taken from the caller's environment, at creation and again
            at recreation.
        on_gone: ``"recreate"`` (default): a sandbox that is proven gone is made anew when a
            command or a write needs it. ``"fail"``: never.
        provider_options: Options by provider name, e.g. ``{"local": {"network": "host"}}``; the
            value is a mapping or the provider's own options model. A section may also be given
            as a field of its own: ``local={"network": "host"}``.
    """

    model_config = ConfigDict(
        extra="allow", hide_input_in_errors=True, defer_build=True, frozen=True
    )

    provider: str | None = None
    runtime: str | None = Field(default=None, min_length=1, max_length=100)
    timeout_ms: int | None = Field(default=None, ge=1000, le=MAX_TIMEOUT_MS)
    ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], AfterValidator(_ports)] = ()
    resources: Resources = Resources()
    purpose: str | None = Field(default=None, max_length=200)
    params: dict[str, JsonValue] = Field(default_factory=dict)
    env: dict[str, SecretStr] = Field(default_factory=dict)
    env_from: Annotated[tuple[str, ...], AfterValidator(_env_names)] = ()
    on_gone: Literal["recreate", "fail"] = "recreate"
    provider_options: dict[str, Any] = Field(default_factory=dict, repr=False)

    @field_validator("provider")
    @classmethod
    def _provider(cls, value: str | None) -> str | None:
        if value is not None and not PROVIDER_NAME.fullmatch(value):
            raise ValueError("is not a provider name: lower-case letters, digits, '-' and '_'")
        return value

    @field_validator("runtime", "purpose")
    @classmethod
    def _text(cls, value: str | None) -> str | None:
        if value is not None and "\0" in value:
            raise ValueError("holds a NUL character")
        return value

    @field_validator("env")
    @classmethod
    def _env(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not ENV_NAME.fullmatch(name):
                raise ValueError("has a key that is no variable name")
            if _NO_ENV_TEXT.search(secret.get_secret_value()):
                raise ValueError("has a value with a NUL or half a character")
        return value

    @field_validator("params")
    @classmethod
    def _params(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if STATE_KEY in value:
            raise ValueError(f"must not hold the key {STATE_KEY!r}, which is reserved")
        try:
            stored = json.dumps({"params": value}, ensure_ascii=False, allow_nan=False)
            from_json(stored.encode())
        except (ValueError, RecursionError):
            raise ValueError("holds NaN, infinity or half a character, or is too deep") from None
        if _holds_nul(value):
            raise ValueError("holds a NUL character")
        return value

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # Sections are raw input, which may hold secrets.
        fields = type(self).model_fields
        return ((k, v) for k, v in super().__repr_args__() if k in fields)

    @property
    def sections(self) -> dict[str, Any]:
        """Provider options by provider name, both spellings together.

        Raises:
            ConfigurationError: A section is given twice.
        """
        extra = self.__pydantic_extra__ or {}
        twice = sorted(set(extra) & set(self.provider_options))
        if twice:
            raise ConfigurationError(
                f"options for {twice[0]!r} are given twice",
                hint=f"use either provider_options={{{twice[0]!r}: ...}} or {twice[0]}=...",
            )
        return {**self.provider_options, **extra}
