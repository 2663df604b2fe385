"""Checkpoints of home and ``/tmp``, longer lives and preview URLs."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.local_sandboxes import (
    Local,
    host_processes,
    in_another_process,
    is_running,
    sh,
    wait_until,
)

from ekairos_sandbox.exceptions import (
    CheckpointNotFoundError,
    ProviderError,
    SandboxGoneError,
    SandboxNotRunningError,
    UnsupportedOperationError,
)
from ekairos_sandbox_local import checkpoints, client, copier, trees

ISOLATIONS = pytest.mark.parametrize("isolation", ["bubblewrap", "none"])


@ISOLATIONS
def test_home_and_tmp_come_back_and_what_ran_has_ended(local: Local, isolation: str) -> None:
    connection, ref = local.create(isolation=isolation)
    sh(connection, "echo old > note; echo old > $TMPDIR/note; mkdir -p a/b; echo 1 > a/b/c")
    made = connection.create_checkpoint("before")
    sh(
        connection,
        "rm -r a; echo new > note; echo new > $TMPDIR/note; touch more; sleep 3131.5 & :",
    )

    connection.restore_checkpoint(made.id)

    assert host_processes("3131.5") == []
    assert sh(connection, "cat note $TMPDIR/note a/b/c; ls -A") == "old\nold\n1\na\nnote"
    assert local.provider.inspect(ref).state == "running"
    assert connection.list_checkpoints() == [made]
    assert made.comment == "before"


def test_checkpoints_are_listed_oldest_first_and_each_is_kept(local: Local) -> None:
    connection, _ = local.create()
    ids = []
    for number in range(11):
        sh(connection, f"echo {number} > note")
        ids.append(connection.create_checkpoint(str(number)).id)

    assert [(one.id, one.comment) for one in connection.list_checkpoints()] == [
        (one, str(number)) for number, one in enumerate(ids)
    ]
    for number in (3, 10):
        connection.restore_checkpoint(ids[number])
        assert sh(connection, "cat note") == str(number)
    assert len(connection.list_checkpoints()) == 11


def test_whatever_a_guest_can_make_is_stored_as_it_is(local: Local, scratch: Path) -> None:
    (scratch / "precious").write_text("host")
    connection, ref = local.create()
    look = (
        "cd; find . -mindepth 1 -printf '%p|%y|%m|%s|%n|%l|%T@\\n' | LC_ALL=C sort; "
        "md5sum sparse data"
    )
    sh(
        connection,
        f"""
        ln -s {scratch}/precious link; ln -s / root; ln -s . loop; ln -s nowhere dangling
        ln -s /etc/shadow shadow; mkfifo pipe; chmod 604 pipe
        echo data > data; ln data hard; mkdir -p deep/er; ln data deep/er/hard; chmod 751 deep
        truncate -s 1T sparse 2>/dev/null || truncate -s 1G sparse
        printf middle | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null
        truncate -s 100M sparse
        touch "$(printf 'new\\nline')" "$(printf 'bad\\377name')" -- '-rf' '* ?'
        echo closed > unreadable; chmod 0 unreadable
        mkdir -m 0700 closed; echo in > closed/in; chmod 0 closed; mkdir -m 0555 fixed
        echo x > program; chmod 4755 program; touch -d '2001-02-03 04:05:06.789' old
        touch -h -d '2002-02-03 04:05:06' dangling
        """,
    )
    sh(connection, "python3 -c 'import socket; socket.socket(1).bind(\"sock\")'; rm -f sock")
    before = sh(connection, look)

    made = connection.create_checkpoint()
    unharmed = sh(connection, look)
    sh(connection, "chmod 700 closed; rm -rf ./* ")
    connection.restore_checkpoint(made.id)

    assert unharmed == before
    assert sh(connection, look) == before
    assert sh(connection, "[ data -ef hard ] && [ data -ef deep/er/hard ] && echo same") == "same"
    assert sh(connection, "chmod 700 closed unreadable; cat closed/in unreadable") == "in\nclosed"
    assert int(sh(connection, "du -k sparse | cut -f1")) < 1000
    assert (scratch / "precious").read_text() == "host"
    local.provider.destroy(ref)
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_sockets_are_left_out(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, "python3 -c 'import socket; socket.socket(1).bind(\"sock\")'; touch file")

    connection.restore_checkpoint(connection.create_checkpoint().id)

    assert sh(connection, "ls -A") == "file"


def test_attributes_of_users_are_kept(local: Local) -> None:
    connection, _ = local.create()
    put = "import os; open('x', 'w'); os.setxattr('x', 'user.mark', b'1')"
    if sh(connection, f'python3 -c "{put}" 2>&1; echo $?') != "0":
        pytest.skip("the file system has no attributes of users")

    connection.restore_checkpoint(connection.create_checkpoint().id)

    assert sh(connection, "python3 -c \"import os; print(os.getxattr('x', 'user.mark'))\"") == (
        "b'1'"
    )


@pytest.mark.slow
def test_a_tree_that_changes_all_the_time_can_be_stored_and_leads_nowhere(
    local: Local, scratch: Path
) -> None:
    (scratch / "outside").mkdir(mode=0o755)
    (scratch / "outside" / "precious").write_text("host")
    connection, ref = local.create()
    sh(
        connection,
        f"""
        (while :; do
          mkdir -p swap; echo in > swap/precious; rm -r swap; ln -s {scratch}/outside swap; rm swap
          echo x > f; rm f; mkfifo f; rm f; ln -s /etc/passwd f; rm f
        done) >/dev/null 2>&1 &
        (while :; do head -c 100000 /dev/zero >> grows; truncate -s 0 grows; done) >/dev/null 2>&1 &
        """,
    )
    for _ in range(10):
        connection.create_checkpoint()

    stored = local.state / ref.name / "checkpoints"
    found = list(stored.rglob("precious"))
    assert all(path.read_text() == "in\n" for path in found if not path.is_symlink())
    assert not [path for path in stored.rglob("passwd") if path.is_file()]
    assert (scratch / "outside" / "precious").read_text() == "host"


def test_more_data_or_checkpoints_than_allowed_are_refused_and_leave_nothing(
    local: Local,
) -> None:
    connection, ref = local.create(max_checkpoint_mb=1, max_checkpoints=2)
    sh(connection, "head -c 3000000 /dev/zero > big")

    with pytest.raises(ProviderError, match="too much data") as caught:
        connection.create_checkpoint()

    assert caught.value.outcome == "failed"
    assert caught.value.hint is not None
    assert "max_checkpoint_mb" in caught.value.hint
    sh(connection, "rm big; truncate -s 1G holes")
    connection.create_checkpoint()
    connection.create_checkpoint()
    with pytest.raises(ProviderError, match="all it may have"):
        connection.create_checkpoint()
    names = sorted(path.name for path in (local.state / ref.name / "checkpoints").iterdir())
    assert names == ["1", "2"]


def test_no_descriptor_is_left_open(local: Local) -> None:
    connection, _ = local.create(timeout_ms=600_000)
    connection.restore_checkpoint(connection.create_checkpoint().id)
    sh(connection, "true")
    gc.collect()
    before = sorted(path.name for path in Path("/proc/self/fd").iterdir())
    for _ in range(3):
        made = connection.create_checkpoint()
        connection.list_checkpoints()
        connection.restore_checkpoint(made.id)
        with pytest.raises(ProviderError):
            connection.restore_checkpoint("999")
        connection.extend_timeout(700_000)
    gc.collect()

    assert sorted(path.name for path in Path("/proc/self/fd").iterdir()) == before


def test_what_cannot_be_removed_after_a_restore_does_not_make_it_fail(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, ref = local.create()
    sh(connection, "echo old > note")
    made = connection.create_checkpoint()
    sh(connection, "echo new > note")
    remove = trees.remove_tree

    def stubborn(path: Path) -> None:
        if path.name.startswith(".old-"):
            raise PermissionError(1, "Operation not permitted")
        remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "remove_tree", stubborn)
        connection.restore_checkpoint(made.id)

    assert sh(connection, "cat note") == "old"
    connection.create_checkpoint()
    assert list((local.state / ref.name).glob(".old-*")) == []


def test_deep_folders_are_stored_or_refused(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, f"mkdir -p {'d/' * 300}; echo bottom > {'d/' * 300}file")

    connection.restore_checkpoint(connection.create_checkpoint().id)

    assert sh(connection, f"cat {'d/' * 300}file") == "bottom"


def test_an_unknown_checkpoint_changes_nothing(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, "echo kept > note; sleep 1000 & echo $! > pid")
    connection.create_checkpoint()

    for wrong in ("7", "", "..", "1/../1", ".new-x", "²"):
        with pytest.raises(CheckpointNotFoundError, match="no checkpoint") as caught:
            connection.restore_checkpoint(wrong)
        assert caught.value.outcome == "failed"
    assert sh(connection, "cat note; kill -0 $(cat pid) && echo alive") == "kept\nalive"


def test_of_a_destroyed_sandbox_nothing_is_left_and_the_verbs_say_gone(local: Local) -> None:
    connection, ref = local.create()
    made = connection.create_checkpoint()
    local.provider.destroy(ref)

    for act in (
        connection.create_checkpoint,
        connection.list_checkpoints,
        lambda: connection.restore_checkpoint(made.id),
        lambda: connection.extend_timeout(1000),
    ):
        with pytest.raises(SandboxGoneError):
            act()
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_a_stopped_sandbox_is_stored_and_brought_back_without_starting(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "echo old > note")
    local.provider.stop(ref)
    made = connection.create_checkpoint()
    sh(local.provider.connect(ref), "echo new > note")
    local.provider.stop(ref)

    connection.restore_checkpoint(made.id)

    assert local.provider.inspect(ref).state == "stopped"
    assert sh(local.provider.connect(ref), "cat note") == "old"


class DiedError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("step", range(1, 9))
def test_a_death_at_any_step_of_a_restore_leaves_the_old_or_the_new_state_whole(
    local: Local, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    connection, ref = local.create()
    sh(connection, "echo old > note; echo old > /tmp/note")
    made = connection.create_checkpoint()
    sh(connection, "echo new > note; echo new > /tmp/note; touch more")
    count = 0

    def counted(real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count >= step:  # nothing more is done by a process that is dead
                raise DiedError
            return real(*args, **kwargs)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted(Path.rename))
        patch.setattr(checkpoints, "remove_tree", counted(trees.remove_tree))
        patch.setattr(client, "end", counted(client.end))
        try:
            connection.restore_checkpoint(made.id)
        except DiedError:
            pass
        else:
            assert count < step

    found = sh(connection, "cat note /tmp/note; ls -A")
    assert found in ("old\nold\nnote", "new\nnew\nmore\nnote")
    assert sh(local.provider.connect(ref), "cat note; cat /tmp/note; ls -A") == found
    connection.restore_checkpoint(made.id)
    assert sh(connection, "cat note /tmp/note; ls -A") == "old\nold\nnote"
    assert sorted(path.name for path in (local.state / ref.name).iterdir() if path.is_dir()) == [
        "checkpoints",
        "home",
        "tmp",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["create_checkpoint('x')", "restore_checkpoint('1')"])
def test_a_client_killed_in_the_middle_leaves_the_old_state_whole(local: Local, verb: str) -> None:
    connection, ref = local.create()
    sh(connection, "i=0; while [ $i -lt 500 ]; do echo old > f$i; i=$((i+1)); done")
    made = connection.create_checkpoint()
    sh(connection, "echo new > f0")
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\nprint('go', flush=True)\nc.{verb}",
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        staged = local.state / ref.name / "checkpoints"
        wait_until(lambda: any(p.name.startswith(".new-") for p in staged.iterdir()))
        other.send_signal(signal.SIGKILL)

    assert [one.id for one in connection.list_checkpoints()] == [made.id]
    assert sh(connection, "cat f0; ls | wc -l") == "new\n500"
    assert connection.create_checkpoint().id == "2"
    assert sorted(path.name for path in staged.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_the_process_that_copies_ends_with_its_client(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, ref = local.create()
    sh(connection, "i=0; while [ $i -lt 500 ]; do echo > f$i; i=$((i+1)); done")
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\nprint(1, flush=True)\n"
        "c.create_checkpoint()",
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        store = local.state / ref.name / "checkpoints"
        wait_until(lambda: store.is_dir() and any(store.iterdir()))
        other.send_signal(signal.SIGKILL)

    local.provider.destroy(ref)  # the door is free at once
    assert not (local.state / ref.name).exists()


@pytest.mark.slow
def test_destroy_waits_for_a_checkpoint_under_way(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "i=0; while [ $i -lt 300 ]; do echo > f$i; i=$((i+1)); done")
    with in_another_process(
        local,
        f"c = local.provider.attach(SandboxRef({ref.name!r}))\nprint(1, flush=True)\n"
        "try: print('made', c.create_checkpoint().id)\n"
        "except Exception as e: print(type(e).__name__)",
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        local.provider.destroy(ref)
        answer, _ = other.communicate(timeout=60)

    assert answer.strip() in ("made 1", "SandboxGoneError")
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has sandboxes with their own user id")
def test_stored_files_belong_to_the_sandboxs_user_who_cannot_reach_them(local: Local) -> None:
    connection, ref = local.create(isolation="none")
    sh(connection, "echo x > file")
    connection.create_checkpoint()
    folder = local.state / ref.name
    uid = (folder / "home").stat().st_uid

    assert (folder / "checkpoints" / "1" / "home" / "file").stat().st_uid == uid
    assert sh(connection, f"cat {folder}/checkpoints/1/home/file 2>&1").endswith("denied")
    connection.restore_checkpoint("1")
    assert (folder / "home" / "file").stat().st_uid == uid


@pytest.mark.slow
def test_a_file_system_that_can_share_data_shares_it(
    scratch: Path, make_local: Callable[..., Local]
) -> None:
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    image, mount = scratch / "image", scratch / "mount"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run(["mkfs.xfs", "-q", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(mount)], check=False).returncode:
        pytest.skip("loop devices are not available")
    try:
        local = make_local(state=mount / "state")
        connection, ref = local.create()
        sh(connection, "head -c 50000000 /dev/urandom > big; sync")
        free = shutil.disk_usage(mount).free
        made = connection.create_checkpoint()
        sh(connection, "md5sum big > sum; echo > big")
        connection.restore_checkpoint(made.id)
        sh(connection, "sync")

        assert free - shutil.disk_usage(mount).free < 20_000_000
        assert sh(connection, "wc -c < big") == "50000000"
        local.provider.destroy(ref)
    finally:
        subprocess.run(["umount", str(mount)], check=False)


def test_a_full_disk_leaves_no_half_checkpoint(small_disk: Local) -> None:
    connection, ref = small_disk.create()
    sh(connection, "head -c 2000000 /dev/zero > big")

    with pytest.raises(ProviderError, match="No space left") as caught:
        connection.create_checkpoint()

    assert caught.value.outcome == "failed"
    assert list((small_disk.state / ref.name / "checkpoints").iterdir()) == []
    assert sh(connection, "wc -c < big") == "2000000"


# Longer lives


@pytest.mark.slow
def test_a_longer_life_outlives_the_client_that_asked_for_it(local: Local) -> None:
    connection, ref = local.create(timeout_ms=5000)
    holder = local.holder_pid(ref)
    started = time.time_ns() // 1_000_000
    with in_another_process(
        local, f"print(local.provider.attach(SandboxRef({ref.name!r})).extend_timeout(60_000))"
    ) as other:
        end, _ = other.communicate(timeout=60)

    assert int(end) >= started + 60_000
    wait_until(lambda: time.time_ns() // 1_000_000 > started + 5200)
    assert is_running(holder)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: not is_running(holder))
    assert sh(connection, "echo up") == "up"  # the new end counts for the next holder as well


def test_the_holder_keeps_the_time_it_was_last_told(local: Local) -> None:
    connection, ref = local.create(timeout_ms=600_000)
    holder = local.holder_pid(ref)

    client.extend(local.state / ref.name, connection.external_id, 300_000)
    assert is_running(holder)
    client.extend(local.state / ref.name, connection.external_id, 1)

    wait_until(lambda: not is_running(holder))
    with pytest.raises(client.NotAliveError):
        client.extend(local.state / ref.name, connection.external_id, 300_000)


def test_a_life_is_never_shortened_and_one_without_end_stays_so(local: Local) -> None:
    connection, _ = local.create(timeout_ms=600_000)
    end = connection.extend_timeout(700_000)
    endless, _ = local.create()

    assert end is not None
    assert connection.extend_timeout(1000) == end
    assert endless.extend_timeout(1000) is None


@pytest.mark.slow
def test_a_new_end_is_kept(local: Local) -> None:
    connection, ref = local.create(timeout_ms=3000)
    connection.extend_timeout(4000)

    wait_until(lambda: local.provider.inspect(ref).state == "stopped")

    with pytest.raises(SandboxNotRunningError, match="time is up"):
        connection.extend_timeout(60_000)
    again = local.provider.connect(ref)
    local.provider.stop(ref)
    with pytest.raises(SandboxNotRunningError, match="was stopped"):
        again.extend_timeout(60_000)


def test_a_dead_holder_is_started_with_the_later_end(local: Local) -> None:
    connection, ref = local.create(timeout_ms=60_000)
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: not is_running(holder))

    assert connection.extend_timeout(120_000) is not None
    assert sh(connection, "echo up") == "up"


# Preview URLs


def test_ports_have_an_address_on_the_hosts_network_only(local: Local) -> None:
    host, _ = local.create(network="host")
    closed, _ = local.create()

    assert host.preview_url(8123).url == "http://127.0.0.1:8123"
    with pytest.raises(UnsupportedOperationError, match="network of its own") as caught:
        closed.preview_url(8123)
    assert caught.value.hint is not None
    assert "'network': 'host'" in caught.value.hint


def test_the_copier_follows_no_link_that_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("x")
    (tmp_path / "source" / "link").symlink_to(tmp_path / "outside")
    folder = os.open(tmp_path / "source", os.O_RDONLY)
    try:
        assert copier._open("link", folder, copier._FOLDER) is None
        assert copier._open("link", folder, copier._READ) is None
    finally:
        os.close(folder)
