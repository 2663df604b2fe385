"""`put` and `get`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.command_line import CommandLine

from ekairos_sandbox.cli import render


def test_a_file_there_and_back(cli: CommandLine, sandbox: str) -> None:
    source, target = cli.home / "in.bin", cli.home / "out.bin"
    source.write_bytes(bytes(range(256)))
    source.chmod(0o750)
    done = cli.ok("put", sandbox, str(source), "there.bin")
    assert (done.out, done.stderr) == ("put there.bin: 1 file, 256 B\n", "")
    assert cli.ok("get", sandbox, "there.bin", str(target)).line.endswith("1 file, 256 B")
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o750


def test_names_are_taken_over_where_none_is_given(
    cli: CommandLine, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cli.home)
    (cli.home / "a.txt").write_text("a")
    cli.ok("put", sandbox, "a.txt")
    cli.ok("put", sandbox, "a.txt", "sub/")
    assert cli.ok("run", sandbox, "--", "cat", "a.txt", "sub/a.txt").out == "aa"
    (cli.home / "a.txt").unlink()
    cli.ok("get", sandbox, "sub/a.txt")
    assert (cli.home / "a.txt").read_text() == "a"


def test_a_file_goes_below_a_directory(cli: CommandLine, sandbox: str) -> None:
    cli.ok("run", sandbox, "--shell", "--", "echo x >name")
    folder = cli.home / "folder"
    folder.mkdir()
    cli.ok("get", sandbox, "name", str(folder))
    cli.ok("get", sandbox, "name", f"{cli.home}/new/")
    assert [(folder / "name").read_text(), (cli.home / "new/name").read_text()] == ["x\n", "x\n"]


def test_a_tree_there_and_back(cli: CommandLine, sandbox: str) -> None:
    tree = cli.home / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("1")
    os.mkfifo(tree / "fifo")
    done = cli.ok("put", sandbox, str(tree), "copy")
    assert done.line == "put copy: 1 file, 1 B"
    assert done.stderr.startswith("warning: left out: ")
    value = json.loads(cli.ok("get", "--json", sandbox, "copy", f"{cli.home}/back").out)
    assert (value["files"], value["bytes"]) == (1, 1)
    assert (cli.home / "back" / "deep" / "file").read_text() == "1"


def test_standard_input_and_output_stand_for_files(cli: CommandLine, sandbox: str) -> None:
    data = bytes(range(256)) * 10
    assert cli.process("put", sandbox, "-", "piped", stdin=data).code == 0
    assert cli.process("get", sandbox, "piped", "-").stdout == data
    assert cli.ok("run", sandbox, "--shell", "--", "stat -c %a piped").line == "644"
    cli.ok("run", sandbox, "--", "mkdir", "folder")
    assert cli("get", sandbox, "folder", "-").code == 2


def test_a_large_file_says_now_and_then_how_far_it_is(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    times = iter([0.0, 1.0, 5.0, 6.0, 11.0])
    with render.progress("put x", monotonic=lambda: next(times)) as moved:
        moved(1, 4096)
        moved(1024, 4096)
        moved(2048, 4096)
        moved(3 << 20, None)
    assert capsysbinary.readouterr().err == b"put x: 1.0 KiB of 4.0 KiB\nput x: 3.0 MiB\n"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("put", "{id}", "{home}/missing", "x"), 1, "error: No such file or directory: "),
        (("put", "{id}", "{home}/records.db", "a/../../b"), 2, "error: "),
        (("put", "{id}", "/dev/null", "x"), 2, "error: '/dev/null' is "),
        (("get", "{id}", "missing", "{home}/x"), 101, "error: "),
        (("get", "{id}", "/etc", "{home}/records.db"), 1, "error: "),
        (("get", "{id}", "/"), 2, "error: LOCAL is missing"),
        (("put", "{id}", "-"), 2, "error: REMOTE is missing"),
        (("put", "{id}", "{home}/records.db", "/proc/x"), 1, "error: "),
    ],
)
def test_what_cannot_be_moved_is_one_line(
    cli: CommandLine, sandbox: str, words: tuple[str, ...], code: int, error: str
) -> None:
    done = cli(*(word.format(id=sandbox, home=cli.home) for word in words))
    assert (done.code, done.out) == (code, "")
    assert done.stderr.lower().startswith(error.lower())
    assert len([line for line in done.stderr.splitlines() if not line.startswith("hint: ")]) == 1


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (5 << 20, "5.0 MiB"),
        (1 << 50, "1024.0 TiB"),
    ],
)
def test_sizes_for_people(count: int, text: str) -> None:
    assert render.size(count) == text


def test_nothing_is_written_here_when_it_is_not_there(cli: CommandLine, sandbox: str) -> None:
    cli("get", sandbox, "missing", f"{cli.home}/never")
    assert not Path(f"{cli.home}/never").exists()
