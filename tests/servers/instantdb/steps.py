"""Transaction steps: their shapes, and the triple operations they stand for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from servers.instantdb.attrs import Attr, Catalog, attr_from_json
from servers.instantdb.errors import validation_failed
from servers.instantdb.values import is_uuid

Json = Any
Step = list[Json]

_WRITES = frozenset({"create", "update", "merge"})
_LINKS = frozenset({"link", "unlink"})
_CREATE_ATTRS = _WRITES | _LINKS


@dataclass(frozen=True, slots=True)
class Lookup:
    """An entity named by the value of one of its unique attributes."""

    attr_id: str
    value: Json

    def __str__(self) -> str:
        return json.dumps([self.attr_id, self.value])


Entity = str | Lookup


@dataclass(frozen=True, slots=True)
class Op:
    """One triple operation; ``kind`` is the group it runs in."""

    kind: str
    etype: str = ""
    entity: Entity = ""
    attr: Attr | None = None
    value: Json = None
    mode: str = "upsert"


def _is_entity(value: Json) -> bool:
    if isinstance(value, str):
        return is_uuid(value) or value.startswith("lookup__")
    if isinstance(value, list):
        return len(value) == 2 and isinstance(value[0], str)
    return isinstance(value, dict)


def _is_identity(value: Json) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(x, str) for x in value)


def _is_options(value: Json) -> bool:
    if value is None:
        return True
    upsert = value.get("upsert") if isinstance(value, dict) else 0
    return upsert is None or isinstance(upsert, bool)


def _is_link(value: Json) -> bool:
    return _is_entity(value) or (isinstance(value, list) and all(map(_is_entity, value)))


def _problem(step: Json) -> tuple[list[int], str] | None:
    """Where a step is malformed and what was expected there."""
    if not isinstance(step, list) or not step:
        return [], "coll?"
    action, args = step[0], step[1:]
    if not isinstance(action, str):
        return [0], "string?"
    if action in ("add-attr", "update-attr"):
        good = len(args) == 1 and isinstance(args[0], dict)
        if good and action == "add-attr":
            good = _is_identity(args[0].get("forward-identity"))
        return None if good else ([1], "map?")
    if action == "delete-attr":
        return None if len(args) == 1 and is_uuid(args[0]) else ([1], "coercible-uuid?")
    if action not in _CREATE_ATTRS | {"delete", "ruleParams"}:
        return [0], '#{"create"}'
    if not args or not isinstance(args[0], str):
        return [1], "string?"
    if len(args) < 2 or not _is_entity(args[1]):
        return [2], "coercible-uuid?"
    if action == "delete":
        return None
    if len(args) < 3 or not isinstance(args[2], dict):
        return [3], "map?"
    if action in _LINKS and not all(map(_is_link, args[2].values())):
        return [3], "lookup?"
    if len(args) > 4 or (len(args) == 4 and action not in ("update", "merge")):
        return [4], "end-of-input"
    if len(args) == 4 and not _is_options(args[3]):
        return [4], "nilable-map?"
    return None


def validate(steps: Json) -> list[Step]:
    """The steps, when every one has a known shape."""
    given = steps if isinstance(steps, list) else list(map(list, steps.items()))
    for number, step in enumerate(given):
        problem = _problem(step)
        if problem is not None:
            path, expected = problem
            error = {"expected": expected, "in": [number, *path]}
            raise validation_failed("steps", steps, [error])
    return given


def _lookup_pair(entity: Json) -> tuple[str, Json] | None:
    if isinstance(entity, str):
        if not entity.startswith("lookup__"):
            return None
        label, _, text = entity.removeprefix("lookup__").partition("__")
        try:
            return label, json.loads(text)
        except ValueError:
            error = {
                "message": "lookup value is invalid",
                "hint": {"attribute": label, "value": text},
            }
            raise validation_failed("lookup", entity, [error]) from None
    if isinstance(entity, list):
        return entity[0], entity[1]
    if len(entity) != 1:
        text = "lookup must be an object with a single unique attr and value."
        raise validation_failed("lookup", entity, [{"message": text}])
    [(label, value)] = entity.items()
    return label, value


class Translation:
    """Turns validated steps into operations, creating the attributes that are missing."""

    def __init__(self, catalog: Catalog, steps: list[Step], *, strict: bool) -> None:
        self.catalog = catalog.copy()
        self.added: list[Attr] = []
        self._steps = steps
        for step in steps:
            self._add_lookup_attrs(step)
        for step in steps:
            self._add_object_attrs(step)
        if strict and self.added:
            error = {
                "message": "Attributes are missing in your schema",
                "hint": {"attributes": [attr.name for attr in self.added]},
            }
            raise validation_failed("steps", steps, [error])

    def ops(self) -> list[Op]:
        made = [Op("add-attr", attr=attr) for attr in self.added]
        for step in self._steps:
            made.extend(self._expand(step))
        return made

    def _add(self, attr: Attr) -> None:
        self.catalog.add(attr)
        self.added.append(attr)

    def _add_lookup_attrs(self, step: Step) -> None:
        if step[0] not in _CREATE_ATTRS | {"delete"}:
            return
        pair = _lookup_pair(step[2])
        if pair is not None and self.catalog.find(step[1], pair[0]) is None:
            self._add(Attr(step[1], pair[0], unique=True, index=True))

    def _add_object_attrs(self, step: Step) -> None:
        action = step[0]
        if action not in _CREATE_ATTRS:
            return
        etype = step[1]
        labels = ["id", *(label for label in step[3] if label != "id")]
        for label in labels:
            if self.catalog.find(etype, label) is not None:
                continue
            if action in _WRITES or label == "id":
                self._add(Attr(etype, label, unique=label == "id"))
            elif self.catalog.find_reverse(etype, label) is None:
                link = Attr(etype, label, value_type="ref", cardinality="many")
                link.rev_id, link.rev_etype, link.rev_label = link.fwd_id, label, etype
                self._add(link)

    def _entity(self, etype: str, entity: Json) -> Entity:
        pair = _lookup_pair(entity)
        if pair is None:
            return str(entity)
        label, value = pair
        attr = self.catalog.find(etype, label)
        if attr is None or not attr.unique:
            error = {"message": f"{label} is not a unique attribute on {etype}"}
            raise validation_failed("lookup", entity, [error])
        if label == "id" and is_uuid(value):
            return str(value)
        return Lookup(attr.id, value)

    def _expand(self, step: Step) -> list[Op]:
        action = step[0]
        if action == "add-attr":
            return [Op("add-attr", attr=attr_from_json(step[1]))]
        if action == "update-attr":
            return [Op("update-attr", value=step[1])]
        if action == "delete-attr":
            return [Op("delete-attr", value=step[1])]
        etype, entity = step[1], self._entity(step[1], step[2])
        if action == "delete":
            return [Op("delete-entity", etype, entity)]
        if action == "ruleParams":
            return [Op("rule-params", etype, entity, value=step[3])]
        if action in _LINKS:
            return self._expand_link(action, etype, entity, step[3])
        mode = "create" if action == "create" else "upsert"
        options = step[4] if len(step) > 4 else None
        if options and options.get("upsert") is False:
            mode = "update"
        id_attr = self.catalog.find(etype, "id")
        made = [Op("add-triple", etype, entity, id_attr, None, mode)]
        kind = "merge" if action == "merge" else "add-triple"
        for label, value in step[3].items():
            if label != "id":
                attr = self.catalog.find(etype, label)
                made.append(Op(kind, etype, entity, attr, value, mode))
        return made

    def _expand_link(self, action: str, etype: str, entity: Entity, links: Json) -> list[Op]:
        kind = "add-triple" if action == "link" else "retract-triple"
        made = []
        if isinstance(entity, Lookup):
            made.append(Op("add-triple", etype, entity, self.catalog.find(etype, "id")))
        for label, value in links.items():
            if label == "id":
                continue
            many = isinstance(value, list) and not (
                len(value) == 2 and isinstance(value[0], str) and not is_uuid(value[0])
            )
            forward = self.catalog.find(etype, label)
            attr = forward or self.catalog.find_reverse(etype, label)
            assert attr is not None
            for other in value if many else [value]:
                if forward is not None:
                    target = self._entity(str(attr.rev_etype), other)
                    made.append(Op(kind, etype, entity, attr, target))
                else:
                    source = self._entity(attr.etype, other)
                    made.append(Op(kind, attr.etype, source, attr, entity))
        return made
