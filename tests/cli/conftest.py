"""The command line on a scratch home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import CommandLine


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[CommandLine]:
    """Invoke the command line; every sandbox that was made is destroyed afterwards."""
    command_line = CommandLine(tmp_path / "home", monkeypatch, capsysbinary)
    yield command_line
    command_line.end_all()


@pytest.fixture
def sandbox(cli: CommandLine) -> str:
    """The id of a sandbox that runs."""
    return cli.create()
