"""Lost replies: what was asked for happens exactly once, and nothing is guessed."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    OutcomeUnknownError,
    ProviderError,
    ProviderUnavailableError,
    SandboxFailedError,
)
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite, sh
from ekairos_sandbox.testing.faults import (
    Fault,
    Faults,
    HastyClock,
    cut,
    faulty,
    garbage,
    lost_after,
    lost_before,
    noisy,
    refused,
)

APPEND = 'echo x >>"$1/count"; echo done'


@dataclass(frozen=True)
class Line:
    """The shared sandbox, reached over a line that fails as told."""

    sandbox: RaisingSandbox
    faults: Faults


class AmbiguitySuite(Suite):
    """Commands, files and the lifecycle while replies get lost."""

    @pytest.fixture(scope="class")
    @classmethod
    def warm_line(cls, lab: Lab, shared: RaisingSandbox) -> Line:
        """A service of its own, warm already, whose calls can be made to fail."""
        faults = Faults()
        service = lab.service(faulty(lab.provider, faults), clock=HastyClock())
        line = Line(service.get_sandbox(shared.sandbox_id), faults)
        sh(line.sandbox, "true").check()
        return line

    @pytest.fixture
    def line(self, warm_line: Line) -> Iterator[Line]:
        """The line, in order at the beginning of each test."""
        yield warm_line
        warm_line.faults.clear()

    @pytest.mark.parametrize("calls", [(1,), (1, 2)], ids=["first", "first two"])
    @pytest.mark.parametrize("fault", [refused, lost_before, lost_after, cut, garbage])
    def test_a_command_runs_once_whatever_becomes_of_the_first_calls(
        self, line: Line, folder: str, fault: Fault, calls: tuple[int, ...]
    ) -> None:
        line.faults.at("shell", fault, *calls)
        result = sh(line.sandbox, APPEND, folder)
        assert (result.exit_code, result.output) == (0, "done\n")
        line.faults.clear()
        assert line.sandbox.read_file(f"{folder}/count") == b"x\n"

    def test_foreign_text_around_an_answer_does_no_harm(self, line: Line, folder: str) -> None:
        line.faults.always(noisy, "shell")
        result = sh(line.sandbox, APPEND, folder)
        assert (result.exit_code, result.output) == (0, "done\n")
        line.sandbox.write_files({f"{folder}/file": b"a\nb\r\n"})
        assert line.sandbox.read_file(f"{folder}/file") == b"a\nb\r\n"

    @pytest.mark.parametrize("fault", [refused, lost_before, lost_after, cut])
    def test_waiting_goes_on_after_lost_answers(
        self, line: Line, shared: RaisingSandbox, folder: str, fault: Fault
    ) -> None:
        script = 'echo x >>"$1/count"; until [ -e "$1/go" ]; do sleep 0.1; done; exit 3'
        command = line.sandbox.start_command(["sh", "-c", script, "sh", folder])
        shared.write_files({f"{folder}/go": b""})
        line.faults.at("shell", fault, 1, 2)
        assert command.wait(60).exit_code == 3
        assert shared.read_file(f"{folder}/count") == b"x\n"

    @pytest.mark.parametrize("fault", [lost_after, cut])
    def test_when_every_answer_is_lost_the_outcome_is_unknown_and_found_later(
        self, line: Line, shared: RaisingSandbox, folder: str, fault: Fault
    ) -> None:
        line.faults.always(fault, "shell")
        chosen = f"lost-{uuid.uuid4().hex[:8]}"
        with pytest.raises(OutcomeUnknownError) as caught:
            sh(line.sandbox, APPEND, folder, command_id=chosen)
        assert caught.value.command_id == chosen
        result = shared.get_command(chosen).wait(60)
        assert (result.exit_code, result.output) == (0, "done\n")
        line.faults.clear()
        assert sh(line.sandbox, APPEND, folder, command_id=chosen).output == "done\n"
        assert shared.read_file(f"{folder}/count") == b"x\n"

    def test_when_no_call_arrives_the_outcome_is_unknown_and_nothing_ran(
        self, line: Line, shared: RaisingSandbox, folder: str
    ) -> None:
        line.faults.always(lost_before, "shell")
        chosen = f"lost-{uuid.uuid4().hex[:8]}"
        with pytest.raises(OutcomeUnknownError):
            sh(line.sandbox, APPEND, folder, command_id=chosen)
        with pytest.raises(CommandNotFoundError):
            shared.get_command(chosen).state()
        line.faults.clear()
        assert sh(line.sandbox, APPEND, folder, command_id=chosen).output == "done\n"
        assert shared.read_file(f"{folder}/count") == b"x\n"

    def test_when_no_call_can_arrive_the_error_says_that_nothing_ran(
        self, line: Line, shared: RaisingSandbox, folder: str
    ) -> None:
        line.faults.always(refused, "shell")
        with pytest.raises(ProviderUnavailableError) as caught:
            sh(line.sandbox, APPEND, folder)
        assert caught.value.outcome == "failed"
        assert sh(shared, "ls $1", folder).output == ""

    @pytest.mark.parametrize("fault", [lost_before, lost_after])
    def test_large_input_arrives_once_whatever_becomes_of_the_calls(
        self, line: Line, shared: RaisingSandbox, folder: str, fault: Fault
    ) -> None:
        line.faults.at("shell", fault, 1, 3)
        data = bytes(range(256)) * 1024
        result = sh(line.sandbox, 'cat >>"$1/in"; echo done', folder, stdin=data)
        assert result.output == "done\n"
        assert shared.read_file(f"{folder}/in") == data

    @pytest.mark.parametrize("fault", [refused, lost_before, lost_after, cut])
    def test_a_stream_misses_and_repeats_nothing(
        self, line: Line, folder: str, fault: Fault
    ) -> None:
        script = "i=0; while [ $i -lt 500 ]; do echo $i; i=$((i+1)); done; sleep 0.3; echo end"
        line.faults.at("shell", fault, 1, 3)
        with line.sandbox.stream_command(["sh", "-c", script]) as stream:
            got = b"".join(chunk.data for chunk in stream)
        assert got == b"".join(b"%d\n" % i for i in range(500)) + b"end\n"

    @pytest.mark.parametrize("fault", [refused, lost_before, lost_after])
    def test_files_are_right_whatever_becomes_of_a_call(
        self, line: Line, folder: str, fault: Fault
    ) -> None:
        for operation in ("shell", "write_file", "read_file"):
            line.faults.at(operation, fault, 1)
        try:
            line.sandbox.write_files({f"{folder}/file": b"content\n"})
        except ProviderError:
            line.sandbox.write_files({f"{folder}/file": b"content\n"})
        line.faults.clear()
        assert line.sandbox.read_file(f"{folder}/file") == b"content\n"
        assert sh(line.sandbox, "ls -A $1", folder).output == "file\n"

    @pytest.mark.parametrize("fault", [refused, lost_before, lost_after])
    def test_a_large_file_is_right_whatever_becomes_of_a_call(
        self, line: Line, folder: str, fault: Fault
    ) -> None:
        data = bytes(range(256)) * 6000
        for operation in ("shell", "put", "get", "write_file", "read_file"):
            line.faults.at(operation, fault, 1)
        try:
            line.sandbox.write_files({f"{folder}/file": data})
        except ProviderError:
            line.sandbox.write_files({f"{folder}/file": data})
        try:
            assert line.sandbox.read_file(f"{folder}/file") == data
        except ProviderError:
            assert line.sandbox.read_file(f"{folder}/file") == data
        line.faults.clear()
        assert sh(line.sandbox, "ls -A $1", folder).output == "file\n"

    def test_a_creation_whose_answer_was_lost_is_found(self, lab: Lab) -> None:
        faults = Faults()
        faults.at("create", lost_after)
        before = lab.owned()
        sandbox = lab.create(lab.service(faulty(lab.provider, faults), clock=HastyClock()))
        assert faults.calls.count("create") == 1
        external_id = sandbox.record().external_sandbox_id
        lab.until(lambda: external_id in lab.owned(), "it to be listed")
        assert lab.owned() - before == {external_id}
        assert sh(sandbox, "echo found").output == "found\n"

    @pytest.mark.parametrize("fault", [refused, lost_before])
    def test_a_creation_that_failed_leaves_nothing_and_the_record_says_why(
        self, lab: Lab, fault: Fault
    ) -> None:
        faults = Faults()
        faults.at("create", fault)
        before = lab.owned()
        chosen = str(uuid.uuid4())
        service = lab.service(faulty(lab.provider, faults), clock=HastyClock())
        with pytest.raises(ProviderError):
            lab.create(service, sandbox_id=chosen)
        record = lab.main.get_record(chosen)
        assert record.status == "error"
        assert (record.params or {})["error"]
        with pytest.raises(SandboxFailedError):
            sh(lab.main.get_sandbox(chosen), "true")
        assert lab.owned() == before

    def test_a_creation_that_cannot_be_prepared_leaves_nothing(self, lab: Lab) -> None:
        faults = Faults()
        faults.always(refused, "shell")
        before = lab.owned()
        with pytest.raises(ProviderError):
            lab.create(lab.service(faulty(lab.provider, faults), clock=HastyClock()))
        assert "destroy" in faults.calls
        lab.until(lambda: lab.owned() == before, "what was made to be gone")

    @pytest.mark.parametrize("operation", ["create", "shell"])
    def test_an_interrupted_creation_leaves_nothing(self, lab: Lab, operation: str) -> None:
        def interrupt(call: Callable[[], Any]) -> Any:
            call()
            raise KeyboardInterrupt

        faults = Faults()
        faults.at(operation, interrupt)
        before = lab.owned()
        chosen = str(uuid.uuid4())
        with pytest.raises(KeyboardInterrupt):
            lab.create(lab.service(faulty(lab.provider, faults)), sandbox_id=chosen)
        assert lab.main.get_record(chosen).status == "error"
        lab.until(lambda: lab.owned() == before, "what was made to be gone")

    @pytest.mark.parametrize("fault", [refused, lost_after])
    @pytest.mark.parametrize("verb", ["stop", "destroy"])
    def test_a_stop_that_the_provider_was_not_told_of_is_stopped_all_the_same(
        self, lab: Lab, verb: str, fault: Fault
    ) -> None:
        faults = Faults()
        service = lab.service(faulty(lab.provider, faults), clock=HastyClock())
        sandbox = lab.create(service)
        faults.always(fault, verb)
        with pytest.raises(ProviderError):
            getattr(sandbox, verb)()
        record = sandbox.record()
        assert record.state is not None
        assert (record.status, record.state.release) == ("shutdown", verb)
        faults.clear()
        report = service.reconcile(apply=True, providers=[lab.provider.name])
        assert ("release", sandbox.sandbox_id, True) in [
            (action.kind, action.sandbox_id, action.applied) for action in report.actions
        ]
        record = sandbox.record()
        assert record.state is not None
        assert (record.status, record.state.release) == ("shutdown", None)
