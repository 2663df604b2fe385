"""The attribute catalog of one app: what exists, what is indexed, unique, required, typed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

Json = Any

CHECKED_TYPES = frozenset({"string", "number", "boolean", "date"})
_SYSTEM = uuid.UUID("5f2f7e0c-6ad1-4c58-9d0e-7d8a3c0a9b11")


def new_id() -> str:
    return str(uuid.uuid4())


@dataclass(slots=True)
class Attr:
    """One attribute; ``rev_etype`` and ``rev_label`` are set for links only."""

    etype: str
    label: str
    id: str = field(default_factory=new_id)
    fwd_id: str = field(default_factory=new_id)
    value_type: str = "blob"
    cardinality: str = "one"
    unique: bool = False
    index: bool = False
    required: bool = False
    data_type: str | None = None
    catalog: str = "user"
    rev_id: str | None = None
    rev_etype: str | None = None
    rev_label: str | None = None
    on_delete: str | None = None
    on_delete_reverse: str | None = None
    indexing: bool = False
    checking: bool = False
    setting_unique: bool = False

    @property
    def name(self) -> str:
        return f"{self.etype}.{self.label}"

    @property
    def is_ref(self) -> bool:
        return self.value_type == "ref"

    @property
    def forward_identity(self) -> list[str]:
        return [self.fwd_id, self.etype, self.label]

    def to_json(self) -> dict[str, Json]:
        body: dict[str, Json] = {
            "id": self.id,
            "value-type": self.value_type,
            "cardinality": self.cardinality,
            "forward-identity": self.forward_identity,
            "unique?": self.unique,
            "index?": self.index,
            "required?": self.required,
            "checked-data-type": self.data_type,
            "inferred-types": None,
            "catalog": self.catalog,
        }
        if self.is_ref:
            body["reverse-identity"] = [self.rev_id, self.rev_etype, self.rev_label]
            body["on-delete"] = self.on_delete
            body["on-delete-reverse"] = self.on_delete_reverse
        for key, flag in (
            ("indexing?", self.indexing),
            ("checking-data-type?", self.checking),
            ("setting-unique?", self.setting_unique),
        ):
            if flag:
                body[key] = True
        return body


def attr_from_json(body: dict[str, Json]) -> Attr:
    """An attribute as it stands in ``add-attr`` and in the steps of a schema push."""
    fwd_id, etype, label = body["forward-identity"]
    attr = Attr(
        etype=str(etype),
        label=str(label),
        id=str(body.get("id") or new_id()),
        fwd_id=str(fwd_id or new_id()),
        value_type=str(body.get("value-type") or "blob"),
        cardinality=str(body.get("cardinality") or "one"),
        unique=bool(body.get("unique?")),
        index=bool(body.get("index?")),
        required=bool(body.get("required?")),
        data_type=body.get("checked-data-type"),
        on_delete=body.get("on-delete"),
        on_delete_reverse=body.get("on-delete-reverse"),
    )
    reverse = body.get("reverse-identity")
    if reverse:
        attr.rev_id, attr.rev_etype, attr.rev_label = reverse
    return attr


class Catalog:
    """All attributes of an app, by id and by name."""

    def __init__(self, attrs: Iterable[Attr] = ()) -> None:
        self._by_id: dict[str, Attr] = {}
        self._forward: dict[tuple[str, str], Attr] = {}
        self._reverse: dict[tuple[str, str], Attr] = {}
        for attr in attrs:
            self.add(attr)

    def __iter__(self) -> Iterator[Attr]:
        return iter(list(self._by_id.values()))

    def copy(self) -> Catalog:
        return Catalog(self)

    def add(self, attr: Attr) -> None:
        self._by_id[attr.id] = attr
        self._forward[attr.etype, attr.label] = attr
        if attr.rev_etype is not None and attr.rev_label is not None:
            self._reverse[attr.rev_etype, attr.rev_label] = attr

    def remove(self, attr: Attr) -> None:
        del self._by_id[attr.id]
        self._forward.pop((attr.etype, attr.label), None)
        if attr.rev_etype is not None and attr.rev_label is not None:
            self._reverse.pop((attr.rev_etype, attr.rev_label), None)

    def by_id(self, attr_id: str) -> Attr | None:
        return self._by_id.get(attr_id)

    def find(self, etype: str, label: str) -> Attr | None:
        return self._forward.get((etype, label))

    def find_reverse(self, etype: str, label: str) -> Attr | None:
        return self._reverse.get((etype, label))

    def knows(self, etype: str) -> bool:
        return (etype, "id") in self._forward

    def of(self, etype: str) -> list[Attr]:
        return [attr for attr in self._by_id.values() if attr.etype == etype]

    def to_schema_json(self) -> dict[str, Json]:
        """The ``schema`` document of the schema endpoints."""
        blobs: dict[str, dict[str, Json]] = {}
        refs: dict[str, Json] = {}
        for attr in self:
            if attr.is_ref:
                parts = (attr.etype, attr.label, attr.rev_etype, attr.rev_label)
                key = "[" + " ".join(json.dumps(part) for part in parts) + "]"
                refs[key] = attr.to_json()
            else:
                blobs.setdefault(attr.etype, {})[attr.label] = attr.to_json()
        return {"blobs": blobs, "refs": refs}


def system_attrs() -> list[Attr]:
    """The namespaces every app has; their names begin with ``$``."""

    def attr(
        etype: str,
        label: str,
        data_type: str | None = "string",
        *,
        unique: bool = False,
        index: bool = False,
        required: bool = False,
    ) -> Attr:
        return Attr(
            etype,
            label,
            id=str(uuid.uuid5(_SYSTEM, f"{etype}.{label}")),
            fwd_id=str(uuid.uuid5(_SYSTEM, f"{etype}.{label}.name")),
            unique=unique,
            index=index,
            required=required,
            data_type=data_type,
            catalog="system",
        )

    return [
        attr("$users", "id", None, unique=True),
        attr("$users", "email", unique=True, index=True),
        attr("$users", "type"),
        attr("$files", "id", None, unique=True),
        attr("$files", "path", unique=True, index=True, required=True),
        attr("$files", "size", "number", index=True),
        attr("$files", "content-type", index=True),
        attr("$files", "content-disposition", index=True),
        attr("$files", "location-id", unique=True, index=True),
        attr("$files", "url", required=True),
        attr("$streams", "id", None, unique=True),
        attr("$streams", "clientId", unique=True, index=True),
    ]
