"""`new-provider`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command_line import CommandLine


def test_a_folder_is_written_and_named(cli: CommandLine, tmp_path: Path) -> None:
    written = tmp_path / "work" / "ekairos-sandbox-acme"
    answer = cli.ok("new-provider", "acme", "--folder", str(written.parent))
    assert answer.out == f"{written}\n"
    assert (written / "src" / "ekairos_sandbox_acme" / "provider.py").is_file()
    again = cli("new-provider", "acme", "--folder", str(written.parent))
    assert (again.code, again.out) == (100, "")
    assert "exists already" in again.stderr


def test_the_answer_can_be_json(cli: CommandLine, tmp_path: Path) -> None:
    answer = json.loads(cli.ok("new-provider", "acme", "--folder", str(tmp_path), "--json").out)
    assert answer == {"name": "acme", "folder": str(tmp_path / "ekairos-sandbox-acme")}


@pytest.mark.parametrize("name", ["Acme", "a-b", "local", "class"])
def test_a_name_that_cannot_be_is_refused(cli: CommandLine, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "work"
    answer = cli("new-provider", name, "--folder", str(folder))
    assert answer.code == 100
    assert repr(name) in answer.stderr
    assert not folder.exists()
