"""Commands over streams that break, and what of them the service gets to see."""

from __future__ import annotations

import json
import threading

import pytest
from ekairos_sandbox_vercel.carrying import command_of
from helpers.vercel import new_spec
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import OutcomeUnknownError, ProviderError
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox_vercel import VercelProvider

APPEND = 'echo x >>"$HOME/count"; echo done; echo oops >&2; exit 5'


@pytest.fixture
def sandbox(server: VercelServer, service: RaisingService) -> RaisingSandbox:
    sandbox = service.create_sandbox(provider="vercel")
    sandbox.run_command("true").check()
    server.clear_requests()
    return sandbox


def count(sandbox: RaisingSandbox) -> bytes:
    return sandbox.read_file("count")


def test_a_warm_command_is_one_request(server: VercelServer, sandbox: RaisingSandbox) -> None:
    result = sandbox.run_command(["sh", "-c", APPEND], stdin=b"input")
    assert (result.exit_code, result.output, result.error) == (5, "done\n", "oops\n")
    assert server.operations() == ["run"]


def test_by_id_from_another_process_it_is_one_request_too(
    server: VercelServer, sandbox: RaisingSandbox, cold: RaisingService
) -> None:
    assert cold.run_command(sandbox.sandbox_id, ["echo", "on"]).output == "on\n"
    assert server.operations() == ["run"]


def test_reconnecting_running_and_reading_are_three_requests(
    server: VercelServer, sandbox: RaisingSandbox, cold: RaisingService
) -> None:
    again = cold.reconnect_to_sandbox(sandbox.sandbox_id)
    again.run_command(["sh", "-c", "echo x >file"]).check()
    assert again.read_file("file") == b"x\n"
    assert server.operations() == ["get", "run", "run"]


def test_many_small_files_are_one_request(server: VercelServer, sandbox: RaisingSandbox) -> None:
    sandbox.write_files({f"many/{number}": b"%d" % number for number in range(20)})
    assert server.operations() == ["run"]


@pytest.mark.parametrize("records", [0, 1, 2])
@pytest.mark.parametrize(
    "fault", [Fault.CUT, Fault.CUT_MID_LINE, Fault.END_EARLY, Fault.ERROR_RECORD]
)
def test_a_command_runs_once_wherever_its_stream_breaks(
    server: VercelServer, sandbox: RaisingSandbox, fault: Fault, records: int
) -> None:
    server.faults.add(fault, "run", records=records)
    result = sandbox.run_command(["sh", "-c", APPEND])
    assert (result.exit_code, result.output, result.error) == (5, "done\n", "oops\n")
    assert server.counts()["run"] == 2
    server.faults.clear()
    assert count(sandbox) == b"x\n"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.RESET_BEFORE,
        Fault.RESET_AFTER,
        Fault.SERVER_ERROR,
        Fault.BAD_GATEWAY,
        Fault.BAD_GATEWAY_AFTER,
        Fault.EMPTY_404,
    ],
)
def test_a_command_runs_once_whatever_the_answer_is(
    server: VercelServer, sandbox: RaisingSandbox, fault: Fault
) -> None:
    server.faults.add(fault, "run", times=2)
    result = sandbox.run_command(["sh", "-c", APPEND])
    assert (result.exit_code, result.output) == (5, "done\n")
    server.faults.clear()
    assert count(sandbox) == b"x\n"


@pytest.mark.parametrize("retry_after", [None, 2])
def test_a_command_refused_for_haste_is_sent_again(
    server: VercelServer, sandbox: RaisingSandbox, retry_after: int | None
) -> None:
    server.faults.add(Fault.RATE_LIMITED, "run", times=2, retry_after=retry_after)
    assert sandbox.run_command(["sh", "-c", APPEND]).exit_code == 5
    assert server.operations() == ["run", "run", "run"]
    assert count(sandbox) == b"x\n"


def test_a_stream_that_falls_silent_is_given_up(
    server: VercelServer, provider: VercelProvider
) -> None:
    connection = provider.create(new_spec())
    server.faults.add(Fault.STALL, "run", records=1, seconds=60)
    with pytest.raises(ProviderError, match="in time") as caught:
        connection.shell(b"echo x", timeout_s=0.5, max_bytes=1000)
    assert caught.value.outcome == "unknown"
    assert b"<on>" in connection.shell(b"echo '<on>'", timeout_s=30, max_bytes=1000)


def test_a_command_outlives_the_service_s_limit_for_streams(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    """The edge cuts every answer after five minutes."""
    command = sandbox.start_command(
        ["sh", "-c", 'until [ -e "$HOME/go" ]; do sleep 0.05; done; echo ended; exit 4']
    )
    (box,) = server.sandboxes().values()
    waited_for = len(box.session.commands)
    results = []
    waiting = threading.Thread(target=lambda: results.append(command.wait(60)))
    waiting.start()
    for _ in range(3):
        waited_for += 1
        while len(box.session.commands) < waited_for:
            server.wait_for_request(0.1)
        server.world.clock.advance(301)
    sandbox.write_files({"go": b""})
    waiting.join()
    assert [(result.exit_code, result.output) for result in results] == [(4, "ended\n")]


def test_when_the_sandbox_ends_under_a_command_the_outcome_is_unknown(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    command = sandbox.start_command(["sleep", "300"])
    server.world.clock.advance(1801)
    with pytest.raises(OutcomeUnknownError):
        command.wait(5)


def test_the_service_s_list_of_commands_shows_no_script(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    secret = "secret-4711"
    sandbox.run_command(
        ["sh", "-c", 'cat >/dev/null; : "$1"', "sh", f"arg-{secret}"],
        env={"API_KEY": f"env-{secret}"},
        stdin=f"stdin-{secret}".encode(),
    ).check()
    sandbox.write_files({"file": f"file-{secret}"})
    name = str(sandbox.record().external_sandbox_id)
    shown = [command.json() for command in server.sandboxes()[name].session.commands]
    assert len(shown) > 2
    assert secret not in json.dumps(shown)
    assert {(command["name"], command["args"][0]) for command in shown} == {("sh", "-c")}
    urls = [f"{seen.path}{seen.query}" for seen in server.requests]
    assert secret not in "".join(urls)


def test_inside_no_other_user_sees_the_script_and_commands_do_not_inherit_it(
    sandbox: RaisingSandbox,
) -> None:
    sandbox.write_files({"mark": b"mark-4711"})
    look = 'grep -l -F -f "$HOME/mark" /proc/[0-9]*/cmdline 2>/dev/null; env'
    result = sandbox.run_command(["sh", "-c", look], env={"MARKED": "mark-4711"}, stdin=b"x")
    lines = result.output.splitlines()
    assert [line for line in lines if "/proc/" in line] == []
    assert [line for line in lines if "EKAIROS_SCRIPT" in line] == []
    assert "MARKED=mark-4711" in lines


def test_a_timeout_does_not_kill_the_call_that_waits_for_it(
    server: VercelServer, sandbox: RaisingSandbox
) -> None:
    """The mark of a job is in its script, and the script in the environment of that call."""
    result = sandbox.run_command(["sleep", "300"], timeout_s=0.2)
    assert result.timed_out
    assert server.operations() == ["run"]


@pytest.mark.parametrize(
    "script",
    [b"echo x", b"x" * 300_000, "echo 'é漢\U0001f600'".encode(), bytes(range(128, 256)) * 2000],
)
def test_a_script_travels_as_ascii_in_variables_that_linux_takes(script: bytes) -> None:
    body = command_of(script, timeout_s=10)
    assert all(value.isascii() and len(value) < 131_000 for value in body["env"].values())
    assert len(json.dumps(body["args"])) < 400
    assert body["timeout"] == 15_000


def test_bytes_that_are_no_text_arrive(provider: VercelProvider) -> None:
    connection = provider.create(new_spec())
    script = b"printf '<%s>' '\xff\x80\xe9' | od -An -tx1"
    output = connection.shell(script, timeout_s=30, max_bytes=1000)
    assert output.split() == [b"3c", b"ff", b"80", b"e9", b"3e"]
