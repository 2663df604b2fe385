"""One transaction: checked against the state before it, applied in groups, all or nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from servers.instantdb import rules
from servers.instantdb.attrs import Attr, Catalog, attr_from_json, new_id
from servers.instantdb.errors import (
    ApiError,
    permission_denied,
    record_not_found,
    too_many_parameters,
    validation_failed,
)
from servers.instantdb.steps import Entity, Lookup, Op, Translation, validate
from servers.instantdb.tables import Row, Tables
from servers.instantdb.values import deep_merge, has_nul, lower_uuids

Json = Any

MAX_OPERATIONS = 13_000
"""About where the 65,535 parameters of one SQL statement are used up."""


class Store:
    """Attributes and data of one app behind a lock that is held per phase, not per request."""

    def __init__(self, attrs: list[Attr]) -> None:
        self.lock = threading.RLock()
        self.catalog = Catalog(attrs)
        self.tables = Tables()
        self.sorted_rows: dict[tuple[str, str | None, bool], tuple[int, list[Row]]] = {}


def run(
    store: Store,
    steps: Json,
    *,
    strict_attrs: bool,
    caller: rules.Caller,
    code: Json,
    overlap: Callable[[list[Op]], None],
) -> None:
    """Execute the steps of one request.

    The strict modes are checked in a first phase, on the committed state, and the writes
    follow in a second one. Nothing keeps another transaction from committing between the two,
    which is the race the service has as well; ``overlap`` is called there.
    """
    if has_nul(steps):
        text = "Text can not contain the NUL character"
        raise validation_failed("steps", steps, [{"message": text}])
    checked = lower_uuids(validate(steps))
    with store.lock:
        ops = Translation(store.catalog, checked, strict=strict_attrs).ops()
        if len(ops) > MAX_OPERATIONS:
            raise too_many_parameters()
        transaction = _Transaction(store, ops)
        transaction.check(caller, code)
    overlap(ops)
    with store.lock:
        transaction.apply()


class _Transaction:
    def __init__(self, store: Store, ops: list[Op]) -> None:
        self._store = store
        self._tables = store.tables
        self._ops = ops
        self._found: dict[str, str | None] = {}
        self._touched: dict[tuple[str, str], None] = {}

    def check(self, caller: rules.Caller, code: Json) -> None:
        for op in self._ops:
            if isinstance(op.entity, Lookup):
                self._look_up(op.entity)
            if isinstance(op.value, Lookup):
                self._look_up(op.value)
        self._check_modes("create", "Creating entities that exist", present=True)
        self._check_modes("update", "Updating entities that don't exist", present=False)
        if any(op.kind in ("add-attr", "update-attr", "delete-attr") for op in self._ops) and (
            not rules.allowed(code, "attrs", "create", caller)
        ):
            raise permission_denied(["attrs", "create"])
        if not caller.admin:
            self._check_rules(caller, code)
        for op in self._ops:
            self._check_system(op)

    def apply(self) -> None:
        """Write everything, or leave data and attributes as they were."""
        before = self._store.catalog
        self._store.catalog = before.copy()
        try:
            with self._tables.atomic():
                groups: dict[str, list[Op]] = {}
                for op in self._ops:
                    groups.setdefault(op.kind, []).append(op)
                for kind, ops in groups.items():
                    self._apply_group(kind, ops)
                self._check_required()
        except BaseException:
            self._store.catalog = before
            raise

    def _look_up(self, lookup: Lookup) -> None:
        attr = self._store.catalog.by_id(lookup.attr_id)
        eid = None if attr is None else self._tables.holder(attr, lookup.value)
        self._found[str(lookup)] = eid

    def _before(self, entity: Entity) -> str | None:
        return self._found[str(entity)] if isinstance(entity, Lookup) else entity

    def _exists(self, op: Op) -> bool:
        eid = self._before(op.entity)
        return eid is not None and self._tables.row(op.etype, eid) is not None

    def _check_modes(self, mode: str, text: str, *, present: bool) -> None:
        wrong = [op for op in self._ops if op.mode == mode and self._exists(op) is present]
        if wrong:
            given = [[op.kind, str(op.entity), op.attr and op.attr.id, op.value] for op in wrong]
            names = ", ".join(str(op.entity) for op in wrong)
            raise validation_failed("tx-step", given, [{"message": f"{text}: {names}"}])

    def _check_rules(self, caller: rules.Caller, code: Json) -> None:
        for op in self._ops:
            if op.etype == "" or op.kind == "rule-params":
                continue
            if op.kind == "delete-entity":
                if not self._exists(op):
                    continue
                action = "delete"
            else:
                action = "update" if self._exists(op) else "create"
            if not rules.allowed(code, op.etype, action, caller):
                raise permission_denied([op.etype, "object"])

    def _check_system(self, op: Op) -> None:
        attr = op.attr
        if (
            attr is not None
            and op.kind in ("add-triple", "merge")
            and attr.etype == "$files"
            and attr.catalog == "system"
            and attr.label not in ("id", "path")
        ):
            text = "update or merge is only allowed on `path` for $files in transact."
            raise validation_failed("tx-step", [op.kind, str(op.entity)], [{"message": text}])

    def _apply_group(self, kind: str, ops: list[Op]) -> None:
        created: dict[tuple[str, str], None] = {}
        for op in ops:
            if kind == "add-attr":
                self._add_attr(op)
            elif kind == "update-attr":
                self._update_attr(op.value)
            elif kind == "delete-attr":
                self._delete_attr(op.value)
            elif kind == "delete-entity":
                eid = self._before(op.entity)
                if eid is not None:
                    self._tables.delete(self._store.catalog, op.etype, eid)
            elif kind == "retract-triple":
                self._retract(op)
            elif kind in ("add-triple", "merge"):
                self._write(op, created)
        for etype, eid in created:
            self._tables.backfill(self._store.catalog, etype, eid)

    def _resolve(self, entity: Entity, created: dict[tuple[str, str], None]) -> str:
        """The entity's id; an entity sought by a key that nobody has is made here."""
        if isinstance(entity, str):
            return entity
        eid = self._found.get(str(entity))
        if eid is not None:
            return eid
        attr = self._store.catalog.by_id(entity.attr_id)
        if attr is None:
            raise record_not_found("attr", [entity.attr_id])
        eid = new_id()
        self._found[str(entity)] = eid
        self._tables.ensure(attr.etype, eid)
        created[attr.etype, eid] = None
        self._touched[attr.etype, eid] = None
        self._tables.write(attr, eid, entity.value)
        return eid

    def _write(self, op: Op, created: dict[tuple[str, str], None]) -> None:
        attr = op.attr
        assert attr is not None
        eid = self._resolve(op.entity, created)
        self._touched[op.etype, eid] = None
        if attr.label == "id":
            if self._tables.ensure(op.etype, eid):
                created[op.etype, eid] = None
        elif attr.is_ref:
            if op.kind == "merge":
                text = "merge operation is not supported for links"
                raise validation_failed("tx-step", [op.kind, eid], [{"message": text}])
            self._tables.link(attr, eid, self._target(op.value, created))
        elif op.kind == "merge":
            row = self._tables.row(op.etype, eid)
            old = row.values.get(attr.id) if row is not None else None
            self._tables.write(attr, eid, deep_merge(old, op.value))
        else:
            self._tables.write(attr, eid, op.value)

    def _target(self, value: Json, created: dict[tuple[str, str], None]) -> str:
        if isinstance(value, Lookup):
            return self._resolve(value, created)
        return str(value)

    def _retract(self, op: Op) -> None:
        assert op.attr is not None
        source = self._before(op.entity)
        value = op.value
        target = self._found.get(str(value)) if isinstance(value, Lookup) else str(value)
        if source is not None and target is not None:
            self._tables.unlink(op.attr, source, target)

    def _add_attr(self, op: Op) -> None:
        attr = op.attr
        assert attr is not None
        if self._store.catalog.find(attr.etype, attr.label) is not None:
            raise ApiError(
                "record-not-unique",
                f"`{attr.label}` already exists on `{attr.etype}`",
                {"record-type": "ident", "etype": attr.etype, "label": attr.label},
            )
        if attr.required and attr.label != "id" and self._tables.has_rows(attr.etype):
            raise missing_required(attr, [row.id for row in self._tables.rows(attr.etype)])
        self._store.catalog.add(attr)
        if attr.index and not attr.is_ref:
            self._tables.backfill_attr(attr)

    def _update_attr(self, body: Json) -> None:
        old = self._store.catalog.by_id(str(body.get("id")))
        if old is None:
            raise record_not_found("attr", [body.get("id")])
        new = attr_from_json({**old.to_json(), **body})
        new.data_type = old.data_type
        if new.unique and not old.unique and self._tables.index_unique(new) is not None:
            raise ApiError("record-not-unique", "Record not unique: triple", {"attr-id": new.id})
        if old.unique and not new.unique:
            self._tables.drop_unique(new)
        self._store.catalog.remove(old)
        self._store.catalog.add(new)
        if new.index and not old.index and not new.is_ref:
            self._tables.backfill_attr(new)

    def _delete_attr(self, attr_id: str) -> None:
        attr = self._store.catalog.by_id(attr_id)
        if attr is None or attr.catalog == "system":
            raise record_not_found("attr", [attr_id])
        self._store.catalog.remove(attr)
        self._tables.drop_unique(attr)

    def _check_required(self) -> None:
        for etype, eid in self._touched:
            row = self._tables.row(etype, eid)
            if row is None:
                continue
            for attr in self._store.catalog.of(etype):
                if not attr.required:
                    continue
                if attr.is_ref:
                    missing = not any(self._tables.linked(attr, eid, reverse=False))
                else:
                    missing = row.values.get(attr.id) is None and attr.name != "$files.url"
                if missing:
                    raise missing_required(attr, [eid])


def missing_required(attr: Attr, eids: list[str]) -> ApiError:
    message = f"Missing required attribute `{attr.etype}/{attr.label}`: {', '.join(eids)}"
    records = [{"attr-id": attr.id, "entity-id": eid} for eid in eids]
    return ApiError("validation-failed", message, {"records": records})
