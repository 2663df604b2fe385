"""A command runs at most once, whatever happens to the calls that start it."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator

import pytest
from helpers.host_shell import (
    DASH_FIRST,
    EPOCH,
    QUICK,
    SHELLS,
    Box,
    Fault,
    Faults,
    ShellName,
    cut,
    garbage,
    lost_after,
    lost_before,
    noisy,
    open_box,
    refused,
    sh,
    until,
)

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    CommandStartError,
    EpochMismatchError,
    IdConflictError,
    OutcomeUnknownError,
    ProviderAuthError,
    ProviderUnavailableError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.jobs.prepare import prepare
from ekairos_sandbox.jobs.runner import JobRunner
from ekairos_sandbox.jobs.spec import JobSpec, new_command_id
from ekairos_sandbox.retry import RetryPolicy


@pytest.fixture(scope="module", params=DASH_FIRST)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name) as made:
        yield made


def counting() -> JobSpec:
    """A command that leaves a line each time it runs."""
    command_id = new_command_id()
    return sh(f"echo ran >>{command_id}; echo done", command_id=command_id)


def runs(box: Box, made: JobSpec) -> int:
    log = box.home / made.command_id
    return len(log.read_text().splitlines()) if log.exists() else 0


def start_killed_and_repeated(box: Box, count: int) -> None:
    chance = random.Random(count)
    real = box.shell.shell
    for _ in range(count):
        kills = [chance.uniform(0, 0.02) for _ in range(chance.choice((1, 1, 2)))]

        def shell(
            script: bytes, *, timeout_s: float, max_bytes: int, kills: list[float] = kills
        ) -> bytes:
            if kills:
                with box.shell.popen(script) as process:
                    threading.Event().wait(kills.pop())
                    os.killpg(process.pid, signal.SIGKILL)
                raise ProviderUnavailableError("the connection dropped", outcome="unknown")
            return real(script, timeout_s=timeout_s, max_bytes=max_bytes)

        made = counting()
        box.shell.shell = shell  # type: ignore[method-assign]
        try:
            result = box.runner.run(made)
        finally:
            del box.shell.shell
        assert (result.exit_code, result.stdout) == (0, b"done\n")
        assert runs(box, made) == 1


@pytest.mark.parametrize("name", SHELLS)
def test_start_calls_that_are_killed_and_repeated_run_once(name: ShellName) -> None:
    with open_box(name) as box:
        start_killed_and_repeated(box, 10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_many_start_calls_that_are_killed_and_repeated_run_once(box: Box) -> None:
    start_killed_and_repeated(box, 500)


def test_simultaneous_starts_run_once_and_agree(box: Box) -> None:
    for _ in range(2):
        made = counting()
        results = []
        together = threading.Barrier(6)

        def run(made: JobSpec = made, together: threading.Barrier = together) -> None:
            together.wait()
            results.append(box.runner.run(made).stdout)  # noqa: B023

        threads = [threading.Thread(target=run) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [b"done\n"] * 6
        assert runs(box, made) == 1


def test_of_different_commands_started_at_once_under_one_id_one_runs(box: Box) -> None:
    made = [sh(f"cat; echo {n} >>ran-{n}", command_id="contested", stdin=b"in") for n in range(6)]
    together = threading.Barrier(6)
    told: list[object] = []

    def run(number: int) -> None:
        together.wait()
        try:
            told.append((number, box.runner.run(made[number]).exit_code))
        except IdConflictError:
            told.append("conflict")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [ran] = [int(path.name[4:]) for path in box.home.glob("ran-*")]
    assert sorted(told, key=str) == [(ran, 0), *["conflict"] * 5]
    secret = [*box.job("contested").glob("run.*"), *box.job("contested").glob("in.*")]
    until(lambda: not any(path.exists() and path.stat().st_size for path in secret))
    (box.home / f"ran-{ran}").unlink()


def test_a_claim_that_is_long_in_being_written_is_waited_for() -> None:
    with open_box("dash") as box:
        made = sh("exec sleep 60")
        box.runner.start(made)
        claim, whole, naps = box.job(made.command_id) / "go", box.home / "claim", box.home / "naps"
        whole.write_bytes(claim.read_bytes())
        claim.write_bytes(b"")
        sleep = box.home.parent / "bin" / "sleep"
        sleep.unlink(missing_ok=True)
        sleep.write_text(
            f"#!/bin/sh\necho >>{naps}\n[ $(grep -c '' {naps}) -lt 5 ] || cat {whole} >{claim}\n"
        )
        sleep.chmod(0o755)
        assert box.runner.state(made.command_id) == "running"
        assert box.runner.kill(made.command_id) == "killed"


@pytest.mark.parametrize("fault", [refused, lost_before, lost_after, cut, garbage])
def test_a_start_that_failed_is_repeated_and_runs_once(box: Box, fault: Fault) -> None:
    made = counting()
    assert box.faulty(fault, fault).run(made).stdout == b"done\n"
    assert runs(box, made) == 1


def test_foreign_output_around_the_answer_does_no_harm(box: Box) -> None:
    made = counting()
    runner = box.faulty(noisy)
    assert runner.run(made).stdout == b"done\n"
    assert runs(box, made) == 1


@pytest.mark.parametrize("fault", [refused, lost_before, lost_after, cut, garbage])
def test_a_wait_that_failed_is_repeated(box: Box, fault: Fault) -> None:
    made = counting()
    box.runner.run(made)
    assert box.faulty(fault, fault).result(made.command_id).stdout == b"done\n"


def test_a_start_that_never_arrived_is_the_providers_own_error(box: Box) -> None:
    made = counting()
    with pytest.raises(ProviderUnavailableError, match="connection refused") as caught:
        box.faulty(*[refused] * 9).run(made)
    assert caught.value.outcome == "failed"
    assert runs(box, made) == 0


def test_a_start_of_which_nothing_is_known_is_said_to_be_unknown(box: Box) -> None:
    made = counting()
    faults = (lost_after, refused, refused, refused, refused)
    with pytest.raises(OutcomeUnknownError) as caught:
        box.faulty(*faults).run(made)
    assert caught.value.command_id == made.command_id
    assert isinstance(caught.value.__cause__, ProviderUnavailableError)
    assert f"get_command('{made.command_id}')" in str(caught.value)
    assert box.runner.result(made.command_id).stdout == b"done\n"
    assert runs(box, made) == 1


def test_refused_credentials_are_not_tried_again(box: Box) -> None:
    def unauthorised(call: object) -> bytes:
        raise ProviderAuthError("no")

    made = counting()
    runner = box.faulty(unauthorised)
    with pytest.raises(ProviderAuthError):
        runner.run(made)
    assert runs(box, made) == 0


@pytest.mark.parametrize("kind", [SandboxGoneError, SandboxNotRunningError])
def test_gone_at_the_first_start_is_told_as_it_is(
    box: Box, kind: type[SandboxGoneError] | type[SandboxNotRunningError]
) -> None:
    def gone(call: object) -> bytes:
        raise kind("gone")

    with pytest.raises(kind):
        box.faulty(gone).run(counting())
    with pytest.raises(kind):
        box.faulty(refused, gone).run(counting())


@pytest.mark.parametrize("kind", [SandboxGoneError, SandboxNotRunningError])
def test_gone_after_a_start_that_may_have_arrived_is_unknown(
    box: Box, kind: type[SandboxGoneError] | type[SandboxNotRunningError]
) -> None:
    def gone(call: object) -> bytes:
        raise kind("gone")

    # One that is only stopped can still be asked, once it runs again.
    expected = OutcomeUnknownError if kind is SandboxGoneError else SandboxNotRunningError
    with pytest.raises(expected) as caught:
        box.faulty(lost_before, gone).run(counting())
    assert caught.value.outcome == "unknown"
    made = counting()
    box.runner.start(made)
    with pytest.raises(OutcomeUnknownError):
        box.faulty(gone).wait(made.command_id)


def test_a_job_that_vanished_is_unknown_and_not_started_again(box: Box) -> None:
    with pytest.raises(OutcomeUnknownError, match="left no trace"):
        box.runner.wait("vanished")
    with pytest.raises(CommandNotFoundError):
        box.runner.result("vanished")


def test_another_epoch_is_refused_and_nothing_runs(box: Box) -> None:
    made = counting()
    stale = JobRunner(box.shell, home=str(box.home), epoch="older", policy=QUICK)
    with pytest.raises(EpochMismatchError, match="did not run"):
        stale.run(made)
    assert runs(box, made) == 0
    assert not box.job(made.command_id).exists()


def test_a_new_epoch_keeps_the_environment(box: Box) -> None:
    with open_box(env={"KEPT": "yes"}) as other:
        prepare(other.shell, epoch="epoch-2", env=None, clock=other.runner.clock)
        with pytest.raises(EpochMismatchError):
            other.run("true")
        runner = JobRunner(other.shell, home=str(other.home), epoch="epoch-2")
        assert runner.run(sh("echo $KEPT")).output == "yes\n"


def test_a_sandbox_that_was_never_prepared_is_refused(box: Box) -> None:
    runner = JobRunner(box.shell, home="/no/such/home", epoch=EPOCH, policy=QUICK)
    with pytest.raises(EpochMismatchError):
        runner.run(counting())


def test_another_epoch_after_a_start_that_may_have_arrived_is_unknown(box: Box) -> None:
    stale = JobRunner(
        Faults(box.shell, lost_before), home=str(box.home), epoch="older", policy=QUICK
    )
    with pytest.raises(OutcomeUnknownError):
        stale.run(counting())


def test_a_supervisor_that_cannot_come_up_is_an_error_and_never_runs(box: Box) -> None:
    caps = box.root / "caps"
    kept = caps.read_text()
    words = kept.split()
    words[2] = "/bin/false"
    made = counting()
    once = RetryPolicy(attempts=1)
    try:
        caps.write_text(" ".join(words) + "\n")
        with pytest.raises(CommandStartError, match="did not come up"):
            JobRunner(box.shell, home=str(box.home), epoch=EPOCH, policy=once).run(made)
    finally:
        caps.write_text(kept)
    assert box.runner.run(made).cancelled
    assert runs(box, made) == 0


def test_a_purged_command_is_not_run_again(box: Box) -> None:
    made = counting()
    box.runner.run(made)
    assert box.runner.purge(older_than_s=0) > 0
    assert not box.job(made.command_id).exists()
    with pytest.raises(OutcomeUnknownError, match="was deleted"):
        box.runner.run(made)
    with pytest.raises(CommandNotFoundError, match="was deleted"):
        box.runner.result(made.command_id)
    assert runs(box, made) == 1


def test_running_commands_are_never_purged(box: Box) -> None:
    made = sh("exec sleep 60")
    box.runner.start(made)
    box.runner.purge(older_than_s=0)
    assert box.runner.state(made.command_id) == "running"
    box.runner.kill(made.command_id)


def test_recent_commands_are_not_purged(box: Box) -> None:
    made = counting()
    box.runner.run(made)
    box.runner.purge()
    assert box.runner.state(made.command_id) == "exited"
    old = box.job(made.command_id) / "status"
    os.utime(old, (old.stat().st_atime, old.stat().st_mtime - 8 * 86400))
    assert box.runner.purge() == 1


def test_a_start_tidies_up_when_there_is_much(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ekairos_sandbox.jobs.call_scripts.MANY_JOBS", 1)
    (box.root / "purged/.last").unlink(missing_ok=True)
    old, new = counting(), counting()
    box.runner.run(old)
    status = box.job(old.command_id) / "status"
    os.utime(status, (0, status.stat().st_mtime - 8 * 86400))
    (box.root / "purged/.last").unlink(missing_ok=True)
    assert box.runner.run(new).stdout == b"done\n"
    until(lambda: not box.job(old.command_id).exists())
    assert box.runner.state(new.command_id) == "exited"
