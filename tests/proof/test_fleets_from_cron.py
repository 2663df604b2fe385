"""``ekairos-sandbox reconcile`` as cron runs it: in a process of its own, on a store with a past.

What each action is worth, for fleets of any size, is in ``test_fleets``; here is what cron gets.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from helpers.command_line import CommandLine, Done
from helpers.instant import Store
from servers.instantdb.server import InstantServer

from ekairos_sandbox import SandboxRecord
from ekairos_sandbox.provider import Tags
from ekairos_sandbox.repository.file_identity import file_identity
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

PAST = 1_700_000_000_000


class Fleet(CommandLine):
    """Records and sandboxes that a crash, a loss and a stop have left in disorder."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.ids = {name: self.create() for name in ("kept", "lost", "untold", "unfinished")}
        shutil.rmtree(self.folder_of("lost"))
        self.rewrite("untold", status="shutdown", state={"stop": "requested", "release": "stop"})
        self.rewrite("unfinished", status="creating", state={"deadline": PAST})

    @property
    def store(self) -> Path:
        return self.home / "records.db"

    def folders(self) -> dict[str, Path]:
        """Return the folder of each sandbox that exists, by its durable id."""
        found = {}
        for path in (self.home / "folders" / "main").glob("*/meta.json"):
            tags = Tags.from_dict(json.loads(path.read_text())["tags"])
            assert tags is not None
            found[tags.sandbox_id] = path.parent
        return found

    def folder_of(self, name: str) -> Path:
        return self.folders()[self.ids[name]]

    def states(self) -> dict[str, str]:
        """Return what each sandbox that exists does, by the name it has here."""
        names = {sandbox_id: name for name, sandbox_id in self.ids.items()}
        return {
            names[sandbox_id]: json.loads((path / "meta.json").read_text())["state"]
            for sandbox_id, path in self.folders().items()
        }

    def rewrite(self, name: str, *, status: Any, state: dict[str, Any]) -> None:
        repository = SqliteSandboxRepository(self.store)
        record = repository.get(self.ids[name])
        params = dict(record.params or {})
        params["ekairos"] = {**params["ekairos"], **state}
        repository.transition(record.id, record.rev, {"status": status, "params": params})
        repository.close()

    def records(self) -> list[SandboxRecord]:
        repository = SqliteSandboxRepository(self.store)
        try:
            from ekairos_sandbox.models import RecordQuery

            return list(repository.iterate(RecordQuery()))
        finally:
            repository.close()

    def cron(self, *words: str, **environ: str) -> tuple[int, dict[str, Any], str]:
        """Run ``reconcile`` as cron does; return its exit code, its report and its complaints."""
        done: Done = self.process("reconcile", "--json", *words, environ=environ)
        return done.code, json.loads(done.stdout or b"{}"), done.stderr


@pytest.fixture
def fleet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "home", monkeypatch, capsysbinary)
    yield made
    made.end_all()


BEFORE = {"kept": "running", "untold": "running", "unfinished": "running"}
AFTER = {"kept": "running", "untold": "stopped"}


def test_cron_is_told_what_is_left_then_that_it_is_done_then_that_nothing_is(fleet: Fleet) -> None:
    code, report, err = fleet.cron()
    assert (code, report["left"], err) == (112, 3, "")
    assert fleet.states() == BEFORE

    code, report, err = fleet.cron("--apply")
    assert (code, report["left"], err) == (0, 0, "")
    told = {action["sandbox_id"]: action for action in report["actions"]}
    assert {name: told[fleet.ids[name]]["kind"] for name in ("lost", "untold", "unfinished")} == {
        "lost": "lost",
        "untold": "release",
        "unfinished": "finish-create",
    }
    assert len(told) == 3
    assert all(action["applied"] and not action["error"] for action in told.values())
    assert fleet.states() == AFTER

    assert fleet.cron("--apply") == (0, {**report, "actions": []}, "")


@pytest.mark.slow
def test_a_copied_store_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    copy = fleet.home / "copy.db"
    shutil.copy(fleet.store, copy)
    where = {"EKAIROS_SANDBOX_STORE": f"sqlite:///{copy}"}
    code, report, err = fleet.cron("--apply", "--destroy-unrecorded", **where)
    assert (code, report, json.loads(err)["code"]) == (100, {}, "schema_error")
    assert fleet.states() == BEFORE
    # It may be looked at.
    assert fleet.cron(**where)[0] == 112


@pytest.mark.slow
def test_a_restored_backup_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    if file_identity(fleet.store) == str(fleet.store.stat().st_ino):
        pytest.skip("this file system gives a file the number of the one before it")
    backup = fleet.home / "backup.db"
    with closing(sqlite3.connect(fleet.store)) as db, closing(sqlite3.connect(backup)) as to:
        db.backup(to)
    fleet.ids["later"] = fleet.create()
    for path in fleet.home.glob("records.db*"):
        path.unlink()
    shutil.copy(backup, fleet.store)
    code, report, err = fleet.cron("--apply", "--destroy-unrecorded", "--provider", "folder")
    assert (code, report, json.loads(err)["code"]) == (100, {}, "schema_error")
    assert fleet.states() == {**BEFORE, "later": "running"}


def test_a_store_that_was_emptied_destroys_nothing_and_cron_hears_of_it(fleet: Fleet) -> None:
    with closing(sqlite3.connect(fleet.store, isolation_level=None)) as db:
        db.execute("DELETE FROM sandboxes")
    code, report, _ = fleet.cron("--apply", "--destroy-unrecorded", "--provider", "folder")
    assert code == 113
    assert Counter(action["kind"] for action in report["actions"]) == {"unrecorded": 3}
    assert not any(action["applied"] for action in report["actions"])
    assert fleet.states() == BEFORE


@pytest.mark.slow
def test_another_store_of_the_same_account_touches_nothing(fleet: Fleet) -> None:
    another = fleet.home / "another-app.db"
    where = {"EKAIROS_SANDBOX_STORE": f"sqlite:///{another}"}
    assert fleet.cron("--apply", **where)[0] == 100
    assert not another.exists()
    with closing(SqliteSandboxRepository(another)) as repository:
        assert repository.owner
    code, report, _ = fleet.cron("--apply", "--destroy-unrecorded", "--provider", "folder", **where)
    assert (code, report["actions"]) == (0, [])
    assert fleet.states() == BEFORE


def test_credentials_of_another_account_change_nothing(fleet: Fleet) -> None:
    before = fleet.records()
    other = {"EKAIROS_FOLDER_ROOT": str(fleet.home / "other-account")}
    code, report, _ = fleet.cron("--apply", **other)
    assert code == 113
    assert not any(action["applied"] for action in report["actions"])
    assert all("credentials" in action["error"] for action in report["actions"])
    assert fleet.records() == before
    assert fleet.states() == BEFORE


@pytest.mark.slow
def test_a_list_that_fails_midway_is_told_and_changes_nothing(fleet: Fleet) -> None:
    before = fleet.records()
    (fleet.home / "folders" / "breaks-off").touch()
    words = ("--apply", "--destroy-unrecorded", "--provider", "folder")
    code, report, _ = fleet.cron(*words)
    assert code == 113
    assert [(action["kind"], action["applied"]) for action in report["actions"]] == [
        ("skipped", False)
    ]
    assert fleet.records() == before
    assert fleet.states() == BEFORE


@pytest.mark.slow
def test_what_a_clock_ahead_of_ours_has_begun_is_left_alone(fleet: Fleet) -> None:
    ahead = time.time_ns() // 1_000_000 + 3_600_000
    fleet.rewrite("unfinished", status="creating", state={"deadline": ahead})
    fleet.rewrite("untold", status="shutdown", state={"deadline": ahead, "release": "stop"})
    code, report, _ = fleet.cron("--apply")
    assert (code, [action["kind"] for action in report["actions"]]) == (0, ["lost"])
    assert fleet.states() == BEFORE


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--apply",)])
def test_an_unpushed_schema_is_a_matter_of_configuration(fleet: Fleet, words: tuple[str]) -> None:
    with InstantServer() as instant:
        app = instant.create_app()
        code, report, err = fleet.cron(
            *words,
            EKAIROS_SANDBOX_STORE="instantdb",
            INSTANT_APP_ID=app.id,
            INSTANT_APP_ADMIN_TOKEN=app.admin_token,
            INSTANT_API_URI=instant.url,
        )
    assert (code, report, json.loads(err)["code"]) == (100, {}, "schema_error")
    assert app.admin_token not in err
    assert fleet.states() == BEFORE


@pytest.mark.slow
def test_an_emptied_instantdb_app_destroys_nothing(fleet: Fleet) -> None:
    with InstantServer() as instant:
        store = Store(instant)
        where = {
            "EKAIROS_SANDBOX_STORE": "instantdb",
            "INSTANT_APP_ID": store.app.id,
            "INSTANT_APP_ADMIN_TOKEN": store.app.admin_token,
            "INSTANT_API_URI": instant.url,
        }
        made = fleet.process("create", environ=where)
        fleet.ids["in instantdb"] = made.line
        assert fleet.cron("--apply", **where)[0] == 0
        store.repository.delete(made.line)
        code, report, _ = fleet.cron(
            "--apply", "--destroy-unrecorded", "--provider", "folder", **where
        )
        assert code == 113
        assert [action["kind"] for action in report["actions"]] == ["unrecorded"]
        assert not report["actions"][0]["applied"]
        assert fleet.states() == {**BEFORE, "in instantdb": "running"}


@pytest.mark.slow
def test_two_at_once_do_no_harm(fleet: Fleet) -> None:
    both = [fleet.spawn("reconcile", "--apply", "--json") for _ in range(2)]
    for process in both:
        process.communicate(timeout=60)
    assert {process.returncode for process in both} <= {0, 113}
    assert fleet.cron("--apply")[0] == 0
    assert fleet.states() == AFTER
