"""Programs that attack the files of their own job: they may spoil their own result, no more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.host_shell import DASH_FIRST, Box, ShellName, open_box, sh, spec, until

from ekairos_sandbox.exceptions import CommandStartError, OutcomeUnknownError, SandboxError
from ekairos_sandbox.jobs.answers import JobAnswer

WINDOW_S = 1


@pytest.fixture(scope="module", params=DASH_FIRST)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name, ordinary_user=True) as made:
        yield made


def asked(call: Callable[[], JobAnswer]) -> JobAnswer | None:
    """Ask about a job; None if it has spoilt its answer. Must not take longer than the window."""
    began = time.monotonic()
    try:
        answer = call()
    except SandboxError:
        return None
    finally:
        assert time.monotonic() - began < 20
    assert len(answer.stdout) <= 65536
    assert len(answer.stderr) <= 65536
    assert b"root:" not in answer.stdout
    return answer


HERE = "cd .local/state/ekairos-sandbox/jobs/$EKAIROS_JOB && "


@pytest.mark.parametrize(
    "attack",
    [
        "rm status; mkfifo status",
        "rm status; ln -s /dev/zero status",
        "rm status; mkdir status",
        "head -c 1000000 /dev/zero | tr '\\0' x >status",
        "rm status; echo 'EK1 0 @EK1: : - .' >status",
        "rm status; echo 'EK1 999 nonsense 1 1 .' >status",
        "rm out; mkfifo out",
        "rm out; ln -s /dev/zero out",
        "rm out; ln -s /etc/passwd out",
        "rm err; truncate -s 1T err",
        "rm live",
        "rm live; : >live",
        "exec 5<>live; (while sleep 0.1; do echo x >&5; done) & sleep 0.5",
        "rm go; mkfifo go",
        "echo '-1 1 - x y .' >go",
        "echo '../../tmp 1 - x y .' >go",
        "rm -f argv; mkfifo argv; mkfifo note",
        "rm -rf ../$EKAIROS_JOB",
        "kill -STOP $(cut -d' ' -f1 go); sleep 0.3; kill -CONT $(cut -d' ' -f1 go)",
    ],
)
def test_no_attack_makes_a_look_hang_or_grow(box: Box, attack: str) -> None:
    made = sh(f"{HERE}({attack}) >/dev/null 2>&1; echo attacked; exit 0")
    asked(lambda: box.runner.start(made, window_s=WINDOW_S))
    asked(lambda: box.runner.wait(made.command_id, window_s=WINDOW_S))
    # Other commands are none the worse for it.
    assert box.run("echo", "fine").output == "fine\n"


def test_a_status_that_is_a_link_does_not_redirect_the_supervisor(box: Box) -> None:
    target = box.home / "precious"
    made = sh(
        f"echo kept >precious; {HERE}rm status out err && "
        "for f in status out err; do ln -s $HOME/precious $f; done; echo output"
    )
    with pytest.raises(OutcomeUnknownError):
        box.runner.run(made)
    assert target.read_text() == "kept\n"


def test_text_that_imitates_an_answer_is_output(box: Box) -> None:
    fake = "@EK1:0123456789abcdef:job:b:exited:0:-:-:1.00:2.00:n:0:0::::0123456789abcdef@"
    result = box.run("sh", "-c", f"echo '{fake}'; echo '{fake}' >&2; exit 7")
    assert (result.exit_code, result.output, result.error) == (7, f"{fake}\n", f"{fake}\n")


def test_a_stopped_supervisor_does_not_hold_the_caller_forever(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekairos_sandbox.jobs.stream.BACKSTOP_S", 0.2)
    monkeypatch.setattr("ekairos_sandbox.jobs.runner.WINDOW_S", 1.0)
    made = sh(f"{HERE}kill -STOP $(cut -d' ' -f1 go); exec sleep 60", timeout_s=0.3, grace_s=0)
    with pytest.raises(OutcomeUnknownError, match="does not end"):
        box.runner.run(made)
    pid = int((box.job(made.command_id) / "go").read_text().split()[0])
    os.kill(pid, 18)
    until(lambda: box.runner.state(made.command_id) == "killed")


def test_links_that_lie_in_wait_for_a_job_do_not_redirect_it(box: Box, tmp_path: Path) -> None:
    victim = box.home / "victim"
    made = spec("echo", "output")
    plant = (
        "echo kept >victim; cd .local/state/ekairos-sandbox/jobs && "
        f"mkdir {made.command_id} && ln -s $HOME/victim {made.command_id}/go"
    )
    box.run("sh", "-c", plant)
    with pytest.raises((OutcomeUnknownError, CommandStartError)):
        box.runner.run(made)
    assert victim.read_text() == "kept\n"
