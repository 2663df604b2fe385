"""Wrong arguments: named before anything happens, and never taken for something else."""

from __future__ import annotations

import uuid
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox import ConfigurationError, FileWrite, SandboxGoneError, SandboxService
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox.testing import FakeProvider, MemorySandboxRepository


@pytest.fixture
def provider() -> FakeProvider:
    provider = FakeProvider.standing_for("sprites")
    provider.on("true")
    return provider


@pytest.fixture
def service(provider: FakeProvider) -> RaisingService:
    return SandboxService(MemorySandboxRepository(), environ={}, providers=[provider]).raising


@pytest.fixture
def sandbox(service: RaisingService) -> RaisingSandbox:
    return service.create_sandbox()


RUN: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"on_gone": "Fail"}, ValueError, "on_gone must be 'recreate' or 'fail' or None"),
    ({"on_gone": False}, ValueError, "on_gone must be"),
    ({"args": [1]}, TypeError, "argument 1 is text, not int"),
    ({"args": [b"x"]}, TypeError, "argument 1 is text, not bytes"),
    ({"args": [Path("x")]}, TypeError, "argument 1 is text, not .*Path"),
    ({"args": ["\ud800"]}, ValueError, "argument 1 must not hold half a character"),
    ({"args": {"a", "b"}}, TypeError, "args is a sequence of words, not set"),
    ({"args": {"a": "b"}}, TypeError, "args is a sequence of words, not dict"),
    ({"args": b"ab"}, TypeError, "args is a sequence of words, not bytes"),
    ({"args": 5}, TypeError, "args is a sequence of words, not int"),
    ({"command": b"true"}, TypeError, "command is a sequence of words, not bytes"),
    ({"command": None}, TypeError, "command is a sequence of words, not NoneType"),
    ({"command": Path("/bin/true")}, TypeError, "command is a sequence of words, not .*Path"),
    ({"env": {"KEY": b"x"}}, TypeError, "the variable KEY is text, not bytes"),
    ({"env": {"KEY": 1}}, TypeError, "the variable KEY is text, not int"),
    ({"env": {"KEY": None}}, TypeError, "the variable KEY is text, not NoneType"),
    ({"env": {"KEY": "\ud800"}}, ValueError, "the variable KEY must not hold half a character"),
    ({"env": {1: "x"}}, TypeError, "the name of a variable is text, not int"),
    ({"env": ["KEY=1"]}, TypeError, "env is a mapping of variables, not list"),
    ({"env": 0}, TypeError, "env is a mapping of variables, not int"),
    ({"cwd": Path("/tmp")}, TypeError, "cwd is text, not .*Path"),
    ({"cwd": "\ud800"}, ValueError, "cwd must not hold half a character"),
    ({"stdin": 5}, TypeError, "stdin is bytes, text, a path, a file or an iterable of bytes"),
    ({"stdin": "\ud800"}, ValueError, "stdin holds half a character"),
    ({"timeout_s": "5"}, TypeError, "timeout_s is a number, not str"),
    ({"timeout_s": True}, TypeError, "timeout_s is a number, not bool"),
    ({"timeout_s": Decimal("1.5")}, TypeError, "timeout_s is a number, not Decimal"),
    ({"timeout_s": timedelta(seconds=5)}, TypeError, "timeout_s is a number, not timedelta"),
    ({"command_id": 7}, TypeError, "a command id is text, not int"),
]


@pytest.mark.parametrize("verb", ["run_command", "stream_command", "start_command"])
@pytest.mark.parametrize(("wrong", "kind", "message"), RUN)
def test_a_wrong_argument_of_a_command_is_named_and_nothing_runs(
    provider: FakeProvider,
    sandbox: RaisingSandbox,
    verb: str,
    wrong: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        getattr(sandbox, verb)(**{"command": "true", **wrong})
    assert provider.commands == []


def test_an_observer_of_output_that_is_no_function_is_named_before_the_command_runs(
    provider: FakeProvider, sandbox: RaisingSandbox
) -> None:
    wrong: Any = "print"
    with pytest.raises(TypeError, match="on_output is a function, not str"):
        sandbox.run_command("true", on_output=wrong)
    assert provider.commands == []


@pytest.mark.parametrize("on_gone", ["fial", "never", ""])
def test_a_misspelt_word_on_gone_does_not_make_a_sandbox_anew(
    provider: FakeProvider, sandbox: RaisingSandbox, tmp_path: Path, on_gone: Any
) -> None:
    provider.lose(sandbox.sandbox_id)
    (tmp_path / "file").touch()
    for act in (
        lambda: sandbox.run_command("true", on_gone=on_gone),
        lambda: sandbox.write_files({"a": "b"}, on_gone=on_gone),
        lambda: sandbox.upload(tmp_path / "file", "a", on_gone=on_gone),
    ):
        with pytest.raises(ValueError, match="on_gone must be"):
            act()
    with pytest.raises(SandboxGoneError):
        sandbox.run_command("true", on_gone="fail")
    state = sandbox.record().state
    assert state is not None
    assert state.incarnation == 1


def test_values_of_variables_are_not_part_of_the_message(sandbox: RaisingSandbox) -> None:
    wrong: Any = {"KEY": b"secret-1f"}
    with pytest.raises(TypeError) as caught:
        sandbox.run_command("true", env=wrong)
    assert "secret-1f" not in str(caught.value)


@pytest.mark.parametrize("timeout_s", [1, 0.5, Fraction(1, 2)])
def test_any_real_number_is_a_timeout(sandbox: RaisingSandbox, timeout_s: float) -> None:
    assert sandbox.run_command("true", timeout_s=timeout_s).exit_code == 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda c: c.wait("5"), TypeError, "timeout_s is a number, not str"),
        (lambda c: c.wait(float("nan")), ValueError, "timeout_s must be from 0 to"),
        (lambda c: c.wait(-1), ValueError, "timeout_s must be from 0 to"),
        (lambda c: c.wait(10**400), ValueError, "timeout_s must be from 0 to"),
        (lambda c: c.output("both"), ValueError, "stream must be 'stdout' or 'stderr'"),
        (lambda c: c.output(offset=-1), ValueError, "offset must be from 0 to"),
        (lambda c: c.output(offset=1.5), TypeError, "offset is a whole number, not float"),
        (lambda c: c.output(offset="0"), TypeError, "offset is a number, not str"),
    ],
)
def test_a_wrong_argument_of_a_started_command_is_named(
    sandbox: RaisingSandbox, call: Any, kind: type[Exception], message: str
) -> None:
    command = sandbox.start_command("true")
    with pytest.raises(kind, match=message):
        call(command)
    assert command.wait(0).exit_code == 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda s: s.extend_timeout(float("nan")), TypeError, "timeout_ms is a whole number"),
        (lambda s: s.extend_timeout(999), ValueError, "timeout_ms must be from 1000 to"),
        (lambda s: s.extend_timeout(10**13), ValueError, "timeout_ms must be from 1000 to"),
        (lambda s: s.extend_timeout("1000"), TypeError, "timeout_ms is a number, not str"),
        (lambda s: s.preview_url(80.5), TypeError, "port is a whole number, not float"),
        (lambda s: s.preview_url(True), TypeError, "port is a number, not bool"),
        (lambda s: s.preview_url(65536), ValueError, "port must be from 1 to 65535"),
        (lambda s: s.create_checkpoint(None), TypeError, "comment is text, not NoneType"),
        (lambda s: s.create_checkpoint("a\0"), ValueError, "comment must not hold a NUL"),
        (lambda s: s.create_checkpoint("\ud800"), ValueError, "comment must not hold"),
        (lambda s: s.restore_checkpoint(1), TypeError, "checkpoint_id is text, not int"),
        (lambda s: s.restore_checkpoint(""), ValueError, "checkpoint_id must not be empty"),
        (lambda s: s.purge_commands(older_than_s=-1), ValueError, "older_than_s must be from 0"),
        (lambda s: s.purge_commands(older_than_s=float("inf")), ValueError, "older_than_s must"),
        (lambda s: s.purge_commands(older_than_s="7d"), TypeError, "older_than_s is a number"),
        (lambda s: s.get_command(None), TypeError, "a command id is text, not NoneType"),
    ],
)
def test_a_wrong_argument_of_another_verb_is_named(
    sandbox: RaisingSandbox, call: Any, kind: type[Exception], message: str
) -> None:
    before = sandbox.record()
    with pytest.raises(kind, match=message):
        call(sandbox)
    assert sandbox.record() == before


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        ({"content": 5}, TypeError, "content is bytes or text; source names a local file"),
        ({"content": [104, 105]}, TypeError, "content is bytes or text"),
        ({"content_base64": b"aGk="}, TypeError, "content_base64 is text"),
        ({"content": "x", "mode": "644"}, TypeError, "mode is a whole number such as 0o644"),
        ({"content": "x", "mode": 420.0}, TypeError, "mode is a whole number"),
        ({"source": ""}, ValueError, "source must not be empty"),
        ({"source": b"x"}, TypeError, "source is a path, not bytes"),
        ({"path": "\ud800", "content": "x"}, ValueError, "the path holds half a character"),
    ],
)
def test_a_wrong_file_is_named_and_nothing_is_written(
    sandbox: RaisingSandbox, file: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        sandbox.write_files([FileWrite("first", "1"), FileWrite(**{"path": "second", **file})])
    with pytest.raises(FileNotFoundError):
        sandbox.read_file("first")


@pytest.mark.parametrize("files", [None, 5, "file", b"file"])
def test_what_is_no_files_is_named(sandbox: RaisingSandbox, files: Any) -> None:
    with pytest.raises(TypeError, match="files is a mapping of contents by path or a sequence"):
        sandbox.write_files(files)


def test_an_empty_local_path_is_not_the_current_directory(
    sandbox: RaisingSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "private").write_text("x")
    with pytest.raises(ValueError, match=r"local must not be empty; use '\.' for the"):
        sandbox.upload("", "copy")
    with pytest.raises(FileNotFoundError):
        sandbox.read_file("copy/private")
    sandbox.write_files({"tree/from inside": "x"})
    with pytest.raises(ValueError, match="local must not be empty"):
        sandbox.download("tree", "")
    assert [path.name for path in tmp_path.iterdir()] == ["private"]


@pytest.mark.parametrize("verb", ["upload", "download"])
def test_wrong_arguments_of_a_transfer_are_named(
    sandbox: RaisingSandbox, tmp_path: Path, verb: str
) -> None:
    local, inside = tmp_path / "file", "file"
    local.write_text("x")
    sandbox.write_files({inside: "y"})

    def act(local: Any, **fields: Any) -> None:
        order = (local, inside) if verb == "upload" else (inside, local)
        getattr(sandbox, verb)(*order, **fields)

    with pytest.raises(TypeError, match="local is a path, not bytes"):
        act(b"file")
    with pytest.raises(ValueError, match="local must not hold a NUL"):
        act("a\0b")
    with pytest.raises(TypeError, match="progress is a function, not bool"):
        act(local, progress=True)
    assert local.read_text() == "x"
    assert sandbox.read_file(inside) == b"y"


@pytest.mark.parametrize("config", ["local", "", 0, [], b"", Path("config.json")])
def test_what_is_no_config_is_named_and_nothing_is_made(
    service: RaisingService, config: Any
) -> None:
    with pytest.raises(TypeError, match="a config is a SandboxConfig or a mapping of its fields"):
        service.create_sandbox(config)
    assert service.list_sandboxes().records == ()


def test_a_lifetime_that_no_store_can_hold_is_refused(service: RaisingService) -> None:
    with pytest.raises(ConfigurationError, match="timeout_ms"):
        service.create_sandbox(timeout_ms=2**70)


@pytest.mark.parametrize("field", ["status", "provider", "purpose", "cursor"])
@pytest.mark.parametrize("value", ["\ud800", "a\0b"])
def test_a_query_for_what_no_record_can_hold_is_refused(
    service: RaisingService, field: str, value: Any
) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}: holds a NUL character or half"):
        service.list_sandboxes(**{field: value})


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"apply": "no"}, TypeError, "apply is True or False, not str"),
        ({"apply": None}, TypeError, "apply is True or False, not NoneType"),
        ({"destroy_unrecorded": None}, TypeError, "destroy_unrecorded is a list of words"),
        ({"destroy_unrecorded": str(uuid.uuid4())}, TypeError, "is a list of words, not str"),
        ({"destroy_unrecorded": [uuid.uuid4()]}, TypeError, "each of destroy_unrecorded is text"),
        ({"destroy_unrecorded": ["all"]}, ConfigurationError, "a sandbox id is a UUID"),
        ({"providers": "sprites"}, TypeError, "providers is a list of words, not str"),
    ],
)
def test_a_wrong_argument_of_reconcile_is_named_and_nothing_is_settled(
    provider: FakeProvider,
    service: RaisingService,
    sandbox: RaisingSandbox,
    wrong: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    provider.lose(sandbox.sandbox_id)
    with pytest.raises(kind, match=message):
        service.reconcile(**wrong)
    assert sandbox.record().status == "active"
