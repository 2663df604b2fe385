"""Checkpoints, preview URLs, longer lives, the SDK's object."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.vercel import new_spec, ref_of
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import (
    CheckpointNotFoundError,
    ProviderError,
    SandboxGoneError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox_vercel import VercelProvider, run_command_in_sandbox

PERSISTENT: dict[str, Any] = {"provider": "vercel", "vercel": {"persistent": True}}


def test_a_checkpoint_needs_a_persistent_sandbox_and_ends_no_other(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel")
    with pytest.raises(UnsupportedOperationError, match="persistent"):
        sandbox.create_checkpoint()
    with pytest.raises(UnsupportedOperationError, match="persistent"):
        sandbox.restore_checkpoint("snap_1")
    assert sandbox.list_checkpoints() == []
    assert server.counts()["snapshot"] == 0
    assert sandbox.run_command(["echo", "on"]).output == "on\n"


def test_a_checkpoint_ends_what_runs_and_keeps_the_sandbox(service: RaisingService) -> None:
    sandbox = service.create_sandbox(**PERSISTENT)
    command = sandbox.start_command(["sleep", "300"])
    before = sandbox.record()
    sandbox.create_checkpoint()
    assert command.state() == "lost"
    after = sandbox.record()
    assert before.state is not None
    assert after.state is not None
    assert (after.status, after.state.epoch) == ("active", before.state.epoch)
    assert after.external_sandbox_id == before.external_sandbox_id


def test_snapshots_of_stops_are_no_checkpoints(service: RaisingService) -> None:
    sandbox = service.create_sandbox(**PERSISTENT)
    checkpoint = sandbox.create_checkpoint("a comment")
    assert checkpoint.comment == "a comment"
    sandbox.stop()
    sandbox.reconnect()
    assert [found.id for found in sandbox.list_checkpoints()] == [checkpoint.id]


def test_restoring_what_does_not_exist_stops_nothing(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(**PERSISTENT)
    sandbox.write_files({"file": b"kept"})
    server.clear_requests()
    with pytest.raises(CheckpointNotFoundError, match="snap_none"):
        sandbox.restore_checkpoint("snap_none")
    assert server.counts()["stop"] == 0
    assert sandbox.read_file("file") == b"kept"


def test_restoring_leaves_the_sandbox_its_name_and_the_record_its_incarnation(
    server: VercelServer, service: RaisingService, cold: RaisingService
) -> None:
    sandbox = service.create_sandbox(**PERSISTENT)
    sandbox.write_files({"file": b"old"})
    checkpoint = sandbox.create_checkpoint()
    sandbox.write_files({"file": b"new"})
    sandbox.restore_checkpoint(checkpoint.id)
    (name,) = server.sandboxes()
    assert sandbox.record().external_sandbox_id == name
    server.clear_requests()
    assert cold.read_file(sandbox.sandbox_id, "file") == b"old"
    # The record knows the new session already.
    assert server.operations() == ["run"]


def test_a_restore_that_would_displace_its_own_checkpoint_is_refused(
    server: VercelServer, service: RaisingService
) -> None:
    options = {"persistent": True, "keep_last_snapshots": 2}
    sandbox = service.create_sandbox(provider="vercel", vercel=options)
    sandbox.write_files({"file": b"first"})
    first = sandbox.create_checkpoint()
    sandbox.write_files({"file": b"second"})
    second = sandbox.create_checkpoint()
    with pytest.raises(UnsupportedOperationError, match=f"would displace '{first.id}'"):
        sandbox.restore_checkpoint(first.id)
    assert server.counts()["stop"] == 0
    assert [found.id for found in sandbox.list_checkpoints()] == [first.id, second.id]
    sandbox.write_files({"file": b"third"})
    sandbox.restore_checkpoint(second.id)
    assert sandbox.read_file("file") == b"second"


def test_a_checkpoint_whose_answer_was_lost_leaves_a_sandbox_that_works(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(**PERSISTENT)
    sandbox.write_files({"file": b"kept"})
    server.faults.add(Fault.RESET_AFTER, "snapshot")
    with pytest.raises(ProviderError) as caught:
        sandbox.create_checkpoint()
    assert caught.value.outcome == "unknown"
    assert len(server.seen("snapshot")) == 1
    assert sandbox.run_command(["cat", "file"]).output == "kept"
    assert len(sandbox.list_checkpoints()) == 1


def test_declared_ports_have_an_address_and_others_an_explanation(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="vercel", ports=[3000, 8080])
    assert sandbox.preview_url(8080).url.endswith(".vercel.run")
    assert sandbox.preview_url(3000).url == sandbox.record().sandbox_url
    with pytest.raises(UnsupportedOperationError, match="declared: 3000, 8080"):
        sandbox.preview_url(9000)
    server.world.clock.advance(1801)
    with pytest.raises(SandboxGoneError):
        sandbox.preview_url(8080)


def test_the_lifetime_is_extended_to_what_was_asked_for(
    server: VercelServer, provider: VercelProvider
) -> None:
    spec = new_spec()
    connection = provider.create(spec)
    now = server.world.now()
    end = connection.extend_timeout(3_600_000)
    assert end is not None
    assert abs(end - now - 3_600_000) < 10_000
    assert server.sandboxes()[spec.name].session.expires_at == end
    assert connection.extend_timeout(60_000) == end
    assert server.counts()["extend"] == 1


@pytest.mark.parametrize("fault", [Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.RATE_LIMITED])
def test_an_extension_is_made_once_whatever_becomes_of_the_answer(
    server: VercelServer, provider: VercelProvider, fault: Fault
) -> None:
    spec = new_spec()
    connection = provider.create(spec)
    server.faults.add(fault, "extend")
    end = connection.extend_timeout(3_600_000)
    assert end is not None
    assert server.sandboxes()[spec.name].session.expires_at == end
    assert abs(end - server.world.now() - 3_600_000) < 10_000


def test_a_stopped_sandbox_is_not_extended(provider: VercelProvider) -> None:
    spec = new_spec(persistent=True)
    connection = provider.create(spec)
    provider.stop(ref_of(spec))
    with pytest.raises(SandboxNotRunningError):
        connection.extend_timeout(60_000)


def test_without_the_sdk_the_error_says_how_to_install_it(
    provider: VercelProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vercel.sandbox.sync", None)
    connection = provider.create(new_spec())
    with pytest.raises(
        UnsupportedOperationError, match=r"pip install 'ekairos-sandbox-vercel\[sdk\]'"
    ):
        connection.native()
    connection.close()


@dataclass
class Process:
    returncode: int
    stdout: str | None
    stderr: str | None


class SdkSandbox:
    """As much of the SDK's object as commands need."""

    def run_process(self, command: str, args: list[str], *, capture_output: bool) -> Process:
        assert capture_output
        return Process(3, f"{command} {args}", None)


def test_a_native_sandbox_runs_a_command() -> None:
    result = run_command_in_sandbox(SdkSandbox(), "echo", ["é"])
    assert (result.exit_code, result.output, result.error) == (3, "echo ['é']", "")
    assert result.command == ("echo", "é")
    assert not result.success
