"""What is installed, and what each provider can do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.exits import Exit
from ekairos_sandbox.cli.failures import hint_of, spelt_as_options
from ekairos_sandbox.cli.params import json_option
from ekairos_sandbox.cli.session import Session, pass_session
from ekairos_sandbox.exceptions import ProviderNotInstalledError, SandboxError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from ekairos_sandbox.plugins import PluginRegistry
    from ekairos_sandbox.provider import Provider, ProviderOptions


_log = logging.getLogger("ekairos_sandbox")


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
@pass_session
def providers(session: Session, names: tuple[str, ...]) -> int:
    """List the installed providers.

    With NAME: what it does with the fields of a config, and its options. Exits with 100 if one
    of them cannot be used.
    """
    from ekairos_sandbox.plugins import PluginRegistry

    registry = PluginRegistry()
    described = [describe(registry, name) for name in names or registry.names()]
    if session.json or names:
        for one in described:
            one["limits"] = limits(registry, one, session.environ)
    if session.json:
        render.print_json(described)
    elif names:
        for one in described:
            _show(one)
    else:
        render.table(
            ("NAME", "STATE", "FROM", "CAPABILITIES", "PROBLEM"),
            [
                (one["name"], one["state"], one["from"], _words(one["capabilities"]), one["error"])
                for one in described
            ],
        )
        if not described:
            render.complain("note", "none; for example: pip install 'ekairos-sandbox[local]'")
    usable = all(one["state"] == "ok" for one in described)
    return Exit.DONE if usable else Exit.CONFIGURATION


def check_installed(name: str) -> None:
    """Refuse the name of a provider that is not installed; imports none.

    Raises:
        ProviderNotInstalledError: Nothing installed has this name.
    """
    from ekairos_sandbox.plugins import PluginRegistry

    registry = PluginRegistry()
    if name not in registry.names():
        registry.provider_class(name)


def describe(registry: PluginRegistry, name: str) -> dict[str, Any]:
    """Return what a provider is and can do, or why it cannot be used.

    Raises:
        ProviderNotInstalledError: Nothing installed has this name.
    """
    found: dict[str, Any] = {
        "name": name,
        "state": "ok",
        "from": ", ".join(registry.sources(name)),
        "error": None,
        "hint": None,
        "capabilities": [],
        "fields": {},
        "options": [],
    }
    try:
        cls = registry.provider_class(name)
    except ProviderNotInstalledError:
        raise
    except SandboxError as error:
        return {**found, "state": "broken", "error": error.message, "hint": hint_of(error)}
    found["capabilities"] = sorted(capability.value for capability in cls.capabilities)
    found["fields"] = _fields(cls)
    found["options"] = list(_options(cls.options_model))
    return found


def limits(
    registry: PluginRegistry, described: Mapping[str, Any], environ: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return what becomes of each limit on this machine; empty if that cannot be said."""
    from ekairos_sandbox.provider import ProviderContext

    if described["state"] != "ok":
        return []
    try:
        provider = registry.provider_class(described["name"])(ProviderContext(environ=environ))
        stated = provider.limits()
        return [{"name": one.name, "level": one.level, "note": one.note} for one in stated]
    except Exception as error:  # noqa: BLE001 - a provider may be anybody's; `doctor` says why
        _log.debug("the limits of %s cannot be stated: %r", described["name"], error)
        return []


def _fields(cls: type[Provider[Any]]) -> dict[str, dict[str, str]]:
    from typing import get_args

    from ekairos_sandbox.provider import ConfigField, FieldSupport

    support = cls.field_support()
    levels = {name: support.get(name, FieldSupport("recorded")) for name in get_args(ConfigField)}
    return {name: {"level": how.level, "note": how.note} for name, how in levels.items()}


def _options(model: type[ProviderOptions]) -> Iterator[dict[str, Any]]:
    for name, field in model.model_fields.items():
        yield {
            "name": name,
            "type": _type_name(field),
            "default": _default(field),
            "required": field.is_required(),
            "description": field.description,
        }


def _type_name(field: FieldInfo) -> str:
    kind = field.annotation
    text = kind.__name__ if isinstance(kind, type) and "[" not in str(kind) else str(kind)
    return text.replace("typing.", "")


def _default(field: FieldInfo) -> Any:
    if field.is_required():
        return None
    value = field.get_default(call_default_factory=True, validated_data={})
    return value if isinstance(value, (bool, int, float, str, list, dict)) else None


def _show(one: dict[str, Any]) -> None:
    render.fields(
        [
            ("name", one["name"]),
            ("state", one["state"]),
            ("from", one["from"]),
            ("problem", one["error"]),
            ("hint", one["hint"]),
            ("capabilities", _words(one["capabilities"]) or "none"),
        ]
        + [(name, _sentence(how)) for name, how in one["fields"].items()]
        + [(f"limit {limit['name']}", _sentence(limit)) for limit in one["limits"]]
        + [(f"option {option['name']}", _option(option)) for option in one["options"]]
    )


def _words(names: list[str]) -> str:
    return ", ".join(names)


def _sentence(how: dict[str, str]) -> str:
    return spelt_as_options(f"{how['level']}: {how['note']}" if how["note"] else how["level"])


def _option(option: dict[str, Any]) -> str:
    default = "" if option["default"] in (None, "", [], {}) else f", default {option['default']}"
    about = f": {option['description']}" if option["description"] else ""
    return f"{option['type']}{', required' if option['required'] else default}{about}"


COMMANDS = (providers,)
