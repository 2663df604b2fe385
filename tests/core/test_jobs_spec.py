from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox.jobs.spec import (
    JobSpec,
    SpooledInput,
    check_command_id,
    new_command_id,
)


def test_new_ids_are_valid_and_differ() -> None:
    assert check_command_id(new_command_id()) != new_command_id()


@pytest.mark.parametrize("command_id", ["a", "A.b_c-9", "0" * 64])
def test_good_ids_are_taken(command_id: str) -> None:
    assert check_command_id(command_id) == command_id


@pytest.mark.parametrize(
    "command_id", ["", ".", "..", "a..b", "-a", "_a", "a/b", "a b", "a\n", "é", "a:b", "0" * 65]
)
def test_bad_ids_are_refused(command_id: str) -> None:
    with pytest.raises(ValueError, match="a command id has"):
        JobSpec(command_id, ("true",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"argv": ()}, "at least the name"),
        ({"argv": ("",)}, "at least the name"),
        ({"argv": ("a", "b\0")}, "argument 1 must not hold a NUL"),
        ({"argv": ("a", "x" * 131_072)}, "through stdin or write it into a file"),
        ({"cwd": ""}, "cwd must not be empty"),
        ({"cwd": "/a\0"}, "cwd must not hold a NUL"),
        ({"env": {"A-B": "1"}}, "'A-B' is no name"),
        ({"env": {"": "1"}}, "'' is no name"),
        ({"env": {"A": "x\0"}}, "the variable A must not hold a NUL"),
        ({"env": {"A": "x" * 131_070}}, "the variable A has 131072 bytes"),
        ({"timeout_s": 0}, "timeout_s must be greater than 0"),
        ({"timeout_s": -1}, "timeout_s must be greater than 0"),
        ({"timeout_s": float("nan")}, "timeout_s must be greater than 0"),
        ({"timeout_s": float("inf")}, "timeout_s must be greater than 0"),
        ({"grace_s": -1}, "grace_s must be between"),
        ({"grace_s": float("nan")}, "grace_s must be between"),
        ({"stored_cap_bytes": 0}, "stored_cap_bytes must be at least 1"),
    ],
)
def test_what_no_program_could_be_given_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        JobSpec(**{"command_id": "x", "argv": ("true",), **fields})


def test_a_string_is_no_argument_vector() -> None:
    with pytest.raises(TypeError, match="'sh', '-c'"):
        JobSpec("x", "ls -l")  # type: ignore[arg-type]


def test_secrets_are_not_in_the_repr_or_in_messages() -> None:
    made = JobSpec("x", ("true",), env={"TOKEN": "hunter2"}, stdin=b"hunter2")
    assert "hunter2" not in repr(made)
    with pytest.raises(ValueError, match="TOKEN") as caught:
        JobSpec("x", ("true",), env={"TOKEN": "hunter2\0"})
    assert "hunter2" not in str(caught.value)


def test_the_digest_is_of_the_command_and_not_of_its_id() -> None:
    fields: list[dict[str, Any]] = [
        {},
        {"argv": ("a", "bc")},
        {"argv": ("ab", "c")},
        {"argv": ("a", "b", "c")},
        {"cwd": "/"},
        {"env": {"A": "1"}},
        {"env": {"A": "2"}},
        {"stdin": b"x"},
        {"timeout_s": 1},
        {"timeout_s": 2},
    ]
    specs = [JobSpec(**{"command_id": "x", "argv": ("a",), **one}) for one in fields]
    assert len({one.digest() for one in specs}) == len(fields)
    again = [JobSpec(**{"command_id": "y", "argv": ("a",), **one}) for one in fields]
    assert [one.digest() for one in again] == [one.digest() for one in specs]


def test_the_digest_does_not_depend_on_the_order_of_variables() -> None:
    one = JobSpec("x", ("a",), env={"A": "1", "B": "2"})
    other = JobSpec("x", ("a",), env={"B": "2", "A": "1"})
    assert one.digest() == other.digest()


def pieces() -> Iterator[bytes]:
    yield b"one "
    yield b""
    yield b"two"


def test_input_of_every_kind_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"one two")
    with path.open("rb") as opened, (tmp_path / "in").open("rb") as later:
        later.seek(4)
        given: list[tuple[Any, bytes]] = [
            (b"one two", b"one two"),
            (bytearray(b"one two"), b"one two"),
            ("one twö", b"one tw\xc3\xb6"),
            (path, b"one two"),
            (opened, b"one two"),
            (later, b"two"),
            (io.BytesIO(b"one two"), b"one two"),
            (pieces(), b"one two"),
            (b"", b""),
            ([], b""),
        ]
        for value, expected in given:
            with SpooledInput.from_any(value) as made:
                assert made.size == len(expected)
                assert b"".join(made.chunks()) == expected
                assert b"".join(made.chunks()) == expected


def test_a_pipe_is_read_once_and_kept() -> None:
    receiving, sending = os.pipe()
    with os.fdopen(receiving, "rb") as reader:
        os.write(sending, b"piped")
        os.close(sending)
        with SpooledInput.from_any(reader) as made:
            assert [b"".join(made.chunks()) for _ in range(2)] == [b"piped", b"piped"]


def test_large_input_goes_to_a_temporary_file() -> None:
    with SpooledInput.from_any(bytes(1 << 20) for _ in range(9)) as made:
        assert made.size == 9 << 20
        assert sum(map(len, made.chunks())) == 9 << 20


@pytest.mark.parametrize("value", [["text"], io.StringIO("text"), [1], 5, None])
def test_input_that_is_not_bytes_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        SpooledInput.from_any(value)


def test_a_missing_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SpooledInput.from_any(tmp_path / "nothing")


def test_a_file_that_became_shorter_is_said(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"12345")
    made = SpooledInput.from_any(path)
    path.write_bytes(b"123")
    with pytest.raises(ValueError, match="shorter"):
        b"".join(made.chunks())
