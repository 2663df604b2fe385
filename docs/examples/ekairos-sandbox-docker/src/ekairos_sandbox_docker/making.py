"""Making a container, and starting it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import docker.utils

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.provider import CreateSpec
from ekairos_sandbox_docker import containers
from ekairos_sandbox_docker.engine import NAME, Deadline, Engine, answered, engine_errors
from ekairos_sandbox_docker.options import DockerOptions

_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"]
"""What root inside needs to be root of its own files and processes, and nothing more."""


def make(engine: Engine, spec: CreateSpec[DockerOptions], deadline: Deadline) -> str:
    """Make and start a container; return its id. What cannot be started is removed again.

    Raises:
        ProviderError: See ``Provider.create``; status 409 if there is one of this name.
    """
    container_id = _created(engine, spec, deadline)
    if container_id is None:
        _pull(engine, spec.options.image, deadline)
        container_id = _created(engine, spec, deadline)
    if container_id is None:
        raise _no_image(spec.options.image, "although it was pulled")
    try:
        start(engine, container_id, deadline)
    except ProviderError as error:
        error.outcome = "unknown"  # the container is there
        if error.status is not None:
            with suppress(ProviderError):
                containers.remove(engine, container_id)
                error.outcome = "failed"
        raise
    return container_id


def start(engine: Engine, container_id: str, deadline: Deadline, *, status: str = "") -> None:
    """Start a container; one that runs already is left as it is."""
    api = engine.api("start", deadline)
    with engine_errors("start", outcome="unknown"):
        if status == "paused":
            api.unpause(container_id)
        else:
            api.start(container_id)


def _created(engine: Engine, spec: CreateSpec[DockerOptions], deadline: Deadline) -> str | None:
    """Create a container; None if the engine lacks the image, which may be pulled."""
    options = spec.options
    api = engine.api("create", deadline)
    host = api.create_host_config(
        network_mode=options.network,
        init=True,
        mem_limit=f"{options.memory_mb}m",
        memswap_limit=f"{options.memory_mb}m",
        nano_cpus=round((spec.vcpus or options.cpus) * 1e9),
        pids_limit=options.pids,
        privileged=False,
        cap_drop=["ALL"],
        cap_add=_CAPABILITIES,
        security_opt=["no-new-privileges"],
        port_bindings=dict.fromkeys(spec.ports, ("127.0.0.1", None)),
    )
    try:
        with engine_errors("create", outcome="unknown"):
            made = api.create_container(
                options.image,
                name=spec.name,
                entrypoint=["tail", "-f", "/dev/null"],
                command=[],
                labels=containers.labels_of(spec.name, spec.tags, engine.clock.now_ms()),
                ports=list(spec.ports),
                host_config=host,
                use_config_proxy=False,  # a proxy's password is none of the sandbox's business
            )
    except ProviderError as error:
        if not answered(error, 404, "No such image"):
            raise
        if options.pull == "never":
            raise _no_image(options.image, "it is not there, and may not be pulled") from None
        return None
    return str(made["Id"])


def _pull(engine: Engine, image: str, deadline: Deadline) -> None:
    repository, tag = docker.utils.parse_repository_tag(image)
    api = engine.api("create", deadline)
    with engine_errors("create"):
        progress: Any = api.pull(repository, tag or "latest", stream=True, decode=True)
        for step in progress:
            if "error" in step:
                raise _no_image(image, str(step["error"]))
            deadline.left("create")


def _no_image(image: str, why: str) -> ProviderError:
    return ProviderError(
        f"the image {image!r} cannot be used: {why}",
        provider=NAME,
        operation="create",
        retryable=False,
    )
