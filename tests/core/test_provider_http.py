"""What answers of a provider's API become, and which requests are sent again."""

from __future__ import annotations

import http.server
import json
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers.http_server import Server, send, serving
from helpers.instant import FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SandboxError,
)
from ekairos_sandbox.http import HttpClient, HttpResponse
from ekairos_sandbox.provider_http import (
    MESSAGE_LENGTH,
    PROBLEM_BYTES,
    Problem,
    ProviderApi,
    Repeat,
    problem_of,
)
from ekairos_sandbox.retry import RetryPolicy

TOKEN = "tok-4711-very-secret"
PAYLOAD = "payload-4711"
Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[[Handler], None]
REPEATS: list[Repeat] = ["always", "unsent", "never"]


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def api(server: Server, clock: FakeClock) -> Iterator[ProviderApi]:
    http = HttpClient(server.url, token=TOKEN, timeout_s=(5.0, 5.0))
    policy = RetryPolicy(attempts=4, budget_s=60.0)
    api = ProviderApi(http, provider="acme", clock=clock, policy=policy, secrets=[TOKEN])
    yield api
    api.close()
    api.close()


def answering(*answers: Answer) -> Answer:
    """Give each answer once, in order, and the last one for ever."""
    waiting = list(answers)

    def answer(handler: Handler) -> None:
        (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)

    return answer


def with_status(status: int, body: object = None, **headers: str) -> Answer:
    data = b"" if body is None else json.dumps(body).encode()
    return lambda handler: send(handler, status, data, **headers)


def hang_up(handler: Handler) -> None:
    handler.close_connection = True


def raised(call: Callable[[], object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        call()
    return caught.value


# Requests and answers


def test_a_request_is_sent_as_json_and_its_answer_returned(
    api: ProviderApi, server: Server
) -> None:
    body = {"name": "línea", "n": [1, None]}
    answer = api.call(
        "POST", "/a", operation="create", repeat="never", json_body=body, headers={"X-A": "1"}
    )
    assert (answer.status, answer.json()) == (200, {"a": 1})
    assert server.seen[0]["content-type"] == "application/json"
    assert server.seen[0]["x-a"] == "1"
    assert server.seen[0]["content-length"] == str(len('{"name":"línea","n":[1,null]}'.encode()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "half \ud800"])
def test_what_json_cannot_hold_is_refused_before_the_request(
    api: ProviderApi, server: Server, value: object
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        api.call("POST", "/", operation="x", repeat="always", json_body={PAYLOAD: value})
    assert PAYLOAD not in "".join(traceback.format_exception(caught.value))
    assert server.lines == []


def test_a_status_that_is_asked_for_is_an_answer(api: ProviderApi, server: Server) -> None:
    server.answer = with_status(409, {"error": {"code": "taken", "message": "name is taken"}})
    answer = api.call("PUT", "/", operation="create", repeat="always", accept=(201, 409))
    assert problem_of(answer).code == "taken"
    assert len(server.lines) == 1


@pytest.mark.parametrize(
    ("status", "cls", "outcome", "retryable"),
    [
        (201, ProviderError, "unknown", None),
        (302, ProviderError, "failed", False),
        (400, ProviderError, "failed", False),
        (401, ProviderAuthError, "failed", False),
        (403, ProviderAuthError, "failed", False),
        (404, ProviderError, "failed", False),
        (408, ProviderTimeoutError, "unknown", True),
        (409, ProviderError, "failed", False),
        (422, ProviderError, "failed", False),
        (429, ProviderRateLimitedError, "failed", True),
        (500, ProviderUnavailableError, "unknown", True),
        (502, ProviderUnavailableError, "unknown", True),
        (503, ProviderUnavailableError, "unknown", True),
        (504, ProviderUnavailableError, "unknown", True),
    ],
)
def test_a_status_says_what_kind_of_error_it_is(
    api: ProviderApi, server: Server, status: int, cls: type, outcome: str, retryable: bool | None
) -> None:
    server.answer = with_status(status, {"message": "because"}, x_request_id="req-7")
    error = raised(lambda: api.call("GET", "/", operation="inspect", repeat="never"))
    assert type(error) is cls
    assert (error.outcome, error.retryable, error.status) == (outcome, retryable, status)
    assert (error.provider, error.operation, error.request_id) == ("acme", "inspect", "req-7")
    assert error.message == f"acme answered inspect with HTTP {status}: because"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), vars(copy)) == (cls, vars(error))


def test_a_redirect_is_refused_with_what_to_check(api: ProviderApi, server: Server) -> None:
    server.answer = with_status(307, location="http://elsewhere.example/")
    error = raised(lambda: api.call("POST", "/", operation="create", repeat="always"))
    assert "check the base URL" in str(error)
    assert len(server.lines) == 1


@pytest.mark.parametrize("header", ["fly-request-id", "x-request-id", "x-vercel-id"])
def test_the_request_id_is_kept(api: ProviderApi, server: Server, header: str) -> None:
    server.answer = with_status(400, **{header: f"id {TOKEN} 1"})
    error = raised(lambda: api.call("GET", "/", operation="x", repeat="never"))
    assert error.request_id == "id *** 1"


def test_no_connection_is_a_proven_failure(api: ProviderApi, clock: FakeClock) -> None:
    api.http.close()
    nowhere = ProviderApi(HttpClient("http://127.0.0.1:1"), provider="acme", clock=clock)
    error = raised(lambda: nowhere.call("POST", "/", operation="create", repeat="never"))
    assert type(error) is ProviderUnavailableError
    assert (error.outcome, error.retryable, error.status) == ("failed", True, None)


def test_a_request_that_cannot_be_built_is_not_worth_repeating(
    api: ProviderApi, clock: FakeClock
) -> None:
    error = raised(
        lambda: api.call("GET", "/", operation="x", repeat="always", headers={"a": "b\nc"})
    )
    assert (error.outcome, error.retryable) == ("failed", False)
    assert clock.waits == []


# What is sent again

ATTEMPTS = 4
TROUBLE: dict[str, tuple[Answer, str, list[int]]] = {
    # What goes wrong every time; the outcome; how often it is tried for each of REPEATS.
    "rate limit": (with_status(429), "failed", [ATTEMPTS, ATTEMPTS, 1]),
    "bad gateway": (with_status(502), "unknown", [ATTEMPTS, 1, 1]),
    "internal error": (with_status(500), "unknown", [ATTEMPTS, 1, 1]),
    "request timeout": (with_status(408), "unknown", [ATTEMPTS, 1, 1]),
    "lost": (hang_up, "unknown", [ATTEMPTS, 1, 1]),
    "not found": (with_status(404), "failed", [1, 1, 1]),
    "refused": (with_status(403), "failed", [1, 1, 1]),
    "another success": (with_status(202), "unknown", [1, 1, 1]),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("repeat", REPEATS)
def test_a_request_is_repeated_as_far_as_it_is_allowed_and_of_use(
    api: ProviderApi, server: Server, trouble: str, repeat: Repeat
) -> None:
    server.answer, outcome, attempts = TROUBLE[trouble]
    error = raised(lambda: api.call("POST", "/", operation="x", repeat=repeat))
    assert len(server.lines) == attempts[REPEATS.index(repeat)]
    assert error.outcome == outcome


@pytest.mark.parametrize("repeat", ["always", "unsent"])
def test_a_repetition_that_succeeds_is_the_answer(
    api: ProviderApi, server: Server, clock: FakeClock, repeat: Repeat
) -> None:
    server.answer = answering(with_status(429), with_status(429), with_status(200, {"b": 2}))
    assert api.call("POST", "/", operation="x", repeat=repeat).json() == {"b": 2}
    assert len(clock.waits) == 2


def test_an_earlier_attempt_that_may_have_worked_is_not_forgotten(
    api: ProviderApi, server: Server
) -> None:
    server.answer = answering(hang_up, with_status(429))
    error = raised(lambda: api.call("POST", "/", operation="x", repeat="always"))
    assert isinstance(error, ProviderRateLimitedError)
    assert error.outcome == "unknown"
    server.answer = answering(with_status(429), hang_up, with_status(404))
    error = raised(lambda: api.call("DELETE", "/", operation="x", repeat="always"))
    assert (error.status, error.outcome) == (404, "unknown")


def test_nothing_is_sent_later_than_the_budget(
    api: ProviderApi, server: Server, clock: FakeClock
) -> None:
    server.answer = with_status(429, {"retry_after_seconds": 8})
    error = raised(lambda: api.call("GET", "/", operation="x", repeat="always", budget_s=10))
    assert isinstance(error, ProviderRateLimitedError)
    assert clock.waits == [8.0]


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (with_status(429, retry_after="7"), 7.0),
        (with_status(429, retry_after="Tue, 14 Nov 2023 22:13:29 GMT"), 9.0),
        (with_status(429, {"error": {"code": "x", "retry_after_seconds": 5}}), 5.0),
        (with_status(429, {"retry_after_seconds": 3}, retry_after="9"), 3.0),
        (with_status(429, {"retry_after_seconds": True}, retry_after="9"), 9.0),
        (with_status(429, retry_after="9999"), 15.0),
        (with_status(429, {"retry_after_seconds": 10**400}), 15.0),
        (with_status(429, {"retry_after_seconds": float("inf")}), 15.0),
        (with_status(429, {"retry_after_seconds": float("nan")}, retry_after="9"), 9.0),
    ],
)
def test_the_pause_that_is_asked_for_is_kept_up_to_a_cap(
    api: ProviderApi, server: Server, clock: FakeClock, answer: Answer, pause: float
) -> None:
    server.answer = answering(answer, with_status(200))
    api.call("GET", "/", operation="x", repeat="unsent")
    assert clock.waits == [pause]


def test_a_body_that_can_be_read_only_once_is_not_repeated(
    api: ProviderApi, server: Server
) -> None:
    def body() -> Iterator[bytes]:
        yield b"once"

    with pytest.raises(ValueError, match="cannot be sent again"):
        api.call("PUT", "/", operation="x", repeat="always", data=body())
    assert server.lines == []
    server.answer = answering(with_status(429), with_status(200))
    api.call("PUT", "/", operation="x", repeat="always", data=b"again")
    assert [seen["content-length"] for seen in server.seen] == ["5", "5"]


def test_a_mistake_in_a_repeated_function_is_not_repeated(api: ProviderApi) -> None:
    calls: list[int] = []

    def broken() -> None:
        calls.append(1)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        api.repeated(broken, repeat="always")
    assert calls == [1]


def test_a_deadline_is_a_timeout(api: ProviderApi, server: Server) -> None:
    server.answer = lambda handler: setattr(handler, "x", server.done.wait(60))
    error = raised(lambda: api.call("POST", "/", operation="x", repeat="never", deadline_s=0.1))
    assert type(error) is ProviderTimeoutError
    assert (error.outcome, error.retryable) == ("unknown", True)


# Streams


def test_a_stream_is_read_while_it_comes(api: ProviderApi, server: Server) -> None:
    go_on = threading.Event()

    def slowly(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"3\r\none\r\n")
        go_on.wait(20)
        handler.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    server.answer = slowly
    with api.stream("GET", "/", operation="logs") as answer:
        pieces = iter(answer)
        assert next(pieces) == b"one"
        go_on.set()
        assert list(pieces) == [b"two"]


def test_a_stream_that_is_cut_is_an_error_where_it_is_read(
    api: ProviderApi, server: Server
) -> None:
    def cut(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "100")
        handler.end_headers()
        handler.wfile.write(b"half")
        handler.close_connection = True

    server.answer = cut

    def read() -> None:
        with api.stream("GET", "/", operation="logs") as answer:
            list(answer)

    error = raised(read)
    assert type(error) is ProviderUnavailableError
    assert (error.outcome, error.operation) == ("unknown", "logs")


@pytest.mark.parametrize("size", [10, 3 * PROBLEM_BYTES])
def test_a_stream_of_another_status_is_an_error_and_not_read_to_its_end(
    api: ProviderApi, server: Server, size: int
) -> None:
    server.answer = with_status(404, {"message": "x" * size})

    def read() -> None:
        with api.stream("GET", "/", operation="logs"):
            raise AssertionError("there is nothing to read")

    error = raised(read)
    assert (error.status, error.outcome) == (404, "failed")
    assert len(str(error)) < 400
    assert api.call("GET", "/", operation="x", repeat="never", accept=(404,)).status == 404


# What an error body says


def problem(body: bytes, content_type: str = "application/json") -> Problem:
    return problem_of(HttpResponse(400, {"content-type": content_type}, body), [TOKEN])


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error": {"code": "taken", "message": "name is taken"}}', "taken", "name is taken"),
        (b'{"error": "not_found"}', "not_found", "not_found"),
        (b'{"error": "no such sandbox"}', "", "no such sandbox"),
        (b'{"code": "E1", "message": "m", "error": "Bad Request"}', "E1", "m"),
        (b'{"statusCode": 404, "message": "m", "error": "Not Found"}', "", "m"),
        (b'{"errors": ["one", 2, "three"]}', "", "one; three"),
        (b'{"message": "m"}', "", "m"),
        (b"plain text", "", "plain text"),
        (b"two\r\n lines\x1b[31m\x00", "", "two lines [31m"),
        ("right \u202eto left\u2028".encode(), "", "right to left"),
        (b"<html>Bad Gateway</html>", "", ""),
        (b"\xff\xfe", "", "\ufffd\ufffd"),
        (b"[1]", "", ""),
        (b"null", "", ""),
        (b"", "", ""),
        (b'{"error": {"code": 7, "message": [1]}}', "", ""),
        (b'{"error": {"code": "two words", "message": "m"}}', "", "m"),
        (b'{"error": [], "errors": {}, "message": 5}', "", ""),
        (b'{"message": "half \\ud800 x"}', "", "half x"),
        (b"[" * 60_000, "", ""),
        (b" " * PROBLEM_BYTES + b'{"message": "m"}', "", ""),
        (f'{{"error": {{"code": "{TOKEN}", "message": "m"}}}}'.encode(), "***", "m"),
    ],
)
def test_an_error_body_is_read_in_any_usual_shape(body: bytes, code: str, message: str) -> None:
    found = problem(body)
    if body.startswith(b"[["):
        assert len(found.message) <= MESSAGE_LENGTH
    else:
        assert (found.code, found.message) == (code, message)


def test_a_page_of_a_proxy_is_not_quoted_however_it_begins() -> None:
    assert problem(b"  <p>", "text/html; charset=utf-8") == Problem()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "errors", "message", "code", "x"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(body=JSON.map(lambda value: json.dumps(value).encode()) | st.binary())
def test_any_body_gives_a_short_line_and_a_word(body: bytes) -> None:
    found = problem(body)
    assert len(found.message) <= MESSAGE_LENGTH
    assert found.message.isprintable()
    assert len(found.code) <= 80
    found.message.encode()


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(before=st.text(max_size=400), after=st.text(max_size=20), key=st.sampled_from("abc"))
def test_no_part_of_a_secret_is_quoted_wherever_it_stands(
    before: str, after: str, key: str
) -> None:
    text = before + TOKEN + after
    for body in (
        json.dumps({"message": text}).encode(),
        json.dumps({"error": {"message": text, "code": key}}).encode(),
        json.dumps({"errors": [key, text]}).encode(),
    ):
        assert TOKEN[:6] not in problem(body).message


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(value=JSON, header=st.text(st.characters(codec="latin-1"), max_size=40))
def test_whatever_is_asked_for_as_a_pause_is_a_number_or_nothing(value: Any, header: str) -> None:
    api = ProviderApi(HttpClient("https://api.example"), provider="acme", clock=FakeClock())
    body = json.dumps({"retry_after_seconds": value}).encode()
    error = api.error(HttpResponse(429, {"retry-after": header}, body), operation="x")
    assert isinstance(error, ProviderRateLimitedError)
    assert error.retry_after_s is None or error.retry_after_s >= 0


# Secrets


def test_errors_hold_neither_the_token_nor_the_payload(
    api: ProviderApi, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    echo = {"error": {"code": "bad", "message": f"the token {TOKEN} is {'x' * 280}{TOKEN}"}}
    text = variables = ""
    for answer in (with_status(401, echo), with_status(500, echo), with_status(200), hang_up):
        server.answer = answer
        try:
            api.call("POST", "/", operation="x", repeat="never", json_body=PAYLOAD, accept=(204,))
        except SandboxError as error:
            seen = traceback.TracebackException.from_exception(error, capture_locals=True)
            text += repr(vars(error)) + repr(error) + "".join(traceback.format_exception(error))
            variables += repr([f.locals for f in seen.stack if "/tests/" not in f.filename])
    text += "\n".join(entry.getMessage() for entry in caplog.records)
    assert TOKEN[:10] not in text + variables
    assert PAYLOAD not in text
    assert TOKEN not in repr(api) + repr(api.http)
