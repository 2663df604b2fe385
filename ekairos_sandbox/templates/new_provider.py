"""Writing the folder of a new provider's distribution: ``ekairos-sandbox new-provider NAME``."""

from __future__ import annotations

import keyword
import re
from importlib import metadata, resources
from pathlib import Path

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.plugins import PUBLISHED, PluginRegistry

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    ".gitignore": "gitignore",
    "src/@PACKAGE@/__init__.py": "init.py",
    "src/@PACKAGE@/py.typed": None,
    "src/@PACKAGE@/plugin.py": "plugin.py",
    "src/@PACKAGE@/options.py": "options.py",
    "src/@PACKAGE@/errors.py": "errors.py",
    "src/@PACKAGE@/service.py": "service.py",
    "src/@PACKAGE@/connection.py": "connection.py",
    "src/@PACKAGE@/provider.py": "provider.py",
    "tests/test_@NAME@_conformance.py": "conformance.py",
    "tests/test_@NAME@_provider.py": "test_provider.py",
    "tests/test_@NAME@_live.py": "test_live.py",
}
"""Path in the new folder → file in ``provider/``, or None for an empty one."""


def new_provider(name: str, folder: Path) -> Path:
    """Write a distribution with a small complete provider whose tests pass; return its folder.

    Args:
        name: The provider's name: a lowercase Python identifier, such as ``"acme"``.
        folder: Where the new folder ``ekairos-sandbox-<name>`` is made.

    Raises:
        ConfigurationError: The name cannot be one, or there is a provider or a folder of that
            name; nothing was written.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a provider",
            hint="lowercase letters, digits and single _ between them; no word of Python",
        )
    if name in {*PUBLISHED, *PluginRegistry().names()}:
        raise ConfigurationError(f"there is a provider {name!r} already", hint="choose another")
    words = {
        "@NAME@": name,
        "@PACKAGE@": f"ekairos_sandbox_{name}",
        "@DISTRIBUTION@": f"ekairos-sandbox-{name.replace('_', '-')}",
        "@CLASS@": "".join(part.capitalize() for part in name.split("_")),
        "@VARIABLE@": name.upper(),
        "@VERSION@": metadata.version("ekairos-sandbox"),
    }
    target = folder / words["@DISTRIBUTION@"]
    try:
        target.mkdir(parents=True)
    except FileExistsError:
        raise ConfigurationError(
            f"{str(target)!r} exists already", hint="choose another name or folder"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{str(target)!r} cannot be made: {error.strerror}", hint="choose another folder"
        ) from None
    templates = resources.files("ekairos_sandbox.templates") / "provider"
    for path, source in _FILES.items():
        text = "" if source is None else (templates / f"{source}.txt").read_text("utf-8")
        written = target / _filled(path, words)
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(_filled(text, words), "utf-8")
    return target


def _filled(text: str, words: dict[str, str]) -> str:
    for placeholder, word in words.items():
        text = text.replace(placeholder, word)
    return text
