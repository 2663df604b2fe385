from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    CommandFailedError,
    ConfigurationError,
    SandboxStoppedError,
)
from ekairos_sandbox.results import (
    Checkpoint,
    CommandResult,
    Err,
    Ok,
    OutputChunk,
    PreviewUrl,
    ReconcileAction,
    ReconcileReport,
    RecordPage,
    TransferStats,
)


def result(**fields: Any) -> CommandResult:
    return CommandResult(**{"command_id": "c-1", "command": ("true",), "exit_code": 0, **fields})


def stopped() -> Err:
    return Err("it was stopped", "sandbox_stopped", SandboxStoppedError("it was stopped"))


@pytest.mark.parametrize("value", [Ok(1), Ok(0), Ok(None), stopped()])
def test_a_result_is_neither_true_nor_false(value: Ok[int | None] | Err) -> None:
    with pytest.raises(TypeError, match=r"test `\.ok`, or call `\.unwrap\(\)`"):
        bool(value)
    with pytest.raises(TypeError):
        list(filter(None, [value]))


def test_ok_unwraps_to_its_data() -> None:
    good = Ok([1, 2])
    assert good.ok is True
    assert good.data == [1, 2]
    assert good.unwrap() is good.data


def test_err_unwraps_to_its_exception() -> None:
    bad = stopped()
    assert bad.ok is False
    assert (bad.error, bad.code) == ("it was stopped", "sandbox_stopped")
    with pytest.raises(SandboxStoppedError) as caught:
        bad.unwrap()
    assert caught.value is bad.exception


def test_ok_cannot_be_forged() -> None:
    with pytest.raises(TypeError):
        Ok(1, ok=False)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Err("x", "y", ConfigurationError("x"), ok=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "value",
    [
        Ok(1),
        stopped(),
        result(),
        OutputChunk("stdout", 0, b"x"),
        Checkpoint("v1"),
        PreviewUrl("https://x"),
        TransferStats(1, 2),
        RecordPage(()),
        ReconcileAction("lost", "i", "p", None, "d"),
        ReconcileReport((), 0, applied=False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_immutable_and_survive_pickling(value: Any) -> None:
    again = pickle.loads(pickle.dumps(value))
    first = dataclasses.fields(value)[0].name
    if isinstance(value, Err):
        assert (again.error, again.code) == (value.error, value.code)
        assert str(again.exception) == str(value.exception)
    else:
        assert again == value
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, first, None)


def test_success_is_an_exit_code_of_zero() -> None:
    assert result(exit_code=0).success is True
    assert result(exit_code=1).success is False
    assert result(exit_code=None, timed_out=True).success is False


def test_output_and_error_are_the_streams_as_text() -> None:
    got = result(stdout="höhe\n".encode(), stderr=b"bad \xff\xfe byte")
    assert got.output == "höhe\n"
    assert got.error == "bad \ufffd\ufffd byte"


def test_check_returns_a_success_itself() -> None:
    good = result()
    assert good.check() is good


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"exit_code": 3}, "command c-1 exited with code 3"),
        ({"exit_code": 137}, "command c-1 exited with code 137"),
        ({"exit_code": None, "timed_out": True}, "command c-1 timed out"),
        ({"exit_code": None, "cancelled": True}, "command c-1 was cancelled"),
    ],
)
def test_check_raises_what_happened(fields: dict[str, Any], text: str) -> None:
    bad = result(stdout=b"secret output", command=("prog", "--password=hunter22"), **fields)
    with pytest.raises(CommandFailedError) as caught:
        bad.check()
    assert str(caught.value) == text
    assert caught.value.result is bad
    assert caught.value.command_id == "c-1"


def test_the_token_of_a_preview_url_is_not_shown() -> None:
    preview = PreviewUrl("https://x", token="hunter22", headers=(("x-token", "hunter22"),))
    assert "hunter22" not in repr(preview)


def test_a_report_lists_what_failed() -> None:
    good = ReconcileAction("lost", "a", "p", None, "d", applied=True)
    bad = ReconcileAction("release", "b", "p", "e", "d", error="refused")
    assert ReconcileReport((good, bad), 2, applied=True).errors == (bad,)
