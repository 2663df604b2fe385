"""Records that another release wrote or somebody spoilt: read as they are, or not at all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox import SandboxService, SchemaError
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.testing import FakeProvider


class Scene:
    """A service with one sandbox, whose record can be written as another program would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.provider = FakeProvider.standing_for("sprites")
        self.provider.on("true")
        self.service = self.open()
        self.sandbox_id = self.service.create_sandbox().sandbox_id

    def open(self) -> RaisingService:
        repository = SqliteSandboxRepository(self.path)
        return SandboxService(repository, environ={}, providers=[self.provider]).raising

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the stored record, and have a service that has not seen it."""
        self.service.close()
        db = sqlite3.connect(self.path)
        with db:
            data = json.loads(db.execute("SELECT data FROM sandboxes").fetchone()[0])
            change(data)
            db.execute("UPDATE sandboxes SET data = ?", (json.dumps(data),))
        db.close()
        self.service = self.open()

    def stored(self) -> str:
        db = sqlite3.connect(self.path)
        data = db.execute("SELECT data FROM sandboxes").fetchone()[0]
        db.close()
        return str(data)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "records" / "sandboxes.db")
    yield scene
    scene.service.close()


@pytest.mark.parametrize(
    "key",
    [
        *("v", "rev", "epoch", "home", "deadline", "expires_at", "config", "withheld"),
        *("borrowed", "stop", "release", "incarnation"),
    ],
)
def test_a_key_that_an_earlier_release_did_not_write_is_not_missed(scene: Scene, key: str) -> None:
    scene.rewrite(lambda data: data["params"]["ekairos"].pop(key))
    sandbox = scene.service.get_sandbox(scene.sandbox_id)
    result = sandbox.run_command("true")
    assert (result.exit_code, result.recreated) == (0, False)
    assert sandbox.stop().status == "shutdown"


def test_what_a_later_release_of_the_same_version_adds_survives(scene: Scene) -> None:
    scene.rewrite(lambda data: data["params"]["ekairos"].update(later={"x": [1]}))
    record = scene.service.stop_sandbox(scene.sandbox_id)
    assert (record.params or {})["ekairos"]["later"] == {"x": [1]}


SPOILT: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("it was written by a newer release", lambda d: d["params"]["ekairos"].update(v=2)),
    ("rev", lambda d: d["params"]["ekairos"].update(rev=2**70)),
    ("incarnation", lambda d: d["params"]["ekairos"].update(incarnation="x")),
    ("stop", lambda d: d["params"]["ekairos"].update(stop="paused")),
    ("config", lambda d: d["params"]["ekairos"].update(config=[])),
    ("createdAt", lambda d: d.update(createdAt=2**70)),
    ("ports", lambda d: d.update(ports="8080")),
]


@pytest.mark.parametrize(("why", "spoil"), SPOILT)
def test_a_record_that_cannot_be_read_is_named_and_nothing_is_done(
    scene: Scene, why: str, spoil: Callable[[dict[str, Any]], object]
) -> None:
    scene.rewrite(spoil)
    before = scene.stored()
    message = f"the record {scene.sandbox_id} cannot be read: {why}"
    sandbox = scene.service.get_sandbox(scene.sandbox_id)
    for act in (
        sandbox.record,
        lambda: sandbox.run_command("true"),
        lambda: sandbox.read_file("x"),
        sandbox.reconnect,
        sandbox.stop,
        sandbox.destroy,
    ):
        with pytest.raises(SchemaError, match=message):
            act()
    assert [sandbox_id for sandbox_id, _ in scene.service.list_sandboxes().broken] == [
        scene.sandbox_id
    ]
    report = scene.service.reconcile(apply=True, destroy_unrecorded=True)
    assert [(a.kind, a.sandbox_id, a.applied) for a in report.actions] == [
        ("skipped", scene.sandbox_id, False)
    ]
    assert message in str(report.errors[0].error)
    report = scene.service.reconcile(
        apply=True, destroy_unrecorded=[scene.sandbox_id], providers=["sprites"]
    )
    assert [(a.kind, a.applied) for a in report.actions] == [("skipped", False)]
    assert scene.stored() == before
    assert scene.provider.commands == []


def test_a_record_of_a_newer_release_says_what_to_do(scene: Scene) -> None:
    scene.rewrite(lambda data: data["params"]["ekairos"].update(v=2))
    with pytest.raises(SchemaError) as caught:
        scene.service.get_record(scene.sandbox_id)
    assert caught.value.hint == "upgrade ekairos-sandbox"
