from __future__ import annotations

import base64
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekairos_sandbox.shell.envelope import decode, encoded_size, frames, new_nonce

NONCE = "0123456789abcdef"
OTHER = "fedcba9876543210"


def frame(*fields: str, nonce: str = NONCE) -> bytes:
    return f"\n@EK1:{nonce}:{':'.join(fields)}:{nonce}@\n".encode()


def test_the_fields_of_an_answer_are_found() -> None:
    assert frames(frame("job", "exited", ""), NONCE) == [["job", "exited", ""]]


def test_no_answer_is_an_empty_list() -> None:
    assert frames(b"", NONCE) == []
    assert frames(b"sh: not found\n", NONCE) == []


def test_banners_and_later_output_do_no_harm() -> None:
    output = b"Welcome to x@host: @EK1:\n" + frame("a") + b"logout @EK1:" + NONCE.encode()
    assert frames(output, NONCE) == [["a"]]


def test_line_ends_and_control_bytes_do_no_harm() -> None:
    output = frame("a", "Zm9v").replace(b"\n", b"\r\n").replace(b":", b":\x01\x02\x03\x1b \xff")
    assert frames(output, NONCE) == [["a", "Zm9v"]]


def test_an_answer_to_another_call_does_not_fit() -> None:
    assert frames(frame("a", nonce=OTHER), NONCE) == []


def test_text_that_imitates_an_answer_cannot_swallow_the_mark_of_the_true_one() -> None:
    imitation = f"@EK1:{OTHER}:a:{OTHER}".encode()
    assert frames(imitation + frame("b"), NONCE) == [["b"]]


def test_the_last_of_several_answers_comes_first() -> None:
    assert frames(frame("a") + frame("b"), NONCE) == [["b"], ["a"]]


def test_every_cut_answer_is_no_answer() -> None:
    whole = frame("job", "Zm9v").strip()
    assert [frames(whole[:end], NONCE) for end in range(len(whole))] == [[]] * len(whole)


def test_an_answer_that_was_cut_and_repeated_is_found() -> None:
    half = frame("job", "Zm9vYmFy")[:40]
    assert frames(half + frame("job", "Zm9vYmFy"), NONCE)[0] == ["job", "Zm9vYmFy"]


@given(st.binary(max_size=300))
def test_garbage_is_no_answer(garbage: bytes) -> None:
    assert frames(garbage, NONCE) == []


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_an_answer_among_garbage_is_found(before: bytes, data: bytes, after: bytes) -> None:
    text = base64.b64encode(data).decode()
    found = frames(before + frame("x", text) + after, NONCE)
    assert ["x", text] in found


@given(st.binary(max_size=500), st.sampled_from([76, 64, 4]), st.sampled_from(["\n", "\r\n"]))
def test_wrapped_base64_is_read(data: bytes, width: int, end: str) -> None:
    text = end.join(textwrap.wrap(base64.b64encode(data).decode(), width))
    (fields,) = frames(frame("x", text), NONCE)
    assert decode(fields[1]) == data


@given(st.binary(max_size=200))
def test_hexadecimal_is_read(data: bytes) -> None:
    (fields,) = frames(frame("x", data.hex(" ")), NONCE)
    assert decode(fields[1], "x") == data


@pytest.mark.parametrize("field", ["Zg", "Zg=", "Z===", "Zm9v=Zm9v", "Zm-v", "\u00e9", "Zm9v Zm9v"])
def test_what_is_not_base64_is_refused(field: str) -> None:
    assert decode(field) is None


@pytest.mark.parametrize(("field", "code"), [("0", "x"), ("0g", "x"), ("Zm9v", "q")])
def test_what_was_encoded_otherwise_is_refused(field: str, code: str) -> None:
    assert decode(field, code) is None


@given(st.integers(min_value=0, max_value=10**6))
def test_the_size_bound_covers_wrapped_base64(size: int) -> None:
    wrapped = (size + 2) // 3 * 4
    assert encoded_size(size) >= wrapped + 2 * (wrapped // 76 + 1)


def test_nonces_are_new_each_time() -> None:
    assert new_nonce() != new_nonce()
    assert len(new_nonce()) == 16
