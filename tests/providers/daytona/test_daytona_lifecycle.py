"""Connecting, stopping, deleting; and what proves that a sandbox is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import FOR_EVER, provider_for
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderUnavailableError,
    SandboxGoneError,
    UnsupportedOperationError,
)
from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.provider import CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.testing.faults import HastyClock

BOX = "/api/sandbox/[^/]+"
NAME = "ekairos-x"
TAGS = Tags("owner", "x", 1)
Ref = SandboxRef[DaytonaOptions]


def make(provider: DaytonaProvider, **options: Any) -> Ref:
    given = DaytonaOptions(**{"ephemeral": False, **options})
    made = provider.create(CreateSpec(NAME, TAGS, given, 60))
    return SandboxRef(NAME, made.external_id, TAGS, made.data, given)


@pytest.fixture
def ref(provider: DaytonaProvider) -> Ref:
    return make(provider)


def state(server: DaytonaServer, ref: Ref) -> str:
    assert ref.external_id is not None
    return server.boxes.boxes[ref.external_id].state


@pytest.mark.parametrize("before", ["started", "stopped", "archived", "paused"])
def test_connecting_starts_what_is_stopped(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, before: str
) -> None:
    server.set_state(NAME, before)
    connection = provider.connect(ref)
    assert b"<on>" in connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)
    assert state(server, ref) == "started"


@pytest.mark.parametrize("before", ["starting", "restoring", "brand_new_state"])
def test_connecting_waits_for_a_sandbox_on_its_way(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, before: str
) -> None:
    server.set_state(NAME, before)
    box = server.box(NAME)
    box.then, box.then_at = "started", server.clock.now() + 0.05
    assert provider.connect(ref).external_id == ref.external_id


def test_a_stop_under_way_is_waited_for_and_then_undone(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.boxes.delays["stopping"] = 0.05
    server.boxes.stop(server.box(NAME))
    assert provider.connect(ref).external_id == ref.external_id
    assert state(server, ref) == "started"


@pytest.mark.parametrize("failed", ["error", "build_failed"])
def test_a_failed_sandbox_is_reported_with_its_reason(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, failed: str
) -> None:
    server.set_state(NAME, failed, error_reason="the runner burnt down")
    with pytest.raises(ProviderError, match="the runner burnt down") as caught:
        provider.connect(ref)
    assert not isinstance(caught.value, SandboxGoneError)
    assert provider.inspect(ref).state == "failed"


def test_a_recoverable_sandbox_is_recovered(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.set_state(NAME, "error", recoverable=True)
    assert provider.connect(ref).external_id == ref.external_id
    assert server.counts()["POST /api/sandbox/*/recover"] == 1


def test_a_start_that_is_refused_again_and_again_says_why(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.set_state(NAME, "stopped")
    body = {"statusCode": 400, "message": "Total CPU limit exceeded"}
    server.faults.add("answer", "POST", f"{BOX}/start", times=FOR_EVER, status=400, body=body)
    with pytest.raises(ProviderError, match="CPU limit exceeded"):
        provider.connect(ref)
    assert server.counts()["POST /api/sandbox/*/start"] == 3


@pytest.mark.parametrize("gone", ["destroyed", "destroying"])
def test_a_deleted_sandbox_is_gone(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, gone: str
) -> None:
    server.set_state(NAME, gone)
    for act in (provider.connect, provider.inspect):
        with pytest.raises(SandboxGoneError):
            act(ref)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 404, "body": b"<html>404 Not Found</html>"},
        {"status": 404, "body": {"statusCode": 404, "message": "Cannot GET /api/sandbox/x"}},
        {"status": 401, "body": {"statusCode": 401, "message": "Unauthorized"}},
        {"status": 403},
        {"status": 429},
        {"status": 500},
        {"status": 502, "body": b""},
    ],
    ids=lambda fault: f"{fault['status']}-{str(fault.get('body'))[:12]}",
)
def test_no_other_answer_than_the_apis_own_proves_that_it_is_gone(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, fault: dict[str, Any]
) -> None:
    server.faults.add("answer", "GET", BOX, times=FOR_EVER, **fault)
    for act in (provider.connect, provider.inspect, provider.stop, provider.destroy):
        with pytest.raises(ProviderError) as caught:
            act(ref)
        assert not isinstance(caught.value, SandboxGoneError)
    server.faults.clear()
    assert state(server, ref) == "started"


def test_wrong_credentials_are_an_auth_error(server: DaytonaServer) -> None:
    environ = {**server.environ(), "DAYTONA_API_KEY": "dtn_wrong"}
    provider = DaytonaProvider(ProviderContext(environ=environ, clock=HastyClock()))
    with pytest.raises(ProviderAuthError):
        provider.account()
    with pytest.raises(ProviderAuthError):
        provider.find(NAME)


def test_an_account_is_the_organisation_of_the_key(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    assert provider.account() == f"{server.api_url}#organization={server.organisation.id}"
    provider.account()
    assert server.counts() == {"GET /api/api-keys/current": 1}


def test_the_account_of_a_jwt_needs_no_request(server: DaytonaServer) -> None:
    one = server.organisation
    environ = {
        "DAYTONA_SERVER_URL": f"{server.api_url}/",
        "DAYTONA_JWT_TOKEN": one.jwt,
        "DAYTONA_ORGANIZATION_ID": one.id,
    }
    provider = DaytonaProvider(ProviderContext(environ=environ, clock=HastyClock()))
    assert provider.account() == provider_for(server).account()
    assert provider.find(NAME) is None
    assert server.counts()["GET /api/api-keys/current"] == 1


def test_where_the_key_names_its_user_only_gone_needs_him_to_be_in_one_organisation(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.control.version = "0.190"
    ref = make(provider)
    assert provider.account() == f"{server.api_url}#user={server.organisation.user_id}"
    server.set_state(NAME, "destroyed")
    several: list[Any] = [{"id": "a"}, {"id": "b"}]
    server.faults.add("answer", "GET", "/api/organizations", status=200, body=several)
    with pytest.raises(ProviderError, match="which of its user's organisations") as caught:
        provider.inspect(ref)
    assert not isinstance(caught.value, SandboxGoneError)
    with pytest.raises(SandboxGoneError):
        provider.inspect(ref)


def test_the_key_of_another_organisation_changes_nothing(
    server: DaytonaServer, service: RaisingService, tmp_path: Path
) -> None:
    from ekairos_sandbox.exceptions import WrongAccountError
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
    from ekairos_sandbox.service import SandboxService

    sandbox = service.create_sandbox(provider="daytona")
    other = provider_for(server, server.add_organisation())
    store = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(store, environ={}, providers=[other]) as foreign:
        handle = foreign.raising.get_sandbox(sandbox.sandbox_id)
        for act in (lambda: handle.run_command("true"), handle.stop, handle.destroy):
            with pytest.raises(WrongAccountError):
                act()
    assert sandbox.run_command("echo", ["mine"]).output == "mine\n"


@pytest.mark.parametrize("before", ["stopped", "archived", "error"])
def test_stopping_what_does_not_run_is_a_success(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref, before: str
) -> None:
    server.set_state(NAME, before)
    provider.stop(ref)
    assert state(server, ref) == before
    assert server.counts()["POST /api/sandbox/*/stop"] == 0


def test_stopping_deletes_an_ephemeral_sandbox(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    ref = make(provider, ephemeral=True)
    provider.stop(ref)
    provider.stop(ref)
    assert server.alive() == []


@pytest.mark.parametrize("how", ["option", "environment"])
def test_stopping_deletes_on_demand(server: DaytonaServer, how: str) -> None:
    environ = {} if how == "option" else {"SANDBOX_DAYTONA_DELETE_ON_STOP": "1"}
    provider = provider_for(server, None, **environ)
    options: dict[str, Any] = {"delete_on_stop": True} if how == "option" else {}
    provider.stop(make(provider, **options))
    assert server.alive() == []


def test_a_deletion_is_repeated_until_the_sandbox_is_really_gone(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.boxes.delays |= {"stopping": 0.1, "destroying": 0.1}
    server.boxes.stop(server.box(NAME))
    provider.destroy(ref)
    assert state(server, ref) == "destroyed"
    provider.destroy(ref)


def test_a_deletion_refused_as_in_progress_is_repeated(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    body = {"statusCode": 409, "message": "Sandbox state change in progress"}
    server.faults.add("answer", "DELETE", BOX, times=5, status=409, body=body)
    provider.destroy(ref)
    assert server.alive() == []


def test_a_lost_answer_to_a_deletion_is_no_error(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.faults.add("drop_after", "DELETE", BOX)
    provider.destroy(ref)
    assert server.alive() == []


def test_a_borrowed_sandbox_that_stopping_would_delete_is_not_stopped(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    ref = make(provider, ephemeral=True)
    borrowed = replace(ref, tags=None, borrowed=True)
    with pytest.raises(UnsupportedOperationError, match="would delete it"):
        provider.stop(borrowed)
    assert state(server, ref) == "started"
    provider.destroy(borrowed)
    assert server.alive() == []


def test_another_sandbox_under_the_name_is_never_touched(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    old = replace(ref, external_id="another-id")
    with pytest.raises(SandboxGoneError):
        provider.inspect(old)
    provider.stop(old)
    provider.destroy(old)
    # An id that happens to be another one's name is none either.
    with pytest.raises(SandboxGoneError):
        provider.inspect(replace(ref, external_id=NAME, tags=None))
    assert state(server, ref) == "started"


def test_a_listing_goes_through_all_pages_and_fails_as_a_whole(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.control.page_size = 2
    names = [f"box-{number}" for number in range(5)]
    for name in names:
        server.boxes.create(server.organisation.id, {"name": name, "labels": TAGS.as_dict()})
    server.boxes.create(server.organisation.id, {"name": "other"})
    assert [info.name for info in provider.list_owned("owner")] == names
    server.faults.add("answer", "GET", "/api/sandbox", skip=1, times=FOR_EVER, status=500)
    with pytest.raises(ProviderUnavailableError):
        list(provider.list_owned("owner"))


def test_fields_and_states_that_are_new_to_us_do_no_harm(
    server: DaytonaServer, provider: DaytonaProvider, ref: Ref
) -> None:
    server.control.extra = {"novelty": {"deep": [1]}, "cpu": 0.5, "sandboxClass": "quantum"}
    server.set_state(NAME, "contemplating")
    assert provider.inspect(ref).state == "unknown"
    assert [info.state for info in provider.list_owned("owner")] == ["unknown"]
    provider.destroy(ref)
    assert server.alive() == []


@pytest.mark.parametrize("version", ["0.190", "0.226"])
def test_answers_of_older_and_newer_servers_are_understood(
    server: DaytonaServer, provider: DaytonaProvider, version: str
) -> None:
    server.control.version = version
    ref = make(provider)
    assert provider.inspect(ref).tags == TAGS
    assert len(list(provider.list_owned("owner"))) == 1
    provider.destroy(ref)


def test_a_record_of_the_typescript_package_is_used_and_stopped(
    server: DaytonaServer, service: RaisingService, tmp_path: Path
) -> None:
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

    box = server.boxes.create(server.organisation.id, {"name": "made-by-another", "labels": {}})
    record = SandboxRecord(
        id="6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21",
        provider="daytona",
        status="active",
        external_sandbox_id=box.id,
        params={"daytona": {"ephemeral": True}, "theirs": 1},
        created_at=1,
        updated_at=1,
    )
    SqliteSandboxRepository(tmp_path / "records.db").create(record)
    sandbox = service.get_sandbox(record.id)
    assert sandbox.run_command("echo", ["theirs"]).output == "theirs\n"
    stopped = sandbox.stop()
    assert stopped.status == "shutdown"
    assert server.alive() == []


def test_a_sandbox_with_a_lifetime_ends_and_can_be_given_more(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(
        provider="daytona", timeout_ms=600_000, daytona={"auto_stop_interval_min": 0}
    )
    end = sandbox.extend_timeout(3_600_000)
    assert end is not None
    assert sandbox.extend_timeout(60_000) == end
    server.clock.advance(3000)
    assert sandbox.run_command("true").success
    server.clock.advance(700)
    assert server.alive() == []
    with pytest.raises(SandboxGoneError):
        sandbox.read_file("x")


def test_a_sandbox_without_a_lifetime_is_not_given_one(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="daytona")
    server.clock.advance(14 * 60)
    assert sandbox.extend_timeout(60_000) is None
    server.clock.advance(14 * 60)
    assert [box.state for box in server.alive()] == ["started"]


def test_a_preview_url_comes_with_a_token_that_no_repr_shows(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="daytona", ports=(3000,))
    preview = sandbox.preview_url(3000)
    token = server.alive()[0].preview_token
    assert preview.url == f"https://3000-{server.alive()[0].id}.proxy.localhost"
    assert preview.headers == (("X-Daytona-Preview-Token", token),)
    assert token not in repr(preview)


@pytest.mark.parametrize("verb", ["preview_url", "extend_timeout", "native"])
def test_a_verb_on_a_deleted_sandbox_says_that_it_is_gone(
    server: DaytonaServer, service: RaisingService, verb: str
) -> None:
    sandbox = service.create_sandbox(provider="daytona", timeout_ms=600_000)
    server.set_state(server.alive()[0].name, "destroyed")
    arguments = {"preview_url": (3000,), "extend_timeout": (900_000,)}.get(verb, ())
    with pytest.raises(SandboxGoneError):
        getattr(sandbox, verb)(*arguments)
    assert sandbox.record().status == "shutdown"


@pytest.mark.parametrize("path", ["ports/3000/preview-url", "last-activity"])
def test_a_404_on_a_part_of_a_sandbox_that_exists_is_no_proof(
    server: DaytonaServer, service: RaisingService, path: str
) -> None:
    sandbox = service.create_sandbox(provider="daytona", timeout_ms=600_000)
    body = {"statusCode": 404, "message": "Sandbox not found"}
    server.faults.add("answer", "*", f".*/{path}", status=404, body=body, times=FOR_EVER)
    with pytest.raises(ProviderError) as caught:
        sandbox.preview_url(3000) if "preview" in path else sandbox.extend_timeout(900_000)
    assert not isinstance(caught.value, SandboxGoneError)
    assert sandbox.record().status == "active"


def test_missing_settings_are_named(server: DaytonaServer) -> None:
    for environ, missing in (
        ({}, "DAYTONA_API_URL"),
        ({"DAYTONA_API_URL": server.api_url}, "DAYTONA_API_KEY"),
        ({"DAYTONA_API_URL": server.api_url, "DAYTONA_JWT_TOKEN": "x"}, "DAYTONA_ORGANIZATION_ID"),
    ):
        provider = DaytonaProvider(ProviderContext(environ=environ))
        with pytest.raises(ConfigurationError, match=missing):
            provider.account()
