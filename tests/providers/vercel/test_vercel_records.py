"""What the records of a command's output prove, and what they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from ekairos_sandbox_vercel.records import read_output

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.http_errors import TransportError

BEGIN = b'{"command":{"id":"cmd_1","exitCode":null}}\n'
END = b'{"command":{"id":"cmd_1","exitCode":0}}\n'


def out(text: str, stream: str = "stdout") -> bytes:
    return json.dumps({"stream": stream, "data": text}, ensure_ascii=False).encode() + b"\n"


def test_standard_output_alone_is_returned() -> None:
    body = BEGIN + out("one\n") + out("no", "stderr") + out("two") + END
    assert read_output([body], max_bytes=100) == b"one\ntwo"


def test_an_exit_code_of_any_kind_is_an_end() -> None:
    end = b'{"command":{"exitCode":137}}\n'
    assert read_output([BEGIN, out("x"), end], max_bytes=100) == b"x"


def test_records_may_be_cut_anywhere_between_pieces() -> None:
    text = "é\u2028\u0085\x1c漢\U0001f600\r\n"
    body = BEGIN + out(text) + END
    pieces = [body[at : at + 1] for at in range(len(body))]
    assert read_output(pieces, max_bytes=100) == text.encode()


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([], "its end is missing"),
        ([BEGIN], "its end is missing"),
        ([BEGIN, out("x")], "its end is missing"),
        ([BEGIN, out("x"), END[:-5]], "its last record is incomplete"),
        ([BEGIN, out("x")[:-1]], "its last record is incomplete"),
        ([out("x"), END], "its beginning is missing"),
        ([BEGIN, b"<html>\n", END], "a record is damaged"),
        ([BEGIN, b"[1]\n", END], "a record is damaged"),
        ([BEGIN, b"\xff\n", END], "a record is damaged"),
        ([BEGIN, b'{"command":{"exitCode":true}}\n'], "its end is missing"),
        (
            [BEGIN, out("x"), b'{"stream":"error","data":{"code":"c","message":"closed"}}\n'],
            "the service broke off: closed",
        ),
        ([BEGIN, b'{"stream":"error","data":"text"}\n'], "the service broke off: text"),
        ([BEGIN, b'{"stream":"error","data":"\\u001b[2Jtext"}\n'], r"broke off: \?\[2Jtext"),
    ],
)
def test_without_its_end_the_outcome_is_unknown(pieces: list[bytes], why: str) -> None:
    with pytest.raises(ProviderError, match=why) as caught:
        read_output(pieces, max_bytes=100)
    assert caught.value.outcome == "unknown"


def test_more_output_than_allowed_is_an_error() -> None:
    with pytest.raises(ProviderError, match="more than 10 bytes") as caught:
        read_output([BEGIN, out("x" * 11), END], max_bytes=10)
    assert caught.value.outcome == "unknown"


def test_an_endless_record_is_not_collected() -> None:
    def endless() -> Iterator[bytes]:
        yield BEGIN
        for _ in range(1000):
            yield b"x" * 65536
        pytest.fail("read on for ever")

    with pytest.raises(ProviderError, match="more than"):
        read_output(endless(), max_bytes=1000)


def test_what_breaks_after_the_end_does_no_harm() -> None:
    def pieces() -> Iterator[bytes]:
        yield BEGIN + out("x") + END
        raise TransportError("cut")

    assert read_output(pieces(), max_bytes=100) == b"x"


def test_what_breaks_before_the_end_is_raised() -> None:
    def pieces() -> Iterator[bytes]:
        yield BEGIN + out("x")
        raise TransportError("cut")

    with pytest.raises(TransportError):
        read_output(pieces(), max_bytes=100)
