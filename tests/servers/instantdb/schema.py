"""Schema pushes: the plan from what is there to what is asked for, its steps and its jobs."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from servers.instantdb.attrs import CHECKED_TYPES, Attr, Catalog, attr_from_json, new_id
from servers.instantdb.errors import record_not_found, validation_failed
from servers.instantdb.tables import Row, Tables
from servers.instantdb.transact import Store, missing_required
from servers.instantdb.values import fits, too_large_for_index, type_name

Json = Any
PushStep = list[Json]


def wanted_attrs(document: Json) -> Catalog:
    """The attributes a schema document asks for; entities, attributes and links only."""
    wanted = Catalog()
    for etype, entity in (document.get("entities") or {}).items():
        for label, body in (entity.get("attrs") or {}).items():
            config = body.get("config") or {}
            data_type = body.get("valueType")
            wanted.add(
                Attr(
                    etype,
                    label,
                    unique=bool(config.get("unique")),
                    index=bool(config.get("indexed")),
                    required=body.get("required") is True,
                    data_type=data_type if data_type in CHECKED_TYPES else None,
                )
            )
    for link in (document.get("links") or {}).values():
        forward, reverse = link["forward"], link["reverse"]
        attr = Attr(
            forward["on"],
            forward["label"],
            value_type="ref",
            cardinality=forward["has"],
            unique=reverse["has"] == "one",
            required=forward.get("required") is True,
            rev_id=new_id(),
            rev_etype=reverse["on"],
            rev_label=reverse["label"],
        )
        attr.on_delete = forward.get("onDelete")
        attr.on_delete_reverse = reverse.get("onDelete")
        wanted.add(attr)
    return wanted


def plan(current: Catalog, document: Json, *, types: bool, background: bool) -> dict[str, Json]:
    """The answer of ``push/plan``; nothing is changed."""
    if not isinstance(document, dict):
        raise validation_failed("schema", document, [{"expected": "map?", "in": []}])
    try:
        wanted = wanted_attrs(document)
    except (AttributeError, KeyError, TypeError) as error:
        raise validation_failed("schema", document, [{"message": repr(error)}]) from error
    steps: list[PushStep] = []
    for etype in document.get("entities") or {}:
        if not current.knows(etype):
            steps.append(["add-attr", _without_nulls(Attr(etype, "id", unique=True))])
    for attr in wanted:
        old = current.find(attr.etype, attr.label)
        if old is None:
            if not types:
                attr.data_type = None
            steps.append(["add-attr", _without_nulls(attr)])
        elif attr.label != "id" and old.catalog != "system":
            steps.extend(_changes(old, attr, types=types, background=background))
    return {
        "new-schema": wanted.to_schema_json(),
        "current-schema": current.to_schema_json(),
        "current-attrs": [attr.to_json() for attr in current],
        "steps": steps,
    }


def _without_nulls(attr: Attr) -> dict[str, Json]:
    body = attr.to_json()
    for key in ("catalog", "inferred-types"):
        del body[key]
    return {key: value for key, value in body.items() if value is not None}


def _changes(old: Attr, new: Attr, *, types: bool, background: bool) -> list[PushStep]:
    steps: list[PushStep] = []
    flags = [
        ("index", old.index, new.index),
        ("unique", old.unique, new.unique),
        ("required", old.required, new.required),
    ]
    changed = [(kind, now) for kind, before, now in flags if before is not now]
    target = {"attr-id": old.id, "forward-identity": old.forward_identity}
    if changed and (not background or old.is_ref):
        body = old.to_json()
        body.update({f"{kind}?": now for kind, now in changed})
        steps.append(["update-attr", body])
    elif changed:
        steps.extend([kind if now else f"remove-{kind}", dict(target)] for kind, now in changed)
    if types and old.data_type != new.data_type and not old.is_ref:
        if new.data_type is None:
            steps.append(["remove-data-type", dict(target)])
        else:
            steps.append(["check-data-type", {**target, "checked-data-type": new.data_type}])
    return steps


@dataclass(slots=True)
class Job:
    """Background work on one attribute; it is done after so many polls."""

    app_id: str
    group_id: str
    kind: str
    attr: Attr
    data_type: str | None = None
    polls_left: int = 0
    status: str = "waiting"
    error: str | None = None
    invalid_value: Json = None
    sample: list[dict[str, Json]] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def to_json(self) -> dict[str, Json]:
        over = self.status in ("completed", "errored")
        return {
            "id": self.id,
            "app_id": self.app_id,
            "group_id": self.group_id,
            "attr_id": self.attr.id,
            "attr_name": self.attr.name,
            "job_type": self.kind,
            "job_status": self.status,
            "work_estimate": 1,
            "work_completed": 1 if over else 0,
            "error": self.error,
            "checked_data_type": self.data_type,
            "created_at": self.created,
            "updated_at": datetime.now(UTC).isoformat(),
            "done_at": datetime.now(UTC).isoformat() if over else None,
            "invalid_unique_value": self.invalid_value,
            "invalid_triples_sample": self.sample or None,
        }

    def poll(self, store: Store) -> None:
        if self.status in ("completed", "errored"):
            return
        if self.polls_left > 0:
            self.polls_left -= 1
            self.status = "processing"
            return
        with store.lock, store.tables.atomic():
            self.error = self._finish(store.tables)
        self.status = "errored" if self.error else "completed"

    def start(self) -> None:
        """Mark the attribute as unfinished, so that ordering and comparing on it fail."""
        if self.kind == "index":
            self.attr.index = self.attr.indexing = True
        elif self.kind == "unique":
            self.attr.unique = self.attr.setting_unique = True
        elif self.kind == "check-data-type":
            self.attr.data_type, self.attr.checking = self.data_type, True

    def _finish(self, tables: Tables) -> str | None:
        attr = self.attr
        rows = tables.rows(attr.etype)
        present = [row for row in rows if row.values.get(attr.id) is not None]
        if self.kind == "index":
            return self._finish_index(tables, present)
        if self.kind == "unique":
            attr.setting_unique = False
            self.invalid_value = tables.index_unique(attr)
            if self.invalid_value is not None:
                attr.unique = False
                return "triple-not-unique-error"
        elif self.kind == "check-data-type":
            return self._finish_type(present)
        elif self.kind == "required":
            if len(present) < len(rows):
                return "missing-required-error"
            attr.required = True
        elif self.kind == "remove-index":
            attr.index = False
        elif self.kind == "remove-unique":
            attr.unique = False
            tables.drop_unique(attr)
        elif self.kind == "remove-required":
            attr.required = False
        elif self.kind == "remove-data-type":
            attr.data_type = None
        return None

    def _finish_index(self, tables: Tables, present: list[Row]) -> str | None:
        attr = self.attr
        attr.indexing = False
        if any(too_large_for_index(row.values[attr.id]) for row in present):
            attr.index = False
            return "triple-too-large-error"
        tables.backfill_attr(attr)
        return None

    def _finish_type(self, present: list[Row]) -> str | None:
        attr = self.attr
        attr.checking = False
        wrong = [row for row in present if not fits(str(self.data_type), row.values[attr.id])]
        if not wrong:
            return None
        attr.data_type = None
        self.sample = [
            {
                "entity_id": row.id,
                "value": row.values[attr.id],
                "json_type": type_name(row.values[attr.id]),
            }
            for row in wrong[:5]
        ]
        return "invalid-triple-error"


def apply_steps(store: Store, app_id: str, steps: list[Json], polls: int) -> list[Job]:
    """Carry out a plan: new attributes at once, changes of existing ones as jobs."""
    for step in steps:
        if not (isinstance(step, list) and len(step) == 2 and isinstance(step[1], dict | str)):
            raise validation_failed("steps", steps, [{"expected": "schema-step?", "in": []}])
    group_id = new_id()
    jobs: list[Job] = []
    with store.lock, store.tables.atomic():
        for kind, body in steps:
            if kind == "add-attr" and isinstance(body, dict) and body.get("required?"):
                attr = attr_from_json(body)
                rows = store.tables.rows(attr.etype)
                if rows and attr.label != "id":
                    raise missing_required(attr, [row.id for row in rows])
        for step in steps:
            job = _apply_step(store, app_id, group_id, step, polls)
            if job is not None:
                jobs.append(job)
    return jobs


def _apply_step(store: Store, app_id: str, group_id: str, step: PushStep, polls: int) -> Job | None:
    kind, body = step
    if kind == "add-attr":
        attr = attr_from_json(body)
        store.catalog.add(attr)
        if attr.index and not attr.is_ref:
            store.tables.backfill_attr(attr)
        return None
    attr_id = body if kind == "delete-attr" else body.get("attr-id", body.get("id"))
    found = store.catalog.by_id(str(attr_id))
    if found is None:
        raise record_not_found("attr", [attr_id])
    if kind == "delete-attr":
        store.catalog.remove(found)
        store.tables.drop_unique(found)
        return None
    if kind == "update-attr":
        new = attr_from_json({**found.to_json(), **body})
        new.data_type = found.data_type
        if new.unique and not found.unique and not new.is_ref:
            store.tables.index_unique(new)
        store.catalog.remove(found)
        store.catalog.add(new)
        if new.index and not found.index and not new.is_ref:
            store.tables.backfill_attr(new)
        return None
    job = Job(app_id, group_id, kind, found, body.get("checked-data-type"), polls)
    job.start()
    body["job-id"] = job.id
    return job
