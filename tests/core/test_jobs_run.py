"""Commands that run to their end: what they get and what comes back."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.host_shell import MOST_SHELLS, SHELLS, Box, ShellName, open_box, sh, spec, until
from helpers.signals import signal_set
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ekairos_sandbox.exceptions import CommandStartError, IdConflictError
from ekairos_sandbox.jobs.spec import SpooledInput

ALL_BYTES = bytes(range(256))


@pytest.fixture(scope="module", params=MOST_SHELLS)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name, env={"CREATED": "with 'this'\n\\and $that", "BOTH": "old"}) as made:
        yield made


def test_a_short_command_is_one_call(box: Box) -> None:
    before = box.shell.calls
    result = box.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert box.shell.calls - before == 1
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert (result.stdout_size, result.stderr_size, result.truncated) == (4, 4, False)
    assert not result.timed_out
    assert not result.cancelled
    assert result.command == ("sh", "-c", "echo out; echo err >&2; exit 3")


def test_all_bytes_come_back_on_both_streams(box: Box) -> None:
    (box.home / "bytes").write_bytes(ALL_BYTES)
    result = box.run("sh", "-c", "cat bytes; cat bytes >&2")
    assert result.stdout == ALL_BYTES
    assert result.stderr == ALL_BYTES


def test_a_missing_program_is_127_and_says_so(box: Box) -> None:
    result = box.run("no-such-program")
    assert result.exit_code == 127
    assert result.stderr == b"no-such-program: not found\n"
    assert box.run("/no/such").exit_code == 127


def test_what_cannot_be_executed_is_126_and_says_so(box: Box) -> None:
    (box.home / "plain").write_text("echo no")
    (box.home / "plain").chmod(0o644)
    result = box.run("./plain")
    assert (result.exit_code, result.stderr) == (126, b"./plain: permission denied\n")
    assert box.run("/").exit_code == 126


def test_a_programs_own_127_is_its_own(box: Box) -> None:
    result = box.run("sh", "-c", "echo mine >&2; exit 127")
    assert (result.exit_code, result.stderr) == (127, b"mine\n")


def test_a_bad_working_directory_is_an_error_and_nothing_runs(box: Box) -> None:
    with pytest.raises(CommandStartError, match="working directory"):
        box.run("touch", str(box.home / "ran"), cwd="/no/such")
    assert not (box.home / "ran").exists()


@pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("KILL", 137), ("SEGV", 139)])
def test_a_signal_is_128_and_its_number(box: Box, signal: str, code: int) -> None:
    result = box.run("sh", "-c", f"ulimit -c 0; kill -{signal} $$")
    assert (result.exit_code, result.timed_out, result.cancelled) == (code, False, False)


def test_commands_run_at_home_unless_told_otherwise(box: Box) -> None:
    (box.home / "sub dir").mkdir()
    assert box.run("pwd").output.strip() == str(box.home)
    assert box.run("pwd", cwd="/tmp").output == "/tmp\n"
    assert box.run("pwd", cwd="sub dir").output.strip() == str(box.home / "sub dir")


@pytest.mark.parametrize("name", ["-", "-P", "~", "a'b", "$x", "new\nline", "é", "*"])
def test_odd_working_directories(box: Box, name: str) -> None:
    (box.home / name).mkdir(exist_ok=True)
    got = box.run("pwd", cwd=name, env={"CDPATH": "/", "OLDPWD": "/"}).stdout
    assert got == os.fsencode(f"{box.home}/{name}\n")


def test_variables_of_the_sandbox_and_of_the_command(box: Box) -> None:
    line = 'printf \'%s|\' "$CREATED" "$BOTH" "$OWN"'
    result = box.runner.run(sh(line, env={"BOTH": "new", "OWN": "x'y\n"}))
    assert result.output == "with 'this'\n\\and $that|new|x'y\n|"


@pytest.mark.parametrize("name", ["UID", "PPID", "IFS", "SECONDS", "RANDOM", "OPTIND", "LINENO"])
def test_variables_that_are_special_to_shells_arrive(box: Box, name: str) -> None:
    result = box.run("/usr/bin/env", env={name: "5 or 6", "PLAIN": "x"})
    assert f"\n{name}=5 or 6\n" in f"\n{result.output}"
    assert "\nPLAIN=x\n" in f"\n{result.output}"


def test_the_environment_holds_nothing_that_nobody_asked_for(box: Box) -> None:
    got = {line.partition("=")[0] for line in box.run("/usr/bin/env").output.splitlines()}
    shells_own = {"PWD", "OLDPWD", "SHLVL", "_", "$that", "\\and $that"}
    assert got - shells_own == {
        *("PATH", "HOME", "CREATED", "BOTH", "EKAIROS_JOB", "EKAIROS_JOB_MARK"),
    }


def test_the_path_of_the_command_finds_its_program(box: Box) -> None:
    folder = box.home / "tools"
    folder.mkdir(exist_ok=True)
    (folder / "tool").write_text("#!/bin/sh\necho found\n")
    (folder / "tool").chmod(0o755)
    assert box.run("tool", env={"PATH": str(folder)}).output == "found\n"


def test_a_program_may_have_an_equals_sign_in_its_name(box: Box) -> None:
    tool = box.home / "a=b"
    tool.write_text('#!/bin/sh\necho "${0##*/}" "$1"\n')
    tool.chmod(0o755)
    assert box.run("./a=b", "x y").output == "a=b x y\n"


def test_the_command_leads_a_session_and_can_be_interrupted(box: Box) -> None:
    line = "read -r p c s pp g sid rest </proc/$$/stat; [ $$ = $g ] && [ $$ = $sid ] && echo leads"
    assert box.run("sh", "-c", line).output == "leads\n"


def test_signals_are_as_a_program_expects_them() -> None:
    names: tuple[ShellName, ...] = ("dash", "bash")
    for name in names:
        with open_box(name) as box:
            got = box.run("grep", "-E", "Sig(Ign|Blk)", "/proc/self/status").output
            assert [signal_set(found) for found in re.findall(r"[0-9a-f]{16}", got)] == [0, 0]


def test_the_command_has_no_foreign_files_open(box: Box) -> None:
    # The fourth is the one that ls itself has opened.
    assert box.run("ls", "/proc/self/fd").output.split() == ["0", "1", "2", "3"]


def test_the_umask_is_the_sandboxs_own(box: Box) -> None:
    expected = box.shell.shell(b"umask", timeout_s=5, max_bytes=100).decode()
    assert box.run("sh", "-c", "umask").output == expected


words = st.text(
    st.characters(exclude_characters="\0", codec="utf-8") | st.sampled_from("'\"\\$`\n\r\t !*-"),
    max_size=30,
)


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(words, min_size=1, max_size=8), st.lists(words, min_size=2, max_size=2))
def test_any_arguments_and_values_arrive_exactly(
    box: Box, arguments: list[str], values: list[str]
) -> None:
    result = box.run(
        *("/usr/bin/python3", "-c"),
        "import os, sys; print(ascii(sys.argv[1:] + [os.environ['A'], os.environ['B']]))",
        *arguments,
        env={"A": values[0], "B": values[1]},
    )
    assert result.output == ascii([*arguments, *values]) + "\n"


def test_arguments_that_are_not_text_arrive_exactly(box: Box) -> None:
    word = os.fsdecode(ALL_BYTES[1:])
    assert box.run("printf", "%s", word, env={"A": word}).stdout == ALL_BYTES[1:]
    assert box.run("sh", "-c", 'printf %s "$A"', env={"A": word}).stdout == ALL_BYTES[1:]


def test_the_longest_argument_and_many_of_them_arrive(box: Box) -> None:
    longest = "x" * 131_071
    result = box.run("sh", "-c", "echo $# ${#1} ${#7}", "sh", *[longest] * 7)
    assert result.output == "7 131071 131071\n"
    assert result.command[4] == longest


def test_input_arrives_exactly(box: Box) -> None:
    for data in (b"", b"-n", b"\n", ALL_BYTES, b"x" * 48 * 1024):
        assert box.run("cat", stdin=data).stdout == data
    assert box.run("cat").stdout == b""


def test_large_input_is_streamed_and_leaves_nothing_behind(box: Box) -> None:
    block = hashlib.sha256(b"seed").digest() * 32768
    expected = hashlib.sha256(block * 20).hexdigest()
    with SpooledInput.from_any(block for _ in range(20)) as given_input:
        made = spec("sha256sum", stdin=given_input)
        result = box.runner.run(made)
    assert result.output == f"{expected}  -\n"
    assert list((box.root / "up").iterdir()) == []


def test_no_secret_is_left_in_the_jobs_files(box: Box) -> None:
    made = spec("true", env={"TOKEN": "hunter2"}, stdin=b"hunter2 too")
    box.runner.run(made)
    box.runner.run(spec("true", env={"TOKEN": "hunter2"}, stdin=b"hunter2" * 100_000))
    kept = [path for path in box.root.rglob("*") if stat.S_ISREG(path.stat().st_mode)]
    assert kept
    assert [path for path in kept if b"hunter2" in path.read_bytes()] == []


def test_files_are_for_the_user_alone(box: Box) -> None:
    made = spec("true")
    box.runner.run(made)
    assert stat.S_IMODE(box.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(box.job(made.command_id).stat().st_mode) == 0o700
    assert stat.S_IMODE((box.root / "env").stat().st_mode) == 0o600


def test_a_result_keeps_head_and_tail_and_the_size(box: Box) -> None:
    line = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
    expected = "".join(f"line {i}\n" for i in range(20000)).encode()
    made = sh(line)
    result = box.runner.run(made)
    assert result.truncated
    assert result.stdout_size == len(expected)
    assert result.stdout == expected[:32768] + expected[-32768:]
    assert b"".join(box.runner.output(made.command_id)) == expected


def test_exactly_64_kib_are_not_truncated(box: Box) -> None:
    result = box.run("head", "-c", "65536", "/dev/zero")
    assert (len(result.stdout), result.truncated) == (65536, False)


def test_programs_that_reopen_their_output_lose_nothing(box: Box) -> None:
    line = "echo one; echo two >/dev/stdout; echo three"
    assert box.run("sh", "-c", line).output == "one\ntwo\nthree\n"
    assert box.run("sh", "-c", "echo 1 >&2; echo 2 | tee /dev/stderr").error == "1\n2\n"
    assert box.run("sh", "-c", "echo a >&2; echo b >/dev/stderr; echo c >&2").error == "a\nb\nc\n"


def test_output_beyond_the_stored_cap_is_dropped_and_said(box: Box) -> None:
    line = "head -c 300000 /dev/zero && echo unharmed >&2"
    result = box.runner.run(sh(line, stored_cap_bytes=4096))
    assert result.dropped
    assert (result.exit_code, result.stderr) == (0, b"unharmed\n")
    assert (result.stdout, result.stdout_size, result.truncated) == (bytes(4096), 4096, True)


def test_a_child_left_in_the_background_does_not_hold_the_result(box: Box) -> None:
    made = sh("(read -r line <later; echo late) & echo done")
    os.mkfifo(box.home / "later")
    assert box.runner.run(made).output == "done\n"
    (box.home / "later").write_text("go\n")
    until(lambda: b"".join(box.runner.output(made.command_id)) == b"done\nlate\n")
    (box.home / "later").unlink()


def test_large_output_comes_back_whole_in_few_calls(box: Box) -> None:
    made = spec("head", "-c", "10485760", "/dev/zero")
    before = box.shell.calls
    assert box.runner.run(made).stdout_size == 10 << 20
    got = hashlib.sha256()
    for piece in box.runner.output(made.command_id):
        got.update(piece)
    assert got.digest() == hashlib.sha256(bytes(10 << 20)).digest()
    assert box.shell.calls - before == 3


@pytest.mark.slow
def test_100_mb_of_output(box: Box) -> None:
    made = spec("head", "-c", "100000000", "/dev/zero")
    assert box.runner.run(made).stdout_size == 100_000_000
    assert sum(map(len, box.runner.output(made.command_id))) == 100_000_000


def test_the_same_id_runs_once_and_another_command_is_refused(box: Box) -> None:
    log = box.home / "log-once"
    made = sh(f"echo ran >>{log}; echo $0", command_id=f"once-{box.shell.calls}")
    assert box.runner.run(made).output == box.runner.run(made).output
    assert log.read_text() == "ran\n"
    with pytest.raises(IdConflictError, match="already stands for another command"):
        box.runner.run(sh("echo other", command_id=made.command_id))
    log.unlink()


def test_scripts_on_standard_input(tmp_path: Path) -> None:
    for name in SHELLS:
        with open_box(name, by_stdin=True, max_script_bytes=None) as box:
            result = box.run("sh", "-c", "cat; echo $1", "sh", "x'y", stdin=b"in\n")
            assert result.output == "in\nx'y\n"
            assert box.shell.uploads == []


def test_a_script_that_was_cut_does_nothing(box: Box) -> None:
    made = sh("echo ran >>cut-log")
    scripts: list[bytes] = []
    real = box.shell.shell

    def shell(script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        scripts.append(script)
        return real(script, timeout_s=timeout_s, max_bytes=max_bytes)

    box.shell.shell = shell  # type: ignore[method-assign]
    try:
        box.runner.run(spec("true"))
    finally:
        del box.shell.shell
    whole = scripts[0]
    known = set(box.runner.list())
    for end in range(0, len(whole) - 3, 997):
        real(whole[:end].replace(made.command_id.encode(), b"cut"), timeout_s=5, max_bytes=1 << 20)
    assert set(box.runner.list()) == known
