"""Options of the local provider."""

from __future__ import annotations

import posixpath
from typing import Literal

from pydantic import Field, field_validator

from ekairos_sandbox.provider import ProviderOptions

_REFUSED = frozenset(("/", "/home", "/root", "/etc", "/var", "/boot", "/mnt", "/media"))
"""Folders that are too broad themselves; what is below them may be shown."""

_REFUSED_TREES = ("/proc", "/sys", "/dev", "/run", "/var/run", "/tmp", "/var/tmp", "/home/sandbox")  # noqa: S108
"""Folders of which nothing may be shown: kernel interfaces, sockets, what the guest may write."""


def refusal(path: str) -> str | None:
    """Say why a path of this machine may not be shown to a guest; None if it may.

    Looks at the text only: ``path`` is absolute and normalised.
    """
    if path in _REFUSED:
        return "is too broad"
    for tree in _REFUSED_TREES:
        if path == tree or path.startswith(tree + "/"):
            return f"is part of {tree}, of which nothing can be shown"
    return None


class LocalOptions(ProviderOptions):
    """How a local sandbox is isolated and limited.

    Limits named ``..._per_process`` hold for each process, the others for the whole sandbox or,
    where it says so, for each file.

    Attributes:
        network: ``"none"`` (default): only a loopback interface of its own. ``"host"``: the
            network of this machine as it is, so that everything which listens on its 127.0.0.1
            or on abstract sockets is open to the guest.
        isolation: ``"bubblewrap"`` (default): Linux namespaces. ``"none"``: no isolation at all;
            scripts run on this machine as the calling user (for root: as an unprivileged user id
            of their own) and see all that this user sees.
        extra_ro_paths: Absolute paths of this machine that the guest may read, at the same
            place. Broad ones, kernel interfaces and the folder of sandboxes are refused. A ``bin``
            folder in one of them is put first in ``PATH``. Unix sockets in them can be connected
            to, although they are read-only.
        max_processes: Processes and threads of the sandbox. With ``isolation="none"`` an ordinary
            user needs a control group for it, too.
        memory_mb: Memory and swap of the whole sandbox, MiB; None for no limit. Refused where the
            caller may not make a control group, as ``cpu_quota`` is.
        cpu_quota: CPU time of the whole sandbox, in CPUs: 0.5 is half of one; None for no limit.
        memory_mb_per_process: Address space of a process, MiB; None for no limit. Programs that
            reserve much more than they use (Java, Go) need a high value.
        max_file_size_mb: Size of one file, MiB; None for no limit.
        max_open_files: Open files of a process.
        cpu_seconds_per_process: Seconds of CPU time of a process; None for no limit.
        max_checkpoints: Stored states that a sandbox may have.
        max_checkpoint_mb: Data of one stored state, MiB.
    """

    network: Literal["none", "host"] = "none"
    isolation: Literal["bubblewrap", "none"] = "bubblewrap"
    extra_ro_paths: tuple[str, ...] = ()
    memory_mb: int | None = Field(default=None, ge=64)
    cpu_quota: float | None = Field(default=None, ge=0.01, le=1024, allow_inf_nan=False)
    max_processes: int = Field(default=1024, ge=8, le=1_000_000)
    memory_mb_per_process: int | None = Field(default=None, ge=64)
    max_file_size_mb: int | None = Field(default=16_384, ge=1)
    max_open_files: int = Field(default=4096, ge=64, le=1_000_000)
    cpu_seconds_per_process: int | None = Field(default=None, ge=1)
    max_checkpoints: int = Field(default=16, ge=1, le=10_000)
    max_checkpoint_mb: int = Field(default=16_384, ge=1)

    @field_validator("extra_ro_paths")
    @classmethod
    def _paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            if not path.startswith("/") or "\0" in path:
                raise ValueError("must hold absolute paths")
            if posixpath.normpath(path) != path or path.startswith("//"):
                raise ValueError("must hold normalised paths: no '..', no '//', no '/' at the end")
            why = refusal(path)
            if why is not None:
                raise ValueError(f"must not hold {path}, which {why}")
        return paths
