"""Commands that do not end by themselves: timeouts, kills, interrupts, a dead supervisor."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.host_shell import MOST_SHELLS, Box, ShellName, alive, open_box, sh, spec, until

from ekairos_sandbox.exceptions import CommandNotFoundError, OutcomeUnknownError, SandboxError
from ekairos_sandbox.jobs.spec import JobSpec
from ekairos_sandbox.results import OutputChunk


@pytest.fixture(scope="module", params=MOST_SHELLS)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name) as made:
        yield made


def pid_in(path: Path) -> int:
    """Wait for a program to write its process id into a file."""
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_a_timeout_ends_the_command_and_keeps_its_output(box: Box) -> None:
    result = box.run("sh", "-c", "echo before; exec sleep 60", timeout_s=0.3)
    assert (result.exit_code, result.timed_out, result.cancelled) == (None, True, False)
    assert result.stdout == b"before\n"


def test_a_command_that_ends_in_time_is_not_touched(box: Box) -> None:
    results = [box.run("sh", "-c", "exit 5", timeout_s=60) for _ in range(8)]
    assert [(r.exit_code, r.timed_out) for r in results] == [(5, False)] * 8


def test_a_command_may_clean_up_when_its_time_is_over(box: Box) -> None:
    line = "trap 'echo bye; exit 9' TERM; echo hi; sleep 60 & wait"
    result = box.runner.run(sh(line, timeout_s=0.3))
    assert (result.exit_code, result.timed_out, result.stdout) == (None, True, b"hi\nbye\n")


def test_nothing_escapes_a_timeout(box: Box) -> None:
    pids = [box.home / name for name in ("main", "child", "session", "ignoring")]
    for path in pids:
        path.unlink(missing_ok=True)
    line = (
        "trap '' TERM; echo $$ >main; "
        "sh -c 'echo $$ >child; sleep 60' & "
        "setsid sh -c 'echo $$ >session; sleep 60' & "
        "(setsid sh -c 'trap \"\" TERM HUP; echo $$ >ignoring; while :; do sleep 1; done' &) & "
        "sleep 60; sleep 60"
    )
    result = box.runner.run(sh(line, timeout_s=0.5, grace_s=0.3))
    assert result.timed_out
    assert [alive(pid_in(path)) for path in pids] == [False] * 4


def test_kill_ends_a_running_command(box: Box) -> None:
    made = sh("echo started; exec sleep 60")
    assert box.runner.start(made).state == "running"
    assert box.runner.state(made.command_id) == "running"
    assert box.runner.kill(made.command_id) == "killed"
    result = box.runner.result(made.command_id)
    assert (result.exit_code, result.cancelled, result.timed_out) == (None, True, False)
    assert box.runner.state(made.command_id) == "killed"


def test_kill_wakes_everyone_who_waits(box: Box) -> None:
    made = spec("sleep", "60")
    box.runner.start(made)
    results = []
    waiting = [
        threading.Thread(target=lambda: results.append(box.runner.result(made.command_id)))
        for _ in range(3)
    ]
    for thread in waiting:
        thread.start()
    box.runner.kill(made.command_id)
    for thread in waiting:
        thread.join(15)
    assert [result.cancelled for result in results] == [True] * 3


def test_kill_changes_nothing_after_the_end(box: Box) -> None:
    made = sh("exit 4")
    box.runner.run(made)
    assert box.runner.kill(made.command_id) == "exited"
    assert box.runner.result(made.command_id).exit_code == 4


def test_kill_of_an_unknown_command_is_an_error(box: Box) -> None:
    with pytest.raises(CommandNotFoundError, match="knows no command nobody"):
        box.runner.kill("nobody")
    assert not box.job("nobody").exists()


def test_a_command_that_was_killed_before_it_ran_never_runs(box: Box) -> None:
    made = sh("echo ran >early", command_id="early-bird")
    box.runner.cancel_quietly(made.command_id)
    result = box.runner.run(made)
    assert (result.exit_code, result.cancelled) == (None, True)
    assert not (box.home / "early").exists()
    assert box.runner.list()["early-bird"] == "killed"


def test_an_interrupt_ends_the_command_and_is_raised_on(box: Box) -> None:
    made = sh("echo $$ >interrupted; exec sleep 60")
    real = box.shell.shell
    calls = 0

    def shell(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            with box.shell.popen(script) as process:
                pid_in(box.home / "interrupted")
                os.killpg(process.pid, signal.SIGKILL)
            raise KeyboardInterrupt
        return real(script, timeout_s=timeout_s, max_bytes=max_bytes)

    box.shell.shell = shell  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            box.runner.run(made)
    finally:
        del box.shell.shell
    assert calls == 2
    assert box.runner.result(made.command_id).cancelled
    assert not alive(pid_in(box.home / "interrupted"))
    (box.home / "interrupted").unlink()


def test_an_error_in_the_callers_callback_ends_the_command(box: Box) -> None:
    made = sh("echo out; exec sleep 60")

    def fail(chunk: OutputChunk) -> None:
        raise LookupError(chunk.data)

    with pytest.raises(LookupError, match="out"):
        box.runner.run(made, on_output=fail)
    assert box.runner.result(made.command_id).cancelled


def supervisor_of(box: Box, made: JobSpec) -> int:
    return int((box.job(made.command_id) / "go").read_text().split()[0])


def test_a_dead_supervisor_is_an_unknown_outcome_with_what_was_written(box: Box) -> None:
    (box.home / "orphan").unlink(missing_ok=True)
    made = sh("echo partial; setsid sh -c 'echo $$ >orphan; exec sleep 60'")
    box.runner.start(made)
    orphan = pid_in(box.home / "orphan")
    until(lambda: (box.job(made.command_id) / "out").read_bytes())
    os.kill(supervisor_of(box, made), signal.SIGKILL)
    with pytest.raises(OutcomeUnknownError, match="its supervisor died") as caught:
        box.runner.result(made.command_id)
    assert caught.value.stdout == b"partial\n"
    assert caught.value.command_id == made.command_id
    assert not alive(orphan)
    assert box.runner.state(made.command_id) == "lost"
    with pytest.raises(OutcomeUnknownError):
        box.runner.start(made)


def test_a_waiter_notices_at_once_that_the_supervisor_died(box: Box) -> None:
    made = spec("sleep", "60")
    box.runner.start(made)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            box.runner.result(made.command_id)
        except OutcomeUnknownError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    os.kill(supervisor_of(box, made), signal.SIGKILL)
    waiting.join(15)
    assert len(errors) == 1


def test_strays_of_one_command_are_not_taken_for_anothers(box: Box) -> None:
    (box.home / "bystander").unlink(missing_ok=True)
    box.runner.start(sh("echo $$ >bystander; exec sleep 60", command_id="job1x"))
    bystander = pid_in(box.home / "bystander")
    assert box.runner.run(spec("sleep", "60", command_id="job1", timeout_s=0.2)).timed_out
    assert alive(bystander)
    box.runner.kill("job1x")


def test_the_client_ends_what_the_supervisor_does_not(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekairos_sandbox.jobs.stream.BACKSTOP_S", 0.2)
    made = sh("echo out; exec sleep 60", timeout_s=0.3, grace_s=0)
    real = box.shell.shell

    def shell(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        # The timer fails, and no call is ever told to wait.
        script = script.replace(b"ek_alarm \\042$ek_timeout\\042 USR1", b"ek_alarm 300 USR1")
        script = re.sub(rb"ek_window=[0-9]+ ", b"ek_window=1 ", script)
        return real(script, timeout_s=timeout_s, max_bytes=max_bytes)

    box.shell.shell = shell  # type: ignore[method-assign]
    try:
        result = box.runner.run(made)
    finally:
        del box.shell.shell
    assert (result.exit_code, result.timed_out, result.stdout) == (None, True, b"out\n")


def test_output_whose_pump_was_killed_is_not_said_to_be_whole(box: Box) -> None:
    line = (
        "trap '' PIPE; for p in /proc/[0-9]*; do case $(readlink $p/fd/1) in "
        "*/jobs/pumped/out) kill -KILL ${p#/proc/} ;; esac; done 2>/dev/null; echo dropped; exit 3"
    )
    result = box.runner.run(sh(line, command_id="pumped"))
    assert (result.exit_code, result.truncated) == (3, True)


def test_a_wait_that_was_killed_signals_nobody_later() -> None:
    # In dash alone a wait has a process of its own, which is then an orphan.
    with open_box("dash") as box:
        started = spec("sleep", "60")
        box.runner.start(started)
        asking = threading.Thread(target=_wait_quietly, args=(box, started.command_id))
        asking.start()
        until(lambda: bool(_timers()))
        ((timer, waiting),) = _timers().items()
        os.kill(waiting, signal.SIGKILL)
        box.runner.kill(started.command_id)
        assert _stat(timer)[0] != "Z"
        os.kill(timer, signal.SIGKILL)
        asking.join()


def _wait_quietly(box: Box, command_id: str) -> None:
    with contextlib.suppress(SandboxError):
        box.runner.wait(command_id)


def _timers() -> dict[int, int]:
    """Return every sleep of a shell that this process has started, and that shell."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int(_stat(int(path.name))[1])
            if (path / "comm").read_text() == "sleep\n" and _stat(parent)[1] == str(os.getpid()):
                found[int(path.name)] = parent
    return found


def _stat(pid: int) -> list[str]:
    """Return state and parent of a process, and what follows."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
