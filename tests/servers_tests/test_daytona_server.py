"""The loopback Daytona, as Daytona's own client sees it: it behaves like the real service."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from daytona import (
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaBadRequestError,
    DaytonaConfig,
    DaytonaConflictError,
    DaytonaError,
    DaytonaFileNotFoundError,
    DaytonaNotFoundError,
    DaytonaTimeoutError,
    ListSandboxesQuery,
    Sandbox,
)
from servers.daytona.server import DaytonaServer, Organisation

pytestmark = pytest.mark.filterwarnings("ignore:Polling-only mode:DeprecationWarning")


def sdk(server: DaytonaServer, organisation: Organisation | None = None) -> Daytona:
    key = (organisation or server.organisation).api_key
    config = DaytonaConfig(
        api_key=key, api_url=server.api_url, target="us", use_deprecated_polling=True
    )
    return Daytona(config)


@pytest.fixture
def server() -> Iterator[DaytonaServer]:
    with DaytonaServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def client(server: DaytonaServer) -> Daytona:
    return sdk(server)


def create(client: Daytona, name: str | None = None, **options: Any) -> Sandbox:
    return client.create(CreateSandboxFromSnapshotParams(name=name, **options), timeout=0)


@pytest.fixture
def box(client: Daytona) -> Sandbox:
    return create(client, "box", labels={"a": "1", "b": "2"}, env_vars={"AT": "create"})


def test_a_sandbox_is_what_was_asked_for(client: Daytona, box: Sandbox) -> None:
    found = client.get("box")
    assert (found.id, found.name, found.state) == (box.id, "box", "started")
    assert client.get(box.id).name == "box"
    assert found.labels == {"a": "1", "b": "2", "code-toolbox-language": "python"}
    assert (found.auto_stop_interval, found.auto_delete_interval) == (15, -1)


def test_both_streams_of_a_command_are_one(box: Sandbox) -> None:
    answer = box.process.exec("echo out; echo err >&2; echo $AT $NOW; exit 3", env={"NOW": "now"})
    assert (answer.exit_code, answer.result) == (3, "out\nerr\ncreate now\n")


def test_bytes_that_are_no_text_are_replaced(box: Sandbox) -> None:
    assert box.process.exec(r"printf 'a\377b\000c'").result == "a\ufffdb\0c"


def test_a_program_that_reads_its_input_eats_the_rest_of_the_command(box: Sandbox) -> None:
    assert box.process.exec("cat\necho not reached").result == "echo not reached"


def test_a_bad_folder_is_an_answer_and_a_bad_variable_an_error(box: Sandbox) -> None:
    assert box.process.exec("true", cwd="/nowhere").exit_code == -1
    with pytest.raises(DaytonaBadRequestError):
        box.process.exec("true", env={"1BAD": "x"})
    with pytest.raises(DaytonaBadRequestError):
        box.process.exec("  ")


def test_a_timeout_kills_the_group_and_loses_the_output(box: Sandbox) -> None:
    with pytest.raises(DaytonaTimeoutError) as caught:
        box.process.exec("echo lost; (sleep 30; touch late) & sleep 30", timeout=1)
    assert caught.value.status_code == 408
    assert box.process.exec("ls").result == ""


def test_files_go_up_and_down(box: Sandbox) -> None:
    data = bytes(range(256)) * 100
    box.fs.upload_file(data, "deep/er/file")
    assert box.fs.download_file("deep/er/file") == data
    assert box.fs.get_file_info("deep/er/file").size == len(data)
    assert [file.name for file in box.fs.list_files("deep")] == ["er"]
    with pytest.raises(DaytonaFileNotFoundError):
        box.fs.download_file("missing")
    box.fs.delete_file("deep", recursive=True)
    assert box.fs.list_files(".") == []


def test_the_constant_boundary_cuts_a_file_short(box: Sandbox) -> None:
    data = b"before\r\n--DAYTONA-FILE-BOUNDARY--\r\nafter"
    box.fs.upload_file(data, "cut")
    assert box.fs.download_file("cut") == b"before"
    assert box.fs.get_file_info("cut").size == len(data)


def test_names_are_unique_and_free_again_at_once_after_a_deletion(
    server: DaytonaServer, client: Daytona, box: Sandbox
) -> None:
    server.boxes.stale_names_s = 10
    with pytest.raises(DaytonaConflictError, match="already exists"):
        create(client, "box")
    box.delete(timeout=0)
    second = create(client, "box")
    with pytest.raises(DaytonaNotFoundError):
        client.get("box")
    assert [x.id for x in client.list(ListSandboxesQuery(name="BO"))] == [second.id]
    server.clock.advance(11)
    assert client.get("box").id == second.id
    with pytest.raises(DaytonaNotFoundError):
        client.get(box.id)


def test_of_six_creations_of_one_name_one_succeeds(server: DaytonaServer) -> None:
    outcomes: list[str] = []

    def one() -> None:
        try:
            create(sdk(server), "only")
            outcomes.append("made")
        except DaytonaConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["conflict"] * 5 + ["made"]


def test_lists_are_by_exact_labels_and_page_by_page(
    server: DaytonaServer, client: Daytona, box: Sandbox
) -> None:
    server.control.page_size = 1
    other = create(client, "other", labels={"a": "1"})
    assert {x.id for x in client.list(ListSandboxesQuery(labels={"a": "1"}))} == {box.id, other.id}
    labels = {"a": "1", "b": "2"}
    assert [x.id for x in client.list(ListSandboxesQuery(labels=labels))] == [box.id]
    assert list(client.list(ListSandboxesQuery(labels={"A": "1"}))) == []


def test_stopping_twice_is_an_error_and_starting_twice_is_none(box: Sandbox) -> None:
    box.start(timeout=0)
    box.stop(timeout=0)
    with pytest.raises(DaytonaBadRequestError):
        box.stop(timeout=0)
    with pytest.raises(DaytonaBadRequestError, match="Is the Sandbox started"):
        box.process.exec("true")
    box.start(timeout=0)
    assert box.process.exec("echo on").result == "on\n"


def test_a_deletion_while_pending_is_a_conflict(server: DaytonaServer, box: Sandbox) -> None:
    server.boxes.delays["stopping"] = 100
    server.boxes.stop(server.box("box"))
    with pytest.raises(DaytonaConflictError, match="in progress"):
        box.delete(timeout=0)
    server.clock.advance(101)
    box.delete(timeout=0)
    assert server.alive() == []


def test_an_ephemeral_sandbox_is_destroyed_by_its_stop(
    server: DaytonaServer, client: Daytona
) -> None:
    ephemeral = create(client, "e", ephemeral=True)
    ephemeral.stop(timeout=0)
    assert server.alive() == []


def test_idle_sandboxes_stop_and_calls_keep_them_up(server: DaytonaServer, box: Sandbox) -> None:
    box.process.exec("sleep 1000 >/dev/null 2>&1 </dev/null &")
    for _ in range(3):
        server.clock.advance(14 * 60)
        box.refresh_activity()
    server.clock.advance(16 * 60)
    box.refresh_data()
    assert box.state == "stopped"


def test_a_lifetime_ends_a_sandbox_in_any_state(server: DaytonaServer, client: Daytona) -> None:
    made = create(client, "mortal", ttl_minutes=5, auto_stop_interval=0)
    made.stop(timeout=0)
    made.set_ttl(10)
    server.clock.advance(9 * 60)
    assert client.get("mortal").state == "stopped"
    server.clock.advance(61)
    assert server.alive() == []


def test_a_creation_that_fails_leaves_an_errored_sandbox_that_keeps_the_name(
    server: DaytonaServer, client: Daytona
) -> None:
    server.boxes.fail_creates.append("no room")
    with pytest.raises(DaytonaBadRequestError, match="no room"):
        create(client, "bad")
    assert client.get("bad").state == "error"
    with pytest.raises(DaytonaConflictError):
        create(client, "bad")


def test_the_answer_to_a_creation_waits_half_a_minute_for_the_start(
    server: DaytonaServer, client: Daytona
) -> None:
    server.boxes.delays["creating"] = 40
    states: list[Any] = []
    thread = threading.Thread(target=lambda: states.append(create(client, "slow").state))
    thread.start()
    while not server.boxes.boxes:
        thread.join(0.01)
    server.clock.advance(29)
    assert server.counts()["POST /api/sandbox"] == 0
    server.clock.advance(2)
    while not server.seen("POST", "/api/sandbox"):
        thread.join(0.01)
    server.clock.advance(10)
    thread.join()
    assert states == ["started"]


def test_the_last_open_source_release_answers_what_the_newest_sdk_refuses(
    server: DaytonaServer, client: Daytona
) -> None:
    server.control.version = "0.190"
    with pytest.raises(DaytonaError, match="kvm"):
        create(client, "made-all-the-same")
    assert [box.name for box in server.alive()] == ["made-all-the-same"]


def test_organisations_do_not_see_each_other(server: DaytonaServer, box: Sandbox) -> None:
    other = sdk(server, server.add_organisation())
    with pytest.raises(DaytonaNotFoundError):
        other.get(box.id)
    assert list(other.list()) == []
    assert create(other, "box").id != box.id


def test_a_jwt_is_good_with_its_organisation_only(server: DaytonaServer, box: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {server.organisation.jwt}"}
    url = f"{server.api_url}/sandbox/{box.id}"
    assert requests.get(url, headers=headers, timeout=10).status_code == 401
    headers["X-Daytona-Organization-ID"] = server.organisation.id
    assert requests.get(url, headers=headers, timeout=10).status_code == 200


def test_what_goes_wrong_happens_as_often_as_told(server: DaytonaServer, box: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {server.organisation.api_key}"}
    url = f"{server.url}/toolbox/{box.id}/process/execute"

    def call() -> requests.Response:
        body = json.dumps({"command": "echo x >>count; wc -l <count"})
        return requests.post(url, headers=headers, data=body, timeout=10)

    server.faults.add("answer", "POST", ".*/execute", status=429, headers={"Retry-After": "7"})
    first = call()
    assert (first.status_code, first.headers["Retry-After"]) == (429, "7")
    for kind, status in (("drop", 0), ("drop_after", 0), ("answer_after", 502)):
        server.faults.add(kind, "POST", ".*/execute", status=status)  # type: ignore[arg-type]
        if status:
            assert call().status_code == status
        else:
            with pytest.raises(requests.ConnectionError):
                call()
    assert call().json()["result"].strip() == "3"


def test_nothing_is_left_behind_by_a_server() -> None:
    with DaytonaServer() as server:
        made = create(sdk(server), "box")
        made.process.exec("setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >pid")
        home = server.box("box").guest
        assert home is not None
        pid = int((home.home / "pid").read_text())
    assert not home.home.exists()
    stat = Path(f"/proc/{pid}/stat")
    # Process 1 may be slow to reap.
    assert not stat.exists() or b") Z " in stat.read_bytes()
