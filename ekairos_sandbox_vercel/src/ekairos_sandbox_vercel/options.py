"""Options of the Vercel provider, and what the service would refuse."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.models import ENV_NAME
from ekairos_sandbox.provider import CreateSpec, ProviderOptions, not_stored

DEFAULT_TIMEOUT_MS = 30 * 60 * 1000
DAY_MS = 24 * 60 * 60 * 1000
MEMORY_PER_VCPU_MB = 2048
OWN_TAGS = 3
"""How many tags this library puts on each sandbox."""

MAX_TAGS = 5

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_RESERVED = frozenset(("sessions", "snapshots", "drives"))
"""Names that are paths of the API itself."""

_NAMES = "must be 1 to 128 letters, digits, '_' and '-', and no reserved word"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)


class GitSource(_Part):
    """Begin with a clone of a repository."""

    type: Literal["git"] = "git"
    url: str
    depth: int | None = Field(default=None, ge=1)
    revision: str | None = None
    username: str | None = None
    password: SecretStr | None = None


class TarballSource(_Part):
    """Begin with the files of an archive on the web."""

    type: Literal["tarball"] = "tarball"
    url: str


class SnapshotSource(_Part):
    """Begin with the files of a snapshot."""

    type: Literal["snapshot"] = "snapshot"
    snapshot_id: str


Source = Annotated[GitSource | TarballSource | SnapshotSource, Field(discriminator="type")]


class NetworkPolicy(_Part):
    """What the sandbox may reach; the bare mode may be given as text.

    Attributes:
        mode: ``"allow-all"`` or ``"deny-all"``, without anything else.
        allow: Names of hosts, such as ``"*.example.com"``.
        rules: The service's own rules by host, for headers to be injected and the like. They may
            hold secrets and are not stored.
        subnets: ``{"allow": [...], "deny": [...]}`` in CIDR notation.
    """

    mode: Literal["allow-all", "deny-all"] | None = None
    allow: tuple[str, ...] = ()
    rules: dict[str, list[Any]] = not_stored(default_factory=dict)
    subnets: dict[Literal["allow", "deny"], list[str]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> NetworkPolicy:
        custom = bool(self.allow or self.rules or self.subnets)
        if custom == (self.mode is not None):
            raise ValueError("needs either a mode, or some of allow, rules and subnets")
        return self

    def wire(self) -> dict[str, Any]:
        """Return it as the service takes it."""
        if self.mode is not None:
            return {"mode": self.mode}
        allow: Any = list(self.allow)
        if self.rules:
            allow = {**{host: [] for host in self.allow}, **self.rules}
        policy: dict[str, Any] = {"allow": allow}
        if self.subnets:
            policy["subnets"] = dict(self.subnets)
        return policy


def _policy(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str) else value


class VercelOptions(ProviderOptions):
    """How a Vercel sandbox is made.

    Attributes:
        name: A name of your own choice instead of ``ekairos-<id>``; letters, digits, ``_``, ``-``.
            A sandbox that has it already, without our tags, is used and never deleted unasked.
        image: Image such as ``"vercel/sandbox/python:3.14"``; not together with the config's
            ``runtime``. None with no runtime either: the service's default image.
        persistent: Whether the files outlive a stop, in a snapshot that the service bills.
            False (default): stopping deletes the sandbox.
        env: Environment that the service itself keeps for every session; not stored here.
        tags: At most two tags of your own, next to the three of this library.
        source: What the files begin with.
        network_policy: ``"allow-all"`` (the service's default), ``"deny-all"`` or a
            ``NetworkPolicy``.
        region: Such as ``"iad1"`` (the service's default).
        memory: MiB; the service gives 2048 per CPU and nothing else.
        snapshot_expiration: Milliseconds after which its snapshots are deleted: at least a day; 0
            means never; None leaves it to the service (30 days after the last use).
        keep_last_snapshots: How many snapshots to keep, 1 to 10; None: all. Checkpoints count as
            well as the snapshots that stops and restores make of the state before.
    """

    name: str | None = None
    image: str | None = Field(default=None, min_length=1)
    persistent: bool = False
    env: dict[str, SecretStr] = not_stored(default_factory=dict)
    tags: dict[str, str] = Field(default_factory=dict)
    source: Source | None = None
    network_policy: Annotated[NetworkPolicy, BeforeValidator(_policy)] | None = None
    region: str | None = Field(default=None, min_length=1)
    memory: int | None = Field(default=None, ge=MEMORY_PER_VCPU_MB)
    snapshot_expiration: int | None = Field(default=None, ge=0)
    keep_last_snapshots: int | None = Field(default=None, ge=1, le=10)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and not _is_name(name):
            raise ValueError(_NAMES)
        return name

    @field_validator("env")
    @classmethod
    def _env(cls, env: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if not all(ENV_NAME.fullmatch(name) for name in env):
            raise ValueError("has a key that is no variable name")
        return env

    @field_validator("tags")
    @classmethod
    def _tags(cls, tags: dict[str, str]) -> dict[str, str]:
        if len(tags) > MAX_TAGS - OWN_TAGS:
            raise ValueError(
                f"at most {MAX_TAGS - OWN_TAGS}: the service allows {MAX_TAGS}, and this library "
                f"needs {OWN_TAGS}"
            )
        if "" in tags:
            raise ValueError("names must not be empty")
        if any(key.startswith("ekairos-") for key in tags):
            raise ValueError("names that begin with 'ekairos-' are taken")
        if any(len(value) > 256 for value in tags.values()):
            raise ValueError("a value has at most 256 characters")
        return tags

    @field_validator("snapshot_expiration")
    @classmethod
    def _expiration(cls, value: int | None) -> int | None:
        if value is not None and 0 < value < DAY_MS:
            raise ValueError(f"must be 0 or at least {DAY_MS}")
        return value


def check(spec: CreateSpec[VercelOptions]) -> None:
    """Refuse what the service would refuse.

    Raises:
        ConfigurationError: Names the field and the limit.
    """
    options, vcpus = spec.options, spec.vcpus
    if not _is_name(spec.name):
        raise _error(f"the name {spec.name!r}", _NAMES)
    if spec.timeout_ms is not None and not 1000 <= spec.timeout_ms <= DAY_MS:
        raise _error("timeout_ms", f"must be from 1000 to {DAY_MS}")
    if vcpus is not None and (vcpus not in range(1, 33) or (vcpus != 1 and vcpus % 2)):
        raise _error("resources.vcpus", "must be 1 or an even number up to 32")
    if options.memory is not None:
        wanted = MEMORY_PER_VCPU_MB * (vcpus or 2)
        if options.memory != wanted:
            raise _error("memory", f"must be {wanted:g} with {vcpus or 2:g} CPUs, or left out")
    if len(spec.ports) > 15 or any(not 1024 <= port <= 65535 for port in spec.ports):
        raise _error("ports", "must be at most 15 from 1024 to 65535")
    if spec.runtime is not None and options.image is not None:
        raise _error("runtime", "must be left out when an image is given")


def create_body(spec: CreateSpec[VercelOptions], project_id: str) -> dict[str, Any]:
    """Return the body of a creation."""
    options = spec.options
    resources = {"vcpus": int(spec.vcpus or 2), "memory": options.memory}
    body = {
        "projectId": project_id,
        "name": spec.name,
        "persistent": options.persistent,
        "timeout": DEFAULT_TIMEOUT_MS if spec.timeout_ms is None else spec.timeout_ms,
        "resources": _present(resources),
        "tags": {**options.tags, **spec.tags.as_dict()},
        "ports": list(spec.ports) or None,
        "runtime": spec.runtime,
        "image": options.image,
        "env": {name: value.get_secret_value() for name, value in options.env.items()} or None,
        "source": _source(options.source),
        "networkPolicy": options.network_policy.wire() if options.network_policy else None,
        "region": options.region,
        "snapshotExpiration": options.snapshot_expiration,
        "keepLastSnapshots": {"count": options.keep_last_snapshots}
        if options.keep_last_snapshots
        else None,
    }
    return _present(body)


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name not in _RESERVED


def _source(source: GitSource | TarballSource | SnapshotSource | None) -> dict[str, Any] | None:
    if source is None:
        return None
    if isinstance(source, SnapshotSource):
        return {"type": source.type, "snapshotId": source.snapshot_id}
    body = source.model_dump(exclude_none=True)
    if isinstance(source, GitSource) and source.password is not None:
        body["password"] = source.password.get_secret_value()
    return body


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _error(field: str, limit: str) -> ConfigurationError:
    return ConfigurationError(f"{field} {limit} at Vercel", provider="vercel", operation="create")
