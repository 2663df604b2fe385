"""A way into one container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import SandboxGoneError, UnsupportedOperationError
from ekairos_sandbox.provider import Connection, Ownership, SandboxRef
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox_docker import checkpoints, containers, scripts
from ekairos_sandbox_docker.engine import NAME
from ekairos_sandbox_docker.options import DockerOptions

if TYPE_CHECKING:
    from docker.models.containers import Container

    from ekairos_sandbox_docker.provider import DockerProvider


class DockerConnection(Connection):
    """Runs scripts by ``docker exec``; holds nothing open between calls.

    Args:
        provider: Whose sandbox it is.
        ref: Which.
        external_id: The sandbox's id.
        container_id: The container that it was last known to be.
        ownership: How ``create`` came by it.
    """

    max_script_bytes = None  # it is streamed

    def __init__(
        self,
        provider: DockerProvider,
        ref: SandboxRef[DockerOptions],
        external_id: str,
        container_id: str,
        ownership: Ownership = "created",
    ) -> None:
        self.external_id = external_id
        self.ownership = ownership
        self._provider = provider
        self._ref = ref
        self._container_id = container_id

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """See ``Connection.shell``."""
        deadline = self._provider.engine.deadline(timeout_s)
        for container_id in (self._container_id, None):
            if container_id is None:
                # Restored to a checkpoint from elsewhere, or gone: this finds out.
                self._container_id = self._provider.require(self._ref, "shell", deadline).id
            try:
                return scripts.run(
                    self._provider.engine,
                    self._container_id,
                    script,
                    deadline=deadline,
                    max_bytes=max_bytes,
                )
            except SandboxGoneError:
                if container_id is None:
                    raise
        raise AssertionError("unreachable")

    def native(self) -> Container:
        """Return the SDK's ``Container``; its client is the caller's to close."""
        found = self._provider.require(self._ref, "native")
        return self._provider.engine.sdk().containers.get(found.id)

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Commit the container. Volumes and ``/dev/shm`` are not part of it."""
        found = self._provider.require(self._ref, "create_checkpoint")
        return checkpoints.create(self._provider.engine, found, comment)

    def list_checkpoints(self) -> list[Checkpoint]:
        """See ``Connection.list_checkpoints``."""
        found = self._provider.require(self._ref, "list_checkpoints")
        return checkpoints.stored(self._provider.engine, found)

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Put a container with the stored files in the place of this one."""
        found = self._provider.require(self._ref, "restore_checkpoint")
        self._container_id = checkpoints.restore(self._provider.engine, found, checkpoint_id)

    def preview_url(self, port: int) -> PreviewUrl:
        """Return where the port is published: on the loopback interface of the engine's machine."""
        found = self._provider.require(self._ref, "preview_url")
        answer: Any = containers.inspect(self._provider.engine, found.id, operation="preview_url")
        published = ((answer or {}).get("NetworkSettings") or {}).get("Ports") or {}
        bindings = published.get(f"{port}/tcp")
        if not bindings:
            raise UnsupportedOperationError(
                f"port {port} is not published",
                provider=NAME,
                operation="preview_url",
                hint="name it in `ports` when the sandbox is created, with network='bridge'",
            )
        return PreviewUrl(f"http://{bindings[0]['HostIp']}:{bindings[0]['HostPort']}")
