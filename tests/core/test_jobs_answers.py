from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ekairos_sandbox.jobs.answers import JobAnswer, Window, encode_argv, parse_answer
from ekairos_sandbox.shell.envelope import frames

NONCE = "0123456789abcdef"
OUT = b"some output of a program, long enough to be cut\n"
WINDOW = Window()


def fields(**changes: str) -> list[str]:
    """Return the fields of an honest answer, with changes."""
    values = {
        "kind": "job",
        "code": "b",
        "state": "exited",
        "rc": "137",
        "why": "timeout",
        "note": "-",
        "up0": "100.00",
        "up1": "101.50",
        "drop": "n",
        "out_size": str(len(OUT)),
        "err_size": "0",
        "out": base64.b64encode(OUT).decode(),
        "err": "",
        "argv": encode_argv(("a", "b c")).decode() + ".",
        **changes,
    }
    again = ",".join(values[name] for name in ("state", "rc", "why", "out_size", "err_size"))
    return [*values.values(), again]


def read(output: bytes) -> JobAnswer | None:
    found = [parse_answer(each, "x", WINDOW, want_argv=True) for each in frames(output, NONCE)]
    return next((answer for answer in found if answer), None)


FRAME = f"\n@EK1:{NONCE}:{':'.join(fields())}:{NONCE}@\n".encode()


def test_an_honest_answer_is_read() -> None:
    answer = read(FRAME)
    assert answer
    assert (answer.state, answer.exit_code, answer.why, answer.stdout) == (
        *("exited", 137, "timeout", OUT),
    )
    assert (answer.duration_ms, answer.cut, answer.argv) == (1500, False, ("a", "b c"))
    result = answer.result(("a",))
    assert (result.exit_code, result.timed_out, result.truncated) == (None, True, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "other"},
        {"code": "z"},
        {"state": "wonderful"},
        {"rc": "256"},
        {"rc": "-1"},
        {"rc": "-"},
        {"rc": "1e1"},
        {"rc": "٣"},
        {"why": "boredom"},
        {"out_size": "0"},
        {"out_size": "99"},
        {"out_size": "-5"},
        {"out_size": "9" * 400},
        {"err_size": "1"},
        {"out": "!!!!"},
        {"out": ""},
    ],
)
def test_an_answer_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    assert parse_answer(fields(**changes), "x", WINDOW) is None


def test_a_second_account_that_differs_is_refused() -> None:
    assert parse_answer([*fields()[:-1], "exited,13,timeout,48,0"], "x", WINDOW) is None


@settings(max_examples=400)
@given(st.data())
def test_a_mangled_answer_is_right_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(FRAME)))
    count = data.draw(st.integers(1, 40))
    before, run, after = FRAME[:at], FRAME[at : at + count], FRAME[at + count :]
    mangled = data.draw(
        st.sampled_from(
            [
                before,
                before + after,
                before + run + run + after,
                before + b"\x01\x02\x03" + run + after,
                before + b"connection to host closed" + run + after,
                before + FRAME,
                FRAME.replace(b"\n", b"\r\n") + before,
            ]
        )
    )
    honest, answer = read(FRAME), read(mangled)
    if answer:
        assert honest
        assert (answer.state, answer.exit_code, answer.why) == ("exited", 137, "timeout")
        assert (answer.stdout, answer.stderr) == (OUT, b"")
