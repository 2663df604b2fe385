"""The public types, as a type checker sees them. Never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, assert_type

from ekairos_sandbox import (
    Checkpoint,
    Command,
    CommandResult,
    Err,
    Ok,
    PreviewUrl,
    RaisingCommand,
    RaisingSandbox,
    RaisingService,
    ReconcileReport,
    Reconnected,
    RecordPage,
    Sandbox,
    SandboxError,
    SandboxRecord,
    SandboxService,
    ServiceResult,
    TransferStats,
)
from ekairos_sandbox.jobs.stream import CommandStream
from ekairos_sandbox.results import CommandState


def ok_narrows(result: ServiceResult[CommandResult]) -> str:
    assert_type(result.ok, bool)
    if result.ok:
        assert_type(result, Ok[CommandResult])
        assert_type(result.data, CommandResult)
        return result.data.output
    assert_type(result, Err)
    assert_type(result.exception, SandboxError)
    return f"{result.code}: {result.error}"


def not_ok_narrows(result: ServiceResult[int]) -> int:
    if not result.ok:
        assert_type(result, Err)
        raise result.exception
    assert_type(result, Ok[int])
    return result.data


def isinstance_narrows(result: ServiceResult[int]) -> None:
    if isinstance(result, Err):
        assert_type(result.ok, Literal[False])
    else:
        assert_type(result.ok, Literal[True])


def match_narrows(result: ServiceResult[int]) -> int:
    match result:
        case Ok(data=data):
            assert_type(data, int)
            return data
        case Err(code=code):
            assert_type(code, str)
            return 0


def unwrap_gives_the_data(result: ServiceResult[CommandResult]) -> None:
    assert_type(result.unwrap(), CommandResult)
    assert_type(result.unwrap().check(), CommandResult)


def data_needs_a_check(result: ServiceResult[int]) -> None:
    print(result.data)  # type: ignore[union-attr]
    print(result.error)  # type: ignore[union-attr]


def results_are_covariant(result: Ok[bool]) -> ServiceResult[int]:
    return result


def the_service_returns_results(service: SandboxService, sandbox_id: str) -> None:
    assert_type(service.create_sandbox(provider="local"), ServiceResult[Sandbox])
    assert_type(service.reconnect_to_sandbox(sandbox_id), ServiceResult[Reconnected])
    assert_type(service.reconnect_to_sandbox(sandbox_id).unwrap().sandbox, Sandbox)
    assert_type(service.get_record(sandbox_id), ServiceResult[SandboxRecord])
    assert_type(service.list_sandboxes(status="active"), ServiceResult[RecordPage])
    assert_type(service.iter_sandboxes(), Iterator[SandboxRecord])
    assert_type(service.run_command(sandbox_id, "true"), ServiceResult[CommandResult])
    assert_type(service.run_command(sandbox_id, ["echo", "x"]), ServiceResult[CommandResult])
    assert_type(service.stream_command(sandbox_id, "true"), ServiceResult[CommandStream])
    assert_type(service.start_command(sandbox_id, "true"), ServiceResult[Command])
    assert_type(service.get_command(sandbox_id, "c"), Command)
    assert_type(service.list_commands(sandbox_id), ServiceResult[dict[str, CommandState]])
    assert_type(service.purge_commands(sandbox_id), ServiceResult[int])
    assert_type(service.write_files(sandbox_id, {"a": b""}), ServiceResult[TransferStats])
    assert_type(service.read_file(sandbox_id, "a"), ServiceResult[bytes])
    assert_type(service.upload(sandbox_id, "a", "b"), ServiceResult[TransferStats])
    assert_type(service.download(sandbox_id, "a", "b"), ServiceResult[TransferStats])
    assert_type(service.create_checkpoint(sandbox_id), ServiceResult[Checkpoint])
    assert_type(service.list_checkpoints(sandbox_id), ServiceResult[list[Checkpoint]])
    assert_type(service.restore_checkpoint(sandbox_id, "v1"), ServiceResult[None])
    assert_type(service.preview_url(sandbox_id, 8080), ServiceResult[PreviewUrl])
    assert_type(service.extend_timeout(sandbox_id, 1000), ServiceResult[int | None])
    assert_type(service.native(sandbox_id), ServiceResult[Any])
    assert_type(service.stop_sandbox(sandbox_id), ServiceResult[SandboxRecord])
    assert_type(service.destroy_sandbox(sandbox_id), ServiceResult[SandboxRecord])
    assert_type(service.reconcile(apply=True), ServiceResult[ReconcileReport])
    assert_type(service.get_sandbox(sandbox_id), Sandbox)
    assert_type(service.raising, RaisingService)
    with service as entered:
        assert_type(entered, SandboxService)


def raising_returns_plain_data(service: SandboxService, sandbox_id: str) -> None:
    raising = service.raising
    assert_type(raising.create_sandbox(provider="local"), RaisingSandbox)
    assert_type(raising.reconnect_to_sandbox(sandbox_id), RaisingSandbox)
    assert_type(raising.get_record(sandbox_id), SandboxRecord)
    assert_type(raising.list_sandboxes(status=["active", "error"]), RecordPage)
    assert_type(raising.iter_sandboxes(), Iterator[SandboxRecord])
    assert_type(raising.run_command(sandbox_id, "true"), CommandResult)
    assert_type(raising.stream_command(sandbox_id, "true"), CommandStream)
    assert_type(raising.start_command(sandbox_id, "true"), RaisingCommand)
    assert_type(raising.get_command(sandbox_id, "c"), RaisingCommand)
    assert_type(raising.read_file(sandbox_id, "a"), bytes)
    assert_type(raising.stop_sandbox(sandbox_id), SandboxRecord)
    assert_type(raising.reconcile(), ReconcileReport)


def handles_have_the_verbs_without_the_id(sandbox: Sandbox) -> None:
    assert_type(sandbox.sandbox_id, str)
    assert_type(sandbox.record(), ServiceResult[SandboxRecord])
    assert_type(sandbox.run_command("echo", ["x"], timeout_s=5), ServiceResult[CommandResult])
    assert_type(sandbox.start_command("true"), ServiceResult[Command])
    assert_type(sandbox.get_command("c"), Command)
    assert_type(sandbox.write_files({"a": "text"}), ServiceResult[TransferStats])
    assert_type(sandbox.read_file("a"), ServiceResult[bytes])
    assert_type(sandbox.reconnect(), ServiceResult[Reconnected])
    assert_type(sandbox.stop(), ServiceResult[SandboxRecord])
    assert_type(sandbox.destroy(), ServiceResult[SandboxRecord])
    assert_type(sandbox.raising, RaisingSandbox)
    assert_type(sandbox.raising.run_command("true"), CommandResult)
    assert_type(sandbox.raising.start_command("true"), RaisingCommand)
    assert_type(sandbox.raising.reconnect(), RaisingSandbox)
    assert_type(sandbox.raising.record(), SandboxRecord)


def commands_can_be_waited_for(command: Command) -> None:
    assert_type(command.sandbox_id, str)
    assert_type(command.command_id, str)
    assert_type(command.wait(), ServiceResult[CommandResult])
    assert_type(command.wait(timeout_s=5), ServiceResult[CommandResult])
    assert_type(command.state(), ServiceResult[CommandState])
    assert_type(command.output("stderr", offset=3), ServiceResult[Iterator[bytes]])
    assert_type(command.kill(), ServiceResult[CommandResult])
    assert_type(command.raising.wait(), CommandResult)
    assert_type(command.raising.state(), CommandState)
    assert_type(command.raising.output(), Iterator[bytes])


def mistakes_are_found(service: SandboxService, sandbox: Sandbox, command: Command) -> None:
    service.run_command("id")  # type: ignore[call-arg]
    service.run_command("id", "true", timeout=5)  # type: ignore[call-arg]
    service.run_command("id", 5)  # type: ignore[arg-type]
    service.raising.run_command("id", "true").unwrap()  # type: ignore[attr-defined]
    sandbox.run_command(["true"], env={"A": 1})  # type: ignore[dict-item]
    sandbox.read_file()  # type: ignore[call-arg]
    command.output("stdin")  # type: ignore[arg-type]
