"""Distributions of strangers that are broken, really installed: each says what is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"
[project]
name = "{name}"
version = "1.0"
[project.entry-points."ekairos_sandbox.providers"]
{entries}
[tool.hatch.build.targets.wheel]
packages = ["{module}"]
"""
METHODS = ("account", "create", "connect", "inspect", "find", "list_owned", "stop", "destroy")
GOOD = """\
from ekairos_sandbox import hookimpl
from ekairos_sandbox.provider import Provider

class Mine(Provider):
    name = "{name}"
    {more}
""" + "\n".join(f"    def {name}(self, *args): raise NotImplementedError" for name in METHODS)
HOOK = """
@hookimpl
def {hook}():
    return {what}
"""


def good(
    name: str, *, hook: str = "ekairos_sandbox_provider", what: str = "Mine", more: str = ""
) -> str:
    return GOOD.format(name=name, more=more) + HOOK.format(hook=hook, what=what)


STRANGERS: dict[str, tuple[tuple[str, ...], str]] = {
    "stranger-fine": (("fine",), good("fine")),
    "stranger-import": (("import-error",), "import a_module_that_is_not_installed\n"),
    "stranger-type": (("wrong-type",), good("wrong-type", what="dict")),
    "stranger-twice-a": (("twice",), good("twice")),
    "stranger-twice-b": (("twice",), good("twice")),
    "stranger-hook": (("misspelt",), good("misspelt", hook="ekairos_sandbox_providr")),
    "stranger-version": (("future",), good("future", more="api_version = 99")),
    "stranger-pair": (("first", "second"), good("first")),
    "stranger-slow": (("slow",), "import time; time.sleep(3600)\n"),
}
"""Distribution → the names it offers, and its module."""

ASK = """\
import json, sys
from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.plugins import PluginRegistry

registry = PluginRegistry()
answers = {}
for name in registry.names():
    if name == "slow":
        continue
    try:
        answers[name] = registry.provider_class(name).name
    except SandboxError as error:
        answers[name] = f"{error.code}: {error}"
print(json.dumps([registry.names(), answers]))
"""


@pytest.fixture(scope="module")
def answers(builds: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a program finds out that has all of them installed."""
    folder = tmp_path_factory.mktemp("strangers")
    for name, (offers, source) in STRANGERS.items():
        module = name.replace("-", "_")
        entries = "\n".join(f'{offer} = "{module}"' for offer in offers)
        project = folder / name
        (project / module).mkdir(parents=True)
        (project / module / "__init__.py").write_text(source)
        text = PYPROJECT.format(name=name, entries=entries, module=module)
        (project / "pyproject.toml").write_text(text)
        builds.build(project, folder / "dist")
    python = builds.environment(folder / "env")
    builds.install(python, "ekairos-sandbox", *STRANGERS, extra=folder / "dist")
    return json.loads(builds.run(python, "-I", "-c", ASK, cwd=folder))


def test_all_are_listed_without_importing_any(answers: Any) -> None:
    names, _ = answers
    offered = {name for names, _ in STRANGERS.values() for name in names}
    assert names == sorted(offered)


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("import-error", "provider_load_error", "stranger-import 1.0"),
        ("import-error", "provider_load_error", "a_module_that_is_not_installed"),
        ("wrong-type", "provider_load_error", "no subclass of Provider"),
        ("twice", "provider_conflict", "stranger-twice-a"),
        ("twice", "provider_conflict", "stranger-twice-b"),
        ("misspelt", "provider_load_error", "ekairos_sandbox_providr"),
        ("future", "provider_load_error", "version 99 of the provider contract"),
        ("second", "provider_load_error", "its module is the provider 'first' already"),
    ],
)
def test_a_broken_one_says_what_is_wrong(answers: Any, name: str, code: str, text: str) -> None:
    _, found = answers
    assert found[name].startswith(f"{code}: ")
    assert text in found[name]


def test_the_others_work_beside_them(answers: Any) -> None:
    _, found = answers
    assert (found["fine"], found["first"]) == ("fine", "first")
