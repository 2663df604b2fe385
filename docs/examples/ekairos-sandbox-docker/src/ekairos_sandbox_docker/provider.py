"""The Docker provider: sandboxes are containers of one engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

from ekairos_sandbox.exceptions import IdConflictError, ProviderError
from ekairos_sandbox.provider import (
    Capability,
    ConfigField,
    CreateSpec,
    FieldSupport,
    Provider,
    ProviderContext,
    SandboxInfo,
    SandboxRef,
    gone,
    may_adopt,
    same_sandbox,
)
from ekairos_sandbox_docker import checkpoints, containers, making
from ekairos_sandbox_docker.connection import DockerConnection
from ekairos_sandbox_docker.containers import Container
from ekairos_sandbox_docker.engine import NAME, Deadline, Engine, answered, engine_errors
from ekairos_sandbox_docker.options import DockerOptions

Ref = SandboxRef[DockerOptions]

_RACE_PAUSE_S = 0.05
_STOP_GRACE_S = 1
"""Seconds that the container's first process has to end; it needs none."""


class DockerProvider(Provider[DockerOptions]):
    """Containers of the engine that ``DOCKER_HOST`` names, as the Docker command line reads it.

    Stopped containers keep their files and can be started again. Used by several threads, after
    a fork too.
    """

    name: ClassVar[str] = NAME
    options_model = DockerOptions
    connection_class = DockerConnection
    capabilities = frozenset({Capability.CHECKPOINTS, Capability.PREVIEW_URL, Capability.NATIVE})
    create_timeout_s: ClassVar[float] = 600.0  # images have to be pulled

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(context)
        self.engine = Engine(self.context.environ, self.context.clock)
        self._identity = ""

    @classmethod
    def field_support(
        cls, options: DockerOptions | None = None
    ) -> Mapping[ConfigField, FieldSupport]:
        """See ``Provider.field_support``."""
        bridged = options is not None and options.network == "bridge"
        return {
            "timeout_ms": FieldSupport("recorded", "a container lives until it is stopped"),
            "vcpus": FieldSupport("enforced"),
            "runtime": FieldSupport("recorded", "what runs is the image's business"),
            "ports": FieldSupport("enforced")
            if bridged
            else FieldSupport("refused", "ports need the option network='bridge'"),
        }

    def account(self) -> str:
        """Return the engine's id and how it is reached.

        Two engines of one machine may have the same id, and every machine has one at
        ``/var/run/docker.sock``.
        """
        if not self._identity:
            self._identity = self.engine.identity()
        return f"{self.engine.host}#{self._identity}"

    def create(self, spec: CreateSpec[DockerOptions]) -> DockerConnection:
        """Make the container, or take the one of that name; the engine lets there be only one."""
        deadline = self.engine.deadline(spec.timeout_s)
        while (
            found := containers.find(self.engine, spec.name, operation="create", deadline=deadline)
        ) is None:
            try:
                made = making.make(self.engine, spec, deadline)
            except ProviderError as error:
                if not answered(error, 409):
                    raise
                # The name is reserved a moment before the container can be found.
                deadline.left("create")
                self.context.clock.sleep(_RACE_PAUSE_S)
            else:
                ref: Ref = SandboxRef(spec.name, made, spec.tags, options=spec.options)
                return DockerConnection(self, ref, made, made)
        ownership = may_adopt(spec, found.info)
        if ownership is None:
            raise IdConflictError(
                f"the container name {spec.name!r} is taken by something else",
                provider=NAME,
                operation="create",
            )
        making.start(self.engine, found.id, deadline, status=found.status)
        ref = SandboxRef(spec.name, found.info.external_id, found.info.tags)
        return DockerConnection(self, ref, found.info.external_id, found.id, ownership)

    def attach(self, ref: Ref) -> DockerConnection:
        """Return a connection without a call, if the container's id is known."""
        if ref.external_id is None:
            return self.connect(ref)
        return DockerConnection(self, ref, ref.external_id, ref.external_id)

    def connect(self, ref: Ref) -> DockerConnection:
        """See ``Provider.connect``."""
        found = self.require(ref, "connect")
        if found.status != "running":
            making.start(self.engine, found.id, self.engine.deadline(), status=found.status)
        external_id = found.info.external_id
        return DockerConnection(self, replace(ref, external_id=external_id), external_id, found.id)

    def inspect(self, ref: Ref) -> SandboxInfo:
        """See ``Provider.inspect``."""
        return self.require(ref, "inspect").info

    def find(self, name: str) -> SandboxInfo | None:
        """See ``Provider.find``."""
        found = containers.find(self.engine, name)
        return None if found is None else found.info

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        """See ``Provider.list_owned``."""
        return containers.owned(self.engine, owner)

    def stop(self, ref: Ref) -> None:
        """Stop the container; its files stay."""
        found = self._lookup(ref, "stop")
        if found is None:
            return
        api = self.engine.api("stop")
        try:
            with engine_errors("stop", outcome="unknown"):
                api.stop(found.id, timeout=_STOP_GRACE_S)
        except ProviderError as error:
            if not answered(error, 404, "No such container"):
                raise

    def destroy(self, ref: Ref) -> None:
        """Remove the container, what a restore may have left beside it, and its checkpoints."""
        found = self._lookup(ref, "destroy")
        if found is not None:
            checkpoints.remove_later_generations(self.engine, found)
            containers.remove(self.engine, found.id)
        tags = ref.tags or (found.info.tags if found is not None else None)
        if tags is not None:
            checkpoints.remove_all(self.engine, tags)

    def require(self, ref: Ref, operation: str, deadline: Deadline | None = None) -> Container:
        """Return the container that a reference means.

        Raises:
            SandboxGoneError: The engine, the very one that had it, says that it is not there.
            ProviderError: Anything else.
        """
        found = self._lookup(ref, operation, deadline)
        if found is not None:
            return found
        if self._identity and self._identity != self.engine.identity():
            raise ProviderError(
                f"another Docker engine answers at {self.engine.host} than before",
                provider=NAME,
                operation=operation,
                retryable=False,
            )
        raise gone(ref, NAME, operation=operation)

    def close(self) -> None:
        """Let go of idle sockets."""
        self.engine.close()

    def _lookup(
        self, ref: Ref, operation: str, deadline: Deadline | None = None
    ) -> Container | None:
        """Return the container that a reference means, by its id first: names can be given away."""
        if ref.external_id is not None:
            answer = containers.inspect(
                self.engine, ref.external_id, operation=operation, deadline=deadline
            )
            if answer is not None:
                return containers.of(answer)
        found = containers.find(self.engine, ref.name, operation=operation, deadline=deadline)
        return found if found is not None and same_sandbox(ref, found.info) else None
