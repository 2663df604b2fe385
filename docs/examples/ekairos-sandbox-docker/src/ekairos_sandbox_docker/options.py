"""Options of the Docker provider."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ekairos_sandbox.provider import ProviderOptions


class DockerOptions(ProviderOptions):
    """How a container is made. All of it is stored in the record; none of it is secret.

    Attributes:
        image: Image of the container. It needs a POSIX ``sh`` and the usual small tools.
        name: Container name of your choice; None (default): one made from the durable id.
        pull: ``"missing"`` (default): pull the image if the engine lacks it, with the engine's
            own credentials; ``"never"``: fail.
        network: ``"none"`` (default): only a loopback interface of its own. ``"bridge"``: the
            engine's default network, and through it the internet; needed for ``ports``.
        memory_mb: Memory of the whole container, MiB; there is no swap on top.
        cpus: CPUs that it may use, such as 0.5; ``resources.vcpus`` of the config goes first.
        pids: Processes and threads it may have at once.
    """

    image: str = Field(default="python:3.12-slim", min_length=1)
    name: str | None = Field(default=None, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$", max_length=128)
    pull: Literal["missing", "never"] = "missing"
    network: Literal["none", "bridge"] = "none"
    memory_mb: int = Field(default=1024, ge=16)
    cpus: float = Field(default=1.0, ge=0.01)
    pids: int = Field(default=512, ge=16)
