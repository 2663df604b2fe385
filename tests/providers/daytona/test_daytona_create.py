"""Creating at Daytona: exactly one, or none, whatever becomes of the request."""

from __future__ import annotations

import json
import threading
import uuid
from typing import Any

import pytest
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import FOR_EVER
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    IdConflictError,
    ProviderError,
    ProviderRateLimitedError,
    ProviderTimeoutError,
)
from ekairos_sandbox.provider import CreateSpec, SandboxRef, Tags
from ekairos_sandbox.raising import RaisingService

CREATE = r"/api/sandbox"


def spec(timeout_s: float = 60, **options: Any) -> CreateSpec[DaytonaOptions]:
    sandbox_id = str(uuid.uuid4())
    return CreateSpec(
        name=f"ekairos-{sandbox_id}",
        tags=Tags("owner", sandbox_id, 1),
        options=DaytonaOptions(ephemeral=False, **options),
        timeout_s=timeout_s,
    )


def test_a_creation_is_one_request(server: DaytonaServer, provider: DaytonaProvider) -> None:
    made = provider.create(spec())
    assert server.counts() == {"POST /api/sandbox": 1}
    assert made.ownership == "created"
    assert made.external_id == server.alive()[0].id


@pytest.mark.parametrize("kind", ["drop_after", "cut", "answer_after"])
def test_a_sandbox_whose_answer_was_lost_is_found_by_its_name(
    server: DaytonaServer, provider: DaytonaProvider, kind: Any
) -> None:
    server.faults.add(kind, "POST", CREATE, status=502)
    made = provider.create(spec())
    assert [box.id for box in server.alive()] == [made.external_id]
    assert server.counts()["POST /api/sandbox"] == 1


def test_an_answer_without_an_id_does_not_lose_the_sandbox(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.faults.add("answer_after", "POST", CREATE, status=200, body={"ok": True})
    made = provider.create(spec())
    assert [box.id for box in server.alive()] == [made.external_id]


def test_an_answer_that_is_no_sandbox_is_unknown(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.faults.add("answer", "POST", CREATE, status=200, body={"ok": True})
    with pytest.raises(ProviderError) as caught:
        provider.create(spec())
    assert caught.value.outcome == "unknown"


def test_an_unanswered_creation_without_effect_is_unknown_and_leaves_nothing(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.faults.add("drop", "POST", CREATE)
    with pytest.raises(ProviderError) as caught:
        provider.create(spec())
    assert caught.value.outcome == "unknown"
    assert server.alive() == []


def test_a_creation_that_blocks_longer_than_the_deadline_is_joined_later(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.boxes.delays["creating"] = 20
    wanted = spec(timeout_s=0.3)
    with pytest.raises(ProviderTimeoutError) as caught:
        provider.create(wanted)
    assert caught.value.outcome == "unknown"
    found = provider.find(wanted.name)
    assert found is not None
    assert (found.state, found.tags) == ("changing", wanted.tags)
    server.clock.advance(60)
    assert provider.connect(SandboxRef(wanted.name)).external_id == found.external_id


def test_a_creation_that_takes_longer_than_its_answer_is_waited_for(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.boxes.delays["creating"] = 45
    made: list[str] = []
    thread = threading.Thread(target=lambda: made.append(provider.create(spec()).external_id))
    thread.start()
    while not server.boxes.boxes:
        thread.join(0.01)
    server.clock.advance(31)
    while server.counts()[f"GET {CREATE}/*"] < 2:
        thread.join(0.01)
    server.clock.advance(20)
    thread.join()
    assert made == [server.alive()[0].id]
    assert server.alive()[0].state == "started"


def test_an_interrupted_creation_leaves_nothing(
    server: DaytonaServer, service: RaisingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ekairos_sandbox_daytona.control import ControlPlane

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ControlPlane, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        service.create_sandbox(provider="daytona")
    assert server.counts()["POST /api/sandbox"] == 1
    assert server.alive() == []


def test_a_sandbox_that_failed_to_start_is_deleted_and_the_reason_told(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.boxes.fail_creates.append("no runner has room")
    wanted = spec()
    with pytest.raises(ProviderError, match="no runner has room") as caught:
        provider.create(wanted)
    assert caught.value.outcome == "failed"
    assert server.alive() == []
    assert provider.create(wanted).ownership == "created"


def test_after_a_failure_the_same_id_is_made_under_the_next_name(
    server: DaytonaServer, service: RaisingService
) -> None:
    chosen = str(uuid.uuid4())
    server.boxes.fail_creates.append("bad luck")
    with pytest.raises(ProviderError, match="bad luck"):
        service.create_sandbox(provider="daytona", sandbox_id=chosen)
    service.create_sandbox(provider="daytona", sandbox_id=chosen)
    assert [box.name for box in server.alive()] == [f"ekairos-{chosen}-g2"]


def test_an_errored_sandbox_of_ours_is_deleted_not_adopted(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    wanted = spec()
    made = provider.create(wanted)
    server.set_state(made.external_id, "error", error_reason="disk lost")
    with pytest.raises(ProviderError, match="disk lost") as caught:
        provider.create(wanted)
    assert caught.value.outcome == "failed"
    assert server.alive() == []


def test_an_errored_sandbox_that_is_recoverable_is_recovered(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    wanted = spec()
    made = provider.create(wanted)
    server.set_state(made.external_id, "error", recoverable=True)
    assert provider.create(wanted).external_id == made.external_id


def test_an_unknown_snapshot_is_an_error_that_leaves_nothing(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    with pytest.raises(ProviderError, match="no-such-snapshot") as caught:
        provider.create(spec(snapshot="no-such-snapshot"))
    assert (caught.value.outcome, caught.value.status) == ("failed", 400)
    assert server.alive() == []


def test_a_stale_name_is_found_in_the_list(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.boxes.stale_names_s = 10
    wanted = spec()
    first = provider.create(wanted)
    provider.destroy(SandboxRef(wanted.name, external_id=first.external_id, tags=wanted.tags))
    second = provider.create(wanted)
    assert second.external_id != first.external_id
    found = provider.find(wanted.name)
    assert found is not None
    assert found.external_id == second.external_id
    adopted = provider.create(wanted)
    assert (adopted.external_id, adopted.ownership) == (second.external_id, "adopted")


def test_a_name_that_merely_begins_alike_is_not_found(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    wanted = spec()
    server.boxes.create(server.organisation.id, {"name": f"{wanted.name}-g2"})
    server.boxes.create(server.organisation.id, {"name": wanted.name.upper()})
    assert provider.find(wanted.name) is None


def test_a_conflict_that_is_a_change_in_progress_is_no_taken_name(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    body = {"statusCode": 409, "message": "Sandbox state change in progress"}
    server.faults.add("answer", "POST", CREATE, status=409, body=body)
    with pytest.raises(ProviderError, match="state change in progress") as caught:
        provider.create(spec())
    assert not isinstance(caught.value, IdConflictError)


@pytest.mark.parametrize("header", ["Retry-After", "Retry-After-Sandbox-Create"])
def test_a_rate_limit_is_waited_for_as_the_service_asks(server: DaytonaServer, header: str) -> None:
    from ekairos_sandbox.provider import ProviderContext

    waits: list[float] = []

    class Clock:
        def now_ms(self) -> int:
            return 0

        def monotonic(self) -> float:
            return 0.0

        def sleep(self, seconds: float) -> None:
            waits.append(seconds)

    provider = DaytonaProvider(ProviderContext(environ=server.environ(), clock=Clock()))
    server.faults.add("answer", "POST", CREATE, times=2, status=429, headers={header: "7"})
    provider.create(spec())
    assert [7 <= wait <= 15 for wait in waits] == [True, True]


def test_a_rate_limit_that_stays_is_reported_and_leaves_nothing(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    server.faults.add("answer", "POST", CREATE, times=FOR_EVER, status=429)
    with pytest.raises(ProviderRateLimitedError) as caught:
        provider.create(spec())
    assert caught.value.outcome == "failed"
    assert server.alive() == []


@pytest.mark.parametrize("state", ["stopped", "archived"])
def test_an_adopted_sandbox_is_started(
    server: DaytonaServer, provider: DaytonaProvider, state: str
) -> None:
    wanted = spec()
    made = provider.create(wanted)
    server.set_state(made.external_id, state)
    assert provider.create(wanted).external_id == made.external_id
    assert server.box(made.external_id).state == "started"


def test_a_chosen_name_of_somebody_else_is_a_conflict(
    server: DaytonaServer, provider: DaytonaProvider
) -> None:
    wanted = spec()
    server.boxes.create(server.organisation.id, {"name": wanted.name, "labels": {"a": "b"}})
    with pytest.raises(IdConflictError):
        provider.create(wanted)
    assert len(server.alive()) == 1


def sent(server: DaytonaServer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.seen("POST", "/api/sandbox")[-1].body)
    return body


def test_our_labels_and_the_typescript_packages_are_set(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(
        provider="daytona",
        params={"datasetId": "d-17"},
        daytona={"labels": {"team": "blue"}, "auto_stop_interval_min": 30},
    )
    state = sandbox.record().state
    assert state is not None
    assert sent(server)["labels"] == {
        "team": "blue",
        "code-toolbox-language": "python",
        "ekairos": "1",
        "ekairos_ephemeral": "1",
        "ekairos_dataset_id": "d-17",
        "ekairos-owner": state.owner,
        "ekairos-id": sandbox.sandbox_id,
        "ekairos-incarnation": "1",
    }
    params = sandbox.record().params
    assert params is not None
    assert params["daytona"]["ephemeral"] is True
    assert params["datasetId"] == "d-17"
