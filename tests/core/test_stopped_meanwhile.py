"""A sandbox that stops while the answer of a start is lost."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.memory_world import ManualClock

from ekairos_sandbox import (
    OutcomeUnknownError,
    ProviderTimeoutError,
    RaisingSandbox,
    SandboxNotRunningError,
    SandboxService,
)
from ekairos_sandbox.provider import Connection, ProviderContext, SandboxRef
from ekairos_sandbox.testing import FakeCommand, FakeProvider, FakeResult, MemorySandboxRepository


@pytest.fixture
def fake() -> FakeProvider:
    """One whose sandboxes stop as soon as a command has run."""
    fake = FakeProvider(ProviderContext(environ={}, clock=ManualClock()))

    def pay(command: FakeCommand) -> FakeResult:
        fake.sandbox(command.sandbox_id).running = False
        return FakeResult(stdout="paid")

    fake.handle(pay)
    return fake


@pytest.fixture
def stopping(fake: FakeProvider) -> RaisingSandbox:
    """A sandbox that loses the answer of its next script."""
    service = SandboxService(
        MemorySandboxRepository(), environ={}, clock=fake.context.clock, providers=[fake]
    ).raising
    sandbox = service.create_sandbox(provider="fake")
    lost = ProviderTimeoutError("no answer in time", outcome="unknown")
    fake.fail("shell", lost, after_effect=True)
    return sandbox


def test_it_is_started_again_and_what_had_begun_is_not_run_again(
    fake: FakeProvider, stopping: RaisingSandbox
) -> None:
    result = stopping.run_command("pay")
    assert (result.output, result.recreated) == ("paid", False)
    assert len(fake.commands) == 1


def test_what_may_have_begun_in_one_that_is_gone_then_is_unknown_and_not_run_again(
    fake: FakeProvider, stopping: RaisingSandbox
) -> None:
    lost = fake.sandbox(stopping.sandbox_id)
    connect = fake.connect

    def gone(ref: object) -> object:
        fake.sandboxes.pop(lost.name, None)
        return connect(ref)  # type: ignore[arg-type]

    fake.connect = gone  # type: ignore[assignment, method-assign]
    with pytest.raises(OutcomeUnknownError):
        stopping.run_command("pay")
    assert len(fake.commands) == 1
    assert fake.sandboxes == {}


def test_what_may_have_begun_in_one_that_was_stopped_on_request_is_unknown(
    fake: FakeProvider, stopping: RaisingSandbox
) -> None:
    other = SandboxService(
        stopping.service._operations.ledger.repository,
        environ={},
        clock=fake.context.clock,
        providers=[fake],
    ).raising

    def stop(command: FakeCommand) -> FakeResult:
        other.stop_sandbox(command.sandbox_id)
        return FakeResult()

    fake.handle(stop)
    with pytest.raises(OutcomeUnknownError):
        stopping.run_command("pay")
    assert len(fake.commands) == 1


def test_what_may_have_begun_stays_unknown_when_it_is_stopped_once_more(
    fake: FakeProvider, stopping: RaisingSandbox
) -> None:
    other = SandboxService(
        stopping.service._operations.ledger.repository,
        environ={},
        clock=fake.context.clock,
        providers=[fake],
    ).raising
    connect = fake.connect

    def stopped_again(ref: SandboxRef[Any]) -> Connection:
        connection = connect(ref)
        fake.fail("shell", SandboxNotRunningError("it is stopped"))
        fake.connect = connect  # type: ignore[method-assign]
        other.stop_sandbox(stopping.sandbox_id)
        other.reconnect_to_sandbox(stopping.sandbox_id)
        other.stop_sandbox(stopping.sandbox_id)
        return connection

    fake.connect = stopped_again  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknownError):
        stopping.run_command("pay")
    assert len(fake.commands) == 1
