"""Volumes: made once, waited for, deleted, and collected only when nobody can miss them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from ekairos_sandbox_daytona.api import DaytonaApi
from ekairos_sandbox_daytona.settings import DaytonaSettings
from ekairos_sandbox_daytona.volume_collection import VolumeDecision
from ekairos_sandbox_daytona.volumes import DaytonaVolumes
from servers.daytona.boxes import Volume as ServerVolume
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderAuthError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox.provider import ProviderContext

DAY_S = 24 * 60 * 60
WEEK = timedelta(days=7)


class LinkedClock:
    """The server's time, which passes by sleeping alone."""

    def __init__(self, server: DaytonaServer) -> None:
        server.clock.stop()
        self._server = server
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(self._server.clock.now() * 1000)

    def monotonic(self) -> float:
        return self._server.clock.now()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._server.clock.advance(seconds)


@pytest.fixture
def clock(server: DaytonaServer) -> LinkedClock:
    return LinkedClock(server)


@pytest.fixture
def context(server: DaytonaServer, clock: LinkedClock) -> ProviderContext:
    return ProviderContext(environ=server.environ(), clock=clock)


@pytest.fixture
def volumes(context: ProviderContext) -> Iterator[DaytonaVolumes]:
    with DaytonaVolumes.from_env(context) as volumes:
        yield volumes


def _volume(server: DaytonaServer, name: str, **more: Any) -> ServerVolume:
    """A volume that is there already."""
    volume = server.boxes.create_volume(server.organisation.id, name)
    volume.state = "ready"
    for field, value in more.items():
        setattr(volume, field, value)
    return volume


def _sandbox(server: DaytonaServer, volume: str, state: str = "started") -> str:
    """A sandbox in some state that was made with a volume, by its id or its name."""
    mounts = [{"volumeId": volume, "mountPath": "/data"}]
    box = server.boxes.create(server.organisation.id, {"volumes": mounts, "autoStopInterval": 0})
    server.set_state(box.id, state)
    return box.id


def _names(server: DaytonaServer) -> list[str]:
    return sorted(volume.name for volume in server.boxes.all_volumes(server.organisation.id))


# --- making ---


def test_volume_is_made_and_waited_for(
    server: DaytonaServer, volumes: DaytonaVolumes, clock: LinkedClock
) -> None:
    server.boxes.volume_delay_s = 6.5
    made = volumes.get_or_create("ekairos-ds-1")
    assert (made.name, made.state, made.last_used_at) == ("ekairos-ds-1", "ready", None)
    assert clock.slept == [1.0] * 7
    assert volumes.get_or_create("ekairos-ds-1") == made
    assert server.counts()["POST /api/volumes"] == 1


def test_wait_for_a_volume_ends_at_its_deadline(
    server: DaytonaServer, volumes: DaytonaVolumes, clock: LinkedClock
) -> None:
    server.boxes.volume_delay_s = 1000
    with pytest.raises(ProviderTimeoutError, match="it is 'pending_create'") as caught:
        volumes.get_or_create("slow", timeout_s=2.5)
    assert caught.value.outcome == "unknown"
    assert clock.slept == pytest.approx([1.0, 1.0, 0.5], abs=0.001)


def test_volume_in_an_error_state_is_reported_with_its_reason(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "broken", state="error", error_reason="bucket quota")
    with pytest.raises(ProviderError, match="bucket quota") as caught:
        volumes.get_or_create("broken")
    assert caught.value.retryable is False
    assert caught.value.hint == "delete it and try again"
    assert _names(server) == ["broken"]


def test_volume_in_a_state_that_is_new_to_us_is_waited_for_and_left_alone(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "odd", state="migrating")
    with pytest.raises(ProviderTimeoutError, match="it is 'migrating'"):
        volumes.get_or_create("odd", timeout_s=2)
    assert _names(server) == ["odd"]


def test_name_of_a_volume_that_is_being_deleted_is_waited_for(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    server.boxes.volume_delete_delay_s = 4
    old = volumes.get_or_create("again")
    assert volumes.delete("again") is True
    new = volumes.get_or_create("again")
    assert new.id != old.id
    assert _names(server) == ["again"]


def test_many_threads_get_the_same_volume(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    together = threading.Barrier(8)

    def make(_: int) -> str:
        together.wait()
        return volumes.get_or_create("shared").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(make, range(8)))
    assert len(ids) == 1
    assert _names(server) == ["shared"]


@pytest.mark.parametrize("kind", ["drop", "drop_after"])
def test_lost_answer_to_a_creation_makes_one_volume(
    kind: Any, server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    server.faults.add(kind, "POST", "/api/volumes")
    assert volumes.get_or_create("once").state == "ready"
    assert _names(server) == ["once"]


def test_passing_failure_is_repeated(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    server.faults.add("answer", "POST", "/api/volumes", status=503, body={"message": "restarting"})
    server.faults.add("answer", "GET", "/api/volumes/.*", status=502)
    assert volumes.get_or_create("once").state == "ready"


def test_service_without_object_storage_is_said_at_once(
    server: DaytonaServer, volumes: DaytonaVolumes, clock: LinkedClock
) -> None:
    message = "Object storage is not configured"
    body = {"statusCode": 503, "message": message}
    server.faults.add("answer", "POST", "/api/volumes", status=503, body=body, times=99)
    with pytest.raises(ProviderUnavailableError, match=message) as caught:
        volumes.get_or_create("never")
    assert (caught.value.retryable, caught.value.outcome) == (False, "failed")
    assert clock.slept == []


def test_refused_creation_is_reported_with_its_reason(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    body = {"statusCode": 400, "message": "Volume quota exceeded. Maximum allowed: 10"}
    server.faults.add("answer", "POST", "/api/volumes", status=400, body=body)
    with pytest.raises(ProviderError, match="Maximum allowed: 10"):
        volumes.get_or_create("eleventh")


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "a b", "n" * 129, "ü"])
def test_name_that_would_not_do_is_refused_before_any_call(
    name: str, server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    with pytest.raises(ConfigurationError, match="a volume's name has 1 to 128 letters"):
        volumes.get_or_create(name)
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, None), (404, {"message": "Cannot GET /api/volumes", "statusCode": 404}), (200, [1])],
)
def test_answer_that_proves_nothing_makes_no_volume(
    status: int, body: Any, server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    server.faults.add("answer", "GET", "/api/volumes/by-name/x", status=status, body=body)
    with pytest.raises(ProviderUnavailableError):
        volumes.get_or_create("x")
    assert server.counts()["POST /api/volumes"] == 0


# --- listing and deleting ---


def test_list_and_get_show_the_organisations_own_volumes(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    other = server.add_organisation()
    server.boxes.create_volume(other.id, "theirs")
    mine = _volume(server, "mine", created_at=1_700_000_000.5, last_used_at=1_700_000_100.25)
    (found,) = volumes.list()
    assert (found.id, found.name, found.state) == (mine.id, "mine", "ready")
    assert (found.created_at, found.last_used_at) == (1_700_000_000_500, 1_700_000_100_250)
    assert volumes.get("mine") == found
    assert volumes.get("theirs") is None


def test_list_that_is_none_is_an_error(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    bodies: list[Any] = [{"items": []}, ["x"], [{"id": 1, "name": "x"}]]
    for body in bodies:
        server.faults.add("answer", "GET", "/api/volumes", status=200, body=body)
        with pytest.raises(ProviderUnavailableError):
            volumes.list()


def test_delete_says_whether_there_was_one(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    made = volumes.get_or_create("short-lived")
    assert volumes.delete(made) is True
    assert volumes.delete(made) is False
    assert volumes.delete("short-lived") is False
    assert _names(server) == []


def test_lost_answer_to_a_deletion_counts_as_deleted(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    server.boxes.volume_delete_delay_s = 60
    volumes.get_or_create("x")
    server.faults.add("drop_after", "DELETE", "/api/volumes/.*")
    assert volumes.delete("x") is True
    assert volumes.delete("x") is False


def test_volume_in_use_is_not_deleted(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    made = volumes.get_or_create("used")
    _sandbox(server, made.id)
    with pytest.raises(ProviderError, match="in use") as caught:
        volumes.delete("used")
    assert caught.value.status == 409
    assert caught.value.hint == "destroy the sandboxes that mount it first"
    assert _names(server) == ["used"]


def test_volume_that_is_not_ready_is_not_deleted(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "young", state="creating")
    with pytest.raises(ProviderError, match="must be in 'ready' or 'error' state"):
        volumes.delete("young")
    assert _names(server) == ["young"]


def test_wrong_key_is_no_proof_of_absence(server: DaytonaServer) -> None:
    context = ProviderContext(environ=server.environ(DAYTONA_API_KEY="dtn_wrong"))
    with DaytonaVolumes.from_env(context) as volumes, pytest.raises(ProviderAuthError) as caught:
        volumes.get("x")
    assert "dtn_wrong" not in str(caught.value)


def test_client_of_the_caller_can_be_used(server: DaytonaServer) -> None:
    import daytona

    config = daytona.DaytonaConfig(
        api_key=server.organisation.api_key, api_url=server.api_url, use_deprecated_polling=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client = daytona.Daytona(config)
    with DaytonaVolumes.from_client(client) as volumes:
        made = volumes.get_or_create("from-client")
    assert client.volume.get("from-client").id == made.id


# --- collecting ---


@pytest.fixture
def site(server: DaytonaServer) -> dict[str, ServerVolume]:
    """Volumes of all kinds, most of them old."""
    found = {
        name: _volume(server, name)
        for name in (
            "ekairos-unused",
            "ekairos-used-long-ago",
            "ekairos-used-lately",
            "ekairos-mounted-by-id",
            "ekairos-mounted-by-name",
            "ekairos-broken",
            "ekairos-odd",
            "ekairos-leaving",
            "other-unused",
        )
    }
    for number, state in enumerate(("stopped", "archived")):
        name = ("ekairos-mounted-by-id", "ekairos-mounted-by-name")[number]
        _sandbox(server, (found[name].id, name)[number], state)
    found["ekairos-broken"].state = "error"
    found["ekairos-odd"].state = "migrating"
    found["ekairos-leaving"].state = "deleting"
    now = server.clock.now()
    found["ekairos-used-long-ago"].last_used_at = now + DAY_S
    found["ekairos-used-lately"].last_used_at = now + 25 * DAY_S
    server.clock.advance(30 * DAY_S)
    _volume(server, "ekairos-young")
    server.clear_requests()
    return found


KEPT = {
    "ekairos-leaving": "its state is 'deleting'",
    "ekairos-mounted-by-id": "a sandbox mounts it",
    "ekairos-mounted-by-name": "a sandbox mounts it",
    "ekairos-odd": "its state is 'migrating'",
    "ekairos-used-lately": "it was made, changed or used too recently",
    "ekairos-young": "it was made, changed or used too recently",
}
COLLECTED = ["ekairos-broken", "ekairos-unused", "ekairos-used-long-ago"]


def _kept(decisions: tuple[VolumeDecision, ...]) -> dict[str, str]:
    return {d.volume.name: d.reason for d in decisions if d.action == "keep"}


@pytest.mark.usefixtures("site")
def test_collect_says_what_it_would_delete_and_why_it_keeps_the_rest(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    decisions = volumes.collect(unused_for=WEEK)
    assert _kept(decisions) == KEPT
    assert sorted(d.volume.name for d in decisions if d.action == "delete") == COLLECTED
    assert [d.applied for d in decisions] == [False] * 9
    assert {seen.method for seen in server.requests} == {"GET"}


@pytest.mark.usefixtures("site")
def test_collect_deletes_what_it_said_and_nothing_else(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    decisions = volumes.collect(unused_for=WEEK, apply=True)
    assert sorted(d.volume.name for d in decisions if d.applied) == COLLECTED
    assert [d.error for d in decisions] == [None] * 9
    assert _names(server) == [*sorted(KEPT), "other-unused"]
    assert [d for d in volumes.collect(unused_for=WEEK, apply=True) if d.applied] == []


@pytest.mark.parametrize("moment", [None, "", "soon", 12])
def test_collect_keeps_a_volume_of_unknown_age(
    moment: Any, server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    body = [{"id": "v1", "name": "ekairos-x", "state": "ready", "createdAt": moment}]
    server.faults.add("answer", "GET", "/api/volumes", status=200, body=body)
    (decision,) = volumes.collect(unused_for=WEEK, apply=True)
    assert (decision.action, decision.reason) == ("keep", "its age is not known")


@pytest.mark.usefixtures("site")
def test_collect_takes_another_prefix(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    decisions = volumes.collect(unused_for=WEEK, prefix="other-", apply=True)
    assert [(d.volume.name, d.applied) for d in decisions] == [("other-unused", True)]


def test_collect_sees_mounts_on_every_page(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    server.control.page_size = 2
    for number in range(5):
        _sandbox(server, _volume(server, f"ekairos-{number}").id, "stopped")
    server.clock.advance(30 * DAY_S)
    decisions = volumes.collect(unused_for=WEEK, apply=True)
    assert list(_kept(decisions).values()) == ["a sandbox mounts it"] * 5


def test_collect_asks_for_no_sandbox_when_no_volume_is_old(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _sandbox(server, _volume(server, "ekairos-young").id)
    volumes.collect(unused_for=WEEK, apply=True)
    assert server.counts() == {"GET /api/volumes": 1}


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/api/sandbox", 200, {"items": "none"}),
        ("/api/sandbox", 500, None),
        ("/api/sandbox/.+", 404, None),
        ("/api/sandbox/.+", 403, None),
        ("/api/sandbox/.+", 200, {"id": "x"}),
    ],
)
def test_collect_deletes_nothing_when_sandboxes_cannot_be_examined(
    path: str, status: int, body: Any, server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "ekairos-unused")
    box = _sandbox(server, _volume(server, "elsewhere").id, "stopped")
    server.clock.advance(30 * DAY_S)
    if body == {"id": "x"}:
        body = {"id": box, "volumes": [{"volume": "a form that is new to us"}]}
    server.faults.add("answer", "GET", path, status=status, body=body, times=99)
    with pytest.raises(ProviderError):
        volumes.collect(unused_for=WEEK, apply=True)
    assert _names(server) == ["ekairos-unused", "elsewhere"]


class Meddling(DaytonaApi):
    """Somebody else does something just before a volume is looked at again."""

    meddle: Callable[[], object]

    def ask(self, group: str, call: str, *args: Any, **arguments: Any) -> Any:
        if call == "get_volume":
            self.meddle()
        return super().ask(group, call, *args, **arguments)


@pytest.mark.parametrize("late", ["mounted", "gone", "leaving"])
def test_collect_looks_again_before_it_deletes(
    late: str, server: DaytonaServer, context: ProviderContext
) -> None:
    volume = _volume(server, "ekairos-unused")
    server.clock.advance(30 * DAY_S)
    api = Meddling(DaytonaSettings.from_environ(context.environ), context)

    def delete() -> None:
        volume.state, volume.gone_at = "pending_delete", server.clock.now() + 60

    meddle: dict[str, tuple[Callable[[], object], str]] = {
        "mounted": (
            lambda: _sandbox(server, volume.id),
            "it was made, changed or used too recently",
        ),
        "gone": (lambda: server.boxes.volumes.pop(volume.id, None), "it is gone already"),
        "leaving": (delete, "its state is 'pending_delete'"),
    }
    api.meddle, reason = meddle[late]
    (decision,) = DaytonaVolumes(api).collect(unused_for=WEEK, apply=True)
    assert (decision.action, decision.reason) == ("keep", reason)
    assert server.counts()["DELETE /api/volumes/*"] == 0


def test_collect_keeps_what_the_service_says_is_in_use(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "ekairos-unused")
    server.clock.advance(30 * DAY_S)
    body = {"statusCode": 409, "message": "in use by one or more sandboxes"}
    server.faults.add("answer", "DELETE", "/api/volumes/.*", status=409, body=body)
    (decision,) = volumes.collect(unused_for=WEEK, apply=True)
    assert (decision.action, decision.reason) == ("keep", "a sandbox mounts it")


def test_collect_goes_on_after_a_volume_that_cannot_be_deleted(
    server: DaytonaServer, volumes: DaytonaVolumes
) -> None:
    _volume(server, "ekairos-1")
    _volume(server, "ekairos-2")
    server.clock.advance(30 * DAY_S)
    server.faults.add("answer", "DELETE", "/api/volumes/.*", status=400, body={"message": "no"})
    first, second = volumes.collect(unused_for=WEEK, apply=True)
    assert (first.applied, second.applied) == (False, True)
    assert first.error is not None
    assert "no" in first.error


def test_collect_needs_a_time_and_a_prefix(server: DaytonaServer, volumes: DaytonaVolumes) -> None:
    with pytest.raises(ValueError, match="unused_for"):
        volumes.collect(unused_for=timedelta())
    with pytest.raises(ValueError, match="prefix"):
        volumes.collect(unused_for=WEEK, prefix="")
    assert server.requests == []
