"""Whole sandboxes and their records by the command line."""

from __future__ import annotations

import json
import sqlite3
import uuid

import pytest
from helpers.command_line import CommandLine

MISSING = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"


def test_create_prints_the_id_alone(cli: CommandLine) -> None:
    done = cli.ok("create", "--purpose", "import")
    assert str(uuid.UUID(done.line)) == done.line
    assert done.stderr == ""


def test_create_passes_every_option_on(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTER", "outer")
    done = cli.ok(
        *("create", "--json", "--purpose", "p", "--runtime", "any", "--on-gone", "fail"),
        *("--param", "n=1", "--param", "text=plain", "--param", 'deep={"a": [true]}'),
        *("-e", "INNER=secret-value", "--env-from", "OUTER", "--id", MISSING.upper()),
    )
    record = json.loads(done.out)
    assert record["id"] == MISSING
    assert (record["purpose"], record["runtime"], record["status"]) == ("p", "any", "active")
    assert {name: record["params"][name] for name in ("n", "text", "deep")} == {
        "n": 1,
        "text": "plain",
        "deep": {"a": [True]},
    }
    state = record["params"]["ekairos"]
    assert state["config"]["on_gone"] == "fail"
    assert state["config"]["env_from"] == ["OUTER"]
    assert state["withheld"] == ["env.INNER"]
    assert "secret-value" not in done.out
    inside = cli.ok("run", MISSING, "--", "sh", "-c", "echo $INNER,$OUTER")
    assert inside.out == "secret-value,outer\n"


def test_create_takes_a_whole_config_and_options_on_top(cli: CommandLine) -> None:
    config = cli.home / "config.json"
    config.write_text(json.dumps({"purpose": "file", "runtime": "a", "params": {"x": 1, "y": 1}}))
    done = cli.ok("create", "--json", "--config", str(config), "--runtime", "b", "--param", "y=2")
    record = json.loads(done.out)
    assert (record["purpose"], record["runtime"]) == ("file", "b")
    assert (record["params"]["x"], record["params"]["y"]) == (1, 2)
    piped = cli.process("create", "--json", "--config", "-", stdin=b'{"purpose": "piped"}')
    assert json.loads(piped.out)["purpose"] == "piped"


def test_an_id_of_ones_own_makes_create_repeatable(cli: CommandLine) -> None:
    assert cli.create("--id", MISSING) == MISSING
    assert cli.create("--id", MISSING) == MISSING
    assert cli("create", "--id", MISSING, "--runtime", "other").code == 105


def test_an_option_of_the_provider(cli: CommandLine) -> None:
    sandbox = cli.create("-o", "name=my-own-name")
    assert "my-own-name" in cli.ok("show", sandbox).out


def test_what_the_provider_does_not_enforce_is_one_line(cli: CommandLine) -> None:
    done = cli.process("create", "--timeout", "10m")
    assert done.code == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("warning: ")
    assert "timeout_ms" in warning


def test_listing_has_a_row_for_each_sandbox_newest_first(cli: CommandLine) -> None:
    first = cli.create("--purpose", "a\tb\n\x1b[31mc")
    second = cli.create()
    cli.ok("stop", second)
    rows = [line.split("\t") for line in cli.ok("ls").out.splitlines()]
    assert [row[:3] for row in rows] == [
        [second, "shutdown", "folder"],
        [first, "active", "folder"],
    ]
    assert rows[1][4] == "a b ^[[31mc"
    assert cli.ok("ls", "-q").out.split() == [second, first]
    assert [record["id"] for record in json.loads(cli.ok("ls", "--json").out)] == [second, first]


def test_listing_can_be_narrowed(cli: CommandLine) -> None:
    first, second = cli.create("--purpose", "one"), cli.create()
    cli.ok("stop", second)

    def listed(*options: str) -> list[str]:
        return cli.ok("ls", "-q", *options).out.split()

    assert listed("--status", "active") == [first]
    assert listed("--status", "active", "--status", "shutdown") == [second, first]
    assert listed("--purpose", "one") == [first]
    assert listed("--provider", "other") == []
    assert listed("--newer", "1h") == [second, first]
    assert listed("--older", "1h") == []
    limited = cli.ok("ls", "-q", "--limit", "1")
    assert limited.out.split() == [second]
    assert limited.stderr == "note: there are more than these 1; use --all or --limit\n"
    assert listed("--limit", "1", "--all") == [second, first]


def test_a_record_that_cannot_be_read_does_not_hide_the_others(cli: CommandLine) -> None:
    first, second = cli.create(), cli.create()
    with sqlite3.connect(cli.home / "records.db") as db:
        db.execute("UPDATE sandboxes SET data = '[]' WHERE id = ?", (first,))
    db.close()
    done = cli.ok("ls", "-q")
    assert done.out.split() == [second]
    assert done.stderr.startswith(f"warning: the record {first} cannot be read: ")
    assert cli("show", first).code == 100
    with sqlite3.connect(cli.home / "records.db") as db:
        db.execute("DELETE FROM sandboxes WHERE id = ?", (first,))
    db.close()


def test_show_says_what_is_recorded(cli: CommandLine) -> None:
    sandbox = cli.create("--purpose", "p", "--param", "k=v")
    lines = dict(line.split("\t") for line in cli.ok("show", sandbox).out.splitlines())
    assert lines["id"] == sandbox
    assert (lines["status"], lines["provider"], lines["purpose"]) == ("active", "folder", "p")
    assert json.loads(lines["params"])["k"] == "v"
    assert json.loads(cli.ok("show", sandbox, "--json").out)["id"] == sandbox


def test_a_stopped_sandbox_can_be_started_again(cli: CommandLine, sandbox: str) -> None:
    assert cli.ok("stop", sandbox).line == sandbox
    refused = cli("run", sandbox, "--", "true")
    assert refused.code == 102
    assert f"hint: `ekairos-sandbox reconnect {sandbox}`" in refused.stderr
    assert cli.ok("reconnect", sandbox).line == sandbox
    assert cli.ok("run", sandbox, "--", "echo", "back").out == "back\n"


def test_stop_and_destroy_take_many_ids_and_go_on_after_an_error(cli: CommandLine) -> None:
    first, second = cli.create(), cli.create()
    done = cli("destroy", first, MISSING, second, first)
    assert done.code == 101
    assert done.out.split() == [first, second]
    assert done.stderr.startswith("error: ")
    assert MISSING in done.stderr
    assert cli.ok("destroy", first, second).out.split() == [first, second]
    assert list((cli.home / "folders" / "main").glob("*/home")) == []


def test_what_the_provider_offers_beyond_the_contract(cli: CommandLine, sandbox: str) -> None:
    assert cli.ok("url", sandbox, "8080").line == "http://127.0.0.1:8080/"
    assert json.loads(cli.ok("url", "--json", sandbox, "8080").out)["headers"] == {}
    assert cli.ok("extend", sandbox, "1h").line.endswith("+00:00")
    assert json.loads(cli.ok("extend", sandbox, "1h", "--json").out)["ends_at"] > 10**12


def test_checkpoints(cli: CommandLine, sandbox: str) -> None:
    cli.ok("run", sandbox, "--shell", "--", "echo before >state")
    made = cli.ok("checkpoint", "create", sandbox, "--comment", "first").line
    cli.ok("run", sandbox, "--shell", "--", "echo after >state")
    ((checkpoint, created, comment),) = [
        line.split("\t") for line in cli.ok("checkpoint", "list", sandbox).out.splitlines()
    ]
    assert (checkpoint, comment) == (made, "first")
    assert created.endswith("+00:00")
    assert json.loads(cli.ok("checkpoint", "list", sandbox, "--json").out)[0]["id"] == made
    assert cli.ok("checkpoint", "restore", sandbox, made).line == made
    assert cli.ok("run", sandbox, "--", "cat", "state").out == "before\n"
    unknown = cli("checkpoint", "restore", sandbox, "none")
    assert unknown.code == 101
    assert f"hint: `ekairos-sandbox checkpoint list {sandbox}` shows" in unknown.stderr


def test_errors_as_json(cli: CommandLine, sandbox: str) -> None:
    for words in (("--json", "show", MISSING), ("show", "--json", MISSING), ("show", MISSING)):
        done = cli(*words)
        assert (done.code, done.out) == (101, "")
        if "--json" in words:
            error = json.loads(done.stderr)
            assert (error["code"], error["exit_code"]) == ("record_not_found", 101)
            assert set(error) == {"error", "hint", "code", "retryable", "outcome", "exit_code"}
    for wrong in (
        ("show", "--json", "not-an-id"),
        ("ls", "--json", "--frob"),
        ("ls", "--frob", "--json"),
        ("--json", "--frob"),
        ("checkpoint", "--json", "list"),
        ("run", "--json", "--timeout", "x", sandbox, "--", "true"),
    ):
        done = cli(*wrong)
        assert (done.code, json.loads(done.stderr)["code"]) == (2, "usage")
    assert cli("run", "--frob", sandbox, "--", "--json").stderr.startswith("error: no such option")


def test_a_store_on_the_command_line_wins(cli: CommandLine) -> None:
    other = f"sqlite:///{cli.home}/other.db"
    sandbox = cli.create("--store", other)
    cli.create()
    assert cli("show", sandbox).code == 101
    assert cli.ok("show", "--store", other, sandbox).out
    assert cli.ok("--store", other, "show", sandbox).out
    assert cli.ok("destroy", sandbox, "--store", other).line == sandbox


@pytest.mark.parametrize(
    "words",
    [
        ("ls",),
        ("ls", "--json"),
        ("show", MISSING),
        ("run", MISSING, "--", "true"),
        ("get", MISSING, "file"),
        ("destroy", MISSING),
        ("reconcile", "--apply"),
    ],
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_record_file_that_was_named_and_is_missing_is_an_error_and_not_made(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], how: str
) -> None:
    path = cli.home / "folder" / "typo.db"
    if how == "option":
        words = ("--store", f"sqlite:///{path}", *words)
    else:
        monkeypatch.setenv("EKAIROS_SANDBOX_STORE", f"sqlite:///{path}")
    done = cli(*words)
    assert (done.code, done.out) == (100, "")
    assert f"there is no record file {path}" in done.stderr
    assert "check --store and EKAIROS_SANDBOX_STORE" in done.stderr
    assert not path.parent.exists()


def test_the_record_file_that_nobody_named_may_be_missing_and_is_not_made_by_looking(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EKAIROS_SANDBOX_STORE")
    monkeypatch.setenv("XDG_DATA_HOME", str(cli.home / "data"))
    assert cli.ok("ls").out == ""
    assert cli.ok("ls", "--json").out == "[]\n"
    assert cli("show", MISSING).code == 101
    assert cli.ok("reconcile").code == 0
    assert not (cli.home / "data").exists()


def test_an_unreachable_provider_is_not_a_missing_sandbox(cli: CommandLine, sandbox: str) -> None:
    switch = cli.home / "folders" / "unreachable"
    switch.touch()
    assert cli("run", sandbox, "--", "true").code == 107
    switch.unlink()
    assert cli("run", sandbox, "--", "true").code == 0


def test_another_account_is_a_matter_of_configuration(
    cli: CommandLine, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setenv("EKAIROS_FOLDER_ACCOUNT", "second")
        assert cli("run", sandbox, "--", "true").code == 100
