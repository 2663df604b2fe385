"""`schema` and `rules`, against the loopback InstantDB server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers.command_line import CommandLine
from servers.instantdb.server import InstantServer

from ekairos_sandbox import sandbox_domain


@pytest.fixture
def app(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstantServer]:
    with InstantServer() as server:
        made = server.create_app()
        monkeypatch.setenv("INSTANT_APP_ID", made.id)
        monkeypatch.setenv("INSTANT_APP_ADMIN_TOKEN", made.admin_token)
        monkeypatch.setenv("INSTANT_API_URI", server.url)
        yield server


def test_an_app_is_brought_up_to_what_is_needed(cli: CommandLine, app: InstantServer) -> None:
    missing = cli("schema", "check")
    assert missing.code == 100
    assert "sandbox_fences.key is missing" in missing.stderr
    assert "hint: run `ekairos-sandbox schema push`" in missing.stderr
    assert cli.ok("schema", "plan").out.splitlines()[-1] == "17 steps to do"
    assert json.loads(cli.ok("schema", "plan", "--json").out)["applied"] is False
    assert cli.ok("schema", "push").out.splitlines()[-1] == "pushed"
    assert cli.ok("schema", "check").out == "complete\n"
    assert json.loads(cli.ok("schema", "check", "--json").out) == {"complete": True}
    assert cli.ok("rules", "push").out == "closed to guests and users\n"
    assert json.loads(cli.ok("rules", "push", "--json").out) == {"changed": False}


def test_doctor_looks_at_the_app(cli: CommandLine, app: InstantServer) -> None:
    words = ("doctor", "--store", "instantdb", "--provider", "folder")
    done = cli(*words)
    assert done.code == 112
    assert "fail  record store: the schema of the InstantDB app" in done.out
    cli.ok("schema", "push")
    assert "ok    record store: InstantDB, and its schema is complete" in cli.ok(*words).out


def test_records_in_the_app_work_like_any_other(cli: CommandLine, app: InstantServer) -> None:
    cli.ok("schema", "push")
    sandbox = cli.create("--store", "instantdb")
    assert cli.ok("ls", "-q", "--store", "instantdb").line == sandbox
    assert cli.ok("run", "--store", "instantdb", sandbox, "--", "echo", "x").out == "x\n"
    assert cli("store", "rekey", "--moved", "--store", "instantdb").code == 100
    assert cli.ok("destroy", "--store", "instantdb", sandbox).line == sandbox


def test_the_schema_can_be_shown_without_an_app(cli: CommandLine) -> None:
    assert json.loads(cli.ok("schema", "show").out) == sandbox_domain.schema


def test_a_missing_setting_is_named(cli: CommandLine) -> None:
    done = cli("schema", "check")
    assert (done.code, done.out) == (100, "")
    assert "INSTANT_APP_ID" in done.stderr
