"""`providers` and `doctor`: what there is, what works, and why not."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.command_line import CommandLine, install

SECRET = "s3cret-token-value"

LEAKY = """
import os
from helpers.folder_provider import FolderProvider
from ekairos_sandbox.exceptions import ConfigurationError, ProviderAuthError
from ekairos_sandbox.hookspecs import hookimpl

class Leaky(FolderProvider):
    name = "leaky"

    def check(self):
        token = self.context.environ["LEAKY_TOKEN"]
        raise ProviderAuthError(f"the token {token} was refused", hint=f"replace {token}")

@hookimpl
def ekairos_sandbox_provider():
    return Leaky
"""

LIMITED = """
from types import SimpleNamespace
from helpers.folder_provider import FolderProvider
from ekairos_sandbox.hookspecs import hookimpl

class Limited(FolderProvider):
    name = "limited"

    def limits(self):
        return [
            SimpleNamespace(name="memory_mb", level="impossible", note="no control groups here"),
            SimpleNamespace(name="max_open_files", level="enforced", note="of each process"),
        ]

@hookimpl
def ekairos_sandbox_provider():
    return Limited
"""

CRASHING = (
    LEAKY.replace("leaky", "crashing")
    .replace("raise ProviderAuthError", "raise KeyError")
    .replace(', hint=f"replace {token}"', "")
)

BWRAP = """#!/bin/sh
case $1 in --help) echo "--args --as-pid-1 --disable-userns --size"; exit ;; esac
echo "{}" >&2
exit 1
"""


def add(cli: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    monkeypatch.syspath_prepend(str(install(cli.home / f"more-{name}", name, source)))


def status_of(done: str) -> dict[str, str]:
    """Return the status of each subject of a diagnosis."""
    lines = [line for line in done.splitlines() if not line.startswith(" ")]
    return {line[6:].split(":")[0]: line[:5].strip() for line in lines}


def test_providers_are_listed_with_what_they_can_do(cli: CommandLine) -> None:
    rows = [line.split("\t") for line in cli.ok("providers").out.splitlines()]
    assert ["folder", "ok", "cli-folder 1.0"] in [row[:3] for row in rows]
    (folder,) = [
        one for one in json.loads(cli.ok("providers", "--json").out) if one["name"] == "folder"
    ]
    assert folder["capabilities"] == ["checkpoints", "extend_timeout", "native", "preview_url"]
    assert folder["fields"]["ports"] == {"level": "refused", "note": "folders have no ports"}
    assert folder["options"][0]["name"] == "name"


def test_one_provider_is_shown_in_full(cli: CommandLine) -> None:
    lines = dict(line.split("\t") for line in cli.ok("providers", "folder").out.splitlines())
    assert lines["ports"] == "refused: folders have no ports"
    assert "option name" in lines


def test_limits_are_stated_as_they_hold_here(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cli, monkeypatch, "limited", LIMITED)
    described = {one["name"]: one for one in json.loads(cli.ok("providers", "--json").out)}
    assert described["folder"]["limits"] == []
    assert described["limited"]["limits"][0] == {
        "name": "memory_mb",
        "level": "impossible",
        "note": "no control groups here",
    }
    assert "limit max_open_files\tenforced: of each process" in cli.ok("providers", "limited").out
    diagnosis = cli.ok("doctor", "--provider", "limited").out
    assert "warn  provider limited, memory_mb: impossible: no control groups here" in diagnosis
    assert "ok    provider limited, max_open_files: enforced: of each process" in diagnosis


def test_a_broken_provider_is_listed_with_the_reason(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(cli, monkeypatch, "broken", "import no_such_module_anywhere")
    done = cli("providers")
    assert done.code == 100
    (row,) = [line for line in done.out.splitlines() if line.startswith("broken\t")]
    assert "No module named 'no_such_module_anywhere'" in row
    assert cli("providers", "folder").code == 0
    diagnosis = cli("doctor")
    assert diagnosis.code == 112
    assert status_of(diagnosis.out)["provider broken"] == "fail"


def test_doctor_says_what_works(cli: CommandLine) -> None:
    done = cli.ok("doctor", "--provider", "folder")
    assert status_of(done.out) == {
        "library": "ok",
        "variables": "ok",
        "record store": "ok",
        "default provider": "ok",
        "provider folder": "ok",
    }
    assert "which the first `create` makes" in done.out
    assert not (cli.home / "records.db").exists()
    assert "EKAIROS_SANDBOX_STORE" in done.out
    cli.create()
    assert "the first `create`" not in cli.ok("doctor", "--provider", "folder").out
    found = json.loads(cli.ok("doctor", "--json", "--provider", "folder").out)
    assert {one["status"] for one in found} == {"ok"}


def test_doctor_tells_not_set_up_from_broken(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EKAIROS_FOLDER_ROOT")
    done = cli("doctor")
    assert status_of(done.out)["provider folder"] == "warn"
    assert "EKAIROS_FOLDER_ROOT is not set" in done.out
    assert cli("doctor", "--provider", "folder").code == 112
    monkeypatch.setenv("SANDBOX_PROVIDER", "absent")
    done = cli("doctor")
    assert done.code == 112
    assert status_of(done.out)["default provider"] == "fail"


def test_doctor_finds_contradicting_variables(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EKAIROS_SANDBOX_STORE")
    monkeypatch.setenv("INSTANT_APP_ID", "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21")
    done = cli("doctor", "--provider", "folder")
    assert done.code == 112
    assert "INSTANT_APP_ADMIN_TOKEN is not set, but INSTANT_APP_ID is" in done.out
    monkeypatch.delenv("INSTANT_APP_ID")
    done = cli("doctor", "--provider", "folder")
    assert status_of(done.out)["record store"] == "warn"


@pytest.mark.parametrize(("name", "source"), [("leaky", LEAKY), ("crashing", CRASHING)])
def test_doctor_prints_no_secret(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, name: str, source: str
) -> None:
    add(cli, monkeypatch, name, source)
    monkeypatch.setenv("LEAKY_TOKEN", SECRET)
    for words in (("doctor",), ("doctor", "--json"), ("doctor", "--provider", name)):
        done = cli(*words)
        assert done.code == 112
        assert SECRET not in done.out + done.stderr
        assert "***" in done.out


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that everybody may read, unlike ``tmp_path`` of root."""
    with tempfile.TemporaryDirectory(prefix="ekairos-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def test_doctor_says_why_a_machine_cannot_isolate(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, open_to_all: Path
) -> None:
    pytest.importorskip("ekairos_sandbox_local.plugin")
    stub = open_to_all / "bwrap"
    stub.write_text(BWRAP.format("bwrap: No permissions to create new namespace"))
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{open_to_all}:/usr/bin:/bin")
    done = cli("doctor", "--provider", "local")
    assert done.code == 112
    assert "fail  provider local: sandboxes cannot be isolated here: user namespaces" in done.out
    assert "--option isolation=none" in done.out
    refused = cli("create", "--provider", "local")
    assert refused.code == 111
    assert "--option isolation=none" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2


def test_doctor_elsewhere_than_on_linux(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ekairos_sandbox_local.plugin")
    monkeypatch.setattr(sys, "platform", "darwin")
    done = cli("doctor", "--provider", "local")
    assert done.code == 112
    assert (
        "fail  provider local: local sandboxes need Linux\n      use another provider" in done.out
    )


def test_doctor_works_where_nothing_is_set_up(cli: CommandLine) -> None:
    """As for a newcomer: an empty home and no variables at all."""
    for name in list(cli.environ):
        if name != "HOME":
            del cli.environ[name]
    done = cli.process("doctor")
    assert status_of(done.out)["record store"] == "warn"
    assert "Traceback" not in done.stderr
    assert not list(Path(cli.home).glob("**/*.db"))


def test_doctor_refuses_a_place_where_the_record_file_would_be_refused(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    monkeypatch.setenv("EKAIROS_SANDBOX_STORE", f"sqlite:///{shared}/records.db")
    for mode, advice in ((0o1777, "choose another with"), (0o777, f"chmod o-w {shared}, or")):
        shared.chmod(mode)
        done = cli("doctor", "--provider", "folder")
        assert done.code == 112
        assert status_of(done.out)["record store"] == "fail"
        assert advice in done.out
        assert ("chmod" in done.out) == (mode == 0o777)
    assert list(shared.iterdir()) == []
