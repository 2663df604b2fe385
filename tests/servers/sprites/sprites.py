"""Organisations, their tokens and their sprites; checkpoints."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from servers.clock import ServerClock
from servers.sprites.machine import Machine

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass
class Checkpoint:
    """A stored state of a sprite's files."""

    id: str
    folder: Path
    comment: str
    created: float

    def listed(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "create_time": stamp(self.created),
            "comment": self.comment,
            "is_auto": False,
            "source_id": None,
            "health": "",
        }


@dataclass
class Sprite:
    """One sprite."""

    name: str
    id: str
    organization: str
    machine: Machine
    url: str
    auth: str
    labels: list[str]
    created: float
    checkpoints: list[Checkpoint] = field(default_factory=list)
    unavailable_until: float = 0.0
    saving: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def listed(self) -> dict[str, Any]:
        machine = self.machine
        shown: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "status": machine.status,
            "version": None,
            "organization": self.organization,
            "url": self.url,
            "url_settings": {"auth": self.auth, "private_access": "admins"},
            "environment_version": None,
            "created_at": stamp(self.created),
            "updated_at": stamp(self.created),
            "last_running_at": stamp(machine.last_running_at) if machine.last_running_at else None,
            "last_warming_at": None,
        }
        if self.labels:
            shown["labels"] = self.labels
        return shown

    def checkpoint(self, comment: str, now: float) -> Checkpoint:
        with self.saving:
            number = len(self.checkpoints)
            folder = self.machine.folder / f"checkpoint-{number}"
            made = Checkpoint(f"v{number}", folder, comment, now)
            self.machine.save(made.folder)
            self.checkpoints.append(made)
            return made


class World:
    """Everything there is, and who may see it."""

    def __init__(self, folder: Path, tools: Path, clock: ServerClock) -> None:
        self.folder = folder
        self.tools = tools
        self.clock = clock
        self.base_url = ""
        self.lock = threading.RLock()
        self.tokens: dict[str, str] = {}
        self.numbers: dict[str, int] = {}
        self.sprites: dict[tuple[str, str], Sprite] = {}
        self.creations: dict[str, list[float]] = {}
        self._count = 0

    def token(self, organization: str) -> str:
        """A new token of an organisation."""
        number = self.numbers.setdefault(organization, 1000 + len(self.numbers))
        made = f"{organization}/{number}/{secrets.token_hex(8)}/tok-{secrets.token_hex(16)}"
        self.tokens[made] = organization
        return made

    def create(self, organization: str, name: str, auth: str, labels: list[str]) -> Sprite:
        with self.lock:
            self._count += 1
            mark = f"{self.folder.name}-{self._count}"
            machine = Machine(self.folder / str(self._count), mark, self.tools, self.clock)
            made = Sprite(
                name=name,
                id=f"sprite-{secrets.token_hex(16)}",
                organization=organization,
                machine=machine,
                url=f"{self.base_url}/at/{organization}/{name}",
                auth=auth,
                labels=labels,
                created=self.clock.now(),
            )
            self.sprites[organization, name] = made
            made.checkpoint("", made.created)
            return made

    def find(self, organization: str, name: str) -> Sprite | None:
        return self.sprites.get((organization, name))

    def by_mark(self, mark: str) -> Sprite | None:
        return next((one for one in self.all() if one.machine.mark == mark), None)

    def all(self, organization: str | None = None) -> list[Sprite]:
        with self.lock:
            return [
                one
                for one in self.sprites.values()
                if organization is None or one.organization == organization
            ]

    def delete(self, sprite: Sprite) -> None:
        with self.lock:
            self.sprites.pop((sprite.organization, sprite.name), None)
        sprite.machine.destroy()

    def close(self) -> None:
        for sprite in self.all():
            self.delete(sprite)
        shutil.rmtree(self.folder, ignore_errors=True)


def valid_name(name: Any) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def stamp(moment: float) -> str:
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
        + f".{int(moment * 1e6) % 10**6:06d}Z"
    )
