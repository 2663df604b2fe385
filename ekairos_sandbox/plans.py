"""From a config to a plan that can be carried out, stored without its secrets, and read back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError

from ekairos_sandbox.exceptions import ConfigurationError, UnsupportedOperationError
from ekairos_sandbox.models import (
    Resources,
    SandboxConfig,
    SandboxRecord,
    SandboxState,
    lower_uuids,
)
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import ConfigField, FieldSupport, Provider, ProviderOptions
from ekairos_sandbox.settings import default_provider

_URL_WITH_CREDENTIALS = re.compile(r"://([^/@\s]+)@")
_STORED_FIELDS = ("runtime", "timeout_ms", "ports", "env_from", "on_gone")


@dataclass(frozen=True, slots=True)
class Plan:
    """A validated config, ready to be carried out.

    Attributes:
        cls: The provider class.
        config: The config itself.
        options: The provider's options, validated.
        env: Environment of every command, ``env`` and ``env_from`` together.
        stored: The part of config and options that the record keeps.
        withheld: Names of what it does not keep.
    """

    cls: type[Provider[Any]]
    config: SandboxConfig
    options: ProviderOptions
    env: Mapping[str, str] = field(repr=False)
    stored: dict[str, Any]
    withheld: list[str]

    @property
    def chosen_name(self) -> str | None:
        """The provider-side name that the user chose, or None."""
        return self.cls.chosen_name(self.options)

    @property
    def secrets(self) -> set[str]:
        """What no text may show: the environment's values, and those of secret options."""
        return {*self.env.values(), *_secrets(self.options)}

    def same_as(self, state: SandboxState) -> bool:
        """Whether a record was made from the same config, secrets aside."""
        # Stores keep UUIDs in lower case.
        same = state.config == lower_uuids(self.stored)
        return same and sorted(state.withheld) == sorted(self.withheld)


_SHOWN_DEPTH = 10
"""How far into a value an error's place is told."""


def parse_config(config: SandboxConfig | Mapping[str, Any] | None, **fields: Any) -> SandboxConfig:
    """Return a config from a model or mapping, with single fields on top.

    Raises:
        TypeError: It is neither.
        ConfigurationError: A field is wrong; names it and never shows its value.
    """
    if config is not None and not isinstance(config, SandboxConfig | Mapping):
        raise TypeError(
            f"a config is a SandboxConfig or a mapping of its fields, not {type(config).__name__}"
        )
    try:
        if isinstance(config, SandboxConfig) and not fields:
            return config
        if isinstance(config, SandboxConfig):
            given = {name: getattr(config, name) for name in config.model_fields_set}
        else:
            given = dict(config or {})
        return SandboxConfig.model_validate({**given, **fields})
    except ValidationError as error:
        raise ConfigurationError(f"the config is not valid: {describe(error)}") from None


def make_plan(config: SandboxConfig, registry: PluginRegistry, environ: Mapping[str, str]) -> Plan:
    """Choose the provider and check everything that can be checked without a network call.

    Raises:
        ConfigurationError: A field or a section is wrong, or a variable of ``env_from`` is missing.
        UnsupportedOperationError: The provider refuses a field.
        PluginError: The provider is not installed or not usable.
    """
    name = config.provider or default_provider(environ)
    cls = registry.provider_class(name)
    options = _options(cls, name, config.sections)
    if taken := sorted({name, "error"} & config.params.keys()):
        raise ConfigurationError(
            f"params must not hold the key {taken[0]!r}: the record keeps what belongs to the "
            "sandbox itself there"
        )
    support = cls.field_support(options)
    for config_field, value in used_fields(config).items():
        how = support.get(config_field, FieldSupport("recorded"))
        if how.level == "refused":
            raise UnsupportedOperationError(
                f"the provider {name!r} cannot honour {config_field}={value!r}",
                provider=name,
                operation="create",
                hint=how.note or None,
            )
    stored_options, withheld = _split_options(name, options)
    stored: dict[str, Any] = {"provider": name}
    dumped = config.model_dump(mode="json", include=set(_STORED_FIELDS))
    stored |= {key: dumped[key] for key in _STORED_FIELDS if dumped[key] not in (None, [])}
    if config.resources.vcpus is not None:
        stored["vcpus"] = config.resources.vcpus
    if stored_options:
        stored["options"] = stored_options
    return Plan(
        cls=cls,
        config=config,
        options=options,
        env=_environment(config, environ),
        stored=stored,
        withheld=[*(f"env.{key}" for key in sorted(config.env)), *withheld],
    )


def plan_of_record(
    record: SandboxRecord, registry: PluginRegistry, environ: Mapping[str, str]
) -> Plan:
    """Rebuild the plan of a record, to make its sandbox anew.

    Raises:
        ConfigurationError: It needs values that were not stored; names them.
    """
    state = record.state
    assert state is not None
    if state.withheld:
        raise ConfigurationError(
            f"the sandbox cannot be made anew: {', '.join(state.withheld)} was not stored",
            sandbox_id=record.id,
            hint="create a new sandbox, and pass secrets by env_from",
        )
    stored: dict[str, Any] = dict(state.config)
    options = stored.pop("options", {})
    vcpus = stored.pop("vcpus", None)
    config = parse_config(
        {
            **stored,
            "purpose": record.purpose,
            "resources": Resources(vcpus=vcpus),
            "provider_options": {record.provider: options},
        }
    )
    return make_plan(config, registry, environ)


def stored_options(record: SandboxRecord, cls: type[Provider[Any]]) -> ProviderOptions | None:
    """Return a record's options as far as they were stored; None if that is not enough."""
    state = record.state
    if state is None or not record.ours:
        return None
    try:
        return cls.options_model.model_validate(state.config.get("options") or {})
    except ValidationError:
        return None


def used_fields(config: SandboxConfig) -> dict[ConfigField, Any]:
    """Return the fields whose meaning differs between providers, as far as they are set."""
    fields: dict[ConfigField, Any] = {}
    if config.timeout_ms is not None:
        fields["timeout_ms"] = config.timeout_ms
    if config.resources.vcpus is not None:
        fields["vcpus"] = config.resources.vcpus
    if config.runtime is not None:
        fields["runtime"] = config.runtime
    if config.ports:
        fields["ports"] = config.ports
    return fields


def describe(error: ValidationError) -> str:
    """Say which fields are wrong and why, without their values."""
    problems = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        where = ".".join(str(part) for part in item["loc"][:_SHOWN_DEPTH]) or "it"
        problems.append(f"{where}: {item['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)


def _options(cls: type[Provider[Any]], name: str, sections: Mapping[str, Any]) -> ProviderOptions:
    foreign = sorted(set(sections) - {name})
    if foreign:
        raise ConfigurationError(
            f"the config has a field {foreign[0]!r}, which is no field of a config and no section "
            f"of the provider {name!r}",
            provider=name,
            hint="fields: " + ", ".join(SandboxConfig.model_fields),
        )
    section = sections.get(name, {})
    if isinstance(section, cls.options_model):
        return section
    if isinstance(section, BaseModel) or not isinstance(section, Mapping):
        raise ConfigurationError(
            f"the section {name!r} is {type(section).__name__}, not a mapping or "
            f"{cls.options_model.__name__}",
            provider=name,
        )
    try:
        return cls.options_model.model_validate(dict(section))
    except ValidationError as error:
        raise ConfigurationError(
            f"the section {name!r} is not valid: {describe(error)}", provider=name
        ) from None


def _split_options(name: str, options: ProviderOptions) -> tuple[dict[str, Any], list[str]]:
    """Part the options that were set into what may be stored and the names of the rest."""
    stored: dict[str, Any] = {}
    withheld: list[str] = []
    for key, value in _set_fields(options).items():
        try:
            plain = None if value is None else _plain(_unless_marked(options, key, value))
            stored[key] = json.loads(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError):
            withheld.append(f"{name}.{key}")
    return stored, withheld


def _plain(value: Any) -> Any:
    """Return a value as the plain data it consists of.

    Raises:
        ValueError: It holds something that must not be stored.
    """
    if isinstance(value, BaseModel):
        fields = _set_fields(value)
        return {key: _plain(_unless_marked(value, key, item)) for key, item in fields.items()}
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str) and _URL_WITH_CREDENTIALS.search(value):
        raise ValueError("holds credentials")
    return value


def _secrets(value: Any, *, marked: bool = False) -> Iterator[str]:
    """Yield what is secret in an option; ``marked``: it is one that is not stored."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for key, item in _set_fields(value).items():
            yield from _secrets(item, marked=marked or _is_marked(value, key))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _secrets(item, marked=marked)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _secrets(item, marked=marked)
    elif isinstance(value, str):
        if marked:
            yield value
        for credentials in _URL_WITH_CREDENTIALS.findall(value):
            yield from (credentials, credentials.partition(":")[2])


def _set_fields(model: BaseModel) -> dict[str, Any]:
    return {key: getattr(model, key) for key in sorted(model.model_fields_set)}


def _unless_marked(model: BaseModel, key: str, value: Any) -> Any:
    if value is not None and _is_marked(model, key):
        raise ValueError("is marked as not stored")
    return value


def _is_marked(model: BaseModel, key: str) -> bool:
    field = type(model).model_fields.get(key)
    extra = field.json_schema_extra if field else None
    return isinstance(extra, Mapping) and extra.get("stored") is False


def _environment(config: SandboxConfig, environ: Mapping[str, str]) -> dict[str, str]:
    missing = [name for name in config.env_from if name not in environ]
    if missing:
        raise ConfigurationError(
            f"env_from names {', '.join(missing)}, which the environment does not have"
        )
    return {
        **{name: environ[name] for name in config.env_from},
        **{name: secret.get_secret_value() for name, secret in config.env.items()},
    }
