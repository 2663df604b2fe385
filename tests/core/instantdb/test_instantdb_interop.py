"""One app, two packages: records as the TypeScript package writes them, and ours under its hands.

``Remote`` stands for a provider of that name: its sandboxes are entries of a dictionary, and their
shell is this machine's.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.host_shell import HostShell
from helpers.instant import T0, Store, number_of
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer

from ekairos_sandbox import PluginRegistry
from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import (
    SandboxFailedError,
    SandboxGoneError,
    SandboxNotReadyError,
)
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.provider import (
    Connection,
    CreateSpec,
    Provider,
    ProviderContext,
    ProviderOptions,
    SandboxInfo,
    SandboxRef,
    gone,
)
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.service import SandboxService

SPRITES_PARAMS = {
    "sprites": {
        "id": "sprite-1f",
        "name": "ekairos-demo",
        "url": "https://ekairos-demo.sprites.example",
        "urlSettings": {"auth": "sprite"},
        "deleteOnStop": False,
        "lastCheckpointId": "v3",
        "lastRestoredCheckpointId": None,
    },
    "task": {"id": 7},
}
BASE = {"createdAt": T0, "updatedAt": T0 + 5}
ROWS: dict[str, dict[str, Any]] = {
    "creating": {**BASE, "provider": "daytona", "status": "creating", "timeout": 600_000},
    "daytona": {
        **BASE,
        "provider": "daytona",
        "status": "active",
        "externalSandboxId": "d-1",
        "sandboxUrl": "https://d-1.example",
        "timeout": 1_800_000,
        "runtime": "python3.12",
        "ports": [3000, 8080],
        "purpose": "demo",
        "params": {"daytona": {"ephemeral": True}, "task": 1},
    },
    "sprites": {
        **BASE,
        "provider": "sprites",
        "status": "active",
        "externalSandboxId": "ekairos-demo",
        "sandboxUrl": "https://ekairos-demo.sprites.example",
        "vcpus": 2,
        "params": SPRITES_PARAMS,
    },
    "vercel": {
        **BASE,
        "provider": "vercel",
        "status": "active",
        "externalSandboxId": "sbx_Ab12Cd34",
        "timeout": 300_000,
        "runtime": "node22",
        "vcpus": 4,
        "ports": [],
        "params": {},
    },
    "error": {
        **BASE,
        "provider": "sprites",
        "status": "error",
        "params": {"error": "quota exceeded"},
    },
    "shutdown": {
        **BASE,
        "provider": "sprites",
        "status": "shutdown",
        "externalSandboxId": "ekairos-old",
        "shutdownAt": T0 + 9,
        "params": {"sprites": {"id": "sprite-2f", "name": "ekairos-old"}},
    },
    "recreating": {
        **BASE,
        "provider": "daytona",
        "status": "recreating",
        "externalSandboxId": "d-9",
        "params": {"daytona": {"ephemeral": False}},
    },
}
IDS = {name: number_of(index) for index, name in enumerate(ROWS)}


class RemoteOptions(ProviderOptions):
    name: str | None = None


class RemoteConnection(HostShell):
    def __init__(self, name: str, home: Path) -> None:
        super().__init__(home)
        self.external_id = name
        self.data = {}


class Remote(Provider[RemoteOptions]):
    options_model = RemoteOptions
    capabilities = frozenset()

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self.homes: Path | None = None
        self.running: dict[str, bool] = {}
        self.refs: list[SandboxRef[RemoteOptions]] = []

    def account(self) -> str:
        return "https://remote.example/team"

    def create(self, spec: CreateSpec[RemoteOptions]) -> Connection:
        raise AssertionError("records of another program are never made anew")

    def connect(self, ref: SandboxRef[RemoteOptions]) -> Connection:
        self.refs.append(ref)
        name = str(ref.external_id)
        if name not in self.running:
            raise gone(ref, self.name, operation="connect")
        self.running[name] = True
        assert self.homes is not None
        home = self.homes / name
        home.mkdir(exist_ok=True)
        return RemoteConnection(name, home)

    def inspect(self, ref: SandboxRef[RemoteOptions]) -> SandboxInfo:
        name = str(ref.external_id)
        if name not in self.running:
            raise gone(ref, self.name, operation="inspect")
        return SandboxInfo(ref.name, name, "running" if self.running[name] else "stopped")

    def find(self, name: str) -> SandboxInfo | None:
        return None

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        return iter(())

    def stop(self, ref: SandboxRef[RemoteOptions]) -> None:
        self.refs.append(ref)
        if str(ref.external_id) in self.running:
            self.running[str(ref.external_id)] = False

    def destroy(self, ref: SandboxRef[RemoteOptions]) -> None:
        self.running.pop(str(ref.external_id), None)


class RemoteDaytona(Remote):
    name = "daytona"


class RemoteSprites(Remote):
    name = "sprites"


class RemoteVercel(Remote):
    name = "vercel"


@pytest.fixture
def providers(tmp_path: Path) -> dict[str, Remote]:
    made: dict[str, Remote] = {
        cls.name: cls() for cls in (RemoteDaytona, RemoteSprites, RemoteVercel)
    }
    for provider in made.values():
        provider.homes = tmp_path
    return made


@pytest.fixture
def store(server: InstantServer) -> Iterator[Store]:
    """A store whose app has the records of the TypeScript package, and attributes of its own."""
    schema = copy.deepcopy(SANDBOX_SCHEMA)
    schema["entities"]["sandbox_sandboxes"]["attrs"]["team"] = {"valueType": "json", "config": {}}
    store = Store(server, server.create_app(schema=schema), clock=SystemClock())
    steps: list[Any] = [
        ["create", "sandbox_sandboxes", IDS[name], {**row, "team": {"of": name}}]
        for name, row in ROWS.items()
    ]
    store.client.transact(steps)
    yield store
    store.repository.close()


@pytest.fixture
def service(store: Store, providers: dict[str, Remote]) -> Iterator[RaisingService]:
    service = SandboxService(
        store.repository, environ={}, registry=PluginRegistry(), providers=providers.values()
    )
    yield service.raising
    service.close()


def row_of(store: Store, name: str) -> dict[str, Any]:
    [row] = [row for row in store.rows() if row["id"] == IDS[name]]
    return row


def without_nulls(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


@pytest.mark.parametrize("name", ROWS)
def test_a_record_is_read_with_all_it_has(store: Store, name: str) -> None:
    found = store.repository.get(IDS[name])
    assert found.wire() == {"id": IDS[name], "team": {"of": name}, **ROWS[name]}
    assert (found.rev, found.ours, found.state) == (0, False, None)


def test_records_are_listed_and_filtered(service: RaisingService) -> None:
    listed = {found.id for found in service.iter_sandboxes()}
    assert listed == set(IDS.values())
    page = service.list_sandboxes(status="active", provider="vercel")
    assert [found.external_sandbox_id for found in page.records] == ["sbx_Ab12Cd34"]


@pytest.mark.parametrize("name", ROWS)
def test_an_update_loses_no_field_and_writes_only_attributes_of_the_schema(
    store: Store, name: str
) -> None:
    before = row_of(store, name)
    store.server.clear_requests()
    store.repository.transition(IDS[name], 0, {"status": "shutdown", "shutdown_at": T0 + 99})
    after = row_of(store, name)
    expected = {
        **before,
        "status": "shutdown",
        "shutdownAt": T0 + 99,
        "params": {**(before.get("params") or {}), "ekairos": {"v": 1, "rev": 1}},
    }
    assert after == expected
    [seen] = store.server.seen("/admin/transact")
    written = {key for step in json.loads(seen.body)["steps"][1:] for key in step[3]}
    assert written == {"status", "shutdownAt", "params"}


@pytest.mark.parametrize("name", ["daytona", "sprites", "vercel"])
def test_a_running_sandbox_is_stopped_and_its_record_keeps_everything(
    store: Store, service: RaisingService, providers: dict[str, Remote], name: str
) -> None:
    row = ROWS[name]
    provider = providers[row["provider"]]
    provider.running[row["externalSandboxId"]] = True
    service.stop_sandbox(IDS[name])
    assert provider.running == {row["externalSandboxId"]: False}
    [ref] = provider.refs
    assert ref.data == (row["params"] or {}).get(name, {})
    after = row_of(store, name)
    state = after["params"].pop("ekairos")
    assert (state["stop"], state["release"], state["rev"]) == ("requested", None, 2)
    changed = ("status", "shutdownAt", "updatedAt", "params")
    assert after["status"] == "shutdown"
    assert after["params"] == row["params"]
    assert {k: v for k, v in without_nulls(after).items() if k not in changed} == {
        "id": IDS[name],
        "team": {"of": name},
        **{k: v for k, v in row.items() if k not in changed},
    }


@pytest.mark.parametrize("name", ["daytona", "sprites", "vercel", "shutdown"])
def test_reconnecting_to_what_no_longer_exists_changes_nothing(
    store: Store, service: RaisingService, name: str
) -> None:
    before = row_of(store, name)
    with pytest.raises(SandboxGoneError):
        service.reconnect_to_sandbox(IDS[name])
    with pytest.raises(SandboxGoneError if name != "shutdown" else Exception):
        service.run_command(IDS[name], "true")
    assert row_of(store, name) == before


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in's shell is this machine's")
@pytest.mark.parametrize("name", ["daytona", "sprites", "vercel", "shutdown"])
def test_reconnecting_reaches_the_sandbox_that_the_record_names_and_it_is_used(
    store: Store, service: RaisingService, providers: dict[str, Remote], name: str
) -> None:
    row = ROWS[name]
    provider = providers[row["provider"]]
    provider.running[row["externalSandboxId"]] = False
    sandbox = service.reconnect_to_sandbox(IDS[name])
    result = sandbox.run_command("sh", ["-c", "echo here; echo there >&2; exit 3"])
    assert (result.output, result.error, result.exit_code) == ("here\n", "there\n", 3)
    ref = provider.refs[0]
    data = row["params"].get(row["provider"], {})
    assert (ref.external_id, ref.data) == (row["externalSandboxId"], data)
    assert ref.name == data.get("name", row["externalSandboxId"])
    assert (ref.tags, ref.options) == (None, None)
    after = row_of(store, name)
    assert after["status"] == "active"
    own = after["params"].pop("ekairos")
    assert "name" not in own or own["name"] is None
    assert after["params"] == row["params"]
    kept = ("timeout", "runtime", "vcpus", "ports", "purpose", "createdAt", "externalSandboxId")
    assert {key: after.get(key) for key in kept} == {key: row.get(key) for key in kept}


@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in's shell is this machine's")
def test_a_sandbox_in_use_goes_on_when_the_other_package_drops_our_key(
    store: Store, service: RaisingService, providers: dict[str, Remote]
) -> None:
    providers["sprites"].running["ekairos-demo"] = True
    sandbox = service.reconnect_to_sandbox(IDS["sprites"])
    rev = store.repository.get(IDS["sprites"]).rev
    step = ["update", "sandbox_sandboxes", IDS["sprites"], {"params": SPRITES_PARAMS}]
    store.client.transact([step])
    assert sandbox.run_command("echo", ["on"]).output == "on\n"
    again = service.reconnect_to_sandbox(IDS["sprites"])
    assert again.run_command("echo", ["on"]).output == "on\n"
    healed = row_of(store, "sprites")["params"]
    assert healed["ekairos"]["rev"] > rev
    assert healed["sprites"] == SPRITES_PARAMS["sprites"]


def test_unfinished_and_failed_records_say_what_they_are(
    store: Store, service: RaisingService
) -> None:
    for name in ("creating", "recreating"):
        with pytest.raises(SandboxNotReadyError):
            service.run_command(IDS[name], "true")
    with pytest.raises(SandboxFailedError, match="quota exceeded"):
        service.reconnect_to_sandbox(IDS["error"])
    assert {row["team"]["of"] for row in store.rows()} == set(ROWS)


def test_reconcile_leaves_the_other_package_s_records_alone(
    store: Store, service: RaisingService
) -> None:
    before = store.rows()
    report = service.reconcile(apply=True, destroy_unrecorded=True)
    assert (report.actions, report.errors) == ((), ())
    assert store.rows() == before


def test_a_stop_is_completed_although_the_other_package_wrote_an_old_copy_over_it(
    store: Store, service: RaisingService, providers: dict[str, Remote]
) -> None:
    provider = providers["sprites"]
    provider.running["ekairos-demo"] = True
    service.stop_sandbox(IDS["sprites"])
    stopped = row_of(store, "sprites")["params"]
    old = copy.deepcopy(stopped)
    old["ekairos"] |= {"rev": 1, "release": "stop"}
    step = ["update", "sandbox_sandboxes", IDS["sprites"], {"params": old}]
    store.client.transact([step])
    report = service.reconcile(apply=True)
    assert [(action.kind, action.applied) for action in report.actions] == [("release", True)]
    after = row_of(store, "sprites")["params"]
    assert after["ekairos"]["rev"] == 3
    assert after == {**stopped, "ekairos": {**stopped["ekairos"], "rev": 3}}
    listed = store.repository.list(RecordQuery(provider="sprites", status=("shutdown",)))
    assert IDS["sprites"] in {found.id for found in listed.records}
