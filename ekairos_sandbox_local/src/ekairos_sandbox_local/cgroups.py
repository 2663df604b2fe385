"""Control groups: limits on the whole of a sandbox, where the caller may make one. Linux only.

The old kind (v1) has a tree per controller, the new kind (v2) one for all; a machine may have
both. A group of a sandbox lies below the caller's own in v1. In v2, where a group with processes
cannot be divided, it lies in the nearest group above that can be: root finds one on any machine,
others where systemd or an administrator has delegated one to them (``Delegate=yes``).

A group's name holds the sandbox's random id, so that whatever bears it is the sandbox's.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Controller = Literal["memory", "cpu", "pids"]

_PREFIX = "ekairos-sandbox-"
_PROBE = f"{_PREFIX}probe"
_PERIOD_US = 100_000
_OWN_PROCESSES = 4
"""Processes in the group that are not the guest's: the holder, bubblewrap, and what starts them."""


class CgroupError(Exception):
    """A group cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a group shall limit; None for what it shall not.

    Attributes:
        memory: Bytes of memory and swap.
        cpu: Seconds of CPU time per second.
        processes: Processes and threads.
    """

    memory: int | None = None
    cpu: float | None = None
    processes: int | None = None

    def controllers(self) -> list[Controller]:
        """Return the controllers that are needed."""
        wanted: dict[Controller, object] = {
            "memory": self.memory,
            "cpu": self.cpu,
            "pids": self.processes,
        }
        return [name for name, value in wanted.items() if value is not None]


@dataclass(frozen=True, slots=True)
class Place:
    """A group below which one with these controllers can be made."""

    parent: Path
    version: Literal[1, 2]
    controllers: tuple[Controller, ...]


@dataclass(frozen=True, slots=True)
class _Mount:
    path: Path
    root: str
    version: Literal[1, 2]
    controllers: frozenset[str]


class Cgroups:
    """The groups that this process may divide.

    Args:
        proc: Where this process's own groups and mounts are read from.
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc

    def places(self, controllers: Collection[Controller]) -> list[Place]:
        """Return where to make the groups of one sandbox.

        Raises:
            CgroupError: They cannot be made.
        """
        mounts = self._mounts()
        own = self._own()
        found: list[Place] = []
        rest: list[Controller] = []
        for name in controllers:
            old = [mount for mount in mounts if mount.version == 1 and name in mount.controllers]
            if not old:
                rest.append(name)
                continue
            parent = _below(old[0], own.get(name))
            if parent is None or not os.access(parent, os.W_OK | os.X_OK):
                raise CgroupError(f"the control group for {name} may not be divided by this user")
            found.append(Place(parent, 1, (name,)))
        if rest:
            found.append(self._new_place(mounts, own, tuple(rest)))
        return found

    def _new_place(
        self, mounts: list[_Mount], own: dict[str, str], controllers: tuple[Controller, ...]
    ) -> Place:
        names = ", ".join(controllers)
        new = [mount for mount in mounts if mount.version == 2]
        start = _below(new[0], own.get("")) if new else None
        if start is None:
            raise CgroupError(f"this machine has no control groups for {names} within reach")
        known = False
        for parent in (start, *start.parents):
            if not parent.is_relative_to(new[0].path):
                break
            available = _words(parent / "cgroup.controllers")
            known = known or available.issuperset(controllers)
            if available.issuperset(controllers) and _divisible(parent, controllers):
                return Place(parent, 2, controllers)
        if not known:
            raise CgroupError(f"no control groups for {names} are available to this process")
        raise CgroupError(
            f"no control group above this process may be divided for {names}; start it below one "
            "that is delegated to this user, for example with: systemd-run --user --scope"
        )

    def problem(self, controller: Controller) -> str | None:
        """Say why no group with this controller can be made here; None if one was just made."""
        try:
            (place,) = self.places((controller,))
            group = place.parent / _PROBE
            with contextlib.suppress(FileExistsError):  # another process is looking, too
                group.mkdir()
            with contextlib.suppress(FileNotFoundError):
                group.rmdir()
        except CgroupError as error:
            return str(error)
        except OSError as error:
            return f"a control group for {controller} cannot be made: {error.strerror}"
        return None

    def _own(self) -> dict[str, str]:
        """Return the path of this process's own group by controller; "" for the new kind."""
        found = {}
        for line in _text(self._proc / "cgroup").splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(","):
                found[name] = path
        return found

    def _mounts(self) -> list[_Mount]:
        found: list[_Mount] = []
        for line in _text(self._proc / "mountinfo").splitlines():
            fields, _, rest = line.partition(" - ")
            kind, _, options = rest.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                root, path = (_unescaped(text) for text in fields.split(" ")[3:5])
                names = frozenset(options.split(","))
                found.append(_Mount(Path(path), root, 1 if kind == "cgroup" else 2, names))
        return found


def group_paths(places: Iterable[Place], external_id: str) -> list[Path]:
    """Return the paths of a sandbox's groups, made or not."""
    return [place.parent / f"{_PREFIX}{external_id}" for place in places]


def make(places: Iterable[Place], external_id: str, wanted: Wanted) -> None:
    """Make a sandbox's groups, or set the limits of those that are there.

    Raises:
        OSError: That is not permitted after all.
    """
    for place in places:
        (group,) = group_paths([place], external_id)
        if place.version == 2:
            missing = set(place.controllers) - _words(place.parent / "cgroup.subtree_control")
            if missing:
                _write(
                    place.parent / "cgroup.subtree_control",
                    " ".join(f"+{name}" for name in sorted(missing)),
                )
        with contextlib.suppress(FileExistsError):
            group.mkdir(mode=0o755)
        for name, value in _settings(place, wanted):
            if (group / name).exists() or name not in _OPTIONAL:
                _write(group / name, value)


_OPTIONAL = ("memory.memsw.limit_in_bytes", "memory.swap.max")
"""Missing where the kernel does not account for swap."""


def _settings(place: Place, wanted: Wanted) -> list[tuple[str, str]]:
    settings: list[tuple[str, str]] = []
    if "memory" in place.controllers and wanted.memory is not None:
        memory = str(wanted.memory)
        if place.version == 1:
            settings.append(("memory.limit_in_bytes", memory))
            settings.append(("memory.memsw.limit_in_bytes", memory))
        else:
            settings += [("memory.max", memory), ("memory.swap.max", "0")]
    if "cpu" in place.controllers and wanted.cpu is not None:
        quota = max(int(wanted.cpu * _PERIOD_US), 1000)  # the kernel takes no less
        if place.version == 1:
            settings.append(("cpu.cfs_period_us", str(_PERIOD_US)))
            settings.append(("cpu.cfs_quota_us", str(quota)))
        else:
            settings.append(("cpu.max", f"{quota} {_PERIOD_US}"))
    if "pids" in place.controllers and wanted.processes is not None:
        settings.append(("pids.max", str(wanted.processes + _OWN_PROCESSES)))
    return settings


def remove(groups: Iterable[Path], timeout_s: float) -> list[Path]:
    """Kill what is in a sandbox's groups and remove them; gone already is fine.

    Returns:
        Those that could not be removed in time.
    """
    limit = time.monotonic() + timeout_s
    left = [group for group in groups if group.name.startswith(_PREFIX)]
    while True:
        left = [group for group in left if not _removed(group)]
        if not left or time.monotonic() > limit:
            return left
        time.sleep(0.002)


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        for inner in sorted(group.glob("**/"), reverse=True):  # an ordinary user's guest may divide
            _kill_members(inner / "cgroup.procs")
            if inner != group:
                with contextlib.suppress(OSError):
                    inner.rmdir()
        return False
    return True


def _kill_members(members: Path) -> None:
    for pid in _words(members) - {"0"}:  # 0: not visible from here
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(int(pid))
            try:
                if pid in _words(members):  # so the number still is that process's
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            finally:
                os.close(handle)


def _divisible(parent: Path, controllers: tuple[Controller, ...]) -> bool:
    """Tell whether this user may make a group here and move its own processes there."""
    if not os.access(parent, os.W_OK | os.X_OK):
        return False
    if not os.access(parent / "cgroup.procs", os.W_OK):
        return False
    if _words(parent / "cgroup.subtree_control").issuperset(controllers):
        return True
    is_root = not (parent / "cgroup.type").exists()
    if not is_root and _words(parent / "cgroup.procs"):  # leaves only
        return False
    return os.access(parent / "cgroup.subtree_control", os.W_OK)


def _below(mount: _Mount, path: str | None) -> Path | None:
    """Return where a group of this path is visible; None if it is not."""
    if path is None or ".." in path.split("/"):
        return None
    if mount.root == "/":
        return mount.path / path.lstrip("/")
    if path == mount.root or path.startswith(f"{mount.root}/"):
        return mount.path / path[len(mount.root) :].lstrip("/")
    return None


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _words(path: Path) -> set[str]:
    return set(_text(path).split())


def _write(path: Path, value: str) -> None:
    with path.open("w") as file:
        file.write(value)
