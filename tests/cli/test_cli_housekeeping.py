"""`reconcile`, `purge`, `store rekey`: fit for cron."""

from __future__ import annotations

import json
import shutil
import uuid

from helpers.command_line import CommandLine


def test_with_nothing_to_settle_the_exit_code_is_zero(cli: CommandLine, sandbox: str) -> None:
    done = cli.ok("reconcile")
    assert (done.out, done.stderr) == ("1 records checked, 0 settled, 0 left, 0 failed\n", "")
    assert cli.ok("reconcile", "--apply", "--provider", "folder").out == done.out


def test_a_dry_run_says_what_is_left_and_changes_nothing(cli: CommandLine, sandbox: str) -> None:
    _lose(cli)
    for _ in range(2):
        done = cli("reconcile")
        assert done.code == 112
        assert done.out.splitlines() == [
            f"warn  lost folder {sandbox}: it no longer exists at the provider",
            "1 records checked, 0 settled, 1 left, 0 failed",
        ]
        assert done.stderr == "note: nothing was changed; --apply does it\n"
    report = json.loads(cli("reconcile", "--json").out)
    assert (report["applied"], report["left"]) == (False, 1)
    assert report["actions"][0]["kind"] == "lost"


def test_applied_it_settles(cli: CommandLine, sandbox: str) -> None:
    _lose(cli)
    done = cli.ok("reconcile", "--apply")
    assert done.out.startswith(f"ok    lost folder {sandbox}: ")
    assert cli.ok("reconcile", "--apply").out == "1 records checked, 0 settled, 0 left, 0 failed\n"


def test_what_has_no_record_is_destroyed_on_demand_only(cli: CommandLine) -> None:
    keep, orphan = cli.create(), cli.create()
    store = cli.home / "records.db"
    _forget(cli, orphan)
    done = cli("reconcile", "--apply")
    assert done.code == 112
    assert f"warn  unrecorded folder {orphan}: it has no record" in done.out
    assert "--destroy-unrecorded" in done.stderr
    assert cli("reconcile", "--destroy-unrecorded").code == 2
    assert cli.ok("reconcile", "--apply", "--destroy-unrecorded").code == 0
    assert cli.ok("run", keep, "--", "true").code == 0
    assert len(list((cli.home / "folders" / "main").glob("*/home"))) == 1
    assert store.exists()


def test_what_cannot_be_looked_at_is_told_from_what_is_left(cli: CommandLine, sandbox: str) -> None:
    switch = cli.home / "folders" / "unreachable"
    switch.touch()
    done = cli("reconcile", "--apply")
    switch.unlink()
    assert done.code == 113
    assert done.out.startswith("fail  skipped folder: its sandboxes cannot be listed\n")


def test_purge_deletes_the_output_of_ended_commands(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "echo", "x").line
    cli.ok("wait", sandbox, command)
    assert cli.ok("purge", sandbox).out == "0\n"
    assert json.loads(cli.ok("purge", sandbox, "--older", "0", "--json").out) == {"purged": 1}
    assert cli("logs", sandbox, command).code == 101


def test_a_copied_store_acts_only_after_rekey(cli: CommandLine, sandbox: str) -> None:
    other = cli.home / "copy.db"
    shutil.copy(cli.home / "records.db", other)
    store = f"sqlite:///{other}"
    refused = cli("reconcile", "--apply", "--store", store)
    assert refused.code == 100
    assert "ekairos-sandbox store rekey --moved" in refused.stderr
    assert cli("store", "rekey", "--store", store).code == 2
    assert cli("store", "rekey", "--store", store, "--moved", "--copied").code == 2
    assert cli.ok("store", "rekey", "--copied", "--store", store).line == str(other)
    assert cli.ok("reconcile", "--apply", "--store", store).code == 0
    value = json.loads(cli.ok("store", "rekey", "--moved", "--json", "--store", store).out)
    assert value["path"] == str(other)


def test_rekey_makes_no_store(cli: CommandLine) -> None:
    done = cli("store", "rekey", "--moved", "--store", f"sqlite:///{cli.home}/none.db")
    assert done.code == 100
    assert not (cli.home / "none.db").exists()


def _lose(cli: CommandLine) -> None:
    for path in (cli.home / "folders" / "main").glob("*/home"):
        shutil.rmtree(path.parent)


def _forget(cli: CommandLine, sandbox: str) -> None:
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

    repository = SqliteSandboxRepository(cli.home / "records.db")
    repository.delete(str(uuid.UUID(sandbox)))
    repository.close()
