"""What `docs/cli.md` says of the command line is complete and true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ekairos_sandbox import exceptions
from ekairos_sandbox.cli.app import app
from ekairos_sandbox.cli.exits import BY_ERROR, Exit

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text()


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        full = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, full)
        else:
            yield full, command


def section(path: str) -> str:
    """Return the part of the page about one command."""
    found = re.search(rf"^### `{re.escape(path)}\b.*?(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/cli.md has no section on `{path}`"
    return found.group()


@pytest.mark.parametrize("path", [path for path, _ in commands(app)])
def test_every_command_and_every_option_is_described(path: str) -> None:
    command = dict(commands(app))[path]
    text = section(path)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert (parameter.metavar or str(parameter.name).upper()).strip(
                "[]."
            ) in text.splitlines()[0]
        elif parameter.name not in ("json", "store"):
            assert re.search(rf"[` ]{parameter.opts[-1]}\b", text), parameter.opts[-1]


def test_the_options_that_all_commands_share_are_described() -> None:
    shared = [opt for parameter in app.params for opt in parameter.opts]
    assert [opt for opt in shared if f"`{opt}" not in PAGE] == []


def test_every_command_prints_json_and_those_with_records_take_a_store() -> None:
    for path, command in commands(app):
        names = {parameter.name for parameter in command.params}
        assert "json" in names, path
        assert "store" in names or path.startswith(
            ("schema", "rules", "providers", "new-provider")
        ), path
        assert command.help, path


def test_no_section_is_about_a_command_that_does_not_exist() -> None:
    known = {path for path, _ in commands(app)}
    described = re.findall(r"^### `((?:[a-z-]+ ?)+)", PAGE, re.MULTILINE)
    assert {path.strip() for path in described} == known


def test_the_table_of_exit_codes_is_complete() -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert listed == {int(code) for code in Exit} | {129, 130, 141, 143}


def test_every_error_of_the_library_has_an_exit_code() -> None:
    codes = {
        value.code
        for module in (exceptions,)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, exceptions.SandboxError)
    }
    assert codes == set(BY_ERROR)


def test_the_usage_lines_of_the_page_are_accepted() -> None:
    """Every line of shell on the page names a command and options that exist."""
    known = dict(commands(app))
    lines = re.findall(r"ekairos-sandbox ([a-z][^\n`|&;)]*)", PAGE)
    assert len(lines) > 5
    for line in lines:
        words = line.split(" -- ")[0].split(" #")[0].split()
        path = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        command = known.get(path)
        assert command is not None, line
        options = {opt for parameter in command.params for opt in parameter.opts}
        used = {word.split("=")[0] for word in words if re.match(r"-[a-z-]", word)}
        assert used <= options | {"--help", "-h"}, line
