"""From what a sandbox is to what its holder must know."""

from __future__ import annotations

import math
import os
import random
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ekairos_sandbox.exceptions import ConfigurationError, ProviderUnavailableError
from ekairos_sandbox_local import bwrap, probe, processes, seccomp
from ekairos_sandbox_local.options import LocalOptions, refusal
from ekairos_sandbox_local.state import Meta, Run, State

_MIB = 1024 * 1024


def holder_config(
    state: State, meta: Meta, run: Run, *, now_ms: int, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the configuration of a sandbox's holder, ready to be marshalled.

    Raises:
        ConfigurationError: A path that the guest should see may not be shown or is missing.
        UnsupportedOperationError: There is no bubblewrap.
    """
    options = options_of(meta)
    folder = state.folder(meta.name)
    isolated = options.isolation == "bubblewrap"
    home, tmp = guest_folders(state, meta.name, options)
    environment = bwrap.environment(home, tmp, options.extra_ro_paths)
    config: dict[str, Any] = {
        "folder": str(folder),
        "external_id": meta.external_id,
        "uid": meta.uid,
        "isolation": options.isolation,
        "home": home,
        "environment": environment,
        "cpus": _cpus(meta.vcpus),
        "limits": _limits(options, own_user=isolated or meta.uid is not None),
        "mark": {processes.MARK: meta.external_id},
        "remaining_ms": None if run.deadline is None else max(run.deadline - now_ms, 0),
    }
    if not isolated:
        environment.update(config["mark"])
        return config
    check_paths(state, options)
    program = bwrap.find(environ, state.root / ".bin" if state.is_root else None)
    if program is None:
        raise probe.missing()
    host_network = options.network == "host"
    arguments, files = bwrap.arguments(
        folder, host_network=host_network, extra_ro_paths=options.extra_ro_paths
    )
    return {
        **config,
        "bwrap": program,
        "filter": seccomp.program(os.uname().machine),
        "args": arguments,
        "files": files,
        "first_process": bwrap.first_process(),
        "host_network": host_network,
    }


def options_of(meta: Meta) -> LocalOptions:
    """Return a sandbox's options.

    Raises:
        ProviderUnavailableError: What is on disk is damaged, or of a later release.
    """
    try:
        return LocalOptions.model_validate(meta.options)
    except ValidationError as error:
        raise ProviderUnavailableError(
            f"the stored options of {meta.name} are not usable", provider="local", retryable=False
        ) from error


def guest_folders(state: State, name: str, options: LocalOptions) -> tuple[str, str]:
    """Return home and temporary folder as scripts see them."""
    if options.isolation == "bubblewrap":
        return bwrap.GUEST_HOME, "/tmp"  # noqa: S108
    folder = state.folder(name)
    return str(folder / "home"), str(folder / "tmp")


def check_paths(state: State, options: LocalOptions) -> None:
    """See that what shall be shown additionally exists and is not too broad, links resolved.

    Raises:
        ConfigurationError: It is missing, or may not be shown.
    """
    own = os.path.realpath(state.root)
    for path in options.extra_ro_paths:
        real = os.path.realpath(path)
        why = refusal(real)
        if why is None and not Path(real).exists():
            why = "does not exist"
        if why is None and os.path.commonpath([real, own]) in (real, own):
            why = "holds the folder of sandboxes, or lies in it"
        if why is not None:
            raise ConfigurationError(f"extra_ro_paths holds {path}, which {why}", provider="local")


def _cpus(vcpus: float | None) -> list[int] | None:
    available = sorted(os.sched_getaffinity(0))
    if vcpus is None or math.ceil(vcpus) >= len(available):
        return None
    return sorted(random.sample(available, math.ceil(vcpus)))


def _limits(options: LocalOptions, *, own_user: bool) -> list[tuple[int, int]]:
    limits = [
        # 1 and not 0: only then a program of the host that takes core dumps is not called either
        (resource.RLIMIT_CORE, 1),
        (resource.RLIMIT_NOFILE, options.max_open_files),
    ]
    if own_user:  # otherwise the user's other processes would count as well
        limits.append((resource.RLIMIT_NPROC, options.max_processes))
    for kind, value, unit in (
        (resource.RLIMIT_FSIZE, options.max_file_size_mb, _MIB),
        (resource.RLIMIT_AS, options.memory_mb_per_process, _MIB),
        (resource.RLIMIT_CPU, options.cpu_seconds_per_process, 1),
    ):
        if value is not None:
            limits.append((kind, value * unit))
    return limits
