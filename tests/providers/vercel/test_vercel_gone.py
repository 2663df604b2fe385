"""Gone, stopped, elsewhere, unreachable: what each answer of the service proves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from helpers.vercel import new_spec, ref_of
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import (
    ProviderAuthError,
    ProviderError,
    ProviderUnavailableError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import Connection, SandboxRef
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox_vercel import VercelOptions, VercelProvider


def run(connection: Connection) -> bytes:
    return connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def test_gone_takes_two_answers(server: VercelServer, provider: VercelProvider) -> None:
    ref: SandboxRef[VercelOptions] = SandboxRef("ekairos-never")
    with pytest.raises(SandboxGoneError):
        provider.inspect(ref)
    assert server.operations() == ["get", "list"]


def test_a_not_found_without_the_service_s_own_code_proves_nothing(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    provider.create(spec)
    server.faults.add(Fault.EMPTY_404, "get", times=None)
    with pytest.raises(ProviderUnavailableError, match="contradicts itself"):
        provider.inspect(ref_of(spec))
    server.faults.clear()
    server.faults.add(Fault.EMPTY_404, "get", times=2)
    assert provider.inspect(ref_of(spec)).state == "running"


def test_a_not_found_with_refused_credentials_proves_nothing(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.faults.add(Fault.FORBIDDEN, "list", times=None)
    with pytest.raises(ProviderAuthError):
        provider.find("ekairos-never")


def test_a_project_that_does_not_exist_proves_nothing(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    provider.create(spec)
    removed = server.world.projects.pop(server.project)
    for act in (provider.inspect, provider.connect, provider.stop, provider.destroy):
        with pytest.raises(ProviderError) as caught:
            act(ref_of(spec))
        assert not isinstance(caught.value, SandboxGoneError)
    server.world.projects[server.project] = removed


def test_a_revoked_token_changes_nothing(
    server: VercelServer, service: RaisingService, cold: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel")
    before = sandbox.record()
    server.revoke(server.token)
    acts: list[Callable[[], object]] = [
        lambda: sandbox.run_command("true"),
        sandbox.reconnect,
        lambda: cold.run_command(sandbox.sandbox_id, "true"),
        lambda: cold.reconnect_to_sandbox(sandbox.sandbox_id),
    ]
    for act in acts:
        with pytest.raises(ProviderAuthError):
            act()
    assert sandbox.record() == before


def test_a_sandbox_whose_time_is_up_is_gone_unless_it_is_persistent(
    server: VercelServer, provider: VercelProvider
) -> None:
    fleeting, lasting = new_spec(), new_spec(persistent=True)
    connections = [provider.create(spec) for spec in (fleeting, lasting)]
    server.world.clock.advance(1801)
    with pytest.raises(SandboxGoneError):
        run(connections[0])
    with pytest.raises(SandboxGoneError):
        provider.inspect(ref_of(fleeting))
    with pytest.raises(SandboxGoneError):
        provider.connect(ref_of(fleeting))
    with pytest.raises(SandboxNotRunningError):
        run(connections[1])
    assert provider.inspect(ref_of(lasting)).state == "stopped"
    assert b"<on>" in run(provider.connect(ref_of(lasting)))


def test_looking_does_not_start_what_is_stopped(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    provider.create(spec)
    provider.stop(ref_of(spec))
    provider.find(spec.name)
    provider.inspect(ref_of(spec))
    assert [info.state for info in provider.list_owned(spec.tags.owner)] == ["stopped"]
    assert server.sandboxes()[spec.name].session.status == "stopped"


@pytest.mark.parametrize("status", [400, 410])
def test_a_persistent_sandbox_whose_snapshot_is_gone_is_gone(
    server: VercelServer, provider: VercelProvider, status: int
) -> None:
    spec = new_spec(persistent=True)
    provider.create(spec)
    provider.stop(ref_of(spec))
    for snapshot in server.world.projects[server.project].snapshots.values():
        server.world.delete_snapshot(snapshot)
    server.world.expired_snapshot_status = status
    with pytest.raises(SandboxGoneError):
        provider.connect(ref_of(spec))


def test_a_sandbox_under_another_session_is_connected_anew(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    first = provider.create(spec)
    provider.stop(ref_of(spec, first))
    second = provider.connect(ref_of(spec, first))
    assert not second.restored
    with pytest.raises(SandboxNotRunningError, match="has ended the session"):
        run(first)
    assert b"<on>" in run(second)


def test_a_session_that_began_with_older_files_is_known_by_that(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    first = provider.create(spec)
    checkpoint = first.create_checkpoint()
    second = provider.connect(ref_of(spec, first))
    assert not second.restored
    known = ref_of(spec, second)
    second.restore_checkpoint(checkpoint.id)
    assert provider.connect(known).restored


def test_without_a_known_session_files_from_a_snapshot_count_as_older(
    provider: VercelProvider,
) -> None:
    spec = new_spec(persistent=True)
    provider.create(spec)
    assert not provider.connect(ref_of(spec)).restored
    provider.stop(ref_of(spec))
    assert provider.connect(ref_of(spec)).restored


def test_a_sandbox_on_its_way_down_is_waited_for_and_started_again(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    connection = provider.create(spec)
    server.world.down_polls = 3
    provider.stop(ref_of(spec))
    assert server.sandboxes()[spec.name].session.status == "stopping"
    again = provider.connect(ref_of(spec, connection))
    assert not again.restored
    assert b"<on>" in run(again)


def test_a_script_for_a_sandbox_on_its_way_down_did_not_run(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    connection = provider.create(spec)
    server.world.down_polls = 3
    provider.stop(ref_of(spec))
    with pytest.raises(SandboxNotRunningError) as caught:
        run(connection)
    assert caught.value.outcome == "failed"


def test_a_checkpoint_that_takes_its_time_is_waited_for(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    connection = provider.create(spec)
    server.world.down_polls = 3
    checkpoint = connection.create_checkpoint()
    session = server.sandboxes()[spec.name].session
    assert (session.status, session.source_snapshot_id) == ("running", checkpoint.id)


def test_stopping_and_destroying_while_it_stops_is_a_success(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    provider.create(spec)
    server.world.down_polls = 3
    provider.stop(ref_of(spec))
    provider.stop(ref_of(spec))
    assert server.sandboxes()[spec.name].session.status == "stopped"
    provider.connect(ref_of(spec))
    provider.stop(ref_of(spec))
    provider.destroy(ref_of(spec))
    assert server.sandboxes() == {}


def test_a_deletion_whose_answer_was_lost_is_a_success(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    provider.create(spec)
    server.faults.add(Fault.RESET_AFTER, "delete")
    provider.destroy(ref_of(spec))
    assert server.sandboxes() == {}


def test_destroying_a_persistent_sandbox_leaves_no_snapshot(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec(persistent=True)
    connection = provider.create(spec)
    connection.create_checkpoint()
    provider.stop(ref_of(spec))
    provider.destroy(ref_of(spec))
    snapshots = server.world.projects[server.project].snapshots.values()
    assert [snapshot.status for snapshot in snapshots] == ["deleted", "deleted"]


def test_stopping_deletes_a_sandbox_that_is_not_persistent_and_no_other(
    server: VercelServer, provider: VercelProvider
) -> None:
    fleeting, lasting = new_spec(), new_spec(persistent=True)
    for spec in (fleeting, lasting):
        provider.create(spec)
        provider.stop(ref_of(spec))
        provider.stop(ref_of(spec))
    server.make("theirs", persistent=False)
    provider.stop(SandboxRef("theirs", external_id="theirs", borrowed=True))
    assert {name: box.session.status for name, box in server.sandboxes().items()} == {
        lasting.name: "stopped",
        "theirs": "stopped",
    }


def test_an_id_of_the_typescript_package_is_tried_as_a_name(
    server: VercelServer, provider: VercelProvider
) -> None:
    server.make("sbx_0123456789")
    ref: SandboxRef[VercelOptions] = SandboxRef("sbx_0123456789", external_id="sbx_0123456789")
    assert b"<on>" in run(provider.connect(ref))
    assert provider.inspect(ref).external_id == "sbx_0123456789"


def test_another_sandbox_of_the_same_name_is_not_ours_and_not_deleted(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    connection = provider.create(spec)
    ref = ref_of(spec, connection)
    project = server.world.projects[server.project]
    server.world.delete(project, server.sandboxes()[spec.name], orphans=True)
    server.world.clock.advance(1)
    server.make(spec.name)
    acts: list[Callable[[], object]] = [
        lambda: run(connection),
        lambda: provider.connect(ref),
        lambda: provider.inspect(ref),
    ]
    for act in acts:
        with pytest.raises(SandboxGoneError):
            act()
    provider.stop(ref)
    provider.destroy(ref)
    assert server.sandboxes()[spec.name].session.status == "running"


def test_a_sandbox_that_lost_its_tags_is_still_ours(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    ref = ref_of(spec, provider.create(spec))
    server.sandboxes()[spec.name].tags = {}
    assert b"<on>" in run(provider.connect(ref))
    provider.stop(ref)
    assert server.sandboxes() == {}


def test_reconcile_clears_away_what_ended_for_good_and_was_not_made_anew(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel", on_gone="fail")
    server.world.clock.advance(1801)
    with pytest.raises(SandboxGoneError):
        sandbox.run_command("true")
    assert len(server.sandboxes()) == 1
    report = service.reconcile(apply=True)
    assert [action.detail for action in report.actions if action.kind == "release"] == [
        "it has ended for good, yet the provider still lists it"
    ]
    assert server.sandboxes() == {}
    assert service.reconcile(apply=True).actions == ()


def test_all_pages_are_listed(server: VercelServer, provider: VercelProvider) -> None:
    owner = new_spec().tags.owner
    for number in range(3):
        server.make(f"theirs-{number}", tags={"ekairos-owner": "another"})
    specs = [new_spec() for _ in range(5)]
    for spec in specs:
        provider.create(spec)
    server.routes.page_size = 2
    assert {info.name for info in provider.list_owned(owner)} == {spec.name for spec in specs}
    assert server.counts()["list"] == 3


def test_a_listing_that_fails_midway_is_an_error(
    server: VercelServer, provider: VercelProvider
) -> None:
    for _ in range(3):
        provider.create(new_spec())
    server.routes.page_size = 2
    server.faults.add(Fault.SERVER_ERROR, "list", skip=1, times=None)
    with pytest.raises(ProviderUnavailableError):
        list(provider.list_owned(new_spec().tags.owner))
