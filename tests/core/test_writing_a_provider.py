"""The page for authors of providers is complete, and its examples keep to what it allows."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest

from ekairos_sandbox import hookspecs, provider
from ekairos_sandbox.testing import ProviderConformance
from ekairos_sandbox.testing.base import Suite
from ekairos_sandbox.testing.capabilities import CapabilitySuite

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "writing-a-provider.md").read_text()
_TEXT = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)
WORDS = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]+`", _TEXT))))
_LISTED = PAGE.split("## What you build on")[1].split("##")[0]
PUBLIC = set(re.findall(r"`(ekairos_sandbox[\w.]*)`", _LISTED))
EXAMPLE = ROOT / "docs" / "examples" / "ekairos-sandbox-docker"
TEMPLATE = resources.files("ekairos_sandbox.templates") / "provider"


def public(cls: type) -> set[str]:
    """Return what a class offers: methods, attributes, and attributes that are only annotated."""
    return {name for name in {*vars(cls), *cls.__annotations__} if not name.startswith("_")}


def test_every_method_and_attribute_of_the_two_classes_is_described() -> None:
    assert public(provider.Provider) - WORDS == set()
    assert public(provider.Connection) - WORDS == set()


@pytest.mark.parametrize(
    "value",
    [provider.CreateSpec, provider.SandboxRef, provider.SandboxInfo, provider.ProviderContext],
)
def test_every_field_of_the_values_is_described(value: type) -> None:
    assert {field.name for field in dataclasses.fields(value)} - WORDS == set()


def test_every_capability_with_its_methods_config_field_state_and_hook_is_described() -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("ekairos_sandbox_")}
    names = {
        *(capability.name for capability in provider.Capability),
        *get_args(provider.ConfigField),
        *get_args(provider.SandboxRunState),
        *hooks,
    }
    assert names - WORDS == set()
    assert f"now {provider.API_VERSION};" in PAGE


def test_every_switch_and_fixture_of_the_suite_is_described() -> None:
    switches = {name for cls in (Suite, CapabilitySuite) for name in public(cls)}
    own = {name for name in switches if not name.startswith("test_")}
    assert own - WORDS - {"lab", "shared", "folders", "folder"} == set()
    assert issubclass(ProviderConformance, Suite)


def imports(source: str) -> Iterator[tuple[str, list[str]]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            yield str(node.module), [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)


def sources() -> Iterator[tuple[str, str]]:
    for path in EXAMPLE.rglob("*.py"):
        yield path.name, path.read_text()
    for file in TEMPLATE.iterdir():
        if file.name.endswith(".py.txt"):
            words = {"@PACKAGE@": "ekairos_sandbox_acme", "@CLASS@": "Acme", "@NAME@": "acme"}
            text = file.read_text()
            for placeholder, word in words.items():
                text = text.replace(placeholder, word)
            yield file.name, text


@pytest.mark.parametrize("source", [pytest.param(text, id=name) for name, text in sources()])
def test_the_examples_use_what_is_public_and_nothing_else(source: str) -> None:
    own = ("ekairos_sandbox_docker", "ekairos_sandbox_acme")
    for module, names in imports(source):
        private = [word for word in (*module.split("."), *names) if word.startswith("_")]
        assert [word for word in private if word != "__future__"] == []
        assert module.split(".")[0] not in ("tests", "helpers", "servers")
        if module.startswith("ekairos_sandbox") and not module.startswith(own):
            assert module in PUBLIC
