"""Rows, links and unique keys of one app, with an undo journal for rolled-back transactions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from servers.instantdb.attrs import Attr, Catalog
from servers.instantdb.errors import ApiError, not_unique
from servers.instantdb.values import fits, same, stored, too_large_for_index, type_name

Json = Any


@dataclass(slots=True)
class Row:
    """One entity of one namespace; values are kept by attribute id."""

    id: str
    created: int
    values: dict[str, Json] = field(default_factory=dict)


class Tables:
    """The data of an app, changed only inside ``atomic`` and under the lock of its store."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        self._unique: dict[str, dict[tuple[Any, ...], str]] = {}
        self._links: dict[str, dict[tuple[str, str], int]] = {}
        self._clock = itertools.count(1)
        self._undo: list[Callable[[], object]] = []
        self.version = 0

    @contextmanager
    def atomic(self) -> Iterator[None]:
        """Keep all changes made inside, or none when it is left with an error."""
        try:
            yield
        except BaseException:
            while self._undo:
                self._undo.pop()()
            raise
        finally:
            self._undo.clear()
            self.version += 1

    def row(self, etype: str, eid: str) -> Row | None:
        return self._rows.get(etype, {}).get(eid)

    def rows(self, etype: str) -> list[Row]:
        return list(self._rows.get(etype, {}).values())

    def has_rows(self, etype: str) -> bool:
        return bool(self._rows.get(etype))

    def holder(self, attr: Attr, value: Json) -> str | None:
        """The entity that has this value of a unique attribute."""
        if attr.label == "id":
            return value if self.row(attr.etype, str(value)) else None
        return self._unique.get(attr.id, {}).get(same(value))

    def ensure(self, etype: str, eid: str) -> bool:
        """Create the row if it is missing; True when it was."""
        table = self._rows.setdefault(etype, {})
        if eid in table:
            return False
        table[eid] = Row(eid, next(self._clock))
        self._undo.append(lambda: table.pop(eid, None))
        return True

    def write(self, attr: Attr, eid: str, value: Json) -> None:
        """Set one value after the checks the database makes: type, size, uniqueness."""
        row = self.row(attr.etype, eid)
        if row is None:
            return
        value = stored(value)
        _check_type(attr, eid, value)
        _check_size(attr, eid, value)
        old = row.values.get(attr.id)
        if attr.unique and not attr.setting_unique:
            self._move_key(attr, eid, old, value)
        self._put(row, attr.id, value)

    def backfill(self, catalog: Catalog, etype: str, eid: str) -> None:
        """Give a new row a null for every indexed attribute it does not have."""
        row = self.row(etype, eid)
        if row is None:
            return
        for attr in catalog.of(etype):
            if attr.index and not attr.is_ref and attr.label != "id" and attr.id not in row.values:
                self._put(row, attr.id, None)

    def backfill_attr(self, attr: Attr) -> None:
        """Give every row a null for an attribute that has become indexed."""
        for row in self.rows(attr.etype):
            if attr.id not in row.values:
                self._put(row, attr.id, None)

    def index_unique(self, attr: Attr) -> Json:
        """Enter all values of an attribute as unique keys; the first value found twice or None."""
        keys: dict[tuple[Any, ...], str] = {}
        for row in self.rows(attr.etype):
            value = row.values.get(attr.id)
            if value is None:
                continue
            if keys.setdefault(same(value), row.id) != row.id:
                return value
        self._unique[attr.id] = keys
        return None

    def drop_unique(self, attr: Attr) -> None:
        self._unique.pop(attr.id, None)

    def delete(self, catalog: Catalog, etype: str, eid: str) -> None:
        """Remove the part of an entity that lives in one namespace, and links to it."""
        table = self._rows.get(etype, {})
        row = table.get(eid)
        if row is None:
            return
        for attr in catalog:
            if attr.is_ref:
                for pair in list(self._links.get(attr.id, {})):
                    source, target = pair
                    if (attr.etype == etype and source == eid) or (
                        attr.rev_etype == etype and target == eid
                    ):
                        self.unlink(attr, source, target)
            elif attr.etype == etype and attr.unique and row.values.get(attr.id) is not None:
                self._move_key(attr, eid, row.values[attr.id], None)
        del table[eid]
        self._undo.append(lambda: table.__setitem__(eid, row))

    def link(self, attr: Attr, source: str, target: str) -> None:
        pairs = self._links.setdefault(attr.id, {})
        if attr.cardinality == "one":
            for pair in [pair for pair in pairs if pair[0] == source and pair[1] != target]:
                self.unlink(attr, *pair)
        if attr.unique:
            for pair in pairs:
                if pair[1] == target and pair[0] != source:
                    raise not_unique(attr.etype, attr.label, attr.id, target)
        if (source, target) not in pairs:
            pairs[source, target] = next(self._clock)
            self._undo.append(lambda: pairs.pop((source, target), None))

    def unlink(self, attr: Attr, source: str, target: str) -> None:
        pairs = self._links.get(attr.id, {})
        made = pairs.pop((source, target), None)
        if made is not None:
            self._undo.append(lambda: pairs.__setitem__((source, target), made))

    def linked(self, attr: Attr, eid: str, *, reverse: bool) -> Iterator[str]:
        """Entities on the other side of a link, oldest link first."""
        for source, target in self._links.get(attr.id, {}):
            if reverse and target == eid:
                yield source
            elif not reverse and source == eid:
                yield target

    def _put(self, row: Row, attr_id: str, value: Json) -> None:
        if attr_id in row.values:
            old = row.values[attr_id]
            self._undo.append(lambda: row.values.__setitem__(attr_id, old))
        else:
            self._undo.append(lambda: row.values.pop(attr_id, None))
        row.values[attr_id] = value

    def _move_key(self, attr: Attr, eid: str, old: Json, new: Json) -> None:
        keys = self._unique.setdefault(attr.id, {})
        if new is not None and keys.get(same(new), eid) != eid:
            raise not_unique(attr.etype, attr.label, attr.id, new)
        if old is not None and keys.get(same(old)) == eid:
            del keys[same(old)]
            self._undo.append(lambda: keys.__setitem__(same(old), eid))
        if new is not None:
            keys[same(new)] = eid
            self._undo.append(lambda: keys.pop(same(new), None))


def _bad_value(attr: Attr, eid: str, value: Json, message: str, **extra: Json) -> ApiError:
    hint = {
        "namespace": attr.etype,
        "attribute": attr.label,
        "value": value,
        "checked-data-type": attr.data_type,
        "attr-id": attr.id,
        "entity-id": eid,
        **extra,
    }
    return ApiError("validation-failed", message, hint)


def _check_type(attr: Attr, eid: str, value: Json) -> None:
    if attr.data_type is not None and not attr.checking and not fits(attr.data_type, value):
        message = (
            f"Invalid value type for {attr.name}. Value must be a {attr.data_type}"
            f" but the provided value type is {type_name(value)}."
        )
        raise _bad_value(attr, eid, value, message)


def _check_size(attr: Attr, eid: str, value: Json) -> None:
    if (attr.unique or attr.index) and value is not None and too_large_for_index(value):
        kind = "a unique" if attr.unique else "an indexed"
        message = f"Value is too large for {kind} attribute."
        raise _bad_value(attr, eid, value, message, **{"value-too-large?": True})
