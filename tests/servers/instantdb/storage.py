"""Files: rows of the namespace ``$files`` and the bytes behind their presigned addresses."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any
from urllib.parse import quote

from servers.instantdb.apps import AppState
from servers.instantdb.attrs import new_id
from servers.instantdb.errors import permission_denied, record_not_found
from servers.instantdb.rules import Caller, allowed
from servers.instantdb.tables import Row

Json = Any

DAY_S = 24 * 60 * 60
VALID_S = 7 * DAY_S


def check_allowed(state: AppState, action: str, caller: Caller) -> None:
    if not allowed(state.code, "$files", action, caller):
        raise permission_denied(["$files", action], "has-storage-permission?")


def upload(
    state: AppState, path: str, data: bytes, content_type: str | None, disposition: str | None
) -> dict[str, Json]:
    """Store a file; one that has the same path is replaced and keeps its id."""
    location = new_id()
    store = state.store
    with store.lock, store.tables.atomic():
        attrs = {attr.label: attr for attr in store.catalog.of("$files")}
        eid = store.tables.holder(attrs["path"], path) or new_id()
        store.tables.ensure("$files", eid)
        values = {
            "path": path,
            "size": len(data),
            "content-type": content_type or "application/octet-stream",
            "content-disposition": disposition or "inline",
            "location-id": location,
        }
        for label, value in values.items():
            store.tables.write(attrs[label], eid, value)
        store.tables.backfill(store.catalog, "$files", eid)
        state.files[location] = data
    return {"id": eid, "location-id": location, "size": len(data)}


def delete(state: AppState, paths: list[str]) -> list[str]:
    """Delete files by path; the ids of those that existed."""
    store = state.store
    deleted = []
    with store.lock, store.tables.atomic():
        attr = store.catalog.find("$files", "path")
        assert attr is not None
        for path in paths:
            eid = store.tables.holder(attr, path)
            if eid is not None:
                store.tables.delete(store.catalog, "$files", eid)
                deleted.append(eid)
    return deleted


def signed_path(state: AppState, row: Row) -> str:
    """A download address that needs no headers, valid for seven days from the start of today."""
    location = _value(state, row, "location-id")
    start = int(time.time()) // DAY_S * DAY_S
    query = f"X-Amz-Date={start}&X-Amz-Expires={VALID_S}"
    signature = _signature(state, str(location), query)
    return f"/storage/{state.app.id}/{quote(str(location))}?{query}&X-Amz-Signature={signature}"


def download(state: AppState, location: str, query: dict[str, str]) -> tuple[bytes, str, str]:
    """Content, type and disposition of a file whose address carries a valid signature."""
    start, valid = query.get("X-Amz-Date", "0"), query.get("X-Amz-Expires", "0")
    expected = _signature(state, location, f"X-Amz-Date={start}&X-Amz-Expires={valid}")
    if not hmac.compare_digest(expected, query.get("X-Amz-Signature", "")):
        raise PermissionError(location)
    if time.time() > int(start) + int(valid):
        raise PermissionError(location)
    store = state.store
    with store.lock:
        attr = store.catalog.find("$files", "location-id")
        assert attr is not None
        eid = store.tables.holder(attr, location)
        row = store.tables.row("$files", eid) if eid is not None else None
        if row is None:
            raise record_not_found("file", [location], status=404)
        content_type = _value(state, row, "content-type")
        return state.files[location], content_type, _value(state, row, "content-disposition")


def _value(state: AppState, row: Row, label: str) -> str:
    attr = state.store.catalog.find("$files", label)
    assert attr is not None
    return str(row.values.get(attr.id))


def _signature(state: AppState, location: str, query: str) -> str:
    text = f"{location}?{query}".encode()
    return hmac.new(state.app.admin_token.encode(), text, hashlib.sha256).hexdigest()
