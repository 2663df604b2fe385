"""Which container is which sandbox.

A sandbox begins as a container that has its name. Restoring a checkpoint puts another container
in its place, because a container's files cannot be replaced from outside. So every container of
ours says by labels which sandbox it is and of which generation, and **the oldest generation that
exists is the sandbox**: the next one is prepared beside it, and removing the old one is the
moment at which the new one counts. Whatever crashes in between leaves one sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.provider import SandboxInfo, SandboxRunState, Tags
from ekairos_sandbox_docker.engine import Deadline, Engine, answered, engine_errors

NAME_LABEL = "ekairos-docker-name"
"""The sandbox's name, which later generations cannot have as their own."""
CREATED_LABEL = "ekairos-docker-created"
"""Epoch ms when the sandbox was made, by the clock that its record goes by; the engine's listing
knows seconds only."""
GENERATION_LABEL = "ekairos-docker-generation"
FIRST_LABEL = "ekairos-docker-first"
"""Id of the first generation: the sandbox's id for good."""

Json = Mapping[str, Any]

_STATES: dict[str, SandboxRunState] = {
    "created": "stopped",
    "running": "running",
    "paused": "stopped",
    "restarting": "changing",
    "removing": "changing",
    "exited": "stopped",
    "dead": "failed",
}


@dataclass(frozen=True, slots=True)
class Container:
    """What the engine says of one container.

    Attributes:
        id: Its own id.
        generation: Which generation of its sandbox it is, from 1.
        status: What it does, in the engine's words.
        info: The sandbox that it is.
    """

    id: str
    generation: int
    status: str
    info: SandboxInfo


def labels_of(name: str, tags: Tags, created_at: int) -> dict[str, str]:
    """Return the labels of the first container of a sandbox."""
    return {
        **tags.as_dict(),
        NAME_LABEL: name,
        CREATED_LABEL: str(created_at),
        GENERATION_LABEL: "1",
        FIRST_LABEL: "",
    }


def inspect(
    engine: Engine, name_or_id: str, *, operation: str, deadline: Deadline | None = None
) -> Json | None:
    """Return all that the engine says of a container, or None if it has none of exactly this name.

    Raises:
        ProviderError: The engine did not say so.
    """
    api = engine.api(operation, deadline)
    try:
        with engine_errors(operation):
            found: Json = api.inspect_container(name_or_id)
    except ProviderError as error:
        if answered(error, 404, "No such container"):
            return None
        raise
    # The engine also takes the beginning of an id.
    return found if name_or_id in (found["Id"], found["Name"].removeprefix("/")) else None


def find(
    engine: Engine, name: str, *, operation: str = "find", deadline: Deadline | None = None
) -> Container | None:
    """Return the container that is the sandbox of a name."""
    found = inspect(engine, name, operation=operation, deadline=deadline)
    if found is not None:
        container = of(found)
        if container.info.name == name:
            return container
    for container in generations(engine, name, operation=operation, deadline=deadline):
        # One that is being removed may be listed and not be there.
        found = inspect(engine, container.id, operation=operation, deadline=deadline)
        if found is not None:
            return of(found)
    return None


def generations(
    engine: Engine, name: str, *, operation: str, deadline: Deadline | None = None
) -> list[Container]:
    """Return the containers that bear a sandbox's name in their label, oldest first."""
    found = _listed(engine, f"{NAME_LABEL}={name}", operation, deadline)
    return sorted(found, key=lambda container: container.generation)


def owned(engine: Engine, owner: str) -> Iterator[SandboxInfo]:
    """Yield the sandboxes with an owner tag."""
    sandboxes: dict[str, Container] = {}
    for container in _listed(engine, f"ekairos-owner={owner}", "list_owned"):
        known = sandboxes.setdefault(container.info.external_id, container)
        if container.generation < known.generation:
            sandboxes[container.info.external_id] = container
    for container in sandboxes.values():
        yield container.info


def of(found: Json) -> Container:
    """Read the answer about one container."""
    return _container(found["Id"], found["Name"], found["State"]["Status"], found["Config"])


def _listed(
    engine: Engine, label: str, operation: str, deadline: Deadline | None = None
) -> list[Container]:
    api = engine.api(operation, deadline)
    with engine_errors(operation):
        found = api.containers(all=True, filters={"label": label})
    return [_container(each["Id"], each["Names"][0], each["State"], each) for each in found]


def _container(container_id: str, path: str, status: str, labelled: Json) -> Container:
    labels: Mapping[str, str] = labelled["Labels"] or {}
    tags = Tags.from_dict(labels)
    ours = labels if tags else {}
    return Container(
        container_id,
        int(ours.get(GENERATION_LABEL) or 1),
        status,
        SandboxInfo(
            name=ours.get(NAME_LABEL) or path.removeprefix("/"),
            external_id=ours.get(FIRST_LABEL) or container_id,
            state=_STATES.get(status, "unknown"),
            tags=tags,
            created_at=int(ours.get(CREATED_LABEL) or 0) or None,
        ),
    )


def remove(engine: Engine, container_id: str) -> None:
    """Remove a container and its anonymous volumes; gone already is fine."""
    api = engine.api("destroy")
    try:
        with engine_errors("destroy", outcome="unknown"):
            api.remove_container(container_id, force=True, v=True)
    except ProviderError as error:
        # 409: somebody else's removal is under way.
        if not answered(error, 404, "No such container") and not answered(error, 409, "removal"):
            raise
