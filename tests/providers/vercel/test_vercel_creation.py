"""Creations whose answers get lost, and names that are taken."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from helpers.memory_world import ManualClock
from helpers.vercel import new_spec, provider_for
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    ProviderAuthError,
    ProviderError,
    SandboxFailedError,
)
from ekairos_sandbox.provider import Tags
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox_vercel import VercelProvider


def test_creating_is_one_request(server: VercelServer, provider: VercelProvider) -> None:
    provider.create(new_spec())
    assert server.operations() == ["create"]


@pytest.mark.parametrize(
    "fault",
    [Fault.RESET_AFTER, Fault.BAD_GATEWAY_AFTER, Fault.GARBAGE],
)
def test_after_a_lost_answer_it_is_looked_for_by_name(
    server: VercelServer, provider: VercelProvider, fault: Fault
) -> None:
    server.faults.add(fault, "create")
    spec = new_spec()
    connection = provider.create(spec)
    assert server.operations() == ["create", "get"]
    assert connection.ownership == "adopted"
    assert list(server.sandboxes()) == [spec.name]
    assert b"<on>" in connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.BAD_GATEWAY, Fault.SERVER_ERROR])
def test_what_was_not_carried_out_is_asked_for_again(
    server: VercelServer, provider: VercelProvider, fault: Fault
) -> None:
    server.faults.add(fault, "create")
    connection = provider.create(new_spec())
    assert connection.ownership == "created"
    # The second question of the look-up is the proof that the name is free.
    assert server.operations() == ["create", "get", "list", "create"]


@pytest.mark.parametrize("retry_after", [None, 1])
def test_a_refusal_for_haste_is_waited_out(
    server: VercelServer, provider: VercelProvider, retry_after: int | None
) -> None:
    server.faults.add(Fault.RATE_LIMITED, "create", times=2, retry_after=retry_after)
    provider.create(new_spec())
    assert server.operations() == ["create", "create", "create"]


def test_an_image_that_is_not_ready_is_waited_for(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.faults.add(Fault.NOT_READY, "create", times=2)
    provider.create(new_spec(image="team/image"))
    assert server.operations() == ["create", "create", "create"]


def test_a_name_that_leaves_no_room_for_an_incarnation_is_named_before_any_request(
    server: VercelServer, service: RaisingService
) -> None:
    name = "n" * 127
    sandbox = service.create_sandbox(provider="vercel", vercel={"name": name})
    server.world.clock.advance(1801)
    with pytest.raises(ConfigurationError, match=f"'{name}-g2' must be 1 to 128 letters"):
        sandbox.run_command("true")
    assert server.counts()["create"] == 1


def test_an_outage_leaves_the_outcome_unknown_once_an_answer_was_lost(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.faults.add(Fault.RESET_AFTER, "create")
    server.faults.add(Fault.RATE_LIMITED, times=None)
    with pytest.raises(ProviderError) as caught:
        provider.create(new_spec())
    assert caught.value.outcome == "unknown"


def test_nothing_is_tried_again_when_the_time_for_a_creation_is_over(
    server: VercelServer,
) -> None:
    clock = ManualClock()
    provider = provider_for(server.environ(), clock=clock)
    begin = clock.monotonic()
    server.faults.add(Fault.BAD_GATEWAY, times=None)
    with pytest.raises(ProviderError):
        provider.create(new_spec(timeout_s=5.0))
    assert clock.monotonic() - begin <= 5.0
    provider.close()


def test_bad_credentials_are_a_failure_without_effect(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.revoke(server.token)
    with pytest.raises(ProviderAuthError) as caught:
        provider.create(new_spec())
    assert caught.value.outcome == "failed"
    assert caught.value.hint == (
        f"check that SANDBOX_VERCEL_TOKEN is valid and may use team {server.team} and project "
        f"{server.project}"
    )
    assert server.token not in str(caught.value)
    assert server.operations() == ["create"]


def test_a_slow_creation_is_waited_for(server: VercelServer, provider: VercelProvider) -> None:
    server.world.pending_polls = 3
    connection = provider.create(new_spec())
    assert server.operations() == ["create", "get", "get", "get"]
    assert b"<on>" in connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def test_a_sandbox_that_never_comes_up_is_removed(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.world.pending_polls = 2
    spec = new_spec()
    server.world.fate = "failed"
    with pytest.raises(ProviderError, match="did not come up: failed") as caught:
        provider.create(spec)
    assert caught.value.outcome == "failed"
    assert server.sandboxes() == {}


def test_a_sandbox_that_is_not_up_in_time_may_come_up_later(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.world.pending_polls = 10_000
    with pytest.raises(ProviderError) as caught:
        provider.create(new_spec(timeout_s=0.3))
    assert caught.value.outcome == "unknown"


def test_a_stopped_persistent_sandbox_of_an_earlier_attempt_is_started(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    session = provider.create(spec).data["session"]
    server.world.clock.advance(2000)
    again = provider.create(spec)
    assert again.ownership == "adopted"
    assert again.data["session"] != session
    assert b"<on>" in again.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def test_an_ended_sandbox_of_an_earlier_attempt_is_removed(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    provider.create(spec)
    server.world.clock.advance(2000)
    with pytest.raises(ProviderError, match="did not come up"):
        provider.create(spec)
    assert server.sandboxes() == {}


def test_an_ended_sandbox_of_somebody_else_is_left_alone(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.make("theirs", persistent=False)
    server.world.clock.advance(2000)
    spec = replace(new_spec(), name="theirs", user_chosen_name=True)
    with pytest.raises(ProviderError, match="did not come up"):
        provider.create(spec)
    assert list(server.sandboxes()) == ["theirs"]


def test_a_name_of_another_incarnation_is_a_conflict(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    provider.create(spec)
    server.clear_requests()
    other = replace(spec, tags=Tags(spec.tags.owner, spec.tags.sandbox_id, 2))
    with pytest.raises(IdConflictError):
        provider.create(other)
    assert server.operations() == ["create", "get"]


def test_many_creations_of_one_name_at_once_make_one(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    sessions: list[Any] = []
    threads = [
        threading.Thread(target=lambda: sessions.append(provider.create(spec).data["session"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(sessions), len(set(sessions))) == (8, 1)


def test_a_refused_creation_is_in_the_record_and_nothing_is_left(
    server: VercelServer, service: RaisingService
) -> None:
    server.faults.add(Fault.FORBIDDEN, "create")
    with pytest.raises(ProviderAuthError):
        service.create_sandbox(provider="vercel")
    (record,) = service.iter_sandboxes()
    assert record.status == "error"
    assert record.state is not None
    assert record.state.release is None
    with pytest.raises(SandboxFailedError):
        service.run_command(record.id, "true")
    assert server.sandboxes() == {}
