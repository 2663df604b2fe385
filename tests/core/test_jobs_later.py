"""Output as it comes, and commands found again by their id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers.host_shell import (
    DASH_FIRST,
    EPOCH,
    Box,
    ShellName,
    lost_after,
    open_box,
    refused,
    sh,
    spec,
    until,
)

from ekairos_sandbox.exceptions import (
    CommandNotFoundError,
    CommandStartError,
    CommandStillRunningError,
)
from ekairos_sandbox.jobs.runner import JobRunner
from ekairos_sandbox.results import OutputChunk


@pytest.fixture(scope="module", params=DASH_FIRST)
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    name: ShellName = request.param
    with open_box(name) as made:
        yield made


def joined(chunks: list[OutputChunk], stream: str) -> bytes:
    """Put a stream together, checking that no piece is missing or given twice."""
    data = b""
    for chunk in chunks:
        if chunk.stream == stream:
            assert chunk.offset == len(data)
            assert chunk.data
            data += chunk.data
    return data


def test_output_comes_while_the_command_runs(box: Box) -> None:
    (box.home / "next").unlink(missing_ok=True)
    made = sh("echo first; until [ -e next ]; do sleep 0.02; done; echo second; echo err >&2")
    with box.runner.stream(made) as stream:
        first = next(stream)
        assert (first.stream, first.offset, first.data) == ("stdout", 0, b"first\n")
        assert box.runner.state(made.command_id) == "running"
        (box.home / "next").touch()
        rest = list(stream)
        assert joined([first, *rest], "stdout") == b"first\nsecond\n"
        assert joined(rest, "stderr") == b"err\n"
        result = stream.result()
    assert (result.exit_code, result.stdout, result.stderr) == (0, b"first\nsecond\n", b"err\n")
    assert result == box.runner.result(made.command_id)


def test_a_callback_gets_everything_and_the_result_is_the_same(box: Box) -> None:
    chunks: list[OutputChunk] = []
    made = sh("head -c 3000000 /dev/zero; head -c 70000 /dev/zero >&2; exit 2")
    result = box.runner.run(made, on_output=chunks.append)
    assert joined(chunks, "stdout") == bytes(3_000_000)
    assert joined(chunks, "stderr") == bytes(70_000)
    assert result == box.runner.result(made.command_id)
    assert (result.exit_code, result.truncated, result.stdout_size) == (2, True, 3_000_000)


def test_a_stream_survives_lost_answers(box: Box) -> None:
    chunks: list[OutputChunk] = []
    made = sh("for i in 1 2 3; do echo $i; sleep 0.05; done")
    runner = box.faulty(lost_after, refused, lost_after)
    runner.run(made, on_output=chunks.append)
    assert joined(chunks, "stdout") == b"1\n2\n3\n"


def test_leaving_a_stream_early_ends_the_command(box: Box) -> None:
    made = sh("echo first; exec sleep 60")
    with box.runner.stream(made) as stream:
        next(stream)
    assert box.runner.result(made.command_id).cancelled


def test_a_detached_stream_lets_the_command_go_on(box: Box) -> None:
    made = sh("echo first; exec sleep 60")
    with box.runner.stream(made) as stream:
        next(stream)
        stream.detach()
    assert box.runner.state(made.command_id) == "running"
    box.runner.kill(made.command_id)


def test_a_timeout_ends_a_stream(box: Box) -> None:
    chunks: list[OutputChunk] = []
    made = sh("echo first; exec sleep 60", timeout_s=0.3)
    result = box.runner.run(made, on_output=chunks.append)
    assert (result.timed_out, result.stdout) == (True, b"first\n")


def test_a_stream_of_a_command_that_cannot_run_raises(box: Box) -> None:
    with pytest.raises(CommandStartError):
        box.runner.run(spec("true", cwd="/no/such"), on_output=print)


def test_another_process_collects_the_result_by_id_alone(box: Box) -> None:
    made = sh("echo out; exit 3", env={"A": "1"}, stdin=b"in")
    box.runner.start(made)
    other = JobRunner(box.shell, home=str(box.home), epoch=EPOCH)
    result = other.result(made.command_id)
    assert (result.exit_code, result.output) == (3, "out\n")
    assert result.command == ("sh", "-c", "echo out; exit 3")
    assert other.result(made.command_id) == result


def test_arguments_of_any_bytes_are_found_again(box: Box) -> None:
    made = spec("printf", "", "a\nb", "é", "\udcff", "x" * 100_000)
    box.runner.run(made)
    assert box.runner.result(made.command_id).command == made.argv


def test_waiting_has_a_limit(box: Box) -> None:
    made = spec("sleep", "60")
    box.runner.start(made)
    for timeout_s in (0, 0.3):
        with pytest.raises(CommandStillRunningError, match="has not ended within"):
            box.runner.result(made.command_id, timeout_s=timeout_s)
    box.runner.kill(made.command_id)


def test_a_look_from_an_offset_returns_what_is_new(box: Box) -> None:
    made = sh("printf 0123456789; printf abc >&2; exec sleep 60")
    box.runner.start(made)
    until(lambda: box.runner.wait(made.command_id, window_s=0).stderr == b"abc")
    answer = box.runner.wait(made.command_id, offsets=(4, 3), chunk_bytes=5)
    assert (answer.state, answer.stdout, answer.stderr) == ("running", b"45678", b"")
    assert (answer.stdout_size, answer.stderr_size) == (10, 3)
    assert b"".join(box.runner.output(made.command_id, offset=8)) == b"89"
    assert b"".join(box.runner.output(made.command_id, "stderr")) == b"abc"
    box.runner.kill(made.command_id)


def test_output_can_be_followed_to_the_end(box: Box) -> None:
    (box.home / "next").unlink(missing_ok=True)
    made = sh("echo first; until [ -e next ]; do sleep 0.02; done; echo second")
    box.runner.start(made)
    pieces = box.runner.output(made.command_id, follow=True)
    assert next(pieces) == b"first\n"
    (box.home / "next").touch()
    assert b"".join(pieces) == b"second\n"


def test_a_command_without_output_has_none(box: Box) -> None:
    made = spec("true")
    box.runner.run(made)
    assert list(box.runner.output(made.command_id)) == []
    assert list(box.runner.output(made.command_id, follow=True)) == []


@pytest.mark.parametrize("command_id", ["unknown", "cmd-0"])
def test_unknown_ids_are_not_found(box: Box, command_id: str) -> None:
    with pytest.raises(CommandNotFoundError):
        box.runner.result(command_id)
    with pytest.raises(CommandNotFoundError):
        box.runner.state(command_id)
    with pytest.raises(CommandNotFoundError):
        box.runner.output(command_id)
    with pytest.raises(CommandNotFoundError):
        box.runner.chunks(command_id)


@pytest.mark.parametrize("command_id", ["../x", "", "a b", "$(id)"])
def test_malformed_ids_are_refused(box: Box, command_id: str) -> None:
    with pytest.raises(ValueError, match="a command id"):
        box.runner.result(command_id)
    with pytest.raises(ValueError, match="a command id"):
        box.runner.kill(command_id)


def test_both_streams_of_a_started_command_can_be_followed_to_its_end(box: Box) -> None:
    (box.home / "go").unlink(missing_ok=True)
    made = sh("echo out; echo err >&2; until [ -e go ]; do sleep 0.02; done; echo last")
    box.runner.start(made)

    def so_far() -> list[bytes]:
        stored = list(box.runner.chunks(made.command_id))
        return [joined(stored, "stdout"), joined(stored, "stderr")]

    until(lambda: so_far() == [b"out\n", b"err\n"], within_s=30)
    following = box.runner.chunks(made.command_id, follow=True)
    seen = [next(following)]
    (box.home / "go").touch()
    seen += following
    assert joined(seen, "stdout") == b"out\nlast\n"
    assert joined(seen, "stderr") == b"err\n"
    assert list(box.runner.output(made.command_id, "stdout", offset=4)) == [b"last\n"]


def test_all_commands_are_listed_with_their_state(box: Box) -> None:
    ended, running, killed = spec("false"), spec("sleep", "60"), spec("sleep", "60")
    box.runner.run(ended)
    box.runner.start(running)
    box.runner.start(killed)
    box.runner.kill(killed.command_id)
    (box.root / "jobs/not a job").mkdir(exist_ok=True)
    states = box.runner.list()
    assert "not a job" not in states
    assert [states[made.command_id] for made in (ended, running, killed)] == [
        *("exited", "running", "killed"),
    ]
    box.runner.kill(running.command_id)
