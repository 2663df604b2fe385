"""The loopback Sprites service behaves as the service is known to."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import requests
from servers.sprites.server import SpritesServer, leftovers


@pytest.fixture(scope="module")
def running_server() -> Iterator[SpritesServer]:
    with SpritesServer() as server:
        yield server
        server.reset()
        assert leftovers(server) == []


@pytest.fixture
def server(running_server: SpritesServer) -> Iterator[SpritesServer]:
    running_server.reset()
    yield running_server
    assert running_server.internal_errors == []


def call(server: SpritesServer, method: str, path: str, **how: Any) -> requests.Response:
    how.setdefault("headers", {})["Authorization"] = f"Bearer {how.pop('token', server.token)}"
    how = {"timeout": 30, "allow_redirects": False, **how}
    return requests.request(method, f"{server.url}/v1/sprites{path}", **how)


def create(server: SpritesServer, name: str = "one", **fields: Any) -> Any:
    answer = call(server, "POST", "", json={"name": name, **fields})
    assert answer.status_code == 201
    return answer.json()


def execute(server: SpritesServer, *argv: str, **query: Any) -> tuple[list[bytes], int]:
    """Run a command over POST: its frames, and the status."""
    params = [("cmd", word) for word in argv] + list(query.items())
    answer = call(server, "POST", "/one/exec", params=params, data=b"in\n", stream=True)
    return list(answer.iter_content(None)), answer.status_code


# Sprites


def test_only_a_known_token_is_let_in_and_sees_its_own_organisation(server: SpritesServer) -> None:
    made = create(server)
    assert made["organization"] == "acme"
    refused = call(server, "GET", "/one", token="wrong")
    assert (refused.status_code, refused.json()) == (401, {"error": "authentication failed"})
    foreign = call(server, "GET", "/one", token=server.other_token)
    assert (foreign.status_code, foreign.json()) == (404, {"error": "sprite not found"})


def test_creating_needs_json_a_good_name_and_a_new_one(server: SpritesServer) -> None:
    made = create(server, labels=["a"])
    assert made["status"] == "cold"
    assert made["labels"] == ["a"]
    assert "labels" not in create(server, "bare")
    plain = call(server, "POST", "", data=b'{"name":"x"}')
    assert (plain.status_code, plain.json()) == (400, {"error": "name is required"})
    bad = call(server, "POST", "", json={"name": "Not Good"})
    assert (bad.status_code, bad.json()) == (400, {"errors": ["invalid sprite name format"]})
    again = call(server, "POST", "", json={"name": "one"})
    assert again.status_code == 409
    assert "already exists" in again.json()["error"]


def test_a_name_that_is_free_again_gets_another_id(server: SpritesServer) -> None:
    first = create(server)
    assert call(server, "DELETE", "/one").status_code == 204
    assert call(server, "DELETE", "/one").status_code == 404
    assert create(server)["id"] != first["id"]


def test_the_last_page_says_that_there_is_more_without_a_token(server: SpritesServer) -> None:
    for name in ("a1", "a2", "a3", "b1"):
        create(server, name)
    params = {"prefix": "a", "max_results": "2"}
    first = call(server, "GET", "", params=params).json()
    token = first["next_continuation_token"]
    second = call(server, "GET", "", params={**params, "continuation_token": token}).json()
    assert [one["name"] for one in first["sprites"] + second["sprites"]] == ["a1", "a2", "a3"]
    assert (second["has_more"], second["next_continuation_token"]) == (True, None)
    assert first["name"] == "acme"


def test_a_quota_answers_429_with_body_and_headers(server: SpritesServer) -> None:
    server.switches.creations_per_minute = 1
    create(server)
    answer = call(server, "POST", "", json={"name": "two"})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == str(answer.json()["retry_after_seconds"])
    server.advance(61)
    create(server, "two")


# Commands


def test_a_frame_is_a_chunk_and_the_last_one_is_the_exit_code(server: SpritesServer) -> None:
    create(server)
    frames, status = execute(server, "sh", "-c", "cat; echo err >&2; exit 3", stdin="true")
    assert status == 200
    assert sorted(frames) == [b"\1in\n", b"\2err\n", b"\3\3"]
    assert frames[-1] == b"\3\3"
    assert execute(server, "no-such-program")[0][-1] == b"\3\x7f"
    assert execute(server, "true", dir="/no/such")[0][-1] == b"\3\1"
    assert execute(server)[1] == 400


def test_chunks_may_be_merged(server: SpritesServer) -> None:
    create(server)
    server.switches.chunking = "merge"
    frames, _ = execute(server, "sh", "-c", "echo a; sleep 0.1; echo b")
    assert frames == [b"\1a\n\1b\n\3\0"]


def test_env_replaces_the_environment(server: SpritesServer) -> None:
    create(server)
    frames, _ = execute(server, "/usr/bin/env", env="A=1")
    assert b"A=1\n" in frames[0]
    assert b"PATH" not in frames[0]


class Socket:
    """A WebSocket client, as small as it can be."""

    def __init__(self, server: SpritesServer, path: str, query: list[tuple[str, str]]) -> None:
        where = urlsplit(server.url)
        self.socket = socket.create_connection((where.hostname, where.port), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /v1/sprites{path}?{urlencode(query)} HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: Bearer {server.token}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def send(self, data: bytes) -> None:
        self.socket.sendall(struct.pack(">BB", 0x82, 0x80 | len(data)) + b"\0\0\0\0" + data)

    def messages(self) -> Iterator[bytes | dict[str, Any]]:
        while len(head := self.file.read(2)) == 2 and head[0] & 15 != 8:
            size = head[1]
            if size == 126:
                (size,) = struct.unpack(">H", self.file.read(2))
            data = self.file.read(size)
            yield json.loads(data) if head[0] & 15 == 1 else data

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def dial(server: SpritesServer) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def open_socket(*argv: str, path: str = "/one/exec", **query: str) -> Socket:
            pairs = [("cmd", word) for word in argv] + list(query.items())
            made = Socket(server, path, pairs)
            stack.callback(made.close)
            return made

        yield open_socket


def test_a_socket_tells_session_frames_and_exit(server: SpritesServer, dial: Any) -> None:
    create(server)
    made = dial("sh", "-c", "read x; echo got $x; echo e >&2; cat; exit 5", stdin="true")
    made.send(b"\0go\n")
    made.send(b"\4")
    first, *rest = made.messages()
    assert first["type"] == "session_info"
    assert {"type": "exit", "exit_code": 5} in rest
    binary = [one for one in rest if isinstance(one, bytes)]
    assert sorted(binary[:-1]) == [b"\1got go\n", b"\2e\n"]
    assert binary[-1] == b"\3\5"


def test_what_came_before_the_client_is_cut_and_loses_its_stream(
    server: SpritesServer, dial: Any
) -> None:
    create(server)
    server.switches.late_attach_s = 0.5
    made = dial("sh", "-c", "head -c 100000 /dev/zero; echo e >&2; sleep 0.2; echo late")
    binary = [one for one in made.messages() if isinstance(one, bytes)]
    streams = {one[0] for one in binary}
    assert streams == {1, 3}
    assert 65_000 < sum(len(one) - 1 for one in binary[:-1]) < 66_000


def test_a_command_dies_some_time_after_its_client(server: SpritesServer, dial: Any) -> None:
    create(server)
    made = dial("sleep", "300", max_run_after_disconnect="0.2s")
    session = next(made.messages())["session_id"]
    listed = call(server, "GET", "/one/exec").json()
    assert [one["id"] for one in listed["sessions"]] == [session]
    made.socket.shutdown(socket.SHUT_RDWR)
    end = time.monotonic() + 20
    while call(server, "GET", "/one/exec").json()["count"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert call(server, "POST", f"/one/exec/{session}/kill").status_code == 410
    assert call(server, "POST", "/one/exec/999999999/kill").status_code == 404


def test_a_session_can_be_killed(server: SpritesServer, dial: Any) -> None:
    create(server)
    server.switches.sessions_as_object = False
    made = dial("sleep", "300")
    session = next(made.messages())["session_id"]
    assert [one["id"] for one in call(server, "GET", "/one/exec").json()] == [int(session)]
    events = call(server, "POST", f"/one/exec/{session}/kill", params={"signal": "TERM"})
    kinds = [json.loads(line) for line in events.text.splitlines()]
    assert [one["type"] for one in kinds] == ["signal", "exited", "complete"]
    assert kinds[-1]["exit_code"] == 143


def test_a_port_is_reached_through_the_proxy(server: SpritesServer, dial: Any) -> None:
    create(server)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def echo() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(connection.recv(100).upper())

        threading.Thread(target=echo, daemon=True).start()
        made = dial(path="/one/proxy")
        order = json.dumps({"host": "localhost", "port": port}).encode()
        made.socket.sendall(struct.pack(">BB", 0x81, 0x80 | len(order)) + b"\0\0\0\0" + order)
        messages = made.messages()
        assert next(messages) == {"status": "connected", "target": f"10.0.0.1:{port}"}
        made.send(b"hello")
        assert next(messages) == b"HELLO"


# Files


def test_files_come_and_go(server: SpritesServer) -> None:
    create(server)
    home = str(server.machine("one").home)
    path = {"path": f"{home}/a/b", "workingDir": "/"}
    written = call(server, "PUT", "/one/fs/write", params={**path, "mode": "0600"}, data=b"data")
    assert written.json() == {"path": f"{home}/a/b", "size": 4, "mode": "0600"}
    assert call(server, "GET", "/one/fs/read", params=path).content == b"data"
    order = {"source": f"{home}/a/b", "dest": f"{home}/a/c", "workingDir": "/"}
    assert call(server, "POST", "/one/fs/rename", json=order).status_code == 200
    listed = call(server, "GET", "/one/fs/list", params={"path": f"{home}/a"}).json()
    assert [(one["name"], one["type"], one["size"]) for one in listed["entries"]] == [
        ("c", "file", 4)
    ]
    gone = {"path": f"{home}/a", "recursive": "true"}
    assert call(server, "DELETE", "/one/fs/delete", params=gone).status_code == 200
    missing = call(server, "GET", "/one/fs/read", params=path)
    assert missing.status_code == 404
    assert missing.json()["code"] == "ENOENT"
    assert call(server, "GET", "/two/fs/read", params=path).json() == {"error": "sprite not found"}


def test_a_write_of_more_than_16_mib_is_refused(server: SpritesServer) -> None:
    create(server)
    path = {"path": f"{server.machine('one').home}/big"}
    size = 16 * 1024 * 1024
    assert call(server, "PUT", "/one/fs/write", params=path, data=b"x" * size).status_code == 200
    answer = call(server, "PUT", "/one/fs/write", params=path, data=b"x" * (size + 1))
    assert answer.status_code == 413


# Checkpoints


def test_a_checkpoint_is_told_in_text_and_brings_files_back(server: SpritesServer) -> None:
    create(server)
    execute(server, "sh", "-c", 'echo old >"$HOME/data"')
    answer = call(server, "POST", "/one/checkpoint", json={"comment": "c"})
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["data"] for one in events[-2:]] == [
        "  ID: v1",
        "Checkpoint v1 created successfully",
    ]
    listed = call(server, "GET", "/one/checkpoints").json()
    assert [one["id"] for one in listed] == ["Current", "v1", "v0"]
    execute(server, "sh", "-c", 'echo new >"$HOME/data"')
    server.switches.restore_unavailable_s = 20.0
    restored = call(server, "POST", "/one/checkpoints/v1/restore")
    assert json.loads(restored.text.splitlines()[-1])["type"] == "complete"
    away = call(server, "GET", "/one")
    assert (away.status_code, away.headers["Content-Type"]) == (502, "text/html")
    server.advance(21)
    assert execute(server, "sh", "-c", 'cat "$HOME/data"')[0][0] == b"\1old\n"
    assert call(server, "POST", "/one/checkpoints/v9/restore").status_code == 500


def test_a_checkpoint_fails_with_status_200(server: SpritesServer) -> None:
    create(server)
    server.switches.once("checkpoint_fails")
    answer = call(server, "POST", "/one/checkpoint", json={})
    assert answer.status_code == 200
    assert [json.loads(line)["type"] for line in answer.text.splitlines()] == ["info", "error"]


# Sleep and address


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_sprite_sleeps_unless_a_task_inside_holds_it_awake(server: SpritesServer) -> None:
    create(server)

    def status() -> str:
        return server.machine("one").status

    def task(method: str, *more: str) -> None:
        where = ("--unix-socket", "/.sprite/api.sock", "-X", method)
        frames, _ = execute(server, "curl", "-sf", *where, *more, "http://sprite/v1/tasks/t")
        assert frames[-1] == b"\3\0"

    task("PUT", "-d", '{"expire":"1m"}')
    server.advance(40)
    assert status() == "running"
    task("DELETE")
    server.advance(40)
    assert status() == "warm"
    server.advance(301)
    assert status() == "cold"
    execute(server, "true")
    assert status() == "running"


def test_a_private_address_sends_strangers_to_the_login(server: SpritesServer) -> None:
    class Inside(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"inside")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing is logged."""

    made = create(server)
    with HTTPServer(("127.0.0.1", 0), Inside) as inside:
        thread = threading.Thread(target=inside.serve_forever, args=(0.02,))
        thread.start()
        server.machine("one").ports[8080] = inside.server_address[1]
        stranger = requests.get(made["url"], timeout=10, allow_redirects=False)
        assert stranger.status_code == 302
        headers = {"Authorization": f"Bearer {server.token}"}
        assert requests.get(made["url"], headers=headers, timeout=10).text == "inside"
        call(server, "PUT", "/one", json={"url_settings": {"auth": "public"}})
        assert requests.get(made["url"], timeout=10).text == "inside"
        inside.shutdown()
        thread.join()
