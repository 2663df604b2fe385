"""Organisations, their sandboxes and volumes, and how these change with time."""

from __future__ import annotations

import secrets
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from servers.clock import ServerClock
from servers.daytona.guest import Guest
from servers.daytona.volumes import Mounts

PENDING = {
    "creating",
    "starting",
    "stopping",
    "restoring",
    "destroying",
    "pending_build",
    "building_snapshot",
    "pulling_snapshot",
    "archiving",
    "resizing",
    "snapshotting",
    "forking",
    "pausing",
    "resuming",
}

Json = dict[str, Any]


class ApiError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.extra = extra


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation and what it is entered with."""

    id: str
    api_key: str
    jwt: str
    user_id: str


@dataclass(slots=True)
class Volume:
    """A volume; ``ready_at`` and ``gone_at`` are when its worker gets to it."""

    id: str
    name: str
    organisation: str
    created_at: float
    ready_at: float
    gone_at: float = 0.0
    state: str = "pending_create"
    last_used_at: float | None = None
    error_reason: str | None = None


@dataclass(slots=True)
class Box:
    """One sandbox.

    Attributes:
        order: The body it was made from.
        then: The state it gets to at ``then_at``, with what has to be done for it.
    """

    id: str
    name: str
    organisation: str
    order: Json
    guest: Guest | None
    created_at: float
    state: str = "creating"
    desired: str = "started"
    error_reason: str | None = None
    recoverable: bool = False
    last_activity: float = 0.0
    stopped_at: float | None = None
    labels: dict[str, str] = field(default_factory=dict)
    auto_stop: float = 15
    auto_archive: float = 7 * 24 * 60
    auto_delete: float = -1
    ttl_at: float | None = None
    preview_token: str = ""
    then: str | None = None
    then_at: float = 0.0


class Boxes:
    """All sandboxes of a server. For several threads.

    Attributes:
        delays: Seconds a transitional state lasts, by its name; 0 where none is given.
        stale_names_s: How long a lookup by name goes on failing after a deletion.
        lock: Held while anything here changes.
        fail_creates: Reasons with which the next creations end in an error.
        default_auto_stop: Minutes.
        volume_delay_s: Seconds until a volume is ready.
        volume_delete_delay_s: Seconds until a deleted volume is gone and its name free.
        mounts: The contents of volumes, and where they are seen.
    """

    def __init__(self, folder: Path, clock: ServerClock, shell: list[str]) -> None:
        self.delays: dict[str, float] = {}
        self.stale_names_s = 0.0
        self.fail_creates: list[str] = []
        self.default_auto_stop = 15
        self.volume_delay_s = 0.0
        self.volume_delete_delay_s = 0.0
        self.mounts = Mounts(folder / "volumes")
        self.shell = shell
        self.boxes: dict[str, Box] = {}
        self.volumes: dict[str, Volume] = {}
        self._folder = folder
        self._clock = clock
        self.lock = threading.RLock()
        self._stale: dict[tuple[str, str], float] = {}

    def now(self) -> float:
        """Epoch seconds by the service's clock."""
        return self._clock.now()

    def create(self, organisation: str, order: Json) -> Box:
        """Make a sandbox; it is on its way to ``started``."""
        now = self._clock.now()
        box_id = str(uuid.uuid4())
        name = order.get("name") or box_id
        if any(ord(c) < 32 for c in name) or "<" in name or "://" in name:
            raise ApiError(400, "Sandbox name is not valid")
        if order.get("snapshot") and any(order.get(k) for k in ("cpu", "memory", "disk")):
            raise ApiError(400, "Cannot specify Sandbox resources when using a snapshot")
        if order.get("snapshot") == "no-such-snapshot":
            raise ApiError(400, "Snapshot no-such-snapshot not found")
        with self.lock:
            self._check_volumes(organisation, order)
            for other in self.boxes.values():
                self.settle(other)
                if other.organisation == organisation and other.name == name:
                    raise ApiError(409, f"Sandbox with name {name} already exists")
            guest = Guest(self._folder, box_id, dict(order.get("env") or {}), self.shell)
            box = Box(box_id, name, organisation, order, guest, now, labels=order.get("labels", {}))
            stop, delete = order.get("autoStopInterval"), order.get("autoDeleteInterval")
            archive = order.get("autoArchiveInterval")
            box.auto_stop = self.default_auto_stop if stop is None else stop
            box.auto_delete = -1 if delete is None else delete
            box.auto_archive = box.auto_archive if archive is None else archive
            if order.get("ttlMinutes"):
                box.ttl_at = now + 60 * order["ttlMinutes"]
            self.boxes[box_id] = box
            for mount in order.get("volumes") or []:
                volume = self.find_volume(organisation, mount["volumeId"])
                assert volume is not None
                self.mounts.add(volume.id, mount["mountPath"])
                # The service looks volumes up by id alone here, and when one is deleted.
                if mount["volumeId"] == volume.id:
                    volume.last_used_at = now
        if self.fail_creates:
            reason = self.fail_creates.pop(0)
            box.state, box.error_reason = "error", reason
            raise ApiError(400, f"Sandbox failed to start: {reason}")
        self.move(box, "creating", "started")
        return box

    def move(self, box: Box, via: str, to: str) -> None:
        """Send a sandbox to another state, by way of a transitional one."""
        with self.lock:
            box.state, box.then = via, to
            box.then_at = self._clock.now() + self.delays.get(via, 0.0)
            if via in ("stopping", "destroying", "archiving", "pausing") and box.guest is not None:
                box.guest.end_all()
            self.settle(box)

    def wait_while(self, box: Box, state: str, seconds: float) -> None:
        """Block while a sandbox is in a state, at most so long by the service's clock."""
        end = self._clock.now() + seconds
        while box.state == state and box.then is not None and self._clock.now() < end:
            self._clock.wait_until(min(box.then_at, end))
            self.settle(box)

    def settle(self, box: Box) -> None:
        """Bring a sandbox to where it should be by now."""
        now = self._clock.now()
        with self.lock:
            if box.then is not None and now >= box.then_at:
                box.state, box.then = box.then, None
                self._arrived(box, now)
            idle = now - box.last_activity
            if box.state == "started" and box.auto_stop and idle >= 60 * box.auto_stop:
                self.move(box, "stopping", "stopped")
            stopped = box.stopped_at is not None and box.state in ("stopped", "archived")
            if stopped and box.auto_delete >= 0:
                assert box.stopped_at is not None
                if now - box.stopped_at >= 60 * box.auto_delete:
                    self.destroy(box)
            if box.ttl_at is not None and now >= box.ttl_at and box.state != "destroyed":
                box.ttl_at = None
                self.destroy(box)

    def destroy(self, box: Box) -> None:
        """Delete a sandbox; its name is free at once."""
        with self.lock:
            self._stale[box.organisation, box.name] = self._clock.now() + self.stale_names_s
            box.name = f"DESTROYED_{box.name}_{int(self._clock.now() * 1000)}"
            box.desired = "destroyed"
            self.move(box, "destroying", "destroyed")

    def get(self, organisation: str, key: str) -> Box:
        """A sandbox by id, else by name."""
        with self.lock:
            boxes = [box for box in self.boxes.values() if box.organisation == organisation]
            for box in boxes:
                self.settle(box)
            found = [box for box in boxes if box.id == key and box.state != "destroyed"]
            if not found and self._stale.get((organisation, key), 0) <= self._clock.now():
                alive = ("destroying", "destroyed")
                found = [box for box in boxes if box.name == key and box.state not in alive]
        if not found:
            raise ApiError(404, f"Sandbox with ID or name {key} not found")
        return found[0]

    def listed(self, organisation: str, labels: Json, name: str | None) -> list[Box]:
        """What a listing shows: every given label fits, the name begins so."""
        with self.lock:
            boxes = sorted(self.boxes.values(), key=lambda box: box.created_at)
            for box in boxes:
                self.settle(box)
            return [
                box
                for box in boxes
                if box.organisation == organisation
                and box.state not in ("destroyed", "destroying")
                and labels.items() <= box.labels.items()
                and box.name.lower().startswith((name or "").lower())
            ]

    def start(self, box: Box) -> None:
        """Start it if that is possible from where it is."""
        with self.lock:
            if box.state == "started":
                return
            if box.state in PENDING:
                raise ApiError(409, "Sandbox state change in progress")
            if box.state not in ("stopped", "archived", "paused"):
                raise ApiError(400, f"Sandbox is in {box.state} state")
            via = {"archived": "restoring", "paused": "resuming"}.get(box.state, "starting")
            self.move(box, via, "started")

    def stop(self, box: Box) -> None:
        """Stop it if that is possible from where it is."""
        with self.lock:
            if box.state in PENDING:
                raise ApiError(409, "Sandbox state change in progress")
            if box.state not in ("started", "paused"):
                raise ApiError(400, "Sandbox is not started")
            self.move(box, "stopping", "stopped")

    def delete(self, box: Box) -> None:
        """Delete it unless it is on its way somewhere."""
        with self.lock:
            if box.state in PENDING:
                raise ApiError(409, "Sandbox state change in progress")
            self.destroy(box)

    def create_volume(self, organisation: str, name: str) -> Volume:
        """A new volume, ready when its worker gets to it."""
        with self.lock:
            if self.find_volume(organisation, name) is not None:
                raise ApiError(400, f"Volume with name {name} already exists")
            now = self._clock.now()
            volume = Volume(str(uuid.uuid4()), name, organisation, now, now + self.volume_delay_s)
            self.volumes[volume.id] = volume
            return volume

    def find_volume(self, organisation: str, key: str) -> Volume | None:
        """A volume by id or name."""
        for volume in self.all_volumes(organisation):
            if key in (volume.id, volume.name):
                return volume
        return None

    def all_volumes(self, organisation: str) -> list[Volume]:
        """The volumes of an organisation."""
        with self.lock:
            now = self._clock.now()
            for volume in list(self.volumes.values()):
                if volume.state == "pending_create" and now >= volume.ready_at:
                    volume.state = "ready"
                if volume.state == "pending_delete" and now >= volume.gone_at:
                    del self.volumes[volume.id]
            return [v for v in self.volumes.values() if v.organisation == organisation]

    def delete_volume(self, organisation: str, key: str) -> None:
        """Delete a volume that no living sandbox uses."""
        with self.lock:
            volume = self.find_volume(organisation, key)
            if volume is None:
                raise ApiError(404, f"Volume with ID {key} not found")
            if volume.state not in ("ready", "error"):
                raise ApiError(400, "Volume must be in 'ready' or 'error' state in order to delete")
            for box in self.boxes.values():
                used = {mount["volumeId"] for mount in box.order.get("volumes") or []}
                if box.state != "destroyed" and volume.id in used:
                    raise ApiError(409, "Volume cannot be deleted because it is in use")
            volume.state = "pending_delete"
            volume.gone_at = self._clock.now() + self.volume_delete_delay_s

    def close(self) -> None:
        """End every process and remove every home."""
        for box in list(self.boxes.values()):
            if box.guest is not None:
                box.guest.remove()

    def _arrived(self, box: Box, now: float) -> None:
        box.last_activity = now
        box.stopped_at = now if box.state in ("stopped", "archived", "paused") else None
        if box.state == "started":
            box.preview_token = secrets.token_hex(16)
        if box.state == "destroyed" and box.guest is not None:
            box.guest.remove()
            box.guest = None

    def _check_volumes(self, organisation: str, order: Json) -> None:
        for mount in order.get("volumes") or []:
            volume = self.find_volume(organisation, mount["volumeId"])
            if volume is None:
                raise ApiError(404, f"Volume '{mount['volumeId']}' not found")
            if volume.state != "ready":
                raise ApiError(400, f"Volume '{volume.name}' is not in a ready state")


def iso(seconds: float) -> str:
    """A moment as the API writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
