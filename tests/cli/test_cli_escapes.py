"""Nothing that a sandbox writes acts on a terminal."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekairos_sandbox.cli.escapes import Neutraliser, one_line, visible

ALLOWED = {"\n", "\t"}


def shown(*pieces: bytes) -> str:
    neutraliser = Neutraliser()
    return "".join(neutraliser.feed(piece) for piece in pieces) + neutraliser.feed(b"", final=True)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        ("Grüße, 世界 🙂\n".encode(), "Grüße, 世界 🙂\n"),
        (b"\x1b[31mred\x1b[0m", "^[[31mred^[[0m"),
        (b"\x1b]0;title\x07", "^[]0;title^G"),
        (b"a\x08b\x7f", "a^Hb^?"),
        ("\x9b31m".encode(), "\\x9b31m"),
        (b"\x9b31m", "\ufffd31m"),
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"10%\r20%\r", "10%\n20%\n"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"\xe4\xb8", "\ufffd"),
        ("abc\u202edef\u2066".encode(), "abc\\u202edef\\u2066"),
        (b"nul\0", "nul^@"),
    ],
)
def test_controls_are_spelt_out(data: bytes, text: str) -> None:
    assert shown(data) == text


def test_a_character_and_a_line_end_may_be_torn_apart() -> None:
    assert shown(b"\xe4", b"\xb8", b"\x96\r", b"\n\r", b"x\r") == "世\n\nx\n"


def test_what_can_be_shown_is_shown_at_once() -> None:
    neutraliser = Neutraliser()
    assert neutraliser.feed(b"Password: ") == "Password: "
    assert neutraliser.feed(b"50%\r") == "50%"


@given(st.binary(max_size=200))
def test_nothing_but_printable_text_line_ends_and_tabs_is_left(data: bytes) -> None:
    for letter in shown(data):
        category = unicodedata.category(letter)
        assert letter in ALLOWED or category not in ("Cc", "Cs", "Zl", "Zp")


@given(st.binary(max_size=100), st.lists(st.integers(0, 100)))
def test_the_pieces_in_which_it_comes_make_no_difference(data: bytes, cuts: list[int]) -> None:
    at = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    pieces = [data[a:b] for a, b in itertools.pairwise(at)]
    assert shown(*pieces) == shown(data)


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_printable_text_is_left_as_it_is(text: str) -> None:
    assert shown(text.encode()) == text
    assert visible(text) == text


@given(st.binary(max_size=100))
def test_what_is_harmless_stays_as_it_is(data: bytes) -> None:
    once = shown(data)
    assert shown(once.encode()) == once


@given(st.text(max_size=50))
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1
    assert not set(one_line(text)) & {"\n", "\r", "\t", "\x1b"}


def test_bytes_of_a_name_that_are_no_text_are_spelt_out() -> None:
    assert one_line("caf\udce9\n\n  x\ty") == "caf\\xe9 x y"
