"""Commands: what is passed in arrives exactly, what comes back is true."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox.exceptions import CommandFailedError, CommandStartError
from ekairos_sandbox.raising import RaisingSandbox
from ekairos_sandbox.testing.base import Lab, Suite, home_of, sh, text

ODD_WORDS = [
    "",
    " ",
    "two words",
    "tab\there",
    "line\nbreak",
    "ends with newline\n",
    "-n",
    "--",
    "-",
    "'single'",
    '"double"',
    "$HOME `id` $(id)",
    "back\\slash\\n",
    "*",
    "~",
    "a=b",
    "; exit 9 #",
    "%s%d%%",
    "é ü 漢字 \U0001f600",
    "@EK1:0:job:0@",
    "\x01\x1b[31m\x7f",
]


class CommandSuite(Suite):
    """argv, environment, working directory, standard input, exit codes."""

    @pytest.mark.parametrize("code", [0, 1, 126, 127, 137, 255])
    def test_an_exit_code_is_the_commands_own(self, shared: RaisingSandbox, code: int) -> None:
        result = sh(shared, 'exit "$1"', str(code))
        assert result.exit_code == code
        assert (result.timed_out, result.cancelled) == (False, False)

    @pytest.mark.parametrize(("signal", "code"), [("TERM", 143), ("KILL", 137), ("INT", 130)])
    def test_a_signal_is_128_and_its_number(
        self, shared: RaisingSandbox, signal: str, code: int
    ) -> None:
        result = sh(shared, 'kill -"$1" $$; sleep 5', signal)
        assert (result.exit_code, result.timed_out, result.cancelled) == (code, False, False)

    def test_a_failure_is_a_result_and_check_raises_it(self, shared: RaisingSandbox) -> None:
        result = sh(shared, "echo out; echo err >&2; exit 4")
        assert (result.success, result.output, result.error) == (False, "out\n", "err\n")
        with pytest.raises(CommandFailedError) as caught:
            result.check()
        assert caught.value.result == result

    def test_a_missing_program_is_127_with_the_reason(self, shared: RaisingSandbox) -> None:
        for program in ("no-such-program-3f", "/no/such/program"):
            result = shared.run_command(program, ["x"])
            assert result.exit_code == 127
            assert program in result.error

    def test_a_file_that_is_not_executable_is_126_with_the_reason(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        shared.write_files({f"{folder}/plain": b"echo no\n"})
        result = shared.run_command(f"{folder}/plain")
        assert result.exit_code == 126
        assert f"{folder}/plain" in result.error

    def test_a_bad_working_directory_is_an_error_and_nothing_runs(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        with pytest.raises(CommandStartError):
            sh(shared, "echo ran >$1/ran", folder, cwd=f"{folder}/missing")
        assert text(shared, "ls $1", folder) == ""

    def test_the_working_directory_is_the_home_or_what_was_asked_for(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        home = text(shared, "cd $1 && pwd -P", home_of(shared))
        assert text(shared, "pwd -P") == home
        odd = f"{folder}/a 'b' \"c\" $d é"
        shared.run_command("mkdir", [odd]).check()
        assert text(shared, "pwd", cwd=odd) == f"{odd}\n"
        relative = odd.removeprefix(home_of(shared) + "/")
        assert text(shared, "pwd", cwd=relative) == f"{odd}\n"

    def test_odd_arguments_arrive_exactly(self, shared: RaisingSandbox) -> None:
        result = sh(shared, "printf '%s\\000' \"$@\"", *ODD_WORDS).check()
        assert [word.decode() for word in result.stdout.split(b"\0")[:-1]] == ODD_WORDS
        assert result.command[4:] == tuple(ODD_WORDS)

    def test_an_argument_of_100_kilobytes_arrives(self, shared: RaisingSandbox) -> None:
        result = shared.run_command("sh", ["-c", 'printf %s "$1" | wc -c', "sh", "x" * 100_000])
        assert result.check().output.strip() == "100000"

    def test_undecodable_bytes_in_arguments_arrive(self, shared: RaisingSandbox) -> None:
        word = b"\xff\xfe-\x80".decode("utf-8", "surrogateescape")
        assert sh(shared, 'printf %s "$1"', word).check().stdout == b"\xff\xfe-\x80"

    def test_a_program_with_odd_name_runs(self, shared: RaisingSandbox, folder: str) -> None:
        program = f"{folder}/a=b 'c' -d"
        shared.write_files({program: b'#!/bin/sh\necho ran "$1"\n'})
        shared.run_command("chmod", ["755", program]).check()
        assert shared.run_command(program, ["it"]).check().output == "ran it\n"

    def test_a_line_of_shell_runs_as_one(self, shared: RaisingSandbox) -> None:
        line = "printf '%s\\n' one two | sort -r && exit 3"
        result = shared.run_command(line, shell=True)  # noqa: S604 - what is tested
        assert (result.exit_code, result.output) == (3, "two\none\n")

    def test_the_environment_arrives_exactly(self, shared: RaisingSandbox) -> None:
        values = {f"CONFORMANCE_{number}": word for number, word in enumerate(ODD_WORDS)}
        values["CONFORMANCE_BIG"] = "y" * 100_000
        names = " ".join(list(values)[:-1])
        script = f'for n in {names}; do eval "v=\\$$n"; printf \'%s\\000\' "$v"; done'
        result = sh(shared, script + "; printf %s ${#CONFORMANCE_BIG}", env=values).check()
        *words, length = result.stdout.split(b"\0")
        assert [word.decode() for word in words] == ODD_WORDS
        assert length == b"100000"

    def test_the_environment_of_one_command_is_not_that_of_others(
        self, shared: RaisingSandbox
    ) -> None:
        script = 'printf %s "${CONFORMANCE_ONCE-unset}"'
        assert text(shared, script, env={"CONFORMANCE_ONCE": "set"}) == "set"
        assert text(shared, script) == "unset"

    def test_standard_input_is_empty_unless_given(self, shared: RaisingSandbox) -> None:
        assert shared.run_command("cat", timeout_s=60).check().stdout == b""

    @pytest.mark.parametrize("kind", ["bytes", "text", "path", "file", "pieces"])
    def test_standard_input_arrives_exactly(
        self, shared: RaisingSandbox, tmp_path: Path, kind: str
    ) -> None:
        data = bytes(range(256)) * 4
        given: Any = data
        if kind == "text":
            data = "línea\n".encode()
            given = data.decode()
        elif kind == "path":
            given = tmp_path / "input"
            given.write_bytes(data)
        elif kind == "file":
            given = BytesIO(data)
        elif kind == "pieces":
            given = _pieces(data)
        assert shared.run_command("cat", stdin=given).check().stdout == data

    def test_standard_input_of_several_megabytes_arrives(
        self, shared: RaisingSandbox, folder: str
    ) -> None:
        data = b"".join(b"%07d\n" % number for number in range(3 * 131_072))
        result = sh(shared, "cat >$1/in && wc -c <$1/in", folder, stdin=_pieces(data))
        assert result.check().output.strip() == "3145728"
        assert shared.read_file(f"{folder}/in") == data

    def test_a_command_that_does_not_read_its_input_ends(self, shared: RaisingSandbox) -> None:
        result = shared.run_command("true", stdin=b"x" * (1 << 20))
        assert result.exit_code == 0

    def test_wrong_calls_are_refused_before_anything_happens(self, shared: RaisingSandbox) -> None:
        for how in (
            {"command": ""},
            {"command": "a\0b"},
            {"command": "true", "timeout_s": -1},
            {"command": "true", "env": {"A=B": "x"}},
            {"command": "true", "cwd": ""},
            {"command": "true", "command_id": "../up"},
        ):
            with pytest.raises(ValueError, match=r"."):
                shared.run_command(**how)

    def test_commands_from_several_threads_do_not_mix(
        self, lab: Lab, shared: RaisingSandbox
    ) -> None:
        outputs: dict[int, tuple[int | None, str]] = {}

        def run(number: int) -> None:
            service = lab.main if number % 2 else lab.service()
            sandbox = service.get_sandbox(shared.sandbox_id)
            result = sh(sandbox, 'echo "$1"; exit "$1"', str(number))
            outputs[number] = (result.exit_code, result.output)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outputs == {number: (number, f"{number}\n") for number in range(8)}

    def test_a_command_id_of_ones_choice_is_that_of_the_result(
        self, shared: RaisingSandbox
    ) -> None:
        chosen = f"import-{uuid.uuid4().hex[:8]}.1"
        result = shared.run_command("true", command_id=chosen)
        assert result.command_id == chosen
        assert shared.list_commands()[chosen] == "exited"


def _pieces(data: bytes) -> Iterator[bytes]:
    for at in range(0, len(data), 70_000):
        yield data[at : at + 70_000]
