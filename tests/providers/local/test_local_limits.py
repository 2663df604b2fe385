"""Limits of a whole sandbox by control groups: held, stated, refused, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ekairos_sandbox_local.cgroups import CgroupError, Cgroups, Place
from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.provider import LocalProvider
from helpers.local_sandboxes import (
    OWNER,
    Local,
    host_processes,
    in_another_process,
    is_running,
    sh,
    wait_until,
)

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox_local import cgroups, limits

WHOLE = ("memory_mb", "cpu_quota")
POSSIBLE = {limit.name: limit.level for limit in limits.limits() if limit.name in WHOLE}
NEEDS_GROUPS = pytest.mark.skipif(
    "impossible" in POSSIBLE.values(), reason="control groups may not be made here"
)


def groups_of(external_id: str) -> list[Path]:
    """Return every control group of a sandbox, wherever it is."""
    mounted = [mount.path for mount in Cgroups()._mounts()]
    return [
        Path(folder) / name
        for path in mounted
        for folder, names, _ in os.walk(path)
        for name in names
        if external_id in name
    ]


# Statements


def test_every_limit_among_the_options_is_stated_once() -> None:
    stated = [limit.name for limit in LocalProvider().limits()]
    others = {"network", "isolation", "extra_ro_paths"}

    assert len(stated) == len(set(stated))
    assert set(LocalOptions.model_fields) - others < set(stated)
    assert {"timeout_ms", "vcpus", "disk space", "shared memory"} < set(stated)
    assert all(limit.note for limit in LocalProvider().limits())


def test_without_isolation_less_is_stated() -> None:
    stated = {
        limit.name: limit.level for limit in LocalProvider().limits(LocalOptions(isolation="none"))
    }

    assert stated["vcpus"] == "best effort"
    assert stated["shared memory"] == "impossible"
    assert stated["disk space"] == "impossible"


def test_stating_limits_leaves_no_group_behind() -> None:
    limits.limits()

    assert groups_of("ekairos-sandbox-probe") == []


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"memory_mb": 100}, "memory_mb"),
        ({"cpu_quota": 0.5}, "cpu_quota"),
        ({"isolation": "none", "max_processes": 50}, "max_processes"),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_anything_is_made(
    local: Local, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], name: str
) -> None:
    monkeypatch.setattr(limits, "_held_without_group", lambda given: given.isolation != "none")
    monkeypatch.setattr(Cgroups, "_mounts", lambda self: [])

    with pytest.raises(UnsupportedOperationError, match=f"{name} cannot be enforced") as caught:
        local.create(**options)

    monkeypatch.undo()
    assert caught.value.outcome == "failed"
    assert caught.value.hint is not None
    assert name in caught.value.hint
    assert not local.state.exists() or list(local.provider.list_owned(OWNER)) == []


def test_a_sandbox_that_had_its_limits_never_runs_without_them(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "impossible" in POSSIBLE.values():
        pytest.skip("control groups may not be made here")
    _, ref = local.create(memory_mb=200)
    local.provider.stop(ref)
    monkeypatch.setattr(Cgroups, "_mounts", lambda self: [])

    with pytest.raises(UnsupportedOperationError, match="memory_mb"):
        local.provider.connect(ref)
    assert local.provider.inspect(ref).state == "stopped"


def test_sandboxes_that_ask_for_nothing_get_no_group(local: Local) -> None:
    connection, ref = local.create()

    assert groups_of(connection.external_id) == []
    assert not (local.state / ref.name / "cgroups.json").exists()


# The real thing


@NEEDS_GROUPS
def test_the_memory_of_the_whole_sandbox_is_held_and_the_sandbox_lives_on(local: Local) -> None:
    connection, ref = local.create(memory_mb=128)
    holder = local.holder_pid(ref)
    eat = "python3 -c 'x = bytearray(60 << 20); print(1)'"

    assert sh(connection, eat) == "1"
    assert sh(connection, "python3 -c 'x = bytearray(400 << 20)'; echo $?") == "137"
    together = f"for i in 1 2 3 4 5 6; do {eat} && sleep 1000 & done >/dev/null 2>&1; :"
    hungry = "python3 -c 'import time; x = bytearray(50 << 20); time.sleep(1000)'"
    sh(connection, f"for i in 1 2 3 4 5 6; do {hungry} & done; :; {together}")
    wait_until(lambda: int(sh(connection, "pgrep -fc 'time.sleep' || :")) < 6)
    assert sh(connection, "echo up") == "up"
    assert local.holder_pid(ref) == holder


@NEEDS_GROUPS
@pytest.mark.parametrize("isolation", ["bubblewrap", "none"])
def test_all_limits_are_set_and_the_guest_can_do_nothing_about_it(
    local: Local, isolation: str
) -> None:
    connection, _ = local.create(
        isolation=isolation, memory_mb=100, cpu_quota=0.25, max_processes=50
    )
    groups = groups_of(connection.external_id)
    values = {
        path.name: path.read_text().strip()
        for group in groups
        for path in group.iterdir()
        if path.name
        in ("memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max", "pids.max")
    }

    assert values.pop("pids.max") == "54"
    assert values in (
        {"memory.limit_in_bytes": "104857600", "cpu.cfs_quota_us": "25000"},
        {"memory.max": "104857600", "cpu.max": "25000 100000"},
    )
    if isolation == "bubblewrap":
        inside = sh(connection, "cut -d: -f3 /proc/self/cgroup; ls -d /sys 2>/dev/null || :")
        assert set(inside.split()) <= {"/"}
    for group in groups:
        for name in ("cgroup.procs", "memory.limit_in_bytes", "memory.max"):
            assert sh(connection, f"echo 1 > {group}/{name}; echo $?") != "0"
        assert sh(connection, f"mkdir {group}/inner; echo $?") != "0"


@NEEDS_GROUPS
def test_the_share_of_the_cpu_is_held(local: Local) -> None:
    connection, _ = local.create(cpu_quota=0.2)
    sh(connection, "timeout 1 sh -c 'while :; do :; done' || :")

    throttled = [
        int(line.split()[1])
        for group in groups_of(connection.external_id)
        if (group / "cpu.stat").exists()
        for line in (group / "cpu.stat").read_text().splitlines()
        if line.startswith("nr_throttled")
    ]
    assert sum(throttled) > 0


@NEEDS_GROUPS
def test_groups_go_with_stop_and_destroy_and_come_back_with_a_start(local: Local) -> None:
    connection, ref = local.create(memory_mb=100)
    assert groups_of(connection.external_id) != []

    local.provider.stop(ref)
    assert groups_of(connection.external_id) == []
    local.provider.connect(ref)
    assert groups_of(connection.external_id) != []
    local.provider.destroy(ref)
    assert groups_of(connection.external_id) == []


@NEEDS_GROUPS
@pytest.mark.parametrize("isolation", ["bubblewrap", "none"])
def test_after_the_holders_death_nothing_is_left_in_the_groups(
    local: Local, isolation: str
) -> None:
    connection, ref = local.create(isolation=isolation, memory_mb=100)
    sh(connection, "setsid env -i sleep 2323.5 & :")
    holder = local.holder_pid(ref)
    os.kill(holder, signal.SIGKILL)
    wait_until(lambda: not is_running(holder))

    assert sh(connection, "echo up") == "up"
    assert host_processes("2323.5") == []
    os.kill(local.holder_pid(ref), signal.SIGKILL)
    local.provider.destroy(ref)
    assert groups_of(connection.external_id) == []


@NEEDS_GROUPS
def test_groups_of_a_sandbox_whose_time_is_up_go_with_it(local: Local) -> None:
    connection, ref = local.create(memory_mb=100, timeout_ms=300)
    wait_until(lambda: local.provider.inspect(ref).state == "stopped")

    local.provider.destroy(ref)

    assert groups_of(connection.external_id) == []


@NEEDS_GROUPS
def test_a_client_killed_while_it_makes_groups_leaves_none_after_destroy(local: Local) -> None:
    local.provider.account()
    with in_another_process(
        local,
        "import os\nfrom ekairos_sandbox_local import cgroups\nreal = cgroups.make\n"
        "def make(places, *rest):\n    real(places[:1], *rest)\n    os.kill(os.getpid(), 9)\n"
        "cgroups.make = make\nlocal.create(memory_mb=100, cpu_quota=1.0)",
    ) as other:
        other.wait(60)
    (folder,) = [path for path in local.state.iterdir() if path.name.startswith("ekairos")]
    found = local.provider.find(folder.name)
    assert found is not None
    assert len(groups_of(found.external_id)) == 1

    local.destroy_all()

    assert groups_of(found.external_id) == []


@NEEDS_GROUPS
def test_a_foreign_group_in_a_damaged_record_is_not_touched(local: Local) -> None:
    _, ref = local.create()
    (place, *_) = Cgroups().places(["memory"])
    foreign = place.parent / f"test-{ref.external_id}"
    foreign.mkdir()
    try:
        (local.state / ref.name / "cgroups.json").write_text(f'{{"paths": ["{foreign}"]}}')
        local.provider.destroy(ref)
        assert foreign.is_dir()
    finally:
        foreign.rmdir()


@NEEDS_GROUPS
def test_removing_kills_what_is_inside_also_in_inner_groups() -> None:
    places = Cgroups().places(["memory"])
    cgroups.make(places, "removal-test", cgroups.Wanted(memory=1 << 28))
    (group,) = cgroups.group_paths(places, "removal-test")
    (group / "inner").mkdir()
    with subprocess.Popen(["sleep", "1000"]) as process:
        (group / "inner" / "cgroup.procs").write_text(str(process.pid))

        assert cgroups.remove([group], 10) == []

        assert process.wait(10) == -signal.SIGKILL
    assert not group.exists()
    assert cgroups.remove([group], 0) == []


# Finding a place


V1 = (
    "31 23 0:28 / {}/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:29 / {}/cpu rw - cgroup cgroup rw,cpu\n"
)
V2 = "40 23 0:38 {} {} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


@pytest.fixture
def proc(tmp_path: Path) -> Callable[[str, str], Cgroups]:
    def make(own: str, mounts: str) -> Cgroups:
        (tmp_path / "cgroup").write_text(own)
        (tmp_path / "mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/x rw\n" + mounts)
        return Cgroups(tmp_path)

    return make


def new_group(path: Path, *, given: str = "", divided: str = "", members: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.controllers").write_text(given)
    (path / "cgroup.subtree_control").write_text(divided)
    (path / "cgroup.procs").write_text(members)
    (path / "cgroup.type").write_text("domain")
    return path


def test_in_the_old_kind_the_place_is_the_callers_own_group(
    tmp_path: Path, proc: Callable[[str, str], Cgroups]
) -> None:
    (tmp_path / "memory" / "a" / "b").mkdir(parents=True)
    (tmp_path / "cpu").mkdir()
    groups = proc("4:memory:/a/b\n1:cpu:/\n0::/\n", V1.format(tmp_path, tmp_path))

    assert groups.places(["memory", "cpu"]) == [
        Place(tmp_path / "memory" / "a" / "b", 1, ("memory",)),
        Place(tmp_path / "cpu", 1, ("cpu",)),
    ]


def test_in_a_container_paths_are_relative_to_what_is_mounted(
    tmp_path: Path, proc: Callable[[str, str], Cgroups]
) -> None:
    (tmp_path / "own").mkdir()
    mount = f"3 1 0:3 /docker/x {tmp_path} rw - cgroup cgroup rw,memory\n"

    assert proc("4:memory:/docker/x/own\n", mount).places(["memory"]) == [
        Place(tmp_path / "own", 1, ("memory",))
    ]
    for outside in ("/docker/xy", "/../y", "/"):
        with pytest.raises(CgroupError):
            proc(f"4:memory:{outside}\n", mount).places(["memory"])


def test_in_the_new_kind_the_place_is_the_nearest_group_that_can_be_divided(
    tmp_path: Path, proc: Callable[[str, str], Cgroups]
) -> None:
    top = tmp_path / "space here"
    new_group(top, given="memory pids", divided="memory pids")
    new_group(top / "user", given="memory pids", divided="memory")
    new_group(top / "user" / "leaf", given="memory", members="1\n")
    mount = V2.format("/", str(top).replace(" ", "\\040"))
    groups = proc("0::/user/leaf\n", mount)

    assert groups.places(["memory"]) == [Place(top / "user", 2, ("memory",))]
    assert groups.places(["memory", "pids"]) == [Place(top / "user", 2, ("memory", "pids"))]
    (top / "user" / "cgroup.procs").write_text("77\n")
    assert groups.places(["memory", "pids"]) == [Place(top, 2, ("memory", "pids"))]
    with pytest.raises(CgroupError, match="no control groups for cpu are available"):
        groups.places(["cpu"])


def test_a_group_with_processes_that_is_not_divided_yet_cannot_be(
    tmp_path: Path, proc: Callable[[str, str], Cgroups]
) -> None:
    new_group(tmp_path / "c", given="memory", members="1\n")
    groups = proc("0::/\n", V2.format("/", tmp_path / "c"))

    with pytest.raises(CgroupError, match="systemd-run --user --scope"):
        groups.places(["memory"])
    (tmp_path / "c" / "cgroup.type").unlink()  # the root of all has none, and may be
    assert groups.places(["memory"]) == [Place(tmp_path / "c", 2, ("memory",))]


def test_without_control_groups_it_is_said(proc: Callable[[str, str], Cgroups]) -> None:
    with pytest.raises(CgroupError, match="no control groups for memory"):
        proc("", "").places(["memory"])
