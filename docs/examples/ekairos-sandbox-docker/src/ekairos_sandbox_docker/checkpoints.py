"""Checkpoints are images: committing a container stores its files, not what is mounted into it."""

from __future__ import annotations

import secrets
from typing import Any

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox.provider import Tags, no_checkpoint
from ekairos_sandbox.results import Checkpoint
from ekairos_sandbox_docker import containers, making
from ekairos_sandbox_docker.containers import Container
from ekairos_sandbox_docker.engine import NAME, Engine, engine_errors

REPOSITORY = "ekairos-sandbox-checkpoint"
_OF_LABEL = "ekairos-docker-checkpoint-of"
_INCARNATION_LABEL = "ekairos-docker-checkpoint-incarnation"
_CREATED_LABEL = "ekairos-docker-checkpoint-created"
_COMMENT_LABEL = "ekairos-docker-checkpoint-comment"


def create(engine: Engine, container: Container, comment: str) -> Checkpoint:
    """Store the files of a container."""
    tags = container.info.tags
    made = Checkpoint(secrets.token_hex(8), engine.clock.now_ms(), comment)
    # Images hand their labels on: a container that somebody makes of one must not look like ours.
    labels = dict.fromkeys(containers.labels_of("", tags or Tags("", "", 0), 0), "")
    labels |= {
        _OF_LABEL: _key(container),
        _INCARNATION_LABEL: str(tags.incarnation if tags else 0),
        _CREATED_LABEL: str(made.created_at),
        _COMMENT_LABEL: comment,
    }
    api = engine.api("create_checkpoint")
    with engine_errors("create_checkpoint", outcome="unknown"):
        # With a tag, so that `docker image prune` leaves it alone.
        api.commit(container.id, repository=REPOSITORY, tag=made.id, conf={"Labels": labels})
    return made


def stored(engine: Engine, container: Container) -> list[Checkpoint]:
    """Return a sandbox's checkpoints, oldest first."""
    return [checkpoint for checkpoint, _ in _stored(engine, _key(container))]


def restore(engine: Engine, container: Container, checkpoint_id: str) -> str:
    """Put a container with the stored files in the place of the one there is; return its id.

    Raises:
        CheckpointNotFoundError: The sandbox has no such checkpoint; nothing was changed.
    """
    operation, info = "restore_checkpoint", container.info
    if info.tags is None:
        raise UnsupportedOperationError(
            "a container that this library did not make is not replaced by another",
            provider=NAME,
            operation=operation,
        )
    if checkpoint_id not in [checkpoint.id for checkpoint in stored(engine, container)]:
        raise no_checkpoint(checkpoint_id, NAME)
    remove_later_generations(engine, container)
    old = containers.inspect(engine, container.id, operation=operation)
    assert old is not None
    generation = container.generation + 1
    config: dict[str, Any] = {
        **old["Config"],
        "Hostname": "",
        "Image": f"{REPOSITORY}:{checkpoint_id}",
        "Labels": {
            **old["Config"]["Labels"],
            containers.GENERATION_LABEL: str(generation),
            containers.FIRST_LABEL: info.external_id,
        },
        "HostConfig": old["HostConfig"],
    }
    api: Any = engine.api(operation)  # the stubs leave this method untyped
    with engine_errors(operation, outcome="unknown"):
        made = api.create_container_from_config(config, f"{info.name}.{generation}")
        api.remove_container(container.id, force=True, v=True)
    making.start(engine, made["Id"], engine.deadline())
    return str(made["Id"])


def remove_later_generations(engine: Engine, container: Container) -> None:
    """Remove what a restore that did not get to its end has prepared."""
    info = container.info
    for other in containers.generations(engine, info.name, operation="restore_checkpoint"):
        if other.info.external_id == info.external_id and other.generation > container.generation:
            containers.remove(engine, other.id)


def remove_all(engine: Engine, tags: Tags) -> None:
    """Remove the checkpoints that an incarnation made, and those of earlier ones."""
    api = engine.api("destroy")
    for checkpoint, incarnation in reversed(_stored(engine, f"{tags.owner}/{tags.sandbox_id}")):
        if incarnation <= tags.incarnation:
            with engine_errors("destroy", outcome="unknown"):
                api.remove_image(f"{REPOSITORY}:{checkpoint.id}")


def _key(container: Container) -> str:
    """What a sandbox's checkpoints are found by; it outlives the container."""
    tags = container.info.tags
    return f"{tags.owner}/{tags.sandbox_id}" if tags else container.info.external_id


def _stored(engine: Engine, key: str) -> list[tuple[Checkpoint, int]]:
    """Return checkpoints and the incarnations that made them, oldest first."""
    api = engine.api("list_checkpoints")
    with engine_errors("list_checkpoints"):
        images = api.images(filters={"label": f"{_OF_LABEL}={key}"})
    found = []
    for image in images:
        labels = image["Labels"]
        prefix = f"{REPOSITORY}:"
        names = [name for name in image["RepoTags"] or () if name.startswith(prefix)]
        if names:
            checkpoint = Checkpoint(
                names[0].removeprefix(prefix), int(labels[_CREATED_LABEL]), labels[_COMMENT_LABEL]
            )
            found.append((checkpoint, int(labels[_INCARNATION_LABEL])))
    return sorted(found, key=lambda each: each[0].created_at or 0)
