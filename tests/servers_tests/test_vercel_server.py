"""The loopback Vercel Sandbox server answers as the service does."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer


class Client:
    """Bare requests, as little of a client as can be."""

    def __init__(self, server: VercelServer) -> None:
        self.server = server
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {server.token}"

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        query = {"teamId": self.server.team, **options.pop("params", {})}
        return self.session.request(
            method, f"{self.server.url}{path}", params=query, timeout=30, **options
        )

    def create(self, name: str = "box", *, version: str = "v2", **body: Any) -> requests.Response:
        body = {"projectId": self.server.project, "name": name, **body}
        return self("POST", f"/{version}/sandboxes", json=body)

    def named(self, method: str, name: str = "box", **params: str) -> requests.Response:
        query = {"projectId": self.server.project, **params}
        return self(method, f"/v2/sandboxes/{name}", params=query)

    def in_session(self, path: str, body: Any = None, method: str = "POST") -> requests.Response:
        session = self.server.sandboxes()["box"].session.id
        return self(method, f"/v2/sandboxes/sessions/{session}{path}", json=body)

    def run(self, script: str, **body: Any) -> requests.Response:
        return self.in_session("/cmd", {"command": "sh", "args": ["-c", script], **body})


@pytest.fixture
def server() -> Iterator[VercelServer]:
    with VercelServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def client(server: VercelServer) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.session.close()


def error(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def records(answer: requests.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.content.split(b"\n") if line]


# Addresses, credentials, names


def test_the_prefix_api_may_be_left_out(server: VercelServer, client: Client) -> None:
    bare = server.url.removesuffix("/api")
    query = {"teamId": server.team, "project": server.project}
    answer = client.session.get(f"{bare}/v2/sandboxes", params=query, timeout=30)
    assert answer.json()["sandboxes"] == []
    assert answer.headers["content-type"] == "application/json; charset=utf-8"


def test_a_bad_token_and_a_foreign_team_are_forbidden(server: VercelServer, client: Client) -> None:
    foreign, _, _ = server.add_project()
    assert error(client("GET", "/v2/sandboxes", params={"teamId": foreign})) == (403, "forbidden")
    client.session.headers["Authorization"] = "Bearer nonsense"
    answer = client.named("GET")
    assert error(answer) == (403, "forbidden")
    assert answer.json()["error"]["invalidToken"] is True


def test_the_project_is_spelt_differently_in_lists(client: Client) -> None:
    project = client.server.project
    assert client("GET", "/v2/sandboxes", params={"projectId": project}).status_code == 400
    assert client("GET", "/v2/sandboxes", params={"project": project}).status_code == 200
    client.create()
    assert client("GET", "/v2/sandboxes/box", params={"project": project}).status_code == 400


def test_a_second_sandbox_of_a_name_is_refused_with_a_generic_code(client: Client) -> None:
    assert client.create().status_code == 200
    answer = client.create()
    assert error(answer) == (400, "bad_request")
    assert "already exists for this project" in answer.json()["error"]["message"]


def test_a_missing_sandbox_is_named_in_the_answer(client: Client) -> None:
    answer = client.named("GET", "none")
    assert error(answer) == (404, "not_found")
    assert "'none'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"ports": list(range(3000, 3016))},
        {"ports": [80]},
        {"timeout": 999},
        {"resources": {"vcpus": 3}},
        {"tags": dict.fromkeys("abcdef", "x")},
        {"runtime": "node24", "image": "x"},
        {"unknown": 1},
        {"name": "with space"},
    ],
)
def test_what_is_out_of_bounds_is_refused(client: Client, body: dict[str, Any]) -> None:
    assert error(client.create(**body)) == (400, "bad_request")


def test_version_3_takes_no_runtime_and_has_another_home(client: Client) -> None:
    assert client.create("a", version="v3", runtime="node24").status_code == 400
    image = client.create("a", version="v3").json()
    runtime = client.create("b", runtime="node24").json()
    assert image["session"]["cwd"].endswith("/vercel")
    assert runtime["session"]["cwd"].endswith("/vercel/sandbox")


# Sessions


def test_stopping_twice_is_the_same_and_resuming_begins_a_new_session(client: Client) -> None:
    first = client.create(persistent=True, ports=[3000]).json()
    assert client.in_session("/stop").json()["snapshot"]["creationMethod"] == "automatic"
    assert "snapshot" not in client.in_session("/stop").json()
    stopped = client.named("GET").json()
    assert (stopped["sandbox"]["status"], stopped["routes"]) == ("stopped", [])
    resumed = client.named("GET", resume="true").json()
    assert resumed["resumed"] is True
    assert resumed["session"]["id"] != first["session"]["id"]
    assert resumed["session"]["sourceSnapshotId"] == stopped["sandbox"]["currentSnapshotId"]
    assert client.named("GET", resume="true").json()["resumed"] is False


def test_a_stopped_session_answers_410(client: Client) -> None:
    client.create(persistent=True)
    client.in_session("/stop")
    for answer in (client.run("true"), client.in_session("/fs/read", {"path": "x"})):
        assert error(answer) == (410, "sandbox_stopped")


@pytest.mark.parametrize("status", [400, 410])
def test_without_a_snapshot_there_is_no_resuming(client: Client, status: int) -> None:
    client.server.world.expired_snapshot_status = status
    client.create(persistent=False)
    client.in_session("/stop")
    assert error(client.named("GET", resume="true")) == (status, "snapshot_not_found")


def test_a_session_on_its_way_down_answers_422(client: Client) -> None:
    client.create(persistent=True)
    client.server.world.down_polls = 2
    assert client.in_session("/snapshot", {}).status_code == 201
    assert error(client.run("true")) == (422, "sandbox_snapshotting")
    client.named("GET")
    assert client.named("GET").json()["session"]["status"] == "stopped"


def test_time_ends_a_session_and_can_be_added(client: Client) -> None:
    client.create(persistent=True, timeout=60_000)
    session = client.in_session("/extend-timeout", {"duration": 60_000}).json()["session"]
    assert session["timeout"] == 120_000
    client.server.world.clock.advance(90)
    assert client.named("GET").json()["sandbox"]["status"] == "running"
    client.server.world.clock.advance(60)
    assert client.named("GET").json()["sandbox"]["status"] == "stopped"


def test_deleting_ends_what_runs_and_can_take_the_snapshots_along(client: Client) -> None:
    client.create(persistent=True)
    snapshot = client.in_session("/snapshot", {}).json()["snapshot"]["id"]
    client.named("GET", resume="true")
    assert client.named("DELETE", deleteOrphanSnapshots="true").status_code == 200
    assert client.named("GET").status_code == 404
    answer = client("GET", f"/v2/sandboxes/snapshots/{snapshot}")
    assert answer.json()["snapshot"]["status"] == "deleted"


def test_a_patched_snapshot_is_what_the_next_session_begins_with(client: Client) -> None:
    client.create(persistent=True)
    client.run("echo old >file", wait=True)
    snapshot = client.in_session("/snapshot", {}).json()["snapshot"]["id"]
    client.named("GET", resume="true")
    client.run("echo new >file", wait=True)
    client.in_session("/stop")
    query = {"projectId": client.server.project}
    body = {"currentSnapshotId": snapshot}
    assert client("PATCH", "/v2/sandboxes/box", params=query, json=body).status_code == 200
    client.named("GET", resume="true")
    assert client.in_session("/fs/read", {"path": "file"}).content == b"old\n"


# Commands


def test_a_command_s_records_end_with_its_exit_code(client: Client) -> None:
    client.create()
    answer = client.run("echo out; echo err >&2; exit 3", wait=True, logs=True)
    assert answer.headers["content-type"] == "application/x-ndjson"
    first, *middle, last = records(answer)
    assert (first["command"]["exitCode"], last["command"]["exitCode"]) == (None, 3)
    assert sorted((r["stream"], r["data"]) for r in middle) == [
        ("stderr", "err\n"),
        ("stdout", "out\n"),
    ]
    assert "env" not in last["command"]


def test_a_program_that_is_not_there_is_refused(client: Client) -> None:
    client.create()
    answer = client.in_session("/cmd", {"command": "no-such-program", "args": []})
    assert error(answer) == (400, "executable_not_found")


def test_a_detached_command_is_followed_killed_and_listed_newest_first(client: Client) -> None:
    client.create()
    first = client.run("echo a; true >begun; sleep 60").json()["command"]
    # It ends when the first has written its line.
    second = client.run("until [ -e begun ]; do sleep 0.01; done", wait=True)
    second = records(second)[0]["command"]
    listed = client.in_session("/cmd", method="GET").json()["commands"]
    assert [command["id"] for command in listed] == [second["id"], first["id"]]
    assert client.in_session(f"/cmd/{first['id']}/kill", {"signal": 15}).status_code == 200
    ended = client.in_session(f"/cmd/{first['id']}?wait=true", method="GET").json()["command"]
    assert ended["exitCode"] == 143
    for _ in range(2):
        logs = records(client.in_session(f"/cmd/{first['id']}/logs", method="GET"))
        assert logs == [{"stream": "stdout", "data": "a\n"}]


def test_when_the_sandbox_stops_a_stream_ends_with_an_error_record(client: Client) -> None:
    client.create()
    session = client.server.sandboxes()["box"].session.id
    body = {"command": "sleep", "args": ["60"], "wait": True, "logs": True}
    path = f"{client.server.url}/v2/sandboxes/sessions/{session}/cmd"
    query = {"teamId": client.server.team}
    with client.session.post(path, params=query, json=body, stream=True, timeout=30) as answer:
        lines = answer.iter_lines()
        assert "command" in json.loads(next(lines))
        other = Client(client.server)
        other.in_session("/stop")
        other.session.close()
        (last,) = [json.loads(line) for line in lines if line]
    assert last["stream"] == "error"
    assert last["data"]["code"] == "sandbox_stream_closed"


# Files


def archive(name: str, data: bytes, mode: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), mode
        tar.addfile(entry, io.BytesIO(data))
    return gzip.compress(file.getvalue())


@pytest.mark.parametrize("chunked", [False, True])
def test_an_archive_is_unpacked_and_a_file_read(client: Client, *, chunked: bool) -> None:
    cwd = client.create().json()["session"]["cwd"]
    data = archive(f"{cwd}/a/b".lstrip("/"), b"content", 0o640)
    session = client.server.sandboxes()["box"].session.id
    headers = {"Content-Type": "application/gzip", "x-cwd": "/"}
    answer = client(
        "POST",
        f"/v2/sandboxes/sessions/{session}/fs/write",
        data=iter([data[:50], data[50:]]) if chunked else data,
        headers=headers,
    )
    assert (answer.status_code, answer.json()) == (200, {})
    read = client.in_session("/fs/read", {"path": "a/b"})
    assert (read.content, read.headers["content-type"]) == (b"content", "application/octet-stream")
    assert records(client.run("stat -c %a a/b", wait=True, logs=True))[1]["data"] == "640\n"


def test_what_is_no_file_is_refused(client: Client) -> None:
    client.create()
    assert error(client.in_session("/fs/read", {"path": "none"})) == (404, "not_found")
    assert client.in_session("/fs/mkdir", {"path": "d"}).json() == {}
    assert error(client.in_session("/fs/mkdir", {"path": "d"})) == (400, "file_error")
    assert error(client.in_session("/fs/mkdir", {"path": "x/y"})) == (400, "file_error")
    assert error(client.in_session("/fs/read", {"path": "d"})) == (400, "file_error")
    assert error(client.in_session("/fs/read", {"path": "/etc/passwd"})) == (400, "file_error")


# Lists


def test_pages_follow_each_other_to_the_last(client: Client) -> None:
    for number in range(5):
        client.create(f"box-{number}", tags={"even": str(number % 2 == 0)})
    query = {"project": client.server.project, "sortBy": "name", "limit": "2"}
    names: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client("GET", "/v2/sandboxes", params={**query, **cursor}).json()
        names += [box["name"] for box in page["sandboxes"]]
        if page["pagination"]["next"] is None:
            break
        cursor = {"cursor": page["pagination"]["next"]}
    assert names == ["box-4", "box-3", "box-2", "box-1", "box-0"]
    tagged = client("GET", "/v2/sandboxes", params={**query, "limit": "9", "tags": "even:False"})
    assert [box["name"] for box in tagged.json()["sandboxes"]] == ["box-3", "box-1"]


def test_a_prefix_needs_the_order_by_name(client: Client) -> None:
    query = {"project": client.server.project, "namePrefix": "b"}
    assert client("GET", "/v2/sandboxes", params=query).status_code == 400
    assert client("GET", "/v2/sandboxes", params={**query, "sortBy": "name"}).status_code == 200


# Faults


@pytest.mark.parametrize(
    ("fault", "made"),
    [(Fault.RESET_BEFORE, []), (Fault.RESET_AFTER, ["box"])],
)
def test_a_reset_comes_before_or_after_the_effect(
    client: Client, fault: Fault, made: list[str]
) -> None:
    client.server.faults.add(fault, "create")
    with pytest.raises(requests.ConnectionError):
        client.create()
    assert list(client.server.sandboxes()) == made
    assert client.create("other").status_code == 200


def test_a_rate_limit_may_say_how_long(client: Client) -> None:
    client.server.faults.add(Fault.RATE_LIMITED, "get", retry_after=7)
    answer = client.named("GET")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


def test_every_second_call_can_fail(client: Client) -> None:
    client.create()
    client.server.faults.add(Fault.SERVER_ERROR, "get", every=2, times=2)
    assert [client.named("GET").status_code for _ in range(6)] == [200, 500, 200, 500, 200, 200]


def test_a_stream_can_be_cut_within_a_record(client: Client) -> None:
    client.create()
    client.server.faults.add(Fault.CUT_MID_LINE, "run", records=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.run("echo out", wait=True, logs=True)
