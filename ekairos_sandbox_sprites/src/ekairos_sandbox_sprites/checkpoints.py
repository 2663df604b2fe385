"""Checkpoints of a sprite: what their event streams say, and waiting for a restored sprite."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ekairos_sandbox.exceptions import ProviderError, ProviderTimeoutError
from ekairos_sandbox.http import HttpStream, json_bytes
from ekairos_sandbox.provider import no_checkpoint
from ekairos_sandbox.results import Checkpoint
from ekairos_sandbox.shell.exchange import printable
from ekairos_sandbox_sprites.api import SpriteMissingError, SpritesApi, epoch_ms, sprite_path

STREAM_S = 300.0
"""How long a checkpoint or a restore may take."""

RETURN_S = 120.0
"""How long a sprite may be away after a restore."""

_EVENTS_BYTES = 1 << 20
# The id is nowhere but in texts for people.
_IDS = (re.compile(r"\bID:\s*(v\d+)\b"), re.compile(r"\bCheckpoint\s+(v\d+)\b"))
_NUMBERED = re.compile(r"v(\d+)")


def create(api: SpritesApi, name: str, comment: str) -> Checkpoint:
    """Make a checkpoint and return it."""
    events = _follow(api, name, ("checkpoint",), "create_checkpoint", {"comment": comment})
    for pattern in _IDS:
        ids = [found[1] for event in events for found in pattern.finditer(_text(event))]
        if ids:
            return Checkpoint(ids[-1], epoch_ms(events[-1].get("time")), comment)
    newest = max(listed(api, name), key=_number, default=None)
    if newest is None:
        raise ProviderError(
            "sprites made a checkpoint but does not say which",
            provider=api.provider,
            operation="create_checkpoint",
            outcome="unknown",
        )
    return newest


def listed(api: SpritesApi, name: str) -> list[Checkpoint]:
    """Return the checkpoints, oldest first."""
    answer = api.call(
        "GET",
        sprite_path(name, "checkpoints"),
        operation="list_checkpoints",
        repeat="always",
    )
    with api.translated("list_checkpoints"):
        body = answer.json()
    items = body.get("checkpoints") if isinstance(body, Mapping) else body
    if not isinstance(items, list):
        raise api.damaged("list_checkpoints")
    found = [
        Checkpoint(item["id"], epoch_ms(item.get("create_time")), str(item.get("comment") or ""))
        for item in items
        # One entry stands for the present state.
        if isinstance(item, Mapping) and isinstance(item.get("id"), str) and item["id"] != "Current"
    ]
    return found[::-1]


def restore(api: SpritesApi, name: str, checkpoint_id: str) -> None:
    """Return a sprite to a checkpoint and wait until it can be used."""
    try:
        _follow(api, name, ("checkpoints", checkpoint_id, "restore"), "restore_checkpoint", None)
    except SpriteMissingError:
        raise
    except ProviderError as error:
        # An unknown id is answered with 404 or with 500.
        if error.status in (404, 500) and checkpoint_id not in {c.id for c in listed(api, name)}:
            raise no_checkpoint(checkpoint_id, api.provider) from error
        raise
    _await_return(api, name)


def _follow(
    api: SpritesApi, name: str, rest: tuple[str, ...], operation: str, body: Any
) -> list[Mapping[str, Any]]:
    """Send an order and return its events up to ``complete``."""
    events: list[Mapping[str, Any]] = []
    with api.stream(
        "POST",
        sprite_path(name, *rest),
        operation=operation,
        headers={"Content-Type": "application/json"},
        data=None if body is None else json_bytes(body),
        timeout_s=(10.0, STREAM_S),
        deadline_s=STREAM_S,
    ) as answer:
        # The connection may be held open long after the last event.
        for event in _events(answer):
            events.append(event)
            if event.get("type") == "error":
                raise ProviderError(
                    f"{operation} failed at sprites: {printable(_text(event))}",
                    provider=api.provider,
                    operation=operation,
                )
            if event.get("type") == "complete":
                return events
    raise ProviderError(
        f"sprites did not tell how {operation} ended",
        provider=api.provider,
        operation=operation,
        outcome="unknown",
    )


def _text(event: Mapping[str, Any]) -> str:
    return str(event.get("data") or event.get("error") or "")


def _events(answer: HttpStream) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a stream of JSON lines, of which other lines are left out."""
    rest, size = b"", 0
    for piece in answer:
        size += len(piece)
        if size > _EVENTS_BYTES:
            return
        *lines, rest = (rest + piece).split(b"\n")
        yield from _objects(lines)
    yield from _objects([rest])


def _objects(lines: list[bytes]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, Mapping):
            yield event


def _await_return(api: SpritesApi, name: str) -> None:
    end = api.clock.monotonic() + RETURN_S
    while True:
        try:
            api.call(
                "GET",
                sprite_path(name, "fs", "list"),
                operation="restore_checkpoint",
                repeat="never",
                params={"path": "/", "workingDir": "/"},
                timeout_s=(5.0, 15.0),
            )
        except ProviderError as error:
            if error.retryable is False and not isinstance(error, SpriteMissingError):
                raise
            if api.clock.monotonic() > end:
                raise ProviderTimeoutError(
                    "the sprite was restored but does not come back",
                    provider=api.provider,
                    operation="restore_checkpoint",
                    outcome="unknown",
                ) from error
            api.clock.sleep(1.0)
        else:
            return


def _number(checkpoint: Checkpoint) -> int:
    found = _NUMBERED.fullmatch(checkpoint.id)
    return int(found[1]) if found else -1
