"""HTTP with a token: where it goes, and what failures mean."""

from __future__ import annotations

import http.server
import inspect
import os
import pickle
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import requests.exceptions
import urllib3.exceptions
from helpers.http_server import Server, send, serving

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.http import (
    Bearer,
    HttpClient,
    HttpResponse,
    check_base_url,
    is_loopback,
    retry_after_s,
)
from ekairos_sandbox.http_errors import _SENT, _UNSENT, TransportError, classify

TOKEN = "tok-4711-very-secret"
PAYLOAD = "payload-4711"
T0 = 1_700_000_000_000


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[HttpClient]:
    client = HttpClient(server.url, token=TOKEN, timeout_s=(5.0, 5.0))
    yield client
    client.close()


# Where the token goes


def test_a_request_bears_the_token_and_returns_the_whole_answer(
    client: HttpClient, server: Server
) -> None:
    answer = client.request("POST", "/x/y", params={"q": "ä b"}, headers={"X-A": "1"}, data=b"body")
    assert (answer.status, answer.json()) == (200, {"a": 1})
    assert answer.headers["content-length"] == "8"
    assert server.lines == ["POST /x/y?q=%C3%A4+b HTTP/1.1"]
    assert server.seen[0]["authorization"] == f"Bearer {TOKEN}"
    assert server.seen[0]["x-a"] == "1"
    assert server.seen[0]["content-length"] == "4"


def test_the_token_is_not_sent_with_a_request_that_does_not_want_it(
    client: HttpClient, server: Server
) -> None:
    client.request("GET", "/", authenticated=False)
    client.request("GET", server.url + "/elsewhere", authenticated=False)
    assert server.lines == ["GET / HTTP/1.1", "GET /elsewhere HTTP/1.1"]
    assert all("authorization" not in seen for seen in server.seen)


def test_a_whole_address_is_never_used_with_the_token(client: HttpClient, server: Server) -> None:
    for path in ("@127.0.0.1:1/", server.url, ".example/", ""):
        with pytest.raises(ValueError, match="begins with a slash"):
            client.request("GET", path)
    client.request("GET", f"/{server.url}")
    assert [line.split()[1] for line in server.lines] == [f"/{server.url}"]


def test_netrc_neither_replaces_the_token_nor_adds_one(
    client: HttpClient, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr("ekairos_sandbox.http.is_loopback", lambda url: False)
    client = HttpClient(server.url, token=TOKEN, allow_http=True)
    client.request("GET", "/")
    client.request("GET", "/", authenticated=False)
    assert [seen.get("authorization") for seen in server.seen] == [f"Bearer {TOKEN}", None]
    client.close()


def test_cookies_are_not_kept(client: HttpClient, server: Server) -> None:
    server.answer = lambda handler: send(handler, 200, b"", set_cookie="a=1; Path=/")
    client.request("GET", "/")
    client.request("GET", "/")
    assert [seen.get("cookie") for seen in server.seen] == [None, None]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_returned_not_followed(
    client: HttpClient, server: Server, status: int
) -> None:
    server.answer = lambda handler: send(handler, status, b"", location=server.url + "/other")
    assert client.request("POST", "/", data=b"x").status == status
    assert len(server.lines) == 1


def test_a_proxy_of_the_environment_is_not_used_for_loopback(
    client: HttpClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert client.request("GET", "/").status == 200


def test_a_proxy_of_the_environment_is_used_for_other_hosts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    client = HttpClient("http://store.example", token=TOKEN, allow_http=True)
    assert client.request("GET", "/a").status == 200
    assert server.lines == ["GET http://store.example/a HTTP/1.1"]
    client.close()


def test_a_given_proxy_is_used_in_the_place_of_the_environment_s(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    client = HttpClient(
        "http://store.example", token=TOKEN, allow_http=True, proxies={"http": server.url}
    )
    assert client.request("GET", "/a").status == 200
    client.close()


# Settings


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "not a base URL"),
        ("api.example", "not a base URL"),
        ("ftp://api.example", "not a base URL"),
        ("https://", "not a base URL"),
        ("https://api.example:http", "not a base URL"),
        ("https://api.example?x=secret-1", "not a base URL"),
        ("https://api.example#secret-1", "not a base URL"),
        ("http://api.example\\.localhost", "not a base URL"),
        ("https://api.example/a b", "not a base URL"),
        ("https://api.ex\nample", "not a base URL"),
        ("https://user:secret-1@api.example", "must not hold a user name"),
        ("http://api.example", "plain http"),
        ("http://127.0.0.1.example", "plain http"),
        ("http://127.0.0.1@api.example", "must not hold a user name"),
    ],
)
def test_a_base_url_that_must_not_get_a_token_is_refused(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^SETTING .*{why}") as caught:
        check_base_url(url, allow_http=False, setting="SETTING")
    assert "secret-1" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example/", "https://api.example"),
        (" https://api.example/base/ ", "https://api.example/base"),
        ("http://localhost:8888", "http://localhost:8888"),
        ("http://127.0.0.9:1", "http://127.0.0.9:1"),
        ("http://[::1]:8888/", "http://[::1]:8888"),
    ],
)
def test_a_good_base_url_is_returned_without_a_slash_at_its_end(url: str, expected: str) -> None:
    assert check_base_url(url, allow_http=False, setting="SETTING") == expected


def test_plain_http_can_be_allowed() -> None:
    url = "http://store.internal:8888"
    assert check_base_url(url, allow_http=True, setting="SETTING") == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", True),
        ("http://LOCALHOST:1", True),
        ("http://a.localhost", True),
        ("http://[::1]", True),
        ("http://127.1.2.3", True),
        ("http://localhost.example", False),
        ("http://128.0.0.1", False),
        ("http://[::2]", False),
    ],
)
def test_loopback_is_told_by_the_text(url: str, expected: bool) -> None:
    assert is_loopback(url) is expected


@pytest.mark.parametrize("token", ["", "a b", "a\nb", "tökens", '"quoted\t"'])
def test_a_token_that_no_header_can_hold_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^NAME holds characters") as caught:
        Bearer(token, setting="NAME")
    assert not token or token not in str(caught.value)


def test_a_ca_bundle_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/nowhere/ca\.pem"):
        HttpClient("https://api.example", verify="/nowhere/ca.pem")


def test_a_ca_bundle_of_the_environment_that_does_not_exist_fails_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")
    monkeypatch.setenv("no_proxy", "*")
    client = HttpClient("https://store.example", token=TOKEN)
    with pytest.raises(TransportError) as caught:
        client.request("GET", "/")
    assert (caught.value.kind, caught.value.outcome) == ("setup", "failed")
    client.close()


# Failures


def test_every_exception_of_the_libraries_below_is_classified() -> None:
    mapped = _UNSENT.keys() | _SENT.keys()
    for name, module in (("requests", requests.exceptions), ("urllib3", urllib3.exceptions)):
        classes = {
            f"{name}.{cls.__name__}"
            for _, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, Exception)
            and not issubclass(cls, Warning)
            and cls.__module__.startswith(name)
        }
        assert classes - mapped == set(), "say in http_errors what these mean"
        assert {key for key in mapped if key.startswith(name)} - classes == set()
    assert _UNSENT.keys() & _SENT.keys() == set()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (requests.exceptions.ConnectTimeout(), ("connect", "failed")),
        (requests.exceptions.ReadTimeout(), ("timeout", "unknown")),
        (requests.exceptions.ConnectionError("reset"), ("lost", "unknown")),
        (requests.exceptions.ChunkedEncodingError(), ("lost", "unknown")),
        (requests.exceptions.InvalidURL(), ("setup", "failed")),
        (requests.exceptions.SSLError(OSError("eof")), ("lost", "unknown")),
        (
            requests.exceptions.SSLError(
                urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("bad"))
            ),
            ("tls", "failed"),
        ),
        (
            requests.exceptions.ConnectionError(
                urllib3.exceptions.MaxRetryError(
                    None,  # type: ignore[arg-type]
                    "/",
                    urllib3.exceptions.NameResolutionError("h", None, socket.gaierror()),  # type: ignore[arg-type]
                )
            ),
            ("connect", "failed"),
        ),
        (ConnectionResetError(104, "reset"), ("lost", "unknown")),
        (type("Later", (requests.exceptions.ReadTimeout,), {})(), ("timeout", "unknown")),
        (ValueError(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exception_says_whether_the_request_may_have_had_an_effect(
    error: Exception, expected: object
) -> None:
    assert classify(error) == expected


def test_no_server_is_a_proven_failure() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        client = HttpClient(f"http://127.0.0.1:{held.getsockname()[1]}")
        with pytest.raises(TransportError, match="could not connect to http://127") as caught:
            client.request("GET", "/")
    assert (caught.value.kind, caught.value.outcome) == ("connect", "failed")
    client.close()


def test_a_host_without_an_address_is_a_proven_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    client = HttpClient("https://store.invalid", token=TOKEN)
    with pytest.raises(TransportError) as caught:
        client.request("GET", "/")
    assert (caught.value.kind, caught.value.outcome) == ("connect", "failed")
    client.close()


def test_a_server_that_does_not_speak_tls_leaves_the_outcome_open(server: Server) -> None:
    client = HttpClient(server.url.replace("http:", "https:"), token=TOKEN)
    with pytest.raises(TransportError) as caught:
        client.request("GET", "/")
    assert caught.value.kind == "lost"
    client.close()


def test_a_silent_server_is_a_timeout_of_unknown_outcome(server: Server) -> None:
    wait = threading.Event()
    server.answer = lambda handler: setattr(handler, "close_connection", wait.wait(20))
    client = HttpClient(server.url, token=TOKEN, timeout_s=(5.0, 0.1))
    with pytest.raises(TransportError, match="did not answer in time") as caught:
        client.request("GET", "/")
    assert (caught.value.kind, caught.value.outcome) == ("timeout", "unknown")
    wait.set()
    client.close()


def test_a_cut_answer_is_lost_and_its_outcome_unknown(client: HttpClient, server: Server) -> None:
    def cut(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    server.answer = cut
    with pytest.raises(TransportError) as caught:
        client.request("GET", "/")
    assert (caught.value.kind, caught.value.outcome) == ("lost", "unknown")


def test_a_body_that_is_no_json_is_told_apart() -> None:
    with pytest.raises(TransportError, match="not JSON") as caught:
        HttpResponse(200, {}, b"<html>").json()
    assert caught.value.outcome == "unknown"
    assert caught.value.__context__ is None


def test_a_failure_holds_neither_token_nor_body(server: Server) -> None:
    server.answer = lambda handler: setattr(handler, "close_connection", True)
    client = HttpClient(server.url, token=TOKEN)
    with pytest.raises(TransportError) as caught:
        client.request("POST", "/", data=PAYLOAD.encode())
    error = caught.value
    assert (error.__context__, error.__cause__) == (None, None)
    text = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert TOKEN not in text
    assert PAYLOAD not in text
    assert TOKEN not in repr(client) + repr(client._auth)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    with pytest.raises(TypeError):
        pickle.dumps(client._auth)
    client.close()


def test_a_mistake_of_the_caller_passes_as_it_is(client: HttpClient) -> None:
    def broken() -> Iterator[bytes]:
        yield b"a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        client.request("POST", "/", data=broken())


# Streams, threads, forks


def test_an_answer_can_be_read_while_it_comes(client: HttpClient, server: Server) -> None:
    go_on = threading.Event()

    def slowly(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\none\r\n")
        go_on.wait(20)
        handler.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    server.answer = slowly
    with client.stream("GET", "/") as answer:
        pieces = iter(answer)
        assert (answer.status, next(pieces)) == (200, b"one")
        go_on.set()
        assert b"".join(pieces) == b"two"


def test_each_thread_has_a_connection_of_its_own_and_keeps_it(
    client: HttpClient, server: Server
) -> None:
    def twice() -> None:
        client.request("GET", "/")
        barrier.wait()
        client.request("GET", "/")

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=twice) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.ports) == 6
    assert len(set(server.ports)) == 3


def test_a_closed_client_opens_again(client: HttpClient, server: Server) -> None:
    client.request("GET", "/")
    client.close()
    client.close()
    client.request("GET", "/")
    assert len(set(server.ports)) == 2


def test_closing_closes_connections_although_an_error_still_refers_to_them(
    client: HttpClient, server: Server
) -> None:
    hung_up = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        send(handler, 200, b"x" * 1001)
        if handler.rfile.read(1) == b"":
            hung_up.set()
        handler.close_connection = True

    server.answer = answer
    with pytest.raises(TransportError) as held:
        client.request("GET", "/", max_bytes=1000)
    client.close()
    assert hung_up.wait(10)
    assert held.value.outcome == "unknown"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_use_the_parent_s_connection(
    client: HttpClient, server: Server
) -> None:
    client.request("GET", "/")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if client.request("GET", "/").status == 200 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.request("GET", "/")
    parents, childs, parents_again = server.ports
    assert parents == parents_again != childs


# Retry-After


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2000 22:13:50 GMT", 0.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after_s({"retry-after": text}, now_ms=T0) == expected
    assert retry_after_s({}, now_ms=T0) is None


def test_an_answer_that_stays_open_can_be_given_up_early(
    client: HttpClient, server: Server
) -> None:
    over = threading.Event()

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\nend\r\n")
        over.wait(20)

    server.answer = answer
    try:
        with client.stream("GET", "/", deadline_s=15.0) as stream:
            pieces = iter(stream)
            assert next(pieces) == b"end"
            stream.hurry(0.05)
            with pytest.raises(TransportError) as caught:
                next(pieces)
        assert (caught.value.kind, caught.value.outcome) == ("timeout", "unknown")
        assert not over.is_set()
    finally:
        over.set()
