from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.host_shell import (
    DASH_FIRST,
    QUICK,
    Faults,
    HostShell,
    ShellName,
    drop_to,
    install_shell,
    lost_after,
    open_box,
    sh,
    spec,
)
from helpers.signals import signal_set

from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.exceptions import CommandStartError, ConfigurationError, SandboxGoneError
from ekairos_sandbox.jobs.prepare import prepare
from ekairos_sandbox.jobs.runner import JobRunner
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.results import CommandResult

CLOCK = SystemClock()
TOOLS = (
    *("base64", "cat", "chmod", "env", "find", "grep", "head", "id", "mkdir", "mkfifo", "mv", "od"),
    *("rm", "setsid", "sleep", "stat", "tail", "timeout", "true", "wc"),
)


def image(folder: Path, without: str, shell: str = "dash") -> str:
    """Make a PATH with the named tools left out."""
    folder.mkdir()
    for tool in {*TOOLS} - {*without.split()}:
        found = shutil.which(tool)
        assert found
        (folder / tool).symlink_to(found)
    (folder / "sh").symlink_to(f"/usr/bin/{shell}")
    return str(folder)


def run(connection: Connection, home: str, line: str) -> CommandResult:
    return JobRunner(connection, home=home, epoch="e1", policy=QUICK).run(sh(line, timeout_s=20))


@pytest.fixture(params=DASH_FIRST)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> HostShell:
    name: ShellName = request.param
    home = tmp_path / "home"
    home.mkdir()
    return HostShell(home, path=install_shell(name, tmp_path / "bin"))


def root(home: Path) -> Path:
    return home / ".local/state/ekairos-sandbox"


def test_one_call_prepares_a_sandbox(shell: HostShell, tmp_path: Path) -> None:
    made = prepare(shell, epoch="e1", env={"A": "x"}, clock=CLOCK)
    assert shell.calls == 1
    assert made.home == str(tmp_path / "home")
    state = root(tmp_path / "home")
    assert (state / "epoch").read_text() == "e1\n"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "env").stat().st_mode) == 0o600
    assert sorted(path.name for path in state.iterdir()) == [
        *("caps", "env", "epoch", "fifo", "jobs", "purged", "up"),
    ]


def test_preparing_twice_is_safe(shell: HostShell, tmp_path: Path) -> None:
    made = prepare(shell, epoch="e1", env={"A": "x"}, clock=CLOCK)
    before = run(shell, made.home, "echo $A")
    assert prepare(shell, epoch="e1", env={"A": "x"}, clock=CLOCK) == made
    assert JobRunner(shell, home=made.home, epoch="e1").result(before.command_id) == before


def test_the_home_of_the_shell_is_used_when_the_provider_names_none(
    shell: HostShell, tmp_path: Path
) -> None:
    shell.home = None
    assert prepare(shell, epoch="e1", env={}, clock=CLOCK).home == str(tmp_path / "home")


@pytest.mark.xdist_group("own-home")  # there is one for each user
@pytest.mark.parametrize("home", ["", "/no/such/directory", "relative"])
def test_without_a_home_a_directory_of_the_users_own_is_made(tmp_path: Path, home: str) -> None:
    shell = HostShell(tmp_path, env={"HOME": home})
    shell.home = None
    if Path(f"/var/tmp/ekairos-sandbox-{os.geteuid()}").exists():
        pytest.skip("somebody uses it")
    made = prepare(shell, epoch="e1", env={}, clock=CLOCK)
    try:
        assert made.home == f"/var/tmp/ekairos-sandbox-{os.geteuid()}"
        assert stat.S_IMODE(Path(made.home).stat().st_mode) == 0o700
        assert run(shell, made.home, "pwd").output == f"{made.home}\n"
    finally:
        shutil.rmtree(made.home)


def test_a_missing_home_that_the_provider_names_is_an_error(tmp_path: Path) -> None:
    shell = HostShell(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="has no directory"):
        prepare(shell, epoch="e1", env={}, clock=CLOCK)


@pytest.mark.parametrize(
    ("without", "message"),
    [
        ("grep tail", "it lacks: grep; tail"),
        ("base64 od", "base64 or od"),
        ("stat wc", "stat or wc"),
        ("setsid", r"setsid \(util-linux or busybox\), or perl, or python3"),
    ],
)
def test_missing_tools_are_named(tmp_path: Path, without: str, message: str) -> None:
    (tmp_path / "home").mkdir()
    shell = HostShell(tmp_path / "home", path=image(tmp_path / "bin", without))
    with pytest.raises(ConfigurationError, match=message):
        prepare(shell, epoch="e1", env={}, clock=CLOCK)
    assert not root(tmp_path / "home").exists()


@pytest.mark.parametrize("without", ["base64", "stat", "timeout", "mkfifo", "env", "mkfifo base64"])
def test_images_with_fewer_tools_work(tmp_path: Path, without: str) -> None:
    (tmp_path / "home").mkdir()
    shell = HostShell(tmp_path / "home", path=image(tmp_path / "bin", without))
    made = prepare(shell, epoch="e1", env={"A": "b"}, clock=CLOCK)
    result = run(shell, made.home, 'echo "$A"; echo err >&2; printf "\\377\\001"; exit 3')
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"b\n\xff\x01", b"err\n")
    runner = JobRunner(shell, home=made.home, epoch="e1")
    result = runner.run(sh("echo out; exec sleep 60", timeout_s=0.3))
    assert (result.timed_out, result.output) == (True, "out\n")
    command = spec("sleep", "60")
    runner.start(command)
    assert runner.kill(command.command_id) == "killed"


@pytest.mark.parametrize("helper", ["perl", "python3"])
def test_another_language_stands_in_for_setsid(tmp_path: Path, helper: str) -> None:
    found = shutil.which(helper, path="/usr/bin:/usr/local/bin")
    if not found:
        pytest.skip(f"no {helper} here")
    (tmp_path / "home").mkdir()
    path = image(tmp_path / "bin", "setsid")
    (tmp_path / "bin" / helper).symlink_to(found)
    shell = HostShell(tmp_path / "home", path=path)
    made = prepare(shell, epoch="e1", env={}, clock=CLOCK)
    line = (
        "read -r p c s pp g sid rest </proc/$$/stat; [ $$ = $sid ] && grep SigIgn /proc/$$/status"
    )
    name, ignored = run(shell, made.home, line).output.split()
    assert (name, signal_set(ignored)) == ("SigIgn:", 0)


def test_a_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    prefix, uid = drop_to()
    if not prefix:
        pytest.skip("needs two users")
    with open_box(ordinary_user=True) as box:
        os.chown(box.root, 0, 0)
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            prepare(box.shell, epoch="e2", env={}, clock=CLOCK)
        os.chown(box.root, uid, -1)


def test_a_lost_answer_is_asked_for_again(shell: HostShell) -> None:
    made = prepare(Faults(shell, lost_after, lost_after), epoch="e1", env={}, clock=CLOCK)
    assert run(shell, made.home, "echo ok").output == "ok\n"


def test_gone_is_told_as_it_is(shell: HostShell) -> None:
    def gone(call: object) -> bytes:
        raise SandboxGoneError("gone")

    with pytest.raises(SandboxGoneError):
        prepare(Faults(shell, gone), epoch="e1", env={}, clock=CLOCK)


def test_a_very_large_environment_is_uploaded(shell: HostShell) -> None:
    env = {f"V{number}": "v" * 50_000 for number in range(5)}
    made = prepare(shell, epoch="e1", env=env, clock=CLOCK)
    assert shell.calls == 2
    assert run(shell, made.home, "echo ${#V0} ${#V4}").output == "50000 50000\n"


def test_keeping_an_environment_that_is_not_there_is_an_error(shell: HostShell) -> None:
    with pytest.raises(CommandStartError, match="environment"):
        prepare(shell, epoch="e1", env=None, clock=CLOCK)


@pytest.mark.parametrize("epoch", ["", "a b", "a/b", "a'b", "x" * 65])
def test_bad_epochs_are_refused(shell: HostShell, epoch: str) -> None:
    with pytest.raises(ValueError, match="an epoch has"):
        prepare(shell, epoch=epoch, env={}, clock=CLOCK)


def test_bad_variables_are_refused_without_their_value(shell: HostShell) -> None:
    with pytest.raises(ValueError, match="'A-B'") as caught:
        prepare(shell, epoch="e1", env={"A-B": "hunter2"}, clock=CLOCK)
    assert "hunter2" not in str(caught.value)


class Bubble(HostShell):
    """A host shell inside a mount namespace of its own that stays the same between calls."""

    def __init__(self, home: Path, setup: str) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", f"{setup} && echo ready && exec sleep 300"],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout
        self.ready = self._holder.stdout.readline() == b"ready\n"
        super().__init__(home, prefix=("nsenter", "--mount", f"--target={self._holder.pid}", "--"))

    def close(self) -> None:
        self._holder.kill()
        self._holder.communicate()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Bubble]:
    home = tmp_path / "home"
    home.mkdir()
    bubble = Bubble(home, f"mount -t tmpfs -o size=256k tmpfs {home}")
    if not bubble.ready:
        bubble.close()
        pytest.skip("mounting is not permitted")
    yield bubble
    bubble.close()


def test_a_full_disk_is_an_error_before_anything_runs(small_disk: Bubble) -> None:
    made = prepare(small_disk, epoch="e1", env={}, clock=CLOCK)
    assert run(small_disk, made.home, "echo fits").output == "fits\n"
    small_disk.shell(b"head -c 1M /dev/zero >$HOME/full", timeout_s=5, max_bytes=9)
    with pytest.raises(CommandStartError, match="full or read-only"):
        run(small_disk, made.home, "echo never")


def test_a_disk_that_fills_up_cuts_the_output_and_not_the_command(small_disk: Bubble) -> None:
    made = prepare(small_disk, epoch="e1", env={}, clock=CLOCK)
    result = run(small_disk, made.home, "head -c 500000 /dev/zero; echo unharmed >&2; exit 4")
    assert (result.exit_code, result.truncated) == (4, True)
    assert 0 < result.stdout_size < 262_144


def test_a_volume_over_the_place_of_the_jobs_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".local/state").mkdir(parents=True)
    bubble = Bubble(home, f"mount -t tmpfs tmpfs {home}/.local")
    try:
        if not bubble.ready:
            pytest.skip("mounting is not permitted")
        with pytest.raises(ConfigurationError, match="a volume is mounted"):
            prepare(bubble, epoch="e1", env={}, clock=CLOCK)
    finally:
        bubble.close()
