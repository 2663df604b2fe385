"""The client: its settings, what its requests look like, files, and temporary apps."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.instant import ID, FakeClock, Store, client_for, sandbox_client
from servers.instantdb.faults import Fault
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryError,
    RepositoryUnavailableError,
)
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    InstantSandboxRepository,
    create_temporary_app,
    sandbox_domain,
)

APP = "3706B6DA-c6ff-4da3-af28-3b1752b0b4a7"


@pytest.fixture
def client(server: InstantServer) -> Iterator[InstantClient]:
    server.clear_requests()
    client = sandbox_client(server)
    yield client
    server.faults.clear()
    client.close()


# Settings


def test_settings_come_from_arguments_then_the_environment() -> None:
    environ = {
        "INSTANT_APP_ID": APP,
        "NEXT_PUBLIC_INSTANT_APP_ID": ID,
        "INSTANT_APP_ADMIN_TOKEN": "t",
        "INSTANT_API_URI": "https://store.example/",
    }
    client = InstantClient(environ=environ)
    assert (client.app_id, client.base_url) == (APP.lower(), "https://store.example")
    given = InstantClient(ID, "t", base_url="http://localhost:8888", environ=environ)
    assert (given.app_id, given.base_url) == (ID, "http://localhost:8888")
    del environ["INSTANT_APP_ID"], environ["INSTANT_API_URI"]
    fallback = InstantClient(environ=environ)
    assert (fallback.app_id, fallback.base_url) == (ID, "https://api.instantdb.com")


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"INSTANT_APP_ADMIN_TOKEN": "secret-1"}, "INSTANT_APP_ID"),
        ({"INSTANT_APP_ID": APP}, "INSTANT_APP_ADMIN_TOKEN"),
        ({"INSTANT_APP_ID": "secret-1", "INSTANT_APP_ADMIN_TOKEN": "t"}, "INSTANT_APP_ID"),
        ({"INSTANT_APP_ID": APP, "INSTANT_APP_ADMIN_TOKEN": "secret-1 "}, "_ADMIN_TOKEN"),
        (
            {
                "INSTANT_APP_ID": APP,
                "INSTANT_APP_ADMIN_TOKEN": "t",
                "INSTANT_API_URI": "http://secret-1.example",
            },
            "INSTANT_API_URI",
        ),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named_and_not_shown(
    environ: dict[str, str], variable: str
) -> None:
    with pytest.raises(ConfigurationError, match=variable) as caught:
        InstantClient(environ=environ)
    assert "secret-1" not in str(caught.value)


def test_importing_and_constructing_it_imports_no_http_library() -> None:
    script = (
        "import sys\n"
        "from ekairos_sandbox import SandboxService, sandbox_domain, compose_schema, push_schema\n"
        "SandboxService.from_env({'INSTANT_APP_ID': '%s', 'INSTANT_APP_ADMIN_TOKEN': 't'})\n"
        "print([n for n in ('requests', 'urllib3', 'httpx', 'instantdb') if n in sys.modules])"
    )
    words = [sys.executable, "-c", script % ID]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_its_text_shows_app_and_server_and_no_token(client: InstantClient) -> None:
    assert repr(client) == f"InstantClient({client.app_id!r}, base_url={client.base_url!r})"


# The official client's settings


def official(**changes: Any) -> Any:
    """Return what our code sees of an ``instantdb.Instant``."""
    attributes = {
        "_app_id": APP,
        "_admin_token": "t",
        "_api_uri": "https://store.example",
        "_impersonation": None,
    }
    return SimpleNamespace(**{**attributes, **changes})


def test_the_settings_of_an_official_client_are_taken_over() -> None:
    client = InstantSandboxRepository(official()).client
    assert (client.app_id, client.base_url) == (APP.lower(), "https://store.example")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"_impersonation": {"as-guest": "true"}}, "acts as a user or guest"),
        ({"_admin_token": None}, "no admin token"),
        ({"_app_id": "x"}, "is no UUID"),
    ],
)
def test_an_official_client_that_cannot_act_as_admin_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        sandbox_domain(official(**changes))


def test_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="InstantClient"):
        InstantSandboxRepository("https://store.example")


# Requests


def test_requests_name_the_app_and_bear_the_token(
    client: InstantClient, server: InstantServer
) -> None:
    client.query({"sandbox_fences": {}})
    client.transact([["delete", "sandbox_fences", ID]])
    client.schema()
    for seen in server.requests:
        assert seen.headers["app-id"] == client.app_id
        assert seen.headers["authorization"].startswith("Bearer ")
        assert seen.query == {}
    bodies = [json.loads(seen.body) for seen in server.requests if seen.body]
    assert bodies == [
        {"query": {"sandbox_fences": {}}, "inference?": False},
        {"steps": [["delete", "sandbox_fences", ID]], "throw-on-missing-attrs?": True},
    ]
    assert server.requests[2].path == f"/superadmin/apps/{client.app_id}/schema"


def test_a_write_whose_answer_was_lost_is_not_repeated_unless_that_is_safe(
    client: InstantClient, server: InstantServer
) -> None:
    server.faults.add(Fault.DROP_AFTER, path="/admin/transact")
    with pytest.raises(RepositoryUnavailableError) as caught:
        client.transact([["create", "sandbox_fences", ID, {"key": "a"}]])
    assert caught.value.outcome == "unknown"
    assert len(server.seen("/admin/transact")) == 1
    server.faults.add(Fault.DROP_AFTER, path="/admin/transact")
    client.transact([["delete", "sandbox_fences", ID]], replay_safe=True)
    assert len(server.seen("/admin/transact")) == 3


def test_what_provably_was_not_done_is_repeated(
    client: InstantClient, server: InstantServer
) -> None:
    server.faults.add(Fault.DEADLOCK, path="/admin/transact", times=2)
    client.transact([["create", "sandbox_fences", ID, {"key": "a"}]])
    assert len(server.rows(client.app_id, "sandbox_fences")) == 1


def test_an_answer_of_another_shape_is_no_answer(
    client: InstantClient, server: InstantServer
) -> None:
    server.faults.add(Fault.GARBAGE, path="/admin/query", times=None)
    with pytest.raises(RepositoryUnavailableError, match="cannot be used"):
        client.query({"sandbox_fences": {}})


# Files


def test_a_file_is_stored_listed_fetched_and_deleted(client: InstantClient) -> None:
    stored = client.files.upload("dir/a b.txt", b"hello", content_type="text/plain")
    again = client.files.upload("dir/a b.txt", b"hello, world")
    assert (again.id, again.size) == (stored.id, 12)
    [found] = client.files.list()
    assert (found.path, found.size) == ("dir/a b.txt", 12)
    assert found.url is not None
    assert found.url not in repr(found)
    assert b"".join(client.files.download("dir/a b.txt")) == b"hello, world"
    assert client.files.delete(["dir/a b.txt", "none"]) == 1
    assert client.files.list("dir/a b.txt") == []
    with pytest.raises(RepositoryError, match="no file"):
        next(client.files.download("dir/a b.txt"))


def test_an_empty_file_is_a_file(client: InstantClient) -> None:
    client.files.upload("empty", b"")
    assert b"".join(client.files.download("empty")) == b""


def test_a_file_is_streamed_and_sent_again_from_where_it_began(
    client: InstantClient, server: InstantServer
) -> None:
    file = io.BytesIO(b"skipped" + b"x" * 300_000)
    file.seek(7)
    server.faults.add(Fault.DROP_AFTER, path="/admin/storage/upload")
    server.faults.add(Fault.TIMEOUT, path="/admin/storage/upload")
    assert client.files.upload("big.bin", file).size == 300_000
    uploads = server.seen("/admin/storage/upload")
    assert [len(seen.body) for seen in uploads] == [300_000] * 3
    pieces = list(client.files.download("big.bin"))
    assert len(pieces) > 1
    assert b"".join(pieces) == b"x" * 300_000


def test_a_pipe_is_sent_once(client: InstantClient, server: InstantServer) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        client.files.upload("pipe.bin", pipe)
    assert server.seen("/admin/storage/upload")[-1].body == b"from a pipe"
    server.faults.add(Fault.UNKNOWN, path="/admin/storage/upload")
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, pytest.raises(RepositoryUnavailableError):
        client.files.upload("pipe.bin", pipe)
    assert len(server.seen("/admin/storage/upload")) == 2


def test_a_download_sends_no_token_and_reports_a_refusal(
    client: InstantClient, server: InstantServer
) -> None:
    client.files.upload("a.txt", b"a")
    list(client.files.download("a.txt"))
    storage = [seen for seen in server.requests if seen.path.startswith("/storage/")]
    assert "authorization" not in storage[-1].headers
    server.faults.add(Fault.UNAVAILABLE, path="/storage/*")
    with pytest.raises(RepositoryError, match="HTTP 503"):
        list(client.files.download("a.txt"))
    server.faults.add(Fault.TRUNCATED, path="/storage/*")
    client.files.upload("a.txt", b"a" * 100)
    with pytest.raises(RepositoryUnavailableError):
        list(client.files.download("a.txt"))


@pytest.mark.parametrize("path", ["", " a", "a\nb", "ä.txt", "a\0"])
def test_a_path_that_no_header_can_hold_is_refused(client: InstantClient, path: str) -> None:
    with pytest.raises(ConfigurationError, match="printable ASCII"):
        client.files.upload(path, b"")


def test_text_is_no_content_and_no_list_of_paths(client: InstantClient) -> None:
    text: Any = "text"
    with pytest.raises(TypeError, match="data is bytes or a file opened with 'rb', not str"):
        client.files.upload("a.txt", text)
    with pytest.raises(TypeError, match="paths is a list of words, not str"):
        client.files.delete("a.txt")


# Temporary apps


def test_a_temporary_app_has_its_schema_and_rules_from_the_start(server: InstantServer) -> None:
    app = create_temporary_app(
        "trial",
        schema=sandbox_domain.schema,
        rules={"sandbox_sandboxes": {"allow": {"$default": "false"}}},
        base_url=server.url,
        environ={},
    )
    assert app.expires_at is not None
    assert app.admin_token not in repr(app)
    client = InstantClient(app.app_id, app.admin_token, base_url=app.base_url, environ={})
    InstantSandboxRepository(client).check()
    assert client.rules() == {"sandbox_sandboxes": {"allow": {"$default": "false"}}}
    client.close()
    seen = server.seen("/dash/apps/ephemeral")[-1]
    assert "authorization" not in seen.headers


def test_a_server_that_makes_no_temporary_apps_says_so_and_is_asked_once(
    server: InstantServer,
) -> None:
    server.clear_requests()
    server.apps.ephemeral_enabled = False
    with pytest.raises(RepositoryError, match="does not permit"):
        create_temporary_app("trial", base_url=server.url, environ={})
    server.apps.ephemeral_enabled = True
    server.faults.add(Fault.CREATION_DISABLED)
    with pytest.raises(RepositoryUnavailableError, match="makes no new apps") as caught:
        create_temporary_app("trial", environ={"INSTANT_API_URI": server.url})
    assert caught.value.retryable is False
    server.faults.add(Fault.DROP_AFTER)
    with pytest.raises(RepositoryUnavailableError) as lost:
        create_temporary_app("trial", base_url=server.url, environ={})
    assert lost.value.outcome == "unknown"
    assert len(server.seen("/dash/apps/ephemeral")) == 3


def test_a_client_with_a_clock_of_its_own_waits_by_it(server: InstantServer) -> None:
    clock = FakeClock()
    app = server.create_app(schema=SANDBOX_SCHEMA)
    client = client_for(server, app, clock=clock)
    server.faults.add(Fault.TIMEOUT, times=2)
    client.query({"sandbox_fences": {}})
    assert len(clock.waits) == 2
    client.close()
    assert isinstance(Store(server).client, InstantClient)
