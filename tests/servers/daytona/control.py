"""The control plane: sandboxes, volumes, keys."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from servers.daytona.boxes import ApiError, Box, Boxes, Json, Organisation, Volume, iso
from servers.http import Request, Response

Endpoint = Callable[[Request, Organisation, "re.Match[str]"], Response]


class ControlPlane:
    """Answers what is below ``/api``.

    Attributes:
        url: Address of the server.
        version: ``"0.226"`` or ``"0.190"``, whose answers lack some fields.
        extra: Fields that every sandbox has on top.
        page_size: Sandboxes per page of a listing, unless the request says less.
        blocking_create_s: How long the answer to a creation waits for the sandbox to start.
    """

    def __init__(self, boxes: Boxes) -> None:
        self.boxes = boxes
        self.url = ""
        self.version = "0.226"
        self.extra: Json = {}
        self.page_size = 100
        self.blocking_create_s = 30.0
        self._routes: list[tuple[str, re.Pattern[str], Endpoint]] = [
            (method, re.compile(path), endpoint)
            for method, path, endpoint in (
                ("GET", "/api-keys/current", self._key),
                ("GET", "/organizations", self._organisations),
                ("POST", "/sandbox", self._create),
                ("GET", "/sandbox", self._list),
                ("GET", "/sandbox/([^/]+)", self._get),
                ("DELETE", "/sandbox/([^/]+)", self._delete),
                ("POST", "/sandbox/([^/]+)/(start|stop|archive|recover|pause)", self._move),
                ("PUT", "/sandbox/([^/]+)/labels", self._labels),
                ("POST", "/sandbox/([^/]+)/(auto[a-z]+|ttl)/(-?[0-9]+)", self._interval),
                ("POST", "/sandbox/([^/]+)/last-activity", self._activity),
                ("GET", "/sandbox/([^/]+)/ports/([0-9]+)/preview-url", self._preview),
                ("GET", "/sandbox/([^/]+)/toolbox-proxy-url", self._toolbox_url),
                ("GET", "/volumes", self._volumes),
                ("POST", "/volumes", self._create_volume),
                ("GET", "/volumes/by-name/(.+)", self._volume_by_name),
                ("GET", "/volumes/([^/]+)", self._volume),
                ("DELETE", "/volumes/([^/]+)", self._delete_volume),
            )
        ]

    def answer(self, request: Request, path: str, organisation: Organisation) -> Response:
        """Answer a request of an organisation; ``path`` begins after ``/api``."""
        for method, pattern, endpoint in self._routes:
            found = pattern.fullmatch(path)
            if found and method == request.method:
                return endpoint(request, organisation, found)
        raise ApiError(404, f"Cannot {request.method} {request.path}")

    def _key(self, request: Request, organisation: Organisation, found: Any) -> Response:
        if request.token != organisation.api_key:
            raise ApiError(404, "API key not found")
        body: Json = {
            "name": "loopback",
            "value": "dtn_***",
            "createdAt": iso(0),
            "permissions": ["write:sandboxes", "delete:sandboxes"],
            "userId": organisation.user_id,
        }
        if self.version != "0.190":
            body["organizationId"] = organisation.id
        return Response(200, body)

    def _organisations(self, request: Request, organisation: Organisation, found: Any) -> Response:
        return Response(200, [{"id": organisation.id, "name": "personal", "personal": True}])

    def _create(self, request: Request, organisation: Organisation, found: Any) -> Response:
        order = request.json()
        if self.version == "0.190":
            order.pop("ttlMinutes", None)
        box = self.boxes.create(organisation.id, order)
        self.boxes.wait_while(box, "creating", self.blocking_create_s)
        return Response(200, self.sandbox(box))

    def _list(self, request: Request, organisation: Organisation, found: Any) -> Response:
        query = request.query
        labels = json.loads(query["labels"]) if "labels" in query else {}
        listed = self.boxes.listed(organisation.id, labels, query.get("name"))
        start = int(query.get("cursor", "0"))
        end = start + min(int(query.get("limit", "100")), self.page_size)
        items = [self._item(box) for box in listed[start:end]]
        cursor = str(end) if end < len(listed) else None
        return Response(200, {"items": items, "nextCursor": cursor})

    def _box(self, organisation: Organisation, found: re.Match[str]) -> Box:
        return self.boxes.get(organisation.id, found.group(1))

    def _get(self, request: Request, organisation: Organisation, found: Any) -> Response:
        return Response(200, self.sandbox(self._box(organisation, found)))

    def _delete(self, request: Request, organisation: Organisation, found: Any) -> Response:
        box = self._box(organisation, found)
        self.boxes.delete(box)
        return Response(200, self.sandbox(box))

    def _move(self, request: Request, organisation: Organisation, found: Any) -> Response:
        box = self._box(organisation, found)
        verb = found.group(2)
        if verb == "start":
            self.boxes.start(box)
        elif verb == "stop":
            self.boxes.stop(box)
        elif verb == "archive":
            if box.state != "stopped" or box.auto_delete == 0:
                raise ApiError(400, "Sandbox is not stopped")
            self.boxes.move(box, "archiving", "archived")
        elif verb == "recover":
            if not box.recoverable:
                raise ApiError(400, "Sandbox is not in a recoverable error state")
            box.error_reason, box.recoverable = None, False
            self.boxes.move(box, "starting", "started")
        else:
            raise ApiError(422, "Sandbox class does not support pausing")
        return Response(200, self.sandbox(box))

    def _labels(self, request: Request, organisation: Organisation, found: Any) -> Response:
        box = self._box(organisation, found)
        box.labels = request.json()["labels"]
        return Response(200, {"labels": box.labels})

    def _interval(self, request: Request, organisation: Organisation, found: Any) -> Response:
        box = self._box(organisation, found)
        what, minutes = found.group(2), int(found.group(3))
        now = self.boxes.now()
        box.last_activity = now
        if what == "autostop":
            box.auto_stop = minutes
        elif what == "autoarchive":
            box.auto_archive = minutes
        elif what == "autodelete":
            box.auto_delete = minutes
        elif self.version == "0.190":
            raise ApiError(404, f"Cannot POST {request.path}")
        else:
            box.ttl_at = now + 60 * minutes if minutes else None
        return Response(200, self.sandbox(box))

    def _activity(self, request: Request, organisation: Organisation, found: Any) -> Response:
        self._box(organisation, found).last_activity = self.boxes.now()
        return Response(201)

    def _preview(self, request: Request, organisation: Organisation, found: Any) -> Response:
        box = self._box(organisation, found)
        url = f"https://{found.group(2)}-{box.id}.proxy.localhost"
        body = {"sandboxId": box.id, "url": url, "token": box.preview_token}
        return Response(200, body)

    def _toolbox_url(self, request: Request, organisation: Organisation, found: Any) -> Response:
        self._box(organisation, found)
        return Response(200, {"url": f"{self.url}/toolbox"})

    def _volumes(self, request: Request, organisation: Organisation, found: Any) -> Response:
        volumes = self.boxes.all_volumes(organisation.id)
        return Response(200, [self._volume_body(volume) for volume in volumes])

    def _create_volume(self, request: Request, organisation: Organisation, found: Any) -> Response:
        name = request.json().get("name") or "unnamed"
        return Response(200, self._volume_body(self.boxes.create_volume(organisation.id, name)))

    def _volume_by_name(self, request: Request, organisation: Organisation, found: Any) -> Response:
        for volume in self.boxes.all_volumes(organisation.id):
            if volume.name == found.group(1):
                return Response(200, self._volume_body(volume))
        raise ApiError(404, f"Volume with name {found.group(1)} not found")

    def _volume(self, request: Request, organisation: Organisation, found: Any) -> Response:
        volume = self.boxes.find_volume(organisation.id, found.group(1))
        if volume is None:
            raise ApiError(404, f"Volume with ID {found.group(1)} not found")
        return Response(200, self._volume_body(volume))

    def _delete_volume(self, request: Request, organisation: Organisation, found: Any) -> Response:
        self.boxes.delete_volume(organisation.id, found.group(1))
        return Response(200)

    def _volume_body(self, volume: Volume) -> Json:
        used = volume.last_used_at
        return {
            "id": volume.id,
            "name": volume.name,
            "organizationId": volume.organisation,
            "state": volume.state,
            "createdAt": iso(volume.created_at),
            "updatedAt": iso(volume.created_at),
            "lastUsedAt": iso(used) if used is not None else None,
            "errorReason": volume.error_reason,
        }

    def sandbox(self, box: Box) -> Json:
        """A sandbox as the API answers it."""
        body = {**self._item(box), "env": box.order.get("env") or {}}
        body |= {"volumes": box.order.get("volumes") or [], "kvm": False, "networkBlockAll": False}
        body["buildInfo"] = box.order.get("buildInfo")
        if body["buildInfo"]:
            body["buildInfo"] |= {"createdAt": iso(0), "updatedAt": iso(0), "snapshotRef": "r"}
        if self.version == "0.190":
            del body["kvm"]
        return {key: value for key, value in body.items() if value is not None}

    def _item(self, box: Box) -> Json:
        order = box.order
        body: Json = {
            "id": box.id,
            "organizationId": box.organisation,
            "name": box.name,
            "user": order.get("user") or "daytona",
            "labels": box.labels,
            "public": bool(order.get("public")),
            "target": order.get("target") or "us",
            "cpu": order.get("cpu") or 1,
            "gpu": 0,
            "memory": order.get("memory") or 1,
            "disk": order.get("disk") or 3,
            "networkBlockAll": bool(order.get("networkBlockAll")),
            "toolboxProxyUrl": f"{self.url}/toolbox",
            "state": box.state,
            "desiredState": box.desired,
            "snapshot": order.get("snapshot") or "daytona-small",
            "errorReason": box.error_reason,
            "recoverable": box.recoverable,
            "autoStopInterval": box.auto_stop,
            "autoArchiveInterval": box.auto_archive,
            "autoDeleteInterval": box.auto_delete,
            "autoDestroyAt": iso(box.ttl_at) if box.ttl_at is not None else None,
            "createdAt": iso(box.created_at),
            "updatedAt": iso(box.created_at),
            "runnerId": "runner-1",
            "sandboxClass": "container",
            **self.extra,
        }
        if self.version == "0.190":
            del body["networkBlockAll"]
        return {key: value for key, value in body.items() if value is not None}
