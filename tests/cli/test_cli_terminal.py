"""The command line as a person sees it, in a real terminal."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.command_line import CommandLine
from helpers.terminal import Terminal

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


def on_a_terminal(
    cli: CommandLine, *words: str, typed: bytes = b"", environ: Mapping[str, str] | None = None
) -> bytes:
    """Carry out an invocation whose three streams are one terminal; return what it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        cli.command(*words),
        env=cli.process_environ(**{"TERM": "xterm-256color", **(environ or {})}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        os.write(ours, typed)
        with suppress(OSError):  # what Linux says when the last one has closed the other end
            while data := os.read(ours, 65536):
                shown += data
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown.replace(b"\r\n", b"\n")


HOSTILE = "\\033]0;title\\007\\033[2J\\033[31mred\\233m\\r\\n"


def test_guest_output_is_made_harmless_on_a_terminal_only(cli: CommandLine, sandbox: str) -> None:
    words = ("run", sandbox, "--", "sh", "-c", f"printf '{HOSTILE}'; printf '{HOSTILE}' >&2")
    harmless = "^[]0;title^G^[[2J^[[31mred\ufffdm\n".encode()
    assert on_a_terminal(cli, *words) == harmless * 2
    exact = b"\x1b]0;title\x07\x1b[2J\x1b[31mred\x9bm\r\n"
    assert cli.process(*words).stdout == exact
    raw = on_a_terminal(cli, "run", "--raw", *words[1:])
    assert raw.count(b"\x1b[31mred\x9bm") == 2


def test_logs_and_get_are_made_harmless_too(cli: CommandLine, sandbox: str) -> None:
    command = cli.ok("start", sandbox, "--", "printf", "\\033[31m\\n").line
    cli.ok("wait", sandbox, command)
    assert on_a_terminal(cli, "logs", sandbox, command) == b"^[[31m\n"
    cli.ok("run", sandbox, "--shell", "--", "printf '\\033[31m\\n' >file")
    assert on_a_terminal(cli, "get", sandbox, "file", "-") == b"^[[31m\n"
    assert b"\x1b[31m" in on_a_terminal(cli, "logs", "--raw", sandbox, command)


def test_colours_are_for_terminals_whose_user_wants_them(cli: CommandLine, sandbox: str) -> None:
    assert b"\x1b[" in on_a_terminal(cli, "ls")
    assert b"\x1b[31merror:" in on_a_terminal(cli, "show", "x")
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert b"\x1b[3" not in on_a_terminal(cli, "ls", environ=environ)
        assert b"\x1b[" not in on_a_terminal(cli, "show", "x", environ=environ)


def test_input_typed_by_a_person_ends_with_ctrl_d(cli: CommandLine, sandbox: str) -> None:
    shown = on_a_terminal(cli, "run", "-i", sandbox, "--", "wc", "-c", typed=b"hello\n\x04")
    assert b"reading standard input to its end (Ctrl-D)" in shown
    assert shown.endswith(b"6\n")


def test_a_name_cannot_act_on_the_terminal(cli: CommandLine) -> None:
    cli.create("--purpose", "evil\x1b]0;title\x07\u202eedoc[bold red]")
    shown = on_a_terminal(cli, "ls", environ={"COLUMNS": "200"})
    assert b"\x1b]" not in shown
    assert b"evil^[]0;title^G\\u202eedoc[bold red]" in shown


# The same in tmux, which draws a screen


@pytest.fixture
def terminal(cli: CommandLine, sandbox: str, tmp_path: Path) -> Iterator[Terminal]:
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "ekairos-sandbox"
    python = " ".join(cli.command()[:1])
    program.write_text(f'#!/bin/sh\nexec {python} -m ekairos_sandbox "$@"\n')
    program.chmod(0o755)
    environ = cli.process_environ(ID=sandbox)
    environ["PATH"] = f"{programs}:{environ['PATH']}"
    with Terminal(environ) as made:
        yield made


@needs_tmux
@pytest.mark.slow
def test_the_table_fits_the_window_and_ids_are_never_cut(
    cli: CommandLine, sandbox: str, terminal: Terminal
) -> None:
    other = cli.create("--purpose", "a very long purpose " * 8)
    wide = terminal.run("ekairos-sandbox ls").splitlines()
    assert wide[0].split() == ["ID", "STATUS", "PROVIDER", "AGE", "PURPOSE"]
    assert [line.split()[0] for line in wide[1:]] == [other, sandbox]
    assert all(len(line) <= 100 for line in wide)
    assert "…" in wide[1]
    terminal.resize(50)
    narrow = terminal.run("ekairos-sandbox ls").splitlines()
    assert [line for line in narrow if line in (other, sandbox)] == [other, sandbox]
    terminal.resize(20)
    folded = terminal.run("ekairos-sandbox ls | cat").replace("\n", "")
    assert other in folded


@needs_tmux
@pytest.mark.slow
def test_hostile_output_leaves_screen_and_title_alone(terminal: Terminal) -> None:
    before = terminal.title()
    shown = terminal.run(f"echo kept; ekairos-sandbox run $ID -- printf '{HOSTILE}'")
    assert shown.splitlines()[0] == "kept"
    assert "^[]0;title^G^[[2J^[[31mred" in shown
    assert terminal.title() == before
    terminal.run(f"ekairos-sandbox run --raw $ID -- printf '{HOSTILE}'")
    assert terminal.title() == "title"


@needs_tmux
@pytest.mark.slow
def test_ctrl_c_ends_the_command_and_the_shells_loop(terminal: Terminal, cli: CommandLine) -> None:
    loop = "for i in 1 2 3; do ekairos-sandbox run $ID -- sh -c 'echo begun $1; sleep 60' x $i"
    terminal.type(f"clear; {loop}; done")
    terminal.wait_for(lambda screen: "begun 1" in screen.splitlines())
    terminal.press("C-c")
    terminal.wait_for(lambda screen: "error: interrupted" in screen)
    terminal.type("code=$?")
    shown = terminal.run("echo code $code; ekairos-sandbox ps $ID")
    assert shown.splitlines()[0] == "code 130"
    states = [line.split()[-1] for line in shown.splitlines()[2:]]
    assert states == ["killed"]


@needs_tmux
@pytest.mark.slow
def test_ctrl_c_while_input_is_typed_tells_of_no_command(terminal: Terminal) -> None:
    terminal.type("clear; ekairos-sandbox run -i $ID -- cat")
    terminal.wait_for(lambda screen: "Ctrl-D" in screen)
    terminal.type("hello")
    terminal.press("C-c")
    screen = terminal.wait_for(lambda screen: "error: interrupted" in screen)
    assert "was told to end" not in screen
    assert terminal.run("ekairos-sandbox ps $ID").splitlines()[1:] == []


@needs_tmux
@pytest.mark.slow
def test_a_transfer_shows_a_bar_and_then_one_line(terminal: Terminal, cli: CommandLine) -> None:
    big = cli.home / "big"
    with big.open("wb") as file:
        file.truncate(40 << 20)
    terminal.type("clear; ekairos-sandbox put $ID $HOME/big big")
    screen = terminal.wait_for(lambda screen: "━" in screen and "MiB" in screen)
    assert "put big" in screen
    screen = terminal.wait_for(lambda screen: "put big: 1 file, 40.0 MiB" in screen)
    assert "━" not in screen
    # The terminal breaks a long path where its width ends.
    said = terminal.run("ekairos-sandbox get $ID big $HOME/back").replace("\n", "")
    assert said.endswith("1 file, 40.0 MiB")


@needs_tmux
@pytest.mark.slow
def test_colours_show_on_the_screen(terminal: Terminal) -> None:
    terminal.run("ekairos-sandbox ls; ekairos-sandbox doctor --provider folder")
    coloured = terminal.screen(escapes=True)
    assert "\x1b[32mactive" in coloured
    assert "\x1b[32mok" in coloured
    terminal.run("NO_COLOR=1 ekairos-sandbox doctor --provider folder")
    assert "\x1b[32m" not in terminal.screen(escapes=True)
