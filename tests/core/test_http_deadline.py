"""A deadline ends a request wherever it stands, and leaves nothing behind."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.http_server import Server, send, serving

from ekairos_sandbox.http import HttpClient
from ekairos_sandbox.http_deadline import Deadline
from ekairos_sandbox.http_errors import TransportError

TOKEN = "tok-4711-very-secret"
SOON_S = 0.1
FAR_S = 60.0

Handler = http.server.BaseHTTPRequestHandler
linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the system in Linux's way")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[HttpClient]:
    client = HttpClient(server.url, token=TOKEN, timeout_s=(FAR_S, FAR_S))
    yield client
    client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of its own for 127.0.0.1, in one file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run([*words, *names, *files], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls_server(certificate: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(context) as server:
        yield server


def trickle(handler: Handler, piece: bytes = b"x") -> None:
    """Send a little at a time for as long as anybody could want to read."""
    server = handler.server
    assert isinstance(server, Server)
    for _ in range(10_000):
        if server.done.wait(0.01):
            return
        handler.wfile.write(piece)


def body_of_known_length(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    trickle(handler)


def body_in_chunks(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    trickle(handler, b"1\r\nx\r\n")


def body_until_the_end(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("connection", "close")
    handler.end_headers()
    trickle(handler)


def endless_status_line(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 ")
    trickle(handler)


def endless_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-long: ")
    trickle(handler)


def redirect_with_an_endless_body(handler: Handler) -> None:
    handler.send_response(302)
    handler.send_header("location", "/elsewhere")
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    trickle(handler)


def silence(handler: Handler) -> None:
    assert isinstance(handler.server, Server)
    handler.server.done.wait(100)


WAYS = [
    body_of_known_length,
    body_in_chunks,
    body_until_the_end,
    endless_status_line,
    endless_headers,
    redirect_with_an_endless_body,
    silence,
]
ways = pytest.mark.parametrize("answer", WAYS, ids=lambda way: way.__name__)


def ended(call: Callable[[], object]) -> TransportError:
    with pytest.raises(TransportError, match="did not answer in time") as caught:
        call()
    return caught.value


# Whatever it waits for


@ways
def test_an_answer_that_does_not_end_is_given_up_at_the_deadline(
    client: HttpClient, server: Server, answer: Callable[[Handler], None]
) -> None:
    server.answer = answer
    error = ended(lambda: client.request("POST", "/", data=b"body", deadline_s=SOON_S))
    assert (error.kind, error.outcome) == ("timeout", "unknown")
    assert (error.__cause__, error.__context__) == (None, None)


@ways
def test_the_same_holds_on_a_connection_that_was_used_before(
    client: HttpClient, server: Server, answer: Callable[[Handler], None]
) -> None:
    client.request("GET", "/")
    server.answer = answer
    ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
    assert len(set(server.ports)) == 1


@ways
def test_the_same_holds_over_tls(
    tls_server: Server, certificate: Path, answer: Callable[[Handler], None]
) -> None:
    client = HttpClient(tls_server.url, token=TOKEN, verify=str(certificate))
    client.request("GET", "/", deadline_s=FAR_S)
    tls_server.answer = answer
    ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
    client.close()
    ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
    client.close()


def test_the_same_holds_behind_a_proxy(server: Server) -> None:
    client = HttpClient("http://store.example", allow_http=True, proxies={"http": server.url})
    server.answer = endless_headers
    ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
    assert server.lines == ["GET http://store.example/ HTTP/1.1"]
    client.close()


def test_a_server_that_never_finishes_its_handshake_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        client = HttpClient(url, timeout_s=(FAR_S, FAR_S))
        ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
        client.close()


def test_a_server_that_does_not_take_the_body_is_given_up(
    client: HttpClient, server: Server
) -> None:
    server.deaf = True
    server.answer = silence

    def endless() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 100_000

    ended(lambda: client.request("POST", "/", data=endless(), deadline_s=SOON_S))


def test_a_stream_is_given_up_in_the_middle(client: HttpClient, server: Server) -> None:
    server.answer = body_in_chunks
    with client.stream("GET", "/", deadline_s=SOON_S) as answer:
        pieces = iter(answer)
        assert next(pieces) == b"x"
        ended(lambda: list(pieces))


@linux
def test_no_connection_before_the_deadline_is_a_proven_failure() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        client = HttpClient(f"http://127.0.0.1:{address[1]}", timeout_s=(FAR_S, FAR_S))
        with pytest.raises(TransportError, match="could not connect") as caught:
            client.request("GET", "/", deadline_s=SOON_S)
        assert (caught.value.kind, caught.value.outcome) == ("connect", "failed")
        for each in waiting:
            each.close()
        client.close()


# What stays as it is


def test_an_answer_in_time_leaves_the_connection_for_the_next_request(
    client: HttpClient, server: Server
) -> None:
    for _ in range(3):
        assert client.request("GET", "/", deadline_s=FAR_S).json() == {"a": 1}
    assert len(set(server.ports)) == 1


def test_a_long_answer_in_time_is_whole(client: HttpClient, server: Server) -> None:
    body = bytes(range(256)) * 40_000
    server.answer = lambda handler: send(handler, 200, body)
    assert client.request("GET", "/", deadline_s=FAR_S).body == body


def test_an_answer_that_is_larger_than_allowed_is_not_kept(
    client: HttpClient, server: Server
) -> None:
    server.answer = lambda handler: send(handler, 200, b"x" * 1001)
    with pytest.raises(TransportError, match="larger than 1000 bytes") as caught:
        client.request("GET", "/", max_bytes=1000)
    assert caught.value.outcome == "unknown"
    assert len(client.request("GET", "/", max_bytes=1001).body) == 1001


def test_the_deadline_of_a_request_inside_another_s_stream_is_its_own(
    client: HttpClient, server: Server
) -> None:
    server.answer = lambda handler: send(handler, 200, b"x" * 3_000_000)
    with client.stream("GET", "/", deadline_s=FAR_S) as outer:
        server.answer = endless_headers
        ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
        assert len(outer.read()) == 3_000_000


@pytest.mark.parametrize("location", ["http://[bad", "//", "http://store.example:x/", "\x80"])
def test_a_redirect_to_nowhere_is_an_answer_like_any_other(
    client: HttpClient, server: Server, location: str
) -> None:
    server.answer = lambda handler: send(handler, 302, b"moved", location=location)
    answer = client.request("POST", "/", data=b"x", deadline_s=FAR_S)
    assert (answer.status, answer.body) == (302, b"moved")


def test_where_no_thread_can_be_started_the_request_is_made_all_the_same(
    client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Timer, "start", refused)
    assert client.request("GET", "/", deadline_s=FAR_S).status == 200


def test_a_connection_that_comes_after_the_deadline_is_shut_at_once() -> None:
    one, other = socket.socketpair()
    with one, other, Deadline(0.0) as deadline:
        while not deadline.passed:
            threading.Event().wait(0.001)
        deadline.watch(one)
        assert other.recv(1) == b""


# What is left behind


@linux
def test_neither_threads_nor_descriptors_are_left_behind() -> None:
    def open_things() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = open_things()
    with serving() as server:
        client = HttpClient(server.url, timeout_s=(FAR_S, FAR_S))
        client.request("GET", "/", deadline_s=FAR_S)
        server.answer = body_in_chunks
        for deadline_s in (None, FAR_S):
            with client.stream("GET", "/", deadline_s=deadline_s) as answer:
                next(iter(answer))
            with client.stream("GET", "/", deadline_s=deadline_s):
                pass
        for way in WAYS:
            server.answer = way
            ended(lambda: client.request("GET", "/", deadline_s=SOON_S))
        client.close()
    # Something of an earlier test may have ended meanwhile.
    assert all(now <= then for now, then in zip(open_things(), before, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_inside_a_stream_can_leave_it_and_make_requests(
    client: HttpClient, server: Server
) -> None:
    server.answer = lambda handler: send(handler, 200, b"x" * 3_000_000)
    child = -1
    status = 1
    try:
        with client.stream("GET", "/", deadline_s=FAR_S) as answer:
            next(iter(answer))
            child = os.fork()
        if child == 0:
            status = 0 if client.request("GET", "/", deadline_s=FAR_S).status == 200 else 2
    finally:
        if child == 0:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert client.request("GET", "/", deadline_s=FAR_S).status == 200
