from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ekairos_sandbox.shell.quoting import as_bytes, printf_format, quote

SHELLS = {
    "dash": ("dash",),
    "bash": ("bash", "--posix"),
    "busybox": ("busybox", "sh"),
}
ALL_BYTES = bytes(range(256))
shells = pytest.mark.parametrize("shell", SHELLS)


def printed(shell: str, script: bytes) -> bytes:
    words = [*SHELLS[shell], "-c", os.fsdecode(script)]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout


@shells
def test_every_byte_but_nul_survives_as_a_word(shell: str) -> None:
    word = ALL_BYTES[1:]
    assert printed(shell, b"printf %s " + quote(word)) == word


@shells
def test_every_byte_survives_as_a_format(shell: str) -> None:
    assert printed(shell, b"printf " + printf_format(ALL_BYTES)) == ALL_BYTES


@shells
@pytest.mark.parametrize(
    "word",
    [
        *(b"", b"-", b"-n", b"--", b"~", b"$HOME", b"`id`", b"a b", b"\n", b"'", b"''", b"\\"),
        *(b"!x", b"*", b"\r\n", b"\xff\xfe", b"\x81\x88", b"=x", b"#c", b"a=b"),
    ],
)
def test_odd_words_survive(shell: str, word: bytes) -> None:
    script = b"printf '%s.' " + quote(word) + b" " + quote(b"next")
    assert printed(shell, script) == word + b".next."


@pytest.mark.parametrize(
    "data", [b"", b"%", b"%s%%", b"-e x", b"--", b"-", b"\\n", b"\\0601", b"\n\n", b"1\0002"]
)
def test_odd_formats_survive(data: bytes) -> None:
    for shell in SHELLS:
        assert printed(shell, b"printf " + printf_format(data)) == data


@given(st.lists(st.binary().map(lambda data: data.replace(b"\0", b"")), min_size=1, max_size=60))
def test_any_words_survive(words: list[bytes]) -> None:
    script = b"printf '%s\\0' " + b" ".join(map(quote, words))
    for shell in SHELLS:
        assert printed(shell, script) == b"".join(word + b"\0" for word in words)


@given(st.binary(max_size=2000))
def test_any_bytes_survive_as_a_format(data: bytes) -> None:
    text = printf_format(data)
    assert all(0x20 <= byte <= 0x7E for byte in text)
    for shell in SHELLS:
        assert printed(shell, b"printf " + text) == data


def test_plain_words_stay_readable() -> None:
    assert quote("/usr/bin/env") == b"/usr/bin/env"
    assert quote("") == b"''"
    assert quote("it's") == b"'it'\\''s'"


def test_undecodable_names_are_the_bytes_they_stand_for() -> None:
    assert as_bytes(os.fsdecode(b"\xff\xc3\xa9")) == b"\xff\xc3\xa9"


@pytest.mark.parametrize("text", ["a\0b", b"\0"])
def test_nul_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="NUL"):
        quote(text)
