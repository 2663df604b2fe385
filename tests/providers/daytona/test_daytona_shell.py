"""Scripts and files in a Daytona sandbox, over a line on which much goes wrong."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from typing import Any

import pytest
from ekairos_sandbox_daytona.connection import DaytonaConnection
from ekairos_sandbox_daytona.options import DaytonaOptions
from ekairos_sandbox_daytona.provider import DaytonaProvider
from helpers.daytona import FOR_EVER, provider_for
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    OutcomeUnknownError,
    ProviderError,
    ProviderTimeoutError,
    SandboxGoneError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import Connection, CreateSpec, ProviderContext, Tags
from ekairos_sandbox.raising import RaisingSandbox, RaisingService

EXEC = "/toolbox/[^/]+/process/execute"
TAGS = Tags("owner", "x", 1)


def make(provider: DaytonaProvider, **options: Any) -> Connection:
    given = DaytonaOptions(**{"ephemeral": False, **options})
    return provider.create(CreateSpec("ekairos-x", TAGS, given, 60))


@pytest.fixture
def connection(provider: DaytonaProvider) -> Connection:
    return make(provider)


@pytest.fixture
def sandbox(service: RaisingService) -> RaisingSandbox:
    return service.create_sandbox(
        provider="daytona", daytona={"ephemeral": False, "auto_stop_interval_min": 0}
    )


def say(connection: Connection, script: bytes = b"echo '<on>'", timeout_s: float = 30) -> bytes:
    return connection.shell(script, timeout_s=timeout_s, max_bytes=65536)


def test_a_short_command_is_one_request(server: DaytonaServer, sandbox: RaisingSandbox) -> None:
    server.clear_requests()
    assert sandbox.run_command("echo", ["one"]).output == "one\n"
    assert server.counts() == {"POST /toolbox/*/process/execute": 1}


def test_neither_script_nor_environment_is_in_a_url(
    server: DaytonaServer, sandbox: RaisingSandbox
) -> None:
    server.clear_requests()
    sandbox.run_command("sh", ["-c", "echo $SECRET"], env={"SECRET": "hush-4711"}).check()
    for seen in server.requests:
        assert "hush" not in seen.path
        assert "hush" not in str(seen.query)
        assert "hush" not in str(seen.headers)


def test_the_text_that_shells_read_byte_by_byte_is_short_and_holds_no_script(
    server: DaytonaServer, sandbox: RaisingSandbox
) -> None:
    result = sandbox.run_command("env", env={"SECRET": "hush-4711"}, stdin=b"x" * 90_000).check()
    assert "SECRET=hush-4711" in result.output.splitlines()
    assert "EKAIROS_SCRIPT" not in result.output
    texts = server.toolbox.commands
    assert max(map(len, texts)) < 200
    assert [text for text in texts if "hush" in text] == []


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "busybox"])
def test_scripts_are_the_same_whatever_shell_daytona_pipes_them_to(shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    with DaytonaServer(shell=[found, "sh"] if shell == "busybox" else found) as server:
        connection = make(provider_for(server))
        script = rb"""
        set -- *nothing*; printf '<%s>' "$1" 'a"b`c$d\e!~{}[x]?' "$(echo '=ls')" "${0##*/}"
        cat; printf '\n%s' end"""
        assert say(connection, script) == b'<*nothing*><a"b`c$d\\e!~{}[x]?><=ls><sh>\nend'


@pytest.mark.parametrize("data", [bytes(range(1, 256)), b"\xff" * 1000, "ü€😀".encode() * 50])
def test_every_byte_of_a_script_arrives(connection: Connection, data: bytes) -> None:
    from ekairos_sandbox.shell.quoting import quote

    script = b"printf %s " + quote(data) + b" | od -An -v -tx1"
    assert bytes.fromhex(say(connection, script).decode()) == data


def test_an_argument_that_is_no_utf_8_arrives(sandbox: RaisingSandbox) -> None:
    word = os.fsdecode(b"caf\xe9 \xff")
    result = sandbox.run_command("printf", ["%s", word]).check()
    assert result.stdout == b"caf\xe9 \xff"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ({"kind": "drop"}, "unknown"),
        ({"kind": "drop_after"}, "unknown"),
        ({"kind": "cut"}, "unknown"),
        ({"kind": "answer", "status": 502, "body": b""}, "unknown"),
        ({"kind": "answer_after", "status": 502, "body": b""}, "unknown"),
        ({"kind": "answer", "status": 408}, "unknown"),
        ({"kind": "answer", "status": 200, "body": b"<html>"}, "unknown"),
        ({"kind": "answer", "status": 200, "body": [1]}, "unknown"),
        ({"kind": "answer", "status": 429}, "failed"),
        (
            {"kind": "answer", "status": 400, "body": {"message": "Is the Sandbox started?"}},
            "failed",
        ),
        ({"kind": "answer", "status": 404, "body": {"message": "container not found"}}, "failed"),
        ({"kind": "answer", "status": 401}, "failed"),
    ],
    ids=str,
)
def test_an_error_says_whether_the_script_can_have_run(
    server: DaytonaServer, connection: Connection, fault: dict[str, Any], outcome: str
) -> None:
    given = dict(fault)
    server.faults.add(given.pop("kind"), "POST", EXEC, **given)
    with pytest.raises(ProviderError) as caught:
        say(connection)
    assert caught.value.outcome == outcome
    # The sandbox runs, as the control plane knows.
    assert not isinstance(caught.value, SandboxGoneError | SandboxNotRunningError)
    assert server.counts()["POST /toolbox/*/process/execute"] == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "drop"},
        {"kind": "drop_after"},
        {"kind": "cut"},
        {"kind": "answer_after", "status": 408},
        {"kind": "answer_after", "status": 502, "body": b""},
        {"kind": "answer", "status": 429},
        {"kind": "answer", "status": 404, "body": b"<html>not here</html>"},
    ],
    ids=str,
)
def test_a_command_runs_once_in_spite_of_it(
    server: DaytonaServer, sandbox: RaisingSandbox, fault: dict[str, Any]
) -> None:
    given = dict(fault)
    server.faults.add(given.pop("kind"), "POST", EXEC, times=2, **given)
    script = "echo x >>count; cat count"
    assert sandbox.run_command("sh", ["-c", script]).output == "x\n"


def test_a_command_whose_answers_are_all_lost_is_of_unknown_outcome(
    server: DaytonaServer, sandbox: RaisingSandbox
) -> None:
    server.faults.add("drop_after", "POST", EXEC, times=FOR_EVER)
    with pytest.raises(OutcomeUnknownError) as caught:
        sandbox.run_command("sh", ["-c", "echo x >>count"])
    server.faults.clear()
    assert caught.value.command_id is not None
    assert sandbox.get_command(caught.value.command_id).wait(30).exit_code == 0
    assert sandbox.read_file("count") == b"x\n"


def test_an_answer_that_trickles_in_does_not_hold_the_caller(
    server: DaytonaServer, connection: Connection
) -> None:
    server.faults.add("trickle", "POST", EXEC, seconds=0.2)
    with pytest.raises(ProviderTimeoutError) as caught:
        say(connection, timeout_s=0.5)
    assert caught.value.outcome == "unknown"


def test_endless_output_takes_no_memory(server: DaytonaServer, connection: Connection) -> None:
    server.faults.add("answer", "POST", EXEC, status=200, body=b'{"result":"' + b"x" * (40 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ProviderError) as caught:
            say(connection)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.outcome == "unknown"
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("stopped", SandboxNotRunningError),
        ("archived", SandboxNotRunningError),
        ("starting", SandboxNotRunningError),
        ("error", SandboxNotRunningError),
        ("destroyed", SandboxGoneError),
    ],
)
def test_a_sandbox_that_cannot_run_scripts_says_why(
    server: DaytonaServer, connection: Connection, state: str, error: type[ProviderError]
) -> None:
    box = server.box("ekairos-x")
    server.set_state("ekairos-x", state)
    box.then, box.then_at = (state, server.clock.now() + 99) if state == "starting" else (None, 0.0)
    with pytest.raises(error) as caught:
        say(connection)
    assert caught.value.outcome == "failed"


def test_attaching_needs_no_request(
    server: DaytonaServer, provider: DaytonaProvider, sandbox: RaisingSandbox
) -> None:
    server.clear_requests()
    from ekairos_sandbox.provider import SandboxRef

    record = sandbox.record()
    params = record.params or {}
    ref: SandboxRef[DaytonaOptions] = SandboxRef(
        "n", external_id=record.external_sandbox_id, data=params["daytona"]
    )
    connection = provider.attach(ref)
    assert server.requests == []
    assert b"<on>" in say(connection)


def test_the_token_goes_to_no_address_that_a_record_alone_names(
    server: DaytonaServer, provider: DaytonaProvider, sandbox: RaisingSandbox
) -> None:
    from ekairos_sandbox.provider import SandboxRef

    record = sandbox.record()
    data = {**(record.params or {})["daytona"], "toolboxProxyUrl": "https://evil.example/toolbox"}
    ref: SandboxRef[DaytonaOptions] = SandboxRef(
        "n", external_id=record.external_sandbox_id, data=data
    )
    connection = provider.attach(ref)
    assert isinstance(connection, DaytonaConnection)
    assert connection.data["toolboxProxyUrl"] == f"{server.url}/toolbox"


@pytest.mark.parametrize(
    ("own", "other", "trusted"),
    [
        ("https://app.daytona.io/api", "https://proxy.app.daytona.io/toolbox", True),
        ("https://app.daytona.io/api", "https://app.daytona.io/toolbox", True),
        ("https://app.daytona.io/api", "http://proxy.app.daytona.io/toolbox", False),
        ("https://app.daytona.io/api", "https://proxyapp.daytona.io/toolbox", False),
        ("https://app.daytona.io/api", "https://app.daytona.io.evil.example/", False),
        ("https://app.daytona.io/api", "http://127.0.0.1/toolbox", False),
        ("http://localhost:3000/api", "http://proxy.localhost:4000/toolbox", True),
        ("http://localhost:3000/api", "http://127.0.0.1:4000/toolbox", False),
    ],
)
def test_addresses_below_the_apis_host_are_trusted(own: str, other: str, trusted: bool) -> None:
    from ekairos_sandbox_daytona.api import DaytonaApi
    from ekairos_sandbox_daytona.settings import DaytonaSettings

    api = DaytonaApi(DaytonaSettings(own, "key"), ProviderContext(environ={}))
    assert api.trusts(other) is trusted


@pytest.mark.parametrize(
    ("options", "timeout_s", "fits"),
    [
        ({}, None, False),
        ({}, 899, True),
        ({}, 900, False),
        ({"auto_stop_interval_min": 60}, 3599, True),
        ({"auto_stop_interval_min": 0}, None, True),
        ({"allow_idle_stop": True}, None, True),
    ],
)
def test_a_background_command_must_fit_the_idle_stop(
    service: RaisingService, options: dict[str, Any], timeout_s: float | None, fits: bool
) -> None:
    sandbox = service.create_sandbox(provider="daytona", daytona=options)
    if fits:
        command = sandbox.start_command("echo", ["fits"], timeout_s=timeout_s)
        assert command.wait(30).output == "fits\n"
        return
    with pytest.raises(UnsupportedOperationError, match="auto_stop_interval_min=0"):
        sandbox.start_command("true", timeout_s=timeout_s)
    assert sandbox.list_commands() == {}


def test_waiting_keeps_the_sandbox_from_its_idle_stop(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="daytona")
    command = sandbox.start_command(
        "sh", ["-c", "until [ -e go ]; do sleep 0.05; done"], timeout_s=800
    )
    for _ in range(4):
        server.clock.advance(10 * 60)
        assert command.state() == "running"
    sandbox.write_files({"go": b""})
    assert command.wait(30).exit_code == 0
    server.clock.advance(16 * 60)
    assert server.alive() == []
