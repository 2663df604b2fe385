"""Keeping the machine awake while a command runs, and a connection from looking dead."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.host_shell import MOST_SHELLS, Box, ShellName, alive, open_box, sh, until

from ekairos_sandbox.jobs import call_scripts

# Notes what it is asked for, and the process that asks.
FRAGMENT = """\
case $1 in
hold) echo "hold $2" >>"$HOME/asked"; cut -d' ' -f4 /proc/self/stat >"$HOME/keeper" ;;
free) echo "free $2" >>"$HOME/asked" ;;
esac
"""


@pytest.fixture(scope="module", params=MOST_SHELLS)
def shared(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name) as made:
        made.shell.keep_awake = FRAGMENT
        yield made


@pytest.fixture
def box(shared: Box, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(call_scripts, "AWAKE_FIRST_S", "0.1")
    monkeypatch.setattr(call_scripts, "AWAKE_AGAIN_S", "0.1")
    for name in ("asked", "keeper", "go"):
        (shared.home / name).unlink(missing_ok=True)
    return shared


def asked(box: Box) -> list[str]:
    path = box.home / "asked"
    return path.read_text().splitlines() if path.exists() else []


def pid(path: Path) -> int:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


WAIT = 'echo $PPID; until [ -e "$HOME/go" ]; do sleep 0.05; done'


def test_it_is_asked_for_again_and_again_and_given_up_at_the_end(box: Box) -> None:
    answer = box.runner.start(sh(WAIT))
    until(lambda: len(asked(box)) >= 3)
    (box.home / "go").touch()
    assert box.runner.result(answer.command_id).exit_code == 0
    until(lambda: asked(box)[-1].startswith("free"))
    *held, freed = asked(box)
    (name,) = {line.removeprefix("hold ") for line in held}
    assert freed == f"free {name}"
    assert name.startswith("ekairos-")
    keeper = pid(box.home / "keeper")
    until(lambda: not alive(keeper))


def test_a_short_command_never_asks(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_scripts, "AWAKE_FIRST_S", "60")
    for _ in range(5):
        assert box.run("true").exit_code == 0
    assert asked(box) == []


def test_it_ends_by_itself_when_the_supervisor_was_killed(box: Box) -> None:
    answer = box.runner.start(sh(WAIT))
    keeper = pid(box.home / "keeper")
    supervisor = int((box.job(answer.command_id) / "go").read_text().split()[0])
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: asked(box)[-1].startswith("free"))
    until(lambda: not alive(keeper))
    (box.home / "go").touch()


def test_it_holds_no_result_back(box: Box) -> None:
    """What it holds open would make the supervisor look alive, and the command unended."""
    answer = box.runner.start(sh(WAIT))
    keeper = pid(box.home / "keeper")
    opened = [entry.readlink() for entry in Path(f"/proc/{keeper}/fd").iterdir()]
    job = box.job(answer.command_id)
    assert [path for path in opened if path.is_relative_to(job)] == []
    (box.home / "go").touch()
    assert box.runner.result(answer.command_id).exit_code == 0


def test_without_a_fragment_nothing_is_added(shared: Box) -> None:
    plain = sh("true")
    with_it = shared.runner.calls.scripts._supervisor(plain, "0" * 16, "d")
    shared.shell.keep_awake = ""
    try:
        without = shared.runner.calls.scripts._supervisor(plain, "0" * 16, "d")
    finally:
        shared.shell.keep_awake = FRAGMENT
    assert b"ek_keep" in with_it
    assert b"ek_keep" not in without


@pytest.mark.slow
def test_a_silent_wait_says_something_now_and_then(shared: Box) -> None:
    answer = shared.runner.start(sh("sleep 30"))
    heard: list[bytes] = []
    shell = shared.shell.shell

    def listening(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        heard.append(shell(script, timeout_s=timeout_s, max_bytes=max_bytes))
        return heard[-1]

    shared.shell.shell = listening  # type: ignore[method-assign]
    try:
        assert shared.runner.wait(answer.command_id, window_s=18).state == "running"
    finally:
        shared.shell.shell = shell  # type: ignore[method-assign]
    shared.runner.kill(answer.command_id)
    assert heard[0].startswith(b"  \n@EK1:")
