"""Deaths: of the client, of the holder, of the sandbox's time."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

import pytest
from ekairos_sandbox_local.options import LocalOptions
from helpers.local_sandboxes import (
    Local,
    host_processes,
    in_another_process,
    is_running,
    sh,
    wait_until,
)

from ekairos_sandbox.exceptions import (
    ProviderUnavailableError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import SandboxRef


@pytest.fixture
def nap() -> str:
    """Seconds to sleep; no other process of this machine has this argument."""
    return f"4242.{secrets.randbelow(10**9):09}"


ISOLATIONS = pytest.mark.parametrize("isolation", ["bubblewrap", "none"])


def test_another_process_uses_a_sandbox_by_its_name_alone(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "echo from the first > note")

    with in_another_process(
        local,
        f"c = local.provider.connect(SandboxRef({ref.name!r}, {ref.external_id!r}))\n"
        "print(sh(c, 'cat note; echo from the second > note'))",
    ) as other:
        output, _ = other.communicate(timeout=60)

    assert output == "from the first\n"
    assert sh(connection, "cat note") == "from the second"


@ISOLATIONS
def test_a_script_outlives_the_client_that_sent_it(local: Local, isolation: str) -> None:
    connection, ref = local.create(isolation=isolation)
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\n"
        "sh(c, 'echo started > state; sleep 0.5; echo finished > state')",
    ) as other:
        wait_until(lambda: sh(connection, "cat state 2>/dev/null || :") == "started")
        other.send_signal(signal.SIGKILL)

    wait_until(lambda: sh(connection, "cat state") == "finished")


def test_a_client_killed_during_create_leaves_what_the_next_create_adopts(local: Local) -> None:
    for delay in (0.0, 0.01, 0.02, 0.04, 0.06):
        name = f"ekairos-{delay}"
        with in_another_process(
            local, f"print('go', flush=True)\nlocal.provider.create(local.spec(name={name!r}))"
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()
            time.sleep(delay)  # any moment will do
            other.send_signal(signal.SIGKILL)

        connection = local.provider.create(local.spec(name=name))

        assert sh(connection, "echo up") == "up"
        local.provider.destroy(SandboxRef(name))
        assert not (local.state / name).exists()


@ISOLATIONS
def test_after_the_holders_death_the_next_script_finds_the_files(
    local: Local, isolation: str, nap: str
) -> None:
    connection, ref = local.create(isolation=isolation)
    sh(connection, f"echo kept > note; sleep {nap} & echo")
    first = local.holder_pid(ref)

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first))

    assert sh(connection, "cat note") == "kept"
    assert local.holder_pid(ref) != first
    wait_until(lambda: host_processes(nap) == [])


def test_the_holders_death_during_a_script_is_an_unknown_outcome(local: Local) -> None:
    connection, ref = local.create()
    holder = local.holder_pid(ref)
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\n"
        "try: sh(c, 'echo x >> count; sleep 1000')\n"
        "except Exception as e: print(type(e).__name__, e.outcome)",
    ) as other:
        wait_until(lambda: sh(connection, "cat count 2>/dev/null || :") == "x")
        os.kill(holder, signal.SIGKILL)
        output, _ = other.communicate(timeout=60)

    assert output == "ProviderUnavailableError unknown\n"
    assert sh(connection, "cat count") == "x"


def test_stop_during_a_script_is_an_unknown_outcome_and_ends_it(local: Local, nap: str) -> None:
    connection, ref = local.create()
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\n"
        f"try: sh(c, 'echo x > begun; sleep {nap}')\n"
        "except Exception as e: print(type(e).__name__, e.outcome)",
    ) as other:
        wait_until(lambda: sh(connection, "cat begun 2>/dev/null || :") == "x")
        local.provider.stop(ref)
        output, _ = other.communicate(timeout=60)

    assert output == "ProviderUnavailableError unknown\n"
    assert host_processes(nap) == []


def test_a_holder_that_does_not_answer_is_killed_by_stop(
    local: Local, monkeypatch: pytest.MonkeyPatch, nap: str
) -> None:
    connection, ref = local.create()
    sh(connection, f"sleep {nap} & echo")
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGSTOP)
    monkeypatch.setattr("ekairos_sandbox_local.client._PATIENCE_S", 0.2)

    local.provider.stop(ref)

    assert not is_running(holder)
    wait_until(lambda: host_processes(nap) == [])
    assert local.provider.inspect(ref).state == "stopped"


@ISOLATIONS
def test_the_time_limit_is_kept_without_any_client(local: Local, isolation: str, nap: str) -> None:
    connection, ref = local.create(timeout_ms=1000, isolation=isolation)
    holder = local.holder_pid(ref)
    sh(connection, f"trap '' TERM INT HUP; (setsid sleep {nap} &) & echo kept > note")

    wait_until(lambda: not is_running(holder))

    assert host_processes(nap) == []
    with pytest.raises(SandboxNotRunningError, match="time is up") as caught:
        sh(connection, "true")
    assert caught.value.outcome == "failed"
    assert local.provider.inspect(ref).state == "stopped"


def test_connect_after_the_time_limit_gives_the_whole_time_again(local: Local) -> None:
    connection, ref = local.create(timeout_ms=1500)
    sh(connection, "echo kept > note")
    wait_until(lambda: local.provider.inspect(ref).state == "stopped")

    again = local.provider.connect(ref)

    assert sh(again, "cat note") == "kept"
    wait_until(lambda: local.provider.inspect(ref).state == "stopped")


def test_a_restarted_holder_keeps_the_old_time_limit(local: Local) -> None:
    connection, ref = local.create(timeout_ms=2500)
    os.kill(local.holder_pid(ref), signal.SIGKILL)

    def ended() -> bool:
        try:
            sh(connection, "true")
        except SandboxNotRunningError:
            return True
        except ProviderUnavailableError:  # ended in the middle
            pass
        return False

    wait_until(ended)


@ISOLATIONS
def test_nothing_survives_a_stop(local: Local, isolation: str, nap: str) -> None:
    connection, ref = local.create(isolation=isolation)
    sh(
        connection,
        f"""
        trap '' TERM HUP INT
        (setsid sh -c 'trap "" TERM; sleep {nap}; sleep {nap}' &) &
        for i in 1 2 3 4 5; do (setsid setsid sleep {nap} &) & done
        sh -c 'exec env -i sleep {nap}' &
        echo
        """,
    )
    wait_until(lambda: len(host_processes(nap)) >= 7)

    local.provider.stop(ref)

    assert host_processes(nap) == []


@ISOLATIONS
def test_a_fork_bomb_can_be_stopped(local: Local, isolation: str, nap: str) -> None:
    if isolation == "none" and os.geteuid() != 0:
        pytest.skip("would count against this user's own processes")
    connection, ref = local.create(isolation=isolation, max_processes=60)
    sh(connection, f"bomb() {{ sleep {nap} & bomb & bomb; }}; (bomb) >/dev/null 2>&1 & echo")
    wait_until(lambda: len(host_processes(nap)) > 3)

    local.provider.stop(ref)

    wait_until(lambda: host_processes(nap) == [])
    assert sh(local.provider.connect(ref), "echo up") == "up"


def test_the_holder_belongs_to_no_terminal_session_of_the_caller(local: Local) -> None:
    _, ref = local.create()
    holder = local.holder_pid(ref)

    assert os.getsid(holder) != os.getsid(0)
    fields = Path(f"/proc/{holder}/stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != os.getpid()
    if os.geteuid() == 0:
        assert Path(f"/proc/{holder}/environ").read_bytes() == b""


def test_a_start_that_fails_leaves_nothing_and_says_why(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekairos_sandbox_local.starting._interpreter", lambda: "/bin/false")

    with pytest.raises(ProviderUnavailableError, match="without a word") as caught:
        local.create()

    assert caught.value.outcome == "failed"
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_an_interrupted_create_leaves_nothing(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ekairos_sandbox_local.starting._read_all", interrupt)
    with pytest.raises(KeyboardInterrupt):
        local.create()

    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_ten_lives_of_one_sandbox_in_a_row_work(local: Local) -> None:
    spec = local.spec()
    ref: SandboxRef[LocalOptions] = SandboxRef(spec.name)
    for turn in range(10):
        connection = local.provider.create(spec)
        assert sh(connection, f"echo {turn} >> log; wc -l < log") == str(turn + 1)
        local.provider.stop(ref)
