"""The first steps of a newcomer: the provider `local`, an empty home and no variables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.command_line import CommandLine

pytest.importorskip("ekairos_sandbox_local.plugin")


def test_the_first_steps(cli: CommandLine, tmp_path: Path) -> None:
    cli.environ = {"HOME": str(cli.home)}
    hello = tmp_path / "hello"
    hello.write_text("hello\n")
    without = cli.process("create")
    assert without.code == 100
    assert "the provider 'local' needs none" in without.stderr
    created = cli.process("create", "--provider", "local")
    assert (created.code, created.stderr) == (0, "")
    sandbox = created.line
    try:
        assert cli.process("put", sandbox, str(hello)).line == "put hello: 1 file, 6 B"
        done = cli.process("run", sandbox, "--", "sh", "-c", "cat hello; exit 3")
        assert (done.code, done.out, done.stderr) == (3, "hello\n", "")
        command = cli.process("start", sandbox, "--", "wc", "-c", "hello").line
        assert cli.process("wait", sandbox, command).code == 0
        assert cli.process("logs", "-f", sandbox, command).line == "6 hello"
        assert cli.process("ls").line.split("\t")[:3] == [sandbox, "active", "local"]
        assert cli.process("reconcile").code == 0
    finally:
        assert cli.process("destroy", sandbox).line == sandbox
    assert json.loads(cli.process("show", sandbox, "--json").out)["status"] == "shutdown"
