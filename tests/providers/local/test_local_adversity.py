"""Deaths at every instant, full disks, callers with odd signals, and several processes at once."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ekairos_sandbox_local.holder import Holder
from helpers.local_sandboxes import Local, host_processes, in_another_process, sh, wait_until

from ekairos_sandbox.exceptions import (
    ProviderTimeoutError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import SandboxRef
from ekairos_sandbox_local import bwrap, client, processes, state


def of_sandbox(folder: Path) -> list[int]:
    """Return the live processes that see a sandbox's home, or have its folder as their own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                mounts = (entry / "mountinfo").read_text()
                if f"{folder}/home" in mounts or (entry / "cwd").readlink() == folder:
                    found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("delay_ms", [1, 5, 9, 12, 14, 16, 18, 20, 23, 27, 32])
def test_a_holder_that_dies_at_any_instant_of_its_start_leaves_no_process(
    local: Local, delay_ms: int
) -> None:
    _, ref = local.create()
    local.provider.stop(ref)
    folder = local.state / ref.name
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\nprint('go', flush=True)\n"
        "try: local.provider.connect(SandboxRef(c._meta.name))\n"
        "except Exception as e: print(type(e).__name__, e.outcome)",
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(delay_ms / 1000)  # any moment will do
        for pid in lock_holders(folder / "lock"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        other.wait(60)

    local.provider.stop(ref)
    wait_until(lambda: of_sandbox(folder) == [])
    assert sh(local.provider.connect(ref), "echo up") == "up"


def lock_holders(path: Path) -> list[int]:
    """Return who holds a lock on a file, by the kernel's own list."""
    inode = path.stat().st_ino
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [int(fields[4]) for fields in lines if fields[-3].endswith(f":{inode}")]


@pytest.mark.slow
def test_bubblewrap_ends_with_a_holder_that_dies_right_after_the_fork(
    local: Local, make_local: Callable[..., Local], scratch: Path
) -> None:
    """Before it has told the kernel so itself."""
    slow = scratch / "bwrap"
    slow.write_text(
        "#!/bin/sh\n"
        "case $1 in --help) echo --args --as-pid-1 --disable-userns --size; exit;; esac\n"
        f"echo > {scratch}/tmp/begun; exec sleep 3434.5\n"
    )
    slow.chmod(0o755)
    (scratch / "tmp").mkdir(mode=0o777)
    (scratch / "tmp").chmod(0o777)
    _, ref = local.create()
    local.provider.stop(ref)
    slowly = make_local(path=f"{scratch}:/usr/bin:/bin", state=local.state)
    folder = local.state / ref.name
    with in_another_process(
        slowly,
        f"local = Local(Path({str(local.state)!r}), {f'{scratch}:/usr/bin:/bin'!r})\n"
        f"local.provider.connect(SandboxRef({ref.name!r}))",
    ) as other:
        wait_until((scratch / "tmp" / "begun").exists)
        (holder,) = lock_holders(folder / "lock")
        os.kill(holder, signal.SIGKILL)
        other.kill()

    wait_until(lambda: host_processes("3434.5") == [])


def test_the_first_process_ends_if_nobody_hears_that_it_is_ready() -> None:
    read, written = os.pipe()
    os.close(read)
    with subprocess.Popen(
        bwrap.first_process(),
        stdout=written,
        stderr=subprocess.DEVNULL,
        restore_signals=False,  # as the first one in its namespace it would not die of SIGPIPE
    ) as process:
        os.close(written)

        assert process.wait(20) == 1


def test_what_a_start_that_was_cut_short_left_behind_goes_with_the_sandbox(local: Local) -> None:
    connection, ref = local.create()
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: lock_holders(local.state / ref.name / "lock") == [])
    owner = (local.state / ref.name / "home").stat().st_uid
    mark = {processes.MARK: connection.external_id}
    with subprocess.Popen(["sleep", "4545.5"], env=mark, user=owner) as stray:
        try:
            local.provider.destroy(ref)
            assert stray.wait(20) == -signal.SIGKILL
        finally:
            stray.kill()


def test_signals_that_the_caller_blocks_or_ignores_mean_nothing_inside(local: Local) -> None:
    with in_another_process(
        local,
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "for n in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCHLD):\n"
        "    signal.signal(n, signal.SIG_IGN)\n"
        "c, _ = local.create()\n"
        "for n in ('HUP', 'INT', 'QUIT', 'USR1', 'TERM', 'CHLD'):\n"
        "    print(n, sh(c, f'sh -c \"kill -{n} \\\\$\\\\$; echo lives\"; echo $?').split())\n"
        "print(sh(c, 'grep -E Sig.\\\\(Blk\\\\|Ign\\\\) /proc/1/status /proc/self/status'))",
    ) as other:
        output, _ = other.communicate(timeout=60)

    lines = output.splitlines()
    assert lines[:6] == [
        "HUP ['129']",
        "INT ['130']",
        "QUIT ['131']",
        "USR1 ['138']",
        "TERM ['143']",
        "CHLD ['lives', '0']",
    ]


def test_a_guest_that_fills_the_disk_can_be_used_stopped_started_and_destroyed(
    small_disk: Local,
) -> None:
    connection, ref = small_disk.create(timeout_ms=600_000)
    sh(connection, "cat /dev/zero > big 2>/dev/null; cat /dev/zero > /tmp/big 2>/dev/null; :")
    assert shutil.disk_usage(small_disk.state).free == 0

    assert sh(connection, "echo up") == "up"
    assert connection.extend_timeout(700_000) is not None
    small_disk.provider.stop(ref)
    with pytest.raises(SandboxNotRunningError):
        sh(connection, "true")
    again = small_disk.provider.connect(ref)
    assert sh(again, "rm big; echo up") == "up"
    sh(again, "cat /dev/zero > big 2>/dev/null; :")
    small_disk.provider.destroy(ref)
    assert [path.name for path in small_disk.state.iterdir() if path.name != ".bin"] == ["account"]


def test_what_cannot_be_swept_is_not_in_the_way_of_others(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.provider.account()
    (local.state / ".gone-stubborn").mkdir()
    monkeypatch.setattr(state, "_STALE_S", -1.0)

    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(state, "remove_tree", refuse)
        connection, _ = local.create()
        assert sh(connection, "echo up") == "up"


@pytest.mark.slow
def test_processes_that_start_stop_restore_and_destroy_at_once_end_in_one_of_their_states(
    local: Local,
) -> None:
    spec = local.spec()
    local.provider.create(spec).create_checkpoint()
    body = f"""
import random
from ekairos_sandbox.exceptions import SandboxError
spec = local.spec(name={spec.name!r})
ref = SandboxRef(spec.name)
acts = [
    lambda: local.provider.create(spec), lambda: local.provider.create(spec),
    lambda: local.provider.connect(ref), lambda: local.provider.stop(ref),
    lambda: sh(local.provider.attach(ref), "echo x"),
    lambda: local.provider.attach(ref).create_checkpoint(),
    lambda: local.provider.attach(ref).restore_checkpoint("1"),
    lambda: local.provider.attach(ref).extend_timeout(1000),
    lambda: local.provider.destroy(ref),
]
for _ in range(40):
    try:
        random.choice(acts)()
    except SandboxError as error:
        print(type(error).__name__, error.outcome, error.message)
"""
    others = [in_another_process(local, body) for _ in range(4)]
    answers = [other.communicate(timeout=110)[0] for other in others]

    assert [other.returncode for other in others] == [0, 0, 0, 0]
    allowed = (
        "SandboxGoneError",
        "SandboxNotRunningError",
        "CheckpointNotFoundError failed",
        "ProviderError failed",
    )
    ended = "ProviderUnavailableError unknown the sandbox ended while the script was running"
    odd = [
        line
        for answer in answers
        for line in answer.splitlines()
        if not line.startswith(allowed) and line != ended
    ]
    assert odd == []
    connection = local.provider.create(local.spec(name=spec.name))
    assert sh(connection, "echo up") == "up"
    assert len(lock_holders(local.state / spec.name / "lock")) == 1
    local.provider.destroy(SandboxRef(spec.name))
    wait_until(lambda: of_sandbox(local.state / spec.name) == [])
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_after_a_restart_of_the_machine_nothing_stale_is_believed(local: Local) -> None:
    """What is left then: a socket that nobody listens on, locks that nobody holds, old groups."""
    connection, ref = local.create(timeout_ms=600_000)
    sh(connection, "echo kept > note")
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: lock_holders(local.state / ref.name / "lock") == [])
    assert (local.state / ref.name / "sock").exists()
    (local.state / ref.name / "cgroups.json").write_text(
        '{"paths": ["/sys/fs/cgroup/memory/ekairos-sandbox-of-before"]}'
    )

    assert local.provider.inspect(ref).state == "stopped"
    assert sh(connection, "cat note") == "kept"


def test_a_call_to_a_holder_that_stands_still_times_out_and_never_runs_twice(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, ref = local.create(timeout_ms=600_000)
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGSTOP)
    try:
        with pytest.raises(ProviderTimeoutError) as caught:
            sh(connection, "echo x >> count", timeout_s=0.3)
        assert caught.value.outcome == "unknown"
        monkeypatch.setattr(client, "_PATIENCE_S", 0.2)
        with pytest.raises(ProviderTimeoutError, match="does not answer"):
            connection.extend_timeout(700_000)
    finally:
        os.kill(holder, signal.SIGCONT)

    wait_until(lambda: sh(connection, "cat count 2>/dev/null || :") == "x")


def test_requests_that_nobody_would_send_leave_the_holder_alive(local: Local) -> None:
    connection, ref = local.create()
    folder = local.state / ref.name
    known = ref.external_id or ""
    packets = [b"", b"\xff\xfe", b"R", b"K", b"Z" + known.encode(), b"R" + known.encode()]
    packets += [
        b"T" + known.encode(),
        b"T" + known.encode() + b" -5",
        b"T" + known.encode() + b" x",
    ]
    packets += [b"T" + known.encode() + b" " + "²".encode(), b"x" * 5000, b"K" + b"0" * 32]
    for packet in packets:
        with client.connect(folder, 5) as one:
            if packet:
                one.send(packet)
            read, written = os.pipe()
            if len(packet) > 10:
                with contextlib.suppress(OSError):
                    socket.send_fds(one, [packet], [read] * 20)
            os.close(read)
            os.close(written)
    assert sh(connection, "echo up") == "up"


def test_the_holder_asks_for_nothing_but_the_standard_library() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1]); import ekairos_sandbox_local.holder, "
        "ekairos_sandbox_local.copier; print([m for m in sys.modules if m.split('.')[0] in "
        "('pydantic', 'requests', 'ekairos_sandbox', 'typing', 'pathlib')])"
    )
    package = Path(sys.modules[Holder.__module__].__file__ or "").parents[1]
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(package)],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == "[]\n"


@pytest.mark.slow
def test_a_destroyed_sandbox_is_gone_for_whoever_waited_for_its_door(local: Local) -> None:
    connection, ref = local.create()
    folders = local.provider._local().state
    with folders.door(ref.name, 5) as door:
        assert door is not None
        other = in_another_process(
            local,
            f"c = local.provider.attach(SandboxRef({ref.name!r}))\nprint('go', flush=True)\n"
            "try: c.create_checkpoint()\nexcept Exception as e: print(type(e).__name__)",
        )
        assert other.stdout is not None
        other.stdout.readline()
        client.end(local.state / ref.name, connection.external_id, 20)
        folders.clear(folders.detach(ref.name))
    answer, _ = other.communicate(timeout=60)

    assert answer == f"{SandboxGoneError.__name__}\n"


def test_a_door_that_an_interrupt_left_locked_does_not_keep_its_own_thread_out(
    local: Local,
) -> None:
    _, ref = local.create()
    folders = local.provider._local().state
    # Ctrl-C between the lock and the body of the `with` statement.
    left = folders.door(ref.name, 5)
    before = left.__enter__()
    assert before is not None
    with folders.door(ref.name, 0) as door:
        assert door is not None
        del left  # whatever held it is let go of at last, and must not open the door
        gc.collect()
        with ThreadPoolExecutor(1) as other, pytest.raises(ProviderTimeoutError):
            other.submit(lambda: folders.door(ref.name, 0).__enter__()).result()
    local.provider.destroy(ref)
    assert local.provider.find(ref.name) is None
