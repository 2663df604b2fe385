"""Commands as processes: in the background, ended in time, once only."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import uuid

import pytest

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    CommandStillRunningError,
    IdConflictError,
)
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.results import OutputChunk
from ekairos_sandbox.testing.base import Lab, Suite, is_alive, sh, text


class ProcessSuite(Suite):
    """Timeouts, cancelling, background commands, ids."""

    def test_a_timeout_ends_the_command_and_all_its_children(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        script = "sleep 301 & echo $!; echo partial >&2; wait"
        result = sh(shared, script, timeout_s=1)
        assert (result.timed_out, result.exit_code, result.cancelled) == (True, None, False)
        assert result.error == "partial\n"
        child = result.output.strip()
        lab.until(lambda: not is_alive(shared, child), "the child to be gone")

    def test_a_command_that_ends_in_time_is_not_timed_out(self, shared: RaisingSandbox) -> None:
        result = sh(shared, "echo done", timeout_s=60)
        assert (result.timed_out, result.exit_code, result.output) == (False, 0, "done\n")

    def test_a_child_left_in_the_background_does_not_hang_the_command(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        result = sh(shared, "sleep 302 & echo $!", timeout_s=60).check()
        assert not result.timed_out
        child = result.output.strip()
        assert is_alive(shared, child)
        text(shared, "kill $1", child)
        lab.until(lambda: not is_alive(shared, child), "the child to be gone")

    def test_a_background_command_is_collected_by_another_service(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        script = 'until [ -e "$1/go" ]; do sleep 0.1; done; echo out; echo err >&2; exit 6'
        started = shared.start_command(["sh", "-c", script, "sh", folder])
        found = lab.service().get_command(shared.sandbox_id, started.command_id)
        assert found.state() == "running"
        with pytest.raises(CommandStillRunningError):
            found.wait(0.2)
        assert shared.list_commands()[started.command_id] == "running"
        shared.write_files({f"{folder}/go": b""})
        result = found.wait(60)
        assert (result.exit_code, result.output, result.error) == (6, "out\n", "err\n")
        assert result.command == ("sh", "-c", script, "sh", folder)
        assert found.state() == "exited"
        assert started.wait(5) == result

    def test_another_service_can_kill_a_command(self, lab: Lab, shared: RaisingSandbox) -> None:
        started = shared.start_command(["sh", "-c", "echo $$; sleep 303; echo never"])
        found = lab.service().get_command(shared.sandbox_id, started.command_id)
        lab.until(lambda: b"".join(found.output()).endswith(b"\n"), "the first output")
        result = found.kill()
        assert (result.cancelled, result.exit_code, result.timed_out) == (True, None, False)
        pid = result.output.strip()
        assert pid.isdecimal()
        assert not is_alive(shared, pid)
        assert started.state() == "killed"
        assert found.kill() == result

    def test_killing_what_has_ended_changes_nothing(self, shared: RaisingSandbox) -> None:
        result = sh(shared, "exit 8")
        killed = shared.get_command(result.command_id).kill()
        assert (killed.exit_code, killed.cancelled) == (8, False)

    def test_the_same_command_id_runs_once(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        chosen = f"once-{uuid.uuid4().hex[:8]}"
        script = 'echo x >>"$1/count"; echo ran; exit 9'
        first = sh(shared, script, folder, command_id=chosen)
        other = lab.service().get_sandbox(shared.sandbox_id)
        second = sh(other, script, folder, command_id=chosen)
        assert (first.exit_code, first.output) == (9, "ran\n")
        assert second == first
        assert shared.read_file(f"{folder}/count") == b"x\n"
        with pytest.raises(IdConflictError):
            sh(shared, 'echo y >>"$1/count"', folder, command_id=chosen)
        assert shared.read_file(f"{folder}/count") == b"x\n"

    def test_an_unknown_command_is_not_found(self, shared: RaisingSandbox) -> None:
        command = shared.get_command("never-started")
        with pytest.raises(CommandNotFoundError):
            command.state()
        with pytest.raises(CommandNotFoundError):
            command.wait(1)
        with pytest.raises(CommandNotFoundError):
            command.kill()
        with pytest.raises(CommandNotFoundError):
            list(command.output())

    def test_an_interrupt_ends_the_command(self, lab: Lab, shared: RaisingSandbox) -> None:
        chosen = f"interrupted-{uuid.uuid4().hex[:8]}"

        def interrupt(chunk: OutputChunk) -> None:
            del chunk
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sh(shared, "echo ready; sleep 304", command_id=chosen, on_output=interrupt)
        result = lab.service().get_command(shared.sandbox_id, chosen).wait(60)
        assert (result.cancelled, result.output) == (True, "ready\n")

    def test_leaving_a_stream_early_ends_the_command(self, shared: RaisingSandbox) -> None:
        with shared.stream_command(["sh", "-c", "echo ready; sleep 305"]) as stream:
            assert next(stream).data == b"ready\n"
        result = shared.get_command(stream.command_id).wait(60)
        assert result.cancelled

    def test_purging_forgets_results_of_ended_commands_only(self, lab: Lab) -> None:
        sandbox = lab.create()
        done = sandbox.run_command("true")
        running = sandbox.start_command(["sleep", "306"])
        assert sandbox.purge_commands(older_than_s=0) == 1
        with pytest.raises(CommandNotFoundError):
            sandbox.get_command(done.command_id).wait(1)
        assert running.state() == "running"
        running.kill()
