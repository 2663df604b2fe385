"""What all loopback servers share: HTTP, faults, processes."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers.faults import FaultQueue
from servers.http import Exchange, HttpServer, Request, Response
from servers.processes import Processes

GET = b"GET /a%20b?x=1&x=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@contextlib.contextmanager
def serving(answer: Callable[[Exchange], Response | None]) -> Iterator[int]:
    server = HttpServer(("127.0.0.1", 0), answer, lambda: {"X-Every": "1"})
    server.start()
    try:
        yield server.server_port
    finally:
        server.stop()
        server.server_close()


def talk(port: int, sent: bytes, *, end: bool = True) -> bytes:
    """What comes back until the server closes; without ``end`` more could be sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def test_a_request_in_chunks_is_one_body() -> None:
    seen: list[Request] = []

    def answer(exchange: Exchange) -> Response:
        seen.append(exchange.request)
        return Response(201, {"a": 1})

    head = b"POST /a%20b?x=1&x=2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer t"
    with serving(answer) as port:
        received = talk(port, head + b"\r\n\r\n3\r\none\r\n3;x=y\r\ntwo\r\n0\r\n\r\n")
    assert received == (
        b"HTTP/1.1 201 Created\r\nX-Every: 1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 8\r\n\r\n{"a": 1}'
    )
    (request,) = seen
    assert (request.path, request.body, request.token) == ("/a b", b"onetwo", "t")
    assert (request.pairs, request.query) == ([("x", "1"), ("x", "2")], {"x": "2"})
    assert request.status == 201


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 5\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhalf"],
    ids=["by length", "in chunks"],
)
def test_a_request_that_is_cut_off_is_not_carried_out(body: bytes) -> None:
    seen: list[Exchange] = []
    with serving(seen.append) as port:
        assert talk(port, b"POST / HTTP/1.1\r\n" + body) == b""
    assert seen == []


def test_half_an_answer_says_how_long_it_would_have_been() -> None:
    with serving(lambda _: Response(200, b"whole!", "text/plain", cut=True)) as port:
        received = talk(port, GET)
    assert b"\r\nContent-Length: 6\r\n" in received
    assert received.endswith(b"\r\n\r\nwho")


def test_what_was_sent_before_a_connection_is_dropped_arrives() -> None:
    def answer(exchange: Exchange) -> None:
        exchange.begin_chunks("text/plain")
        exchange.chunk(b"begun")
        exchange.drop()

    with serving(answer) as port:
        assert talk(port, GET).endswith(b"\r\n\r\n5\r\nbegun\r\n")


def test_a_reset_connection_is_reset() -> None:
    with (
        serving(lambda exchange: exchange.drop(reset=True)) as port,
        pytest.raises(ConnectionResetError),
    ):
        talk(port, GET, end=False)


def test_a_stopped_server_has_cut_its_connections_and_waits_for_its_threads() -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def answer(_: Exchange) -> Response:
        arrived.set()
        go_on.wait(10)
        return Response()

    before = set(threading.enumerate())
    server = HttpServer(("127.0.0.1", 0), answer)
    server.start()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(GET)
        assert arrived.wait(10)
        server.stop()
        assert connection.recv(1) == b""
    go_on.set()
    server.server_close()
    server.stop()
    assert set(threading.enumerate()) == before


def test_faults_strike_in_the_order_in_which_they_were_planned() -> None:
    faults: FaultQueue[str, int] = FaultQueue()
    faults.add("even", lambda number: number % 2 == 0, times=2)
    faults.add("third", lambda number: number > 1, skip=1, every=2, times=None)
    struck = [faults.pick(number) for number in (0, 1, 2, 3, 4, 5, 6, 7)]
    assert struck == ["even", None, "even", None, None, "third", None, "third"]
    faults.clear()
    assert faults.pick(9) is None


def test_every_process_of_a_sandbox_is_ended_and_no_other(tmp_path: Path) -> None:
    mine, other = (Processes(("LOOPBACK_TEST", f"{tmp_path.name}-{n}")) for n in (1, 2))
    os.mkfifo(tmp_path / "never")
    waits = "echo up; read line < never"
    env = {"PATH": "/usr/bin:/bin"}
    script = f"for _ in 1 2; do setsid sh -c '{waits}' & done"
    with (
        mine.start(["sh", "-c", script], cwd=tmp_path, env=env) as started,
        other.start(["sh", "-c", waits], cwd=tmp_path, env=env) as stays,
    ):
        for process, lines in ((started, 2), (stays, 1)):
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(lines)] == [b"up\n"] * lines
        started.wait(10)
        assert len(mine.alive()) == 2
        mine.end()
        assert (mine.alive(), other.alive()) == ([], [stays.pid])
        other.end()
    assert (other.alive(), stays.returncode) == ([], -signal.SIGKILL)
