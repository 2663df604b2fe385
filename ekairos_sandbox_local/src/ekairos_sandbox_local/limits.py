"""Which limits hold on this machine, and the refusal of those that do not."""

from __future__ import annotations

import contextlib
import os
import platform
from typing import Literal, NamedTuple

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox_local import cgroups, seccomp
from ekairos_sandbox_local.cgroups import CgroupError, Cgroups, Place, Wanted
from ekairos_sandbox_local.options import LocalOptions

Level = Literal["enforced", "best effort", "impossible"]

_MIB = 1024 * 1024
_OPTIONS: dict[cgroups.Controller, str] = {
    "memory": "memory_mb",
    "cpu": "cpu_quota",
    "pids": "max_processes",
}


class Limit(NamedTuple):
    """What becomes of one limit on this machine.

    Attributes:
        name: The option or config field, or what has none.
        level: ``"enforced"``: by the kernel, also against a hostile guest. ``"best effort"``: can
            be got round, or counts more than the sandbox. ``"impossible"``: refused when asked for.
        note: What it bounds, or why it cannot, in one sentence.
    """

    name: str
    level: Level
    note: str


def limits(options: LocalOptions | None = None, groups: Cgroups | None = None) -> list[Limit]:
    """Return what becomes of each limit on this machine; makes and removes empty control groups.

    Args:
        options: They decide too: without isolation fewer limits hold.
        groups: Control groups of this process.
    """
    options = options or LocalOptions()
    groups = groups or Cgroups()
    isolated = options.isolation == "bubblewrap"
    filtered = isolated and seccomp.supported(platform.machine())
    return [
        Limit("timeout_ms", "enforced", "the sandbox's own process ends it, without a client"),
        _by_group("memory_mb", "memory", "memory and swap of the whole sandbox", groups),
        _by_group("cpu_quota", "cpu", "CPU time of the whole sandbox", groups),
        Limit("vcpus", "enforced", "CPUs by affinity, which the system call filter holds")
        if filtered
        else Limit("vcpus", "best effort", "programs inside can widen their CPU affinity again"),
        _processes(isolated, groups),
        Limit("memory_mb_per_process", "enforced", "address space of each process"),
        Limit("cpu_seconds_per_process", "enforced", "CPU time of each process, not their sum"),
        Limit("max_open_files", "enforced", "open files of each process"),
        Limit("max_file_size_mb", "enforced", "size of each file"),
        Limit("shared memory", "enforced", "64 MiB")
        if isolated
        else Limit("shared memory", "impossible", "it is this machine's own"),
        Limit("disk space", "impossible", "home and /tmp have no quota, only files a size"),
        Limit("max_checkpoints", "enforced", "stored states of a sandbox"),
        Limit("max_checkpoint_mb", "enforced", "data of one stored state"),
    ]  # fmt: skip


def places(options: LocalOptions, groups: Cgroups | None = None) -> tuple[list[Place], Wanted]:
    """Return the control groups that a sandbox with these options gets, and their limits.

    Raises:
        UnsupportedOperationError: A limit that was asked for cannot be enforced on this machine.
    """
    memory = None if options.memory_mb is None else options.memory_mb * _MIB
    needed = Wanted(memory, options.cpu_quota)
    if not needed.controllers() and _held_without_group(options):
        return [], needed
    groups = groups or Cgroups()
    everything = Wanted(memory, options.cpu_quota, options.max_processes)
    with contextlib.suppress(CgroupError):
        return groups.places(everything.controllers()), everything
    try:
        return groups.places(needed.controllers()), needed
    except CgroupError as error:
        raise _refused(needed.controllers()[0], str(error)) from error


def check(options: LocalOptions) -> None:
    """See, before anything is made, that each limit which was asked for can be enforced.

    Raises:
        UnsupportedOperationError: One cannot; says why and what would help.
    """
    asked: list[cgroups.Controller] = []
    if options.memory_mb is not None:
        asked.append("memory")
    if options.cpu_quota is not None:
        asked.append("cpu")
    if "max_processes" in options.model_fields_set and not _held_without_group(options):
        asked.append("pids")
    for controller in asked:
        problem = Cgroups().problem(controller)
        if problem is not None:
            raise _refused(controller, problem)
    places(options)


def _held_without_group(options: LocalOptions) -> bool:
    """Tell whether the number of processes is held by the user id or namespace alone."""
    return options.isolation == "bubblewrap" or os.geteuid() == 0


def _by_group(name: str, controller: cgroups.Controller, what: str, groups: Cgroups) -> Limit:
    problem = groups.problem(controller)
    return Limit(name, "enforced", what) if problem is None else Limit(name, "impossible", problem)


def _processes(isolated: bool, groups: Cgroups) -> Limit:
    what = "processes and threads of the sandbox"
    if os.geteuid() == 0:
        return Limit("max_processes", "enforced", what)
    if isolated:
        if _kernel() >= (5, 14):
            return Limit("max_processes", "enforced", what)
        return Limit(
            "max_processes", "best effort", "before Linux 5.14 all processes of this user count"
        )
    return _by_group("max_processes", "pids", what, groups)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _refused(controller: cgroups.Controller, why: str) -> UnsupportedOperationError:
    option = _OPTIONS[controller]
    return UnsupportedOperationError(
        f"{option} cannot be enforced on this machine: {why}",
        provider="local",
        operation="create",
        hint=f"leave {option} out, or run where this user may make control groups",
    )
