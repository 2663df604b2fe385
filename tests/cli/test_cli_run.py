"""`run` and its kin, as a script uses them: exact bytes, exit codes, input, signals, pipes."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_line import CommandLine

ALL_BYTES = bytes(range(256)) * 4


def test_output_of_a_command_is_passed_on_exactly(cli: CommandLine, sandbox: str) -> None:
    cli.ok("put", sandbox, str(_file(cli, ALL_BYTES)), "all")
    done = cli.process("run", sandbox, "--", "sh", "-c", "cat all; printf '\\377\\033[1m' >&2")
    assert (done.code, done.stdout) == (0, ALL_BYTES)
    assert done.stderr.encode("utf-8", "surrogateescape") == b"\xff\x1b[1m"


def test_both_streams_stay_apart_and_the_exit_code_is_the_commands(
    cli: CommandLine, sandbox: str
) -> None:
    done = cli("run", sandbox, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.stderr) == (7, "out\n", "err\n")


@pytest.mark.parametrize("code", [0, 1, 2, 100, 126, 127, 137, 255])
def test_every_exit_code_passes(cli: CommandLine, sandbox: str, code: int) -> None:
    assert cli("run", sandbox, "--", "sh", "-c", f"exit {code}").code == code


def test_words_after_the_dashes_are_the_commands_whatever_they_look_like(
    cli: CommandLine, sandbox: str
) -> None:
    words = ("--json", "-i", "--", "--help", "", "a b", "$HOME")
    done = cli("run", sandbox, "--", "printf", "[%s]", *words)
    assert done.out == "[--json][-i][--][--help][][a b][$HOME]"


def test_an_argument_need_not_be_text(cli: CommandLine, sandbox: str) -> None:
    command = [os.fsencode(word) for word in cli.command("run", sandbox, "--", "printf", "%s")]
    done = subprocess.run(
        [*command, b"caf\xe9"],
        env=cli.process_environ(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"caf\xe9"


def test_standard_input_is_empty_unless_asked_for(cli: CommandLine, sandbox: str) -> None:
    assert cli.process("run", sandbox, "--", "cat", stdin=b"not sent").stdout == b""
    done = cli.process("run", "-i", sandbox, "--", "cat", stdin=ALL_BYTES)
    assert done.stdout == ALL_BYTES


def test_an_input_that_never_ends_does_not_hold_up_a_run(cli: CommandLine, sandbox: str) -> None:
    with cli.spawn("run", sandbox, "--", "echo", "done", stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"done\n"
        assert process.wait() == 0


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs /proc")
def test_a_file_that_does_not_know_its_size_is_sent_whole(cli: CommandLine, sandbox: str) -> None:
    with Path("/proc/version").open("rb") as file:
        done = cli.process("run", "-i", sandbox, "--", "cat", stdin=file)
    assert done.stdout == Path("/proc/version").read_bytes()


def test_closed_standard_streams_do_no_harm(cli: CommandLine, sandbox: str) -> None:
    line = " ".join(
        f"'{word}'" for word in cli.command("run", "-i", sandbox, "--", "sh", "-c", "cat; exit 3")
    )
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{line} {closed}"],
            env=cli.process_environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (3, b"")


def test_what_prints_an_id_does_nothing_without_standard_output(
    cli: CommandLine, sandbox: str
) -> None:
    before = cli.ok("ls", "--json").out
    for words in (["create"], ["start", sandbox, "--", "touch", "ran"]):
        done = subprocess.run(
            ["sh", "-c", '"$@" >&-', "sh", *cli.command(*words)],
            env=cli.process_environ(),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "standard output is closed, and nothing else tells the id" in done.stderr
    assert cli.ok("ls", "--json").out == before
    assert cli("run", sandbox, "--", "test", "-e", "ran").code == 1


def test_environment_and_directory_reach_the_command(
    cli: CommandLine, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_US", "ours")
    done = cli(
        *("run", sandbox, "-e", "A=1=2", "--env", "FROM_US", "--env", "EMPTY=", "-w", "/tmp"),
        *("--", "sh", "-c", 'echo "$A,$FROM_US,${EMPTY-unset},$(pwd)"'),
    )
    assert done.out == "1=2,ours,,/tmp\n"


def test_a_line_of_shell(cli: CommandLine, sandbox: str) -> None:
    assert cli("run", sandbox, "--shell", "--", "echo a b | wc -w").out.strip() == "2"


def test_a_timeout_is_told_from_the_commands_own_codes(cli: CommandLine, sandbox: str) -> None:
    done = cli("run", sandbox, "--timeout", "300ms", "--", "sh", "-c", "echo begun; sleep 60")
    assert (done.code, done.out) == (124, "begun\n")
    assert done.stderr == "error: the command was ended by its timeout\n"


def test_a_command_of_ones_own_id_runs_once(cli: CommandLine, sandbox: str) -> None:
    words = ("run", sandbox, "--command-id", "mine", "--", "sh", "-c", "echo x >>runs; cat runs")
    assert cli(*words).out == "x\n"
    assert cli(*words).out == "x\n"
    other = cli("run", sandbox, "--command-id", "mine", "--", "true")
    assert other.code == 105
    assert other.stderr.startswith("error: ")


def test_json_holds_the_whole_result(cli: CommandLine, sandbox: str) -> None:
    done = cli("run", "--json", sandbox, "--", "sh", "-c", "echo ü; printf '\\377' >&2; exit 4")
    result = json.loads(done.out)
    assert done.code == 4
    assert result["exit_code"] == 4
    assert (result["stdout"], result["stdout_base64"]) == ("ü\n", None)
    assert base64.b64decode(result["stderr_base64"]) == b"\xff"
    assert result["command"][0] == "sh"
    assert done.stdout.isascii()


def test_a_reader_that_leaves_ends_the_command(cli: CommandLine, sandbox: str) -> None:
    with cli.spawn("run", sandbox, "--command-id", "endless", "--", "yes") as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"y\ny\n"
        process.stdout.close()
        assert process.wait() == -signal.SIGPIPE
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert cli("wait", sandbox, "endless").code == 137


def test_a_full_disk_is_one_line(cli: CommandLine, sandbox: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    for words in (("run", sandbox, "--", "echo", "x"), ("ls",), ("--help",)):
        with Path("/dev/full").open("wb") as full:
            done = cli.process(*words, stdout=full)
        assert done.code == 1
        assert done.stderr.startswith("error: ")
        assert done.stderr.endswith("No space left on device\n")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_too(
    cli: CommandLine, sandbox: str, number: signal.Signals
) -> None:
    words = ("run", sandbox, "--command-id", "long", "--", "sh", "-c", "echo begun; exec sleep 60")
    with cli.spawn(*words) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"begun\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert b"the command was told to end" in errors
    assert b"Traceback" not in errors
    assert cli("wait", sandbox, "long").code == 137


def test_started_commands_go_on_and_are_found_again(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "sh", "-c", "echo 1; echo 2 >&2; exit 5").line
    assert cli("wait", sandbox, command).code == 5
    logs = cli.ok("logs", sandbox, command)
    assert (logs.out, logs.stderr) == ("1\n", "2\n")
    assert cli.ok("ps", sandbox).out == f"{command}\texited\n"
    assert json.loads(cli.ok("ps", sandbox, "--json").out) == {command: "exited"}


def test_logs_follow_a_command_to_its_end(cli: CommandLine, sandbox: str) -> None:
    script = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo last"
    command = cli.ok("start", sandbox, "--", "sh", "-c", script).line
    with cli.spawn("logs", "-f", sandbox, command) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"first\n"
        cli.ok("run", sandbox, "--", "touch", "go")
        assert process.stdout.read() == b"last\n"
        assert process.wait() == 0


def test_logs_as_json_are_one_object_a_line(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "printf", "\\377").line
    cli.ok("wait", sandbox, command)
    value = json.loads(cli.ok("logs", "--json", sandbox, command).line)
    assert value == {"stream": "stdout", "offset": 0, "data_base64": "/w=="}


def test_interrupted_logs_leave_the_command_running(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "sh", "-c", "echo begun; exec sleep 60").line
    with cli.spawn("logs", "-f", sandbox, command) as process:
        assert process.stdout is not None
        process.stdout.read(6)
        process.send_signal(signal.SIGINT)
        assert process.wait() == -signal.SIGINT
    assert cli("wait", sandbox, command, "--timeout", "0").code == 109
    assert cli.ok("kill", sandbox, command).out == "killed\n"
    assert cli.ok("kill", sandbox, command).out == "killed\n"
    assert cli("wait", sandbox, command).code == 137


def test_killing_a_command_that_has_ended_says_how(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "sh", "-c", "exit 3").line
    cli("wait", sandbox, command)
    assert cli.ok("kill", sandbox, command).out == "exited before with code 3\n"


def test_a_sandbox_that_was_made_anew_is_told_of(cli: CommandLine, sandbox: str) -> None:
    _forget_folders(cli)
    done = cli("run", sandbox, "--", "echo", "again")
    assert (done.code, done.out) == (0, "again\n")
    assert done.stderr == "warning: the sandbox was gone and was made anew: its files are lost\n"
    _forget_folders(cli)
    refused = cli("run", sandbox, "--no-recreate", "--", "echo", "again")
    assert (refused.code, refused.out) == (101, "")


def test_a_program_that_is_missing_is_the_commands_own_127(cli: CommandLine, sandbox: str) -> None:
    assert cli("run", sandbox, "--", "no-such-program").code == 127


def test_a_directory_that_is_missing_means_that_nothing_ran(cli: CommandLine, sandbox: str) -> None:
    done = cli("run", sandbox, "-w", "missing", "--", "true")
    assert done.code == 110
    assert done.stderr.startswith("error: ")


def test_python_can_be_told_to_run_it(cli: CommandLine) -> None:
    done = cli.process("--version")
    assert (done.code, done.stdout) == (0, b"ekairos-sandbox, version 0.1.0\n")
    assert sys.executable in cli.command()


def _file(cli: CommandLine, content: bytes) -> Path:
    path = cli.home / "content"
    path.write_bytes(content)
    return path


def _forget_folders(cli: CommandLine) -> None:
    for path in (cli.home / "folders" / "main").iterdir():
        subprocess.run(["rm", "-rf", str(path)], check=True)
