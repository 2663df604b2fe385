"""The durable id in other processes, and what stopping means."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    ProviderError,
    SandboxGoneError,
    SandboxNotRunningError,
    SandboxStoppedError,
)
from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.provider import SandboxRef
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.redaction import known_secrets
from ekairos_sandbox.testing.base import CREATE_ENV, Lab, Suite, sh, text


class LifecycleSuite(Suite):
    """By id alone from anywhere; stop, reconnect, destroy."""

    def test_an_active_record_says_what_is_at_the_provider(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        record = shared.record()
        assert (record.status, record.provider) == ("active", lab.provider.name)
        state = record.state
        assert state is not None
        assert (state.incarnation, state.deadline, state.release) == (1, None, None)
        assert state.account == lab.provider.account()
        info = lab.provider.inspect(lab.ref(record))
        assert info.external_id == record.external_sandbox_id

    def test_a_second_service_uses_the_sandbox_by_its_id_alone(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        text(shared, "echo from the first >$1/note", folder)
        other = lab.service().get_sandbox(shared.sandbox_id)
        assert text(other, "cat $1/note", folder) == "from the first\n"

    def test_the_environment_of_creation_is_that_of_every_command(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        script = 'printf %s "$CONFORMANCE_AT_CREATE"'
        expected = CREATE_ENV["CONFORMANCE_AT_CREATE"]
        assert text(shared, script) == expected
        other = lab.service().get_sandbox(shared.sandbox_id)
        assert text(other, script) == expected
        assert text(other, script, env={"CONFORMANCE_AT_CREATE": "mine"}) == "mine"
        assert text(other, script) == expected

    def test_a_second_process_uses_the_sandbox_by_its_id_alone(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        script = f"echo from the second >{folder}/note; echo $CONFORMANCE_AT_CREATE"
        told = self._second_process(lab, shared.sandbox_id, "run_command", ["sh", "-c", script])
        assert told == CREATE_ENV["CONFORMANCE_AT_CREATE"] + "\n"
        assert shared.read_file(f"{folder}/note") == b"from the second\n"

    def test_a_command_outlives_the_process_that_started_it(
        self, lab: Lab, shared: RaisingSandbox, folder: str
    ) -> None:
        script = f"until [ -e {folder}/go ]; do sleep 0.1; done; echo it ended"
        command_id = self._second_process(
            lab, shared.sandbox_id, "start_command", ["sh", "-c", script]
        )
        command = shared.get_command(command_id)
        assert command.state() == "running"
        shared.write_files({f"{folder}/go": b""})
        assert command.wait(60).stdout == b"it ended\n"

    def test_a_stopped_sandbox_refuses_commands_and_files(self, lab: Lab) -> None:
        sandbox = lab.create()
        connection = lab.connect(sandbox)
        warm = lab.service()
        sh(warm.get_sandbox(sandbox.sandbox_id), "true").check()
        assert sandbox.stop().status == "shutdown"
        for service in (lab.main, warm, lab.service()):
            stopped = service.get_sandbox(sandbox.sandbox_id)
            with pytest.raises(SandboxStoppedError):
                sh(stopped, "true")
            with pytest.raises(SandboxStoppedError):
                stopped.write_files({"note": b""})
            with pytest.raises(SandboxStoppedError):
                stopped.read_file("note")
        proof = SandboxNotRunningError if self.restarts_after_stop else ProviderError
        with pytest.raises(proof):
            connection.shell(b"true", timeout_s=30, max_bytes=65536)
        self._assert_not_running(lab, sandbox.record())

    def test_stopping_twice_changes_nothing_and_starts_nothing(self, lab: Lab) -> None:
        sandbox = lab.create()
        first = sandbox.stop()
        self._assert_not_running(lab, first)
        lab.provider.stop(lab.ref(first))
        assert sandbox.stop() == first
        self._assert_not_running(lab, first)

    def test_looking_at_a_stopped_sandbox_does_not_start_it(self, lab: Lab) -> None:
        sandbox = lab.create()
        record = sandbox.stop()
        self._assert_not_running(lab, record)
        lab.provider.find(lab.ref(record).name)
        list(lab.provider.list_owned(lab.owner))
        self._assert_not_running(lab, record)

    def test_reconnecting_starts_a_stopped_sandbox_and_keeps_what_its_kind_keeps(
        self, lab: Lab
    ) -> None:
        sandbox = lab.create(env=CREATE_ENV)
        sandbox.write_files({"kept": b"before the stop"})
        external_id = sandbox.record().external_sandbox_id
        sandbox.stop()
        if not self.restarts_after_stop:
            with pytest.raises(SandboxGoneError):
                sandbox.reconnect()
            return
        sandbox.reconnect()
        record = sandbox.record()
        assert (record.status, record.shutdown_at) == ("active", None)
        assert record.external_sandbox_id == external_id
        result = sh(sandbox, 'printf %s "$CONFORMANCE_AT_CREATE"').check()
        assert result.output == CREATE_ENV["CONFORMANCE_AT_CREATE"]
        assert not result.recreated
        if self.keeps_files_after_stop:
            assert sandbox.read_file("kept") == b"before the stop"

    def test_what_is_created_again_after_it_was_stopped_runs(self, lab: Lab) -> None:
        if not self.restarts_after_stop:
            pytest.skip("a stopped sandbox cannot be started again")
        spec = lab.spec()
        first = lab.provider.create(spec)
        first.close()
        lab.provider.stop(lab.ref_of(spec, first))
        again = lab.provider.create(spec)
        assert (again.external_id, again.ownership) == (first.external_id, "adopted")
        again.close()
        assert lab.provider.inspect(lab.ref_of(spec, again)).state == "running"

    def test_nothing_of_our_environment_is_inside(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONFORMANCE_OUTSIDE", "outside-3c9e")
        secrets = {*known_secrets(lab.provider.context.environ), "outside-3c9e"}
        inside = text(lab.create(), "env")
        assert [secret in inside for secret in secrets] == [False] * len(secrets)

    def test_stopping_ends_the_commands_inside(self, lab: Lab) -> None:
        if not self.restarts_after_stop:
            pytest.skip("a stopped sandbox cannot be started again to look")
        sandbox = lab.create()
        mark = uuid.uuid4().hex
        command = sandbox.start_command(["sh", "-c", "sleep 300; :", "sh", mark])
        # By a file, in two halves: the look itself must not be found.
        look = (
            'printf %s%s "$1" "$2" >"$HOME/mark" && '
            'grep -l -F -f "$HOME/mark" /proc/[0-9]*/cmdline 2>/dev/null | wc -l'
        )
        halves = (mark[:16], mark[16:])
        assert command.state() == "running"
        lab.until(lambda: text(sandbox, look, *halves).strip() == "1", "the command to run")
        sandbox.stop()
        sandbox.reconnect()
        assert text(sandbox, look, *halves).strip() == "0"
        if self.keeps_files_after_stop:
            assert command.state() in ("lost", "killed")

    def test_a_sandbox_stopped_behind_the_records_back_is_started_by_a_command(
        self, lab: Lab
    ) -> None:
        if not self.restarts_after_stop:
            pytest.skip("a stopped sandbox cannot be started again")
        sandbox = lab.create()
        sandbox.write_files({"kept": b"1"})
        lab.provider.stop(lab.ref(sandbox.record()))
        for service in (lab.main, lab.service()):
            again = service.get_sandbox(sandbox.sandbox_id)
            result = sh(again, "echo runs").check()
            assert (result.output, result.recreated) == ("runs\n", False)
        if self.keeps_files_after_stop:
            assert sandbox.read_file("kept") == b"1"

    def test_destroying_twice_leaves_nothing(self, lab: Lab) -> None:
        sandbox = lab.create()
        connection = lab.connect(sandbox)
        external_id = sandbox.record().external_sandbox_id
        warm = lab.service().get_sandbox(sandbox.sandbox_id)
        sh(warm, "true").check()
        record = sandbox.destroy()
        assert record.status == "shutdown"
        lab.until(lambda: external_id not in lab.owned(), "it to be gone")
        assert lab.provider.find(lab.ref(record).name) is None
        with pytest.raises(SandboxGoneError):
            lab.provider.inspect(lab.ref(record))
        with pytest.raises(SandboxGoneError):
            connection.shell(b"true", timeout_s=30, max_bytes=65536)
        sandbox.destroy()
        for handle in (sandbox, warm):
            with pytest.raises(SandboxStoppedError):
                sh(handle, "true")
        with pytest.raises(SandboxGoneError):
            sandbox.reconnect()
        assert lab.provider.find(lab.ref(record).name) is None

    def test_several_may_stop_and_destroy_at_once(self, lab: Lab) -> None:
        sandbox = lab.create()
        sandbox.write_files({f"folder/{number}": b"" for number in range(50)})
        ref = lab.ref(sandbox.record())
        for end in (lab.provider.stop, lab.provider.destroy):
            at_once = threading.Barrier(4)

            def act(
                end: Callable[[SandboxRef[Any]], None] = end,
                at_once: threading.Barrier = at_once,
            ) -> None:
                at_once.wait()
                end(ref)

            with ThreadPoolExecutor(at_once.parties) as pool:
                for done in [pool.submit(act) for _ in range(at_once.parties)]:
                    done.result()
        lab.until(lambda: lab.provider.find(ref.name) is None, "it to be gone")
        lab.provider.destroy(ref)
        lab.provider.stop(ref)
        sandbox.destroy()

    def _assert_not_running(self, lab: Lab, record: SandboxRecord) -> None:
        def not_running() -> bool:
            try:
                return lab.provider.inspect(lab.ref(record)).state not in ("running", "changing")
            except SandboxGoneError:
                return not self.restarts_after_stop

        lab.until(not_running, "it to be stopped")

    def _second_process(self, lab: Lab, sandbox_id: str, verb: str, argv: list[str]) -> str:
        """Run a command from a process of its own: its output, or the id of a started one."""
        if self.provider_factory is None:
            pytest.skip("this class names no provider_factory for a second process")
        order: dict[str, Any] = {
            "factory": self.provider_factory,
            "environ": dict(lab.provider.context.environ),
            "store": str(lab.store),
            "sandbox_id": sandbox_id,
            "verb": verb,
            "argv": argv,
        }
        done = subprocess.run(  # noqa: S603 - our own file
            [sys.executable, "-P", str(Path(__file__).with_name("second_process.py"))],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout))
