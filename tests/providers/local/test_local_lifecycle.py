"""Create, find, connect, stop, destroy: by name, tags and id, from this process and from others."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ekairos_sandbox_local.options import LocalOptions
from helpers.local_sandboxes import OWNER, Local, sh

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    ProviderUnavailableError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import SandboxRef, Tags


def test_a_script_runs_in_an_empty_home_with_a_small_environment(local: Local) -> None:
    connection, _ = local.create()

    assert connection.home == "/home/sandbox"
    assert sh(connection, "pwd; ls -A; id -u; hostname; echo $HOME $TMPDIR; umask").split() == [
        "/home/sandbox",
        "1000",
        "sandbox",
        "/home/sandbox",
        "/tmp",
        "0022",
    ]


def test_files_and_processes_of_one_script_are_there_for_the_next(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, "echo hello > note; sleep 1000 & echo $! > pid")

    assert sh(connection, "cat note; kill -0 $(cat pid) && echo alive") == "hello\nalive"


def test_create_with_the_same_name_and_tags_adopts(local: Local) -> None:
    spec = local.spec()
    first = local.provider.create(spec)
    second = local.provider.create(spec)

    assert (first.ownership, second.ownership) == ("created", "adopted")
    assert first.external_id == second.external_id


def test_create_refuses_a_name_that_bears_other_tags(local: Local) -> None:
    spec = local.spec()
    local.provider.create(spec)

    with pytest.raises(IdConflictError):
        local.provider.create(replace(spec, tags=replace(spec.tags, owner="somebody")))


def test_create_starts_what_an_earlier_create_left_stopped(local: Local) -> None:
    spec = local.spec()
    first = local.provider.create(spec)
    local.provider.stop(SandboxRef(spec.name))

    assert sh(local.provider.create(spec), "echo up") == "up"
    assert local.provider.find(spec.name) is not None
    assert first.external_id == local.provider.inspect(SandboxRef(spec.name)).external_id


def test_inspect_tells_running_from_stopped_without_starting(local: Local) -> None:
    _, ref = local.create()
    running = local.provider.inspect(ref)
    local.provider.stop(ref)

    assert (running.state, running.external_id, running.tags) == (
        "running",
        ref.external_id,
        ref.tags,
    )
    assert local.provider.inspect(ref).state == "stopped"
    assert local.provider.inspect(ref).state == "stopped"


def test_stop_ends_processes_keeps_files_and_connect_starts_again(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "echo kept > note; sleep 1000 &")

    local.provider.stop(ref)
    local.provider.stop(ref)

    with pytest.raises(SandboxNotRunningError) as caught:
        sh(connection, "echo again >> note")
    assert caught.value.outcome == "failed"
    assert sh(local.provider.connect(ref), "cat note; pgrep -c sleep") == "kept\n1"
    assert sh(connection, "cat note") == "kept"


def test_attach_does_not_start(local: Local) -> None:
    _, ref = local.create()
    local.provider.stop(ref)

    connection = local.provider.attach(ref)

    assert local.provider.inspect(ref).state == "stopped"
    with pytest.raises(SandboxNotRunningError):
        sh(connection, "true")


def test_what_was_destroyed_is_gone_for_everybody(local: Local) -> None:
    connection, ref = local.create()

    local.provider.destroy(ref)
    local.provider.destroy(ref)
    local.provider.stop(ref)

    for use in (local.provider.connect, local.provider.inspect, local.provider.attach):
        with pytest.raises(SandboxGoneError):
            use(ref)
    with pytest.raises(SandboxGoneError) as caught:
        sh(connection, "true")
    assert caught.value.outcome == "failed"
    assert local.provider.find(ref.name) is None
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_another_sandbox_under_the_same_name_is_not_the_one_meant(local: Local) -> None:
    connection, ref = local.create()
    local.provider.destroy(ref)
    other = local.provider.create(local.spec(name=ref.name))

    with pytest.raises(SandboxGoneError):
        local.provider.connect(ref)
    with pytest.raises(SandboxGoneError):
        sh(connection, "touch intruder")
    local.provider.destroy(ref)
    local.provider.stop(ref)
    assert sh(other, "ls -A; echo untouched") == "untouched"


def test_other_tags_mean_another_sandbox(local: Local) -> None:
    _, ref = local.create()

    with pytest.raises(SandboxGoneError):
        local.provider.inspect(replace(ref, tags=Tags("somebody", "x", 1)))


def test_a_missing_state_folder_is_unreachable_and_not_gone(local: Local) -> None:
    _, ref = local.create()
    away = local.state.with_name("away")
    local.state.rename(away)
    try:
        for use in (local.provider.connect, local.provider.inspect):
            with pytest.raises(ProviderUnavailableError):
                use(ref)
    finally:
        away.rename(local.state)
    assert local.provider.inspect(ref).state == "running"


def test_a_damaged_folder_is_unreachable_and_not_gone(local: Local) -> None:
    _, ref = local.create()
    local.provider.stop(ref)
    meta = local.state / ref.name / "meta.json"
    good = meta.read_text()
    meta.write_text("{")
    with pytest.raises(ProviderUnavailableError):
        local.provider.connect(ref)
    meta.unlink()
    with pytest.raises(ProviderUnavailableError):
        local.provider.connect(ref)
    meta.write_text(good)
    local.provider.connect(ref)


def test_list_owned_yields_the_sandboxes_of_one_owner(local: Local) -> None:
    mine = {local.create()[1].name for _ in range(3)}
    local.create(owner="somebody")

    assert {info.name for info in local.provider.list_owned(OWNER)} == mine
    assert list(local.provider.list_owned("nobody")) == []


def test_the_account_is_the_state_folder(make_local: Callable[..., Local]) -> None:
    first, second = make_local(), make_local()

    assert first.provider.account().startswith("local:")
    assert first.provider.account() == Local(first.state).provider.account()
    assert first.provider.account() != second.provider.account()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"])
def test_names_that_are_no_folder_names_are_refused(local: Local, name: str) -> None:
    with pytest.raises(ConfigurationError):
        local.provider.create(replace(local.spec(), name=name))
    with pytest.raises(ConfigurationError):
        local.provider.destroy(SandboxRef(name))


def test_a_state_folder_that_others_may_write_is_refused(local: Local) -> None:
    local.state.mkdir()
    local.state.chmod(0o777)

    with pytest.raises(ConfigurationError, match="others may write"):
        local.provider.account()
    local.state.chmod(0o711)


def test_a_missing_runtime_is_refused_before_anything_is_made(local: Local) -> None:
    with pytest.raises(ConfigurationError, match=r"python9\.99"):
        local.create(runtime="python9.99")
    with pytest.raises(ConfigurationError):
        local.create(runtime="/bin/sh")
    assert not local.state.exists() or list(local.provider.list_owned(OWNER)) == []


def test_an_installed_runtime_is_found_inside(local: Local) -> None:
    connection, _ = local.create(runtime="sh")

    assert sh(connection, "command -v sh") == "/usr/bin/sh"


def test_leftovers_of_dead_processes_are_swept_after_a_while(local: Local) -> None:
    local.provider.account()
    fresh, old = local.state / ".new-fresh", local.state / ".gone-old"
    for folder in (fresh, old):
        (folder / "home").mkdir(parents=True)
    from ekairos_sandbox_local import state

    local.create()
    assert fresh.exists()
    assert old.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state, "_STALE_S", -1.0)
        local.create()
    assert not fresh.exists()
    assert not old.exists()


def test_meta_and_socket_cannot_be_reached_by_others(local: Local) -> None:
    _, ref = local.create()
    folder = local.state / ref.name

    assert folder.stat().st_mode & 0o007 == 0
    assert (folder / "sock").stat().st_mode & 0o077 == 0
    assert (folder / "meta.json").stat().st_mode & 0o077 == 0
    assert (folder / "home").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has other user ids at hand")
def test_each_sandbox_of_root_has_an_unprivileged_user_id_of_its_own(local: Local) -> None:
    refs = [local.create()[1] for _ in range(2)]
    uids = {(local.state / ref.name / "home").stat().st_uid for ref in refs}

    assert len(uids) == 2
    assert all(uid > 100_000 for uid in uids)
    for ref in refs:
        status = Path(f"/proc/{local.holder_pid(ref)}/status").read_text()
        uid = (local.state / ref.name / "home").stat().st_uid
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in status
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs sandboxes as somebody else")
def test_a_state_folder_that_others_cannot_pass_is_refused_for_root(
    scratch: Path, make_local: Callable[..., Local]
) -> None:
    closed = scratch / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(ConfigurationError, match="closed"):
        make_local(state=closed / "state").provider.account()


def test_eight_processes_creating_one_name_make_one_sandbox(local: Local) -> None:
    spec = local.spec()
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[str, str]] = context.Queue()

    def create() -> None:
        connection = local.provider.create(spec)
        sh(connection, "echo x >> log")
        results.put((connection.external_id, connection.ownership))

    workers = [context.Process(target=create) for _ in range(8)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)

    assert len({external_id for external_id, _ in found}) == 1
    assert sorted(ownership for _, ownership in found) == ["adopted"] * 7 + ["created"]
    assert sh(local.provider.create(spec), "wc -l < log") == "8"


def test_eight_processes_connecting_to_a_stopped_sandbox_start_it_once(local: Local) -> None:
    _, ref = local.create()
    local.provider.stop(ref)
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[tuple[str, int]] = context.Queue()

    def connect() -> None:
        sh(local.provider.connect(ref), "true")
        results.put(("ok", local.holder_pid(ref)))

    workers = [context.Process(target=connect) for _ in range(8)]
    for worker in workers:
        worker.start()
    found = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)

    assert found == {("ok", local.holder_pid(ref))}


def test_create_stop_and_destroy_at_the_same_time_end_in_one_of_their_states(local: Local) -> None:
    spec = local.spec()
    ref: SandboxRef[LocalOptions] = SandboxRef(spec.name)
    local.provider.account()
    unexpected: list[BaseException] = []

    def repeat(action: Callable[[], object]) -> None:
        for _ in range(5):
            try:
                action()
            except (SandboxGoneError, SandboxNotRunningError):
                pass
            except BaseException as error:
                unexpected.append(error)

    actions: list[Callable[[], object]] = [
        lambda: local.provider.create(spec),
        lambda: local.provider.create(spec),
        lambda: local.provider.stop(ref),
        lambda: local.provider.destroy(ref),
    ]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert unexpected == []
    assert sh(local.provider.create(spec), "echo up") == "up"


def test_destroy_removes_whatever_a_guest_can_make(local: Local, scratch: Path) -> None:
    outside = scratch / "outside"
    outside.mkdir()
    (outside / "precious").write_text("still here")
    outside.chmod(0o777)
    connection, ref = local.create()
    sh(
        connection,
        f"""
        mkdir -p closed/inner; touch closed/inner/file; chmod 0 closed/inner closed
        ln -s {outside} link; ln -s / root; ln -s . loop; ln -s nowhere dangling
        mkfifo pipe; touch "$(printf 'new\\nline')" "$(printf 'bad\\377name')" -- -rf '* ?'
        touch readonly; chmod 0 readonly; mkdir -m 0111 noread
        for i in 1 2 3 4; do mkdir -p {"d/" * 500} && cd -P {"d/" * 500}; done; echo bottom > file
        cd; cd /tmp; i=0; while [ $i -lt 300 ]; do mkdir d$i; touch d$i/f; i=$((i+1)); done
        """,
    )

    local.provider.destroy(ref)

    assert (outside / "precious").read_text() == "still here"
    assert [path.name for path in local.state.iterdir() if path.name != ".bin"] == ["account"]


def test_destroy_of_a_stopped_sandbox_needs_no_bubblewrap(
    local: Local, make_local: Callable[..., Local], scratch: Path
) -> None:
    connection, ref = local.create()
    sh(connection, "mkdir -m 0 closed")
    local.provider.stop(ref)
    without = make_local(path=str(scratch), state=local.state)

    without.provider.destroy(ref)

    assert not (local.state / ref.name).exists()


def test_a_record_of_a_later_release_is_reported_as_damaged(local: Local) -> None:
    _, ref = local.create()
    meta = local.state / ref.name / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "unheard_of": 1}))

    with pytest.raises(ProviderUnavailableError, match="damaged"):
        local.provider.connect(ref)
    shutil.rmtree(local.state / ref.name / "home")
    data = json.loads(meta.read_text())
    del data["unheard_of"]
    meta.write_text(json.dumps(data))
