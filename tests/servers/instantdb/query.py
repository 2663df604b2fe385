"""InstaQL: the query object, its options, and the object tree it answers with."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from servers.instantdb import rules
from servers.instantdb.attrs import Attr
from servers.instantdb.errors import ApiError, validation_failed
from servers.instantdb.tables import Row
from servers.instantdb.transact import Store
from servers.instantdb.values import comparable, is_uuid
from servers.instantdb.where import Predicate, UnknownNameError, WhereClause

Json = Any

_CURSORS = ("before", "after", "beforeInclusive", "afterInclusive")
_OPTIONS = frozenset(
    {"where", "order", "limit", "first", "last", "offset", "aggregate", "fields", *_CURSORS}
)


@dataclass(frozen=True, slots=True)
class Options:
    """The checked ``$`` of one level."""

    where: Json = None
    order: tuple[str, bool] | None = None
    limit: int | None = None
    last: int | None = None
    offset: int = 0
    fields: list[str] | None = None
    aggregate: bool = False
    cursors: tuple[tuple[str, list[Json]], ...] = ()


class Query:
    """One request: parsed and validated first, then answered under the store's lock."""

    def __init__(
        self,
        store: Store,
        root: Json,
        *,
        caller: rules.Caller,
        code: Json,
        inference: bool = False,
        file_url: Callable[[Row], str | None] = lambda row: None,
    ) -> None:
        self._store = store
        self._root = root
        self._caller = caller
        self._code = code
        self._inference = inference
        self._file_url = file_url

    def run(self) -> dict[str, Json]:
        answer: dict[str, Json] = {}
        with self._store.lock:
            for etype, form in self._root.items():
                if etype == "$$ruleParams":
                    continue
                answer[etype] = self._level(etype, form, [etype], None)
        return answer

    def _level(
        self, etype: str, form: Json, path: list[str], only: list[str] | None
    ) -> list[dict[str, Json]]:
        if not isinstance(form, dict):
            raise self._error("map?", path)
        options = self._options(form.get("$"), [*path, "$"], top=only is None)
        known = self._store.catalog.knows(etype)
        try:
            matches = self._where(etype, options, path)
        except UnknownNameError:
            return []
        order = self._order_attr(etype, options, path) if known else None
        if not known or not rules.allowed(self._code, etype, "view", self._caller):
            return []
        if options.aggregate:
            return []
        descending = options.order is not None and options.order[1]
        ordered = self._ordered(etype, options, only, order, descending)
        rows = _page(filter(matches, ordered), options)
        if order is not None and options.fields is not None and order.label not in options.fields:
            # The service sorts the page again by the attribute as present in the answer,
            # and there it is not present.
            rows.sort(key=lambda row: row.id, reverse=descending)
        return [self._object(etype, row, options, form, path) for row in rows]

    def _ordered(
        self,
        etype: str,
        options: Options,
        only: list[str] | None,
        order: Attr | None,
        descending: bool,
    ) -> list[Row]:
        """The rows that may match, in order; whole namespaces stay sorted until they change."""
        tables = self._store.tables
        wanted = options.where.get("id") if isinstance(options.where, dict) else None
        if only is None and isinstance(wanted, str):
            only = [wanted]
        if only is not None:
            found = (tables.row(etype, eid) for eid in only)
            rows = [row for row in found if row is not None]
            return sorted(rows, key=lambda row: _sort_key(order, row), reverse=descending)
        key = (etype, order.id if order is not None else None, descending)
        version, cached = self._store.sorted_rows.get(key, (-1, []))
        if version != tables.version:
            cached = sorted(
                tables.rows(etype), key=lambda row: _sort_key(order, row), reverse=descending
            )
            self._store.sorted_rows[key] = (tables.version, cached)
        return cached

    def _where(self, etype: str, options: Options, path: list[str]) -> Predicate:
        if options.where is None:
            return lambda row: True
        return WhereClause(self._store, self._root, [*path, "$"]).compile(etype, options.where)

    def _order_attr(self, etype: str, options: Options, path: list[str]) -> Attr | None:
        if options.order is None or options.order[0] == "serverCreatedAt":
            return None
        label = options.order[0]
        place = [*path, "$", "order"]
        attr = self._store.catalog.find(etype, label)
        if attr is None:
            text = f"There is no `{label}` attribute for {etype}."
            raise self._error("supported-order?", place, text)
        for wrong, expected, text in (
            (attr.indexing, "indexed?", "is still in the process of indexing"),
            (attr.checking, "checked?", "is still in the process of checking its data type"),
            (not attr.index, "indexed?", "must be indexed to order by it"),
            (attr.data_type is None, "checked?", "must have an enforced type to order by it"),
        ):
            if wrong:
                raise self._error(expected, place, f"The `{attr.name}` attribute {text}.")
        return attr

    def _object(
        self, etype: str, row: Row, options: Options, form: Json, path: list[str]
    ) -> dict[str, Json]:
        body: dict[str, Json] = {"id": row.id}
        for attr in self._store.catalog.of(etype):
            if attr.is_ref or (options.fields is not None and attr.label not in options.fields):
                continue
            if attr.name == "$files.url":
                body["url"] = self._file_url(row)
            elif attr.id in row.values:
                body[attr.label] = row.values[attr.id]
        for label, child in form.items():
            if label != "$":
                body[label] = self._children(etype, row, label, child, [*path, label])
        return body

    def _children(
        self, etype: str, row: Row, label: str, form: Json, path: list[str]
    ) -> list[dict[str, Json]] | dict[str, Json] | None:
        catalog, tables = self._store.catalog, self._store.tables
        forward = catalog.find(etype, label)
        link = forward or catalog.find_reverse(etype, label)
        if link is None or not link.is_ref:
            return []
        ids = list(tables.linked(link, row.id, reverse=forward is None))
        target = str(link.rev_etype) if forward is not None else link.etype
        found = self._level(target, form, path, ids)
        one = link.cardinality == "one" if forward is not None else link.unique
        if self._inference and one:
            return found[0] if found else None
        return found

    def _options(self, given: Json, path: list[str], *, top: bool) -> Options:
        if given is None:
            return Options()
        if not isinstance(given, dict):
            raise self._error("map?", path)
        if not _OPTIONS.issuperset(given):
            names = ", ".join(f"`{name}`" for name in sorted(_OPTIONS))
            raise self._error("supported-options?", path, f"We only support {names} clauses.")
        where = given.get("where")
        if where is not None and not isinstance(where, dict):
            raise self._error("map?", [*path, "where"])
        counts = {name: self._count(given, name, path) for name in ("limit", "first", "last")}
        set_counts = [f"`{name}`" for name, value in counts.items() if value is not None]
        cursors = tuple(
            (name, self._cursor(given[name], [*path, name]))
            for name in _CURSORS
            if given.get(name) is not None
        )
        offset = self._count(given, "offset", path, least=0)
        if not top and (counts["limit"] or offset or cursors):
            text = "We only support `limit`, `offset` and cursors on the top-level field."
            raise self._error("supported-options?", path, text)
        if len(set_counts) > 1:
            text = f"Only provide one of {' or '.join(set_counts)}."
            raise self._error("supported-options?", path, text)
        fields = given.get("fields")
        if fields is not None and not (
            isinstance(fields, list) and all(isinstance(name, str) for name in fields)
        ):
            raise self._error("coll-of-strings?", [*path, "fields"])
        return Options(
            where=where,
            order=self._order(given.get("order"), [*path, "order"]),
            limit=counts["limit"] or counts["first"],
            last=counts["last"],
            offset=offset or 0,
            fields=fields,
            aggregate=self._aggregate(given.get("aggregate"), [*path, "aggregate"]),
            cursors=cursors,
        )

    def _count(self, given: Json, name: str, path: list[str], least: int = 1) -> int | None:
        value = given.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            kind = "positive" if least else "non-negative"
            text = f"The {name} field must be a {kind} integer. Got {json.dumps(value)}."
            raise self._error("supported-options?", [*path, name], text)
        return value

    def _order(self, given: Json, path: list[str]) -> tuple[str, bool] | None:
        if given is None:
            return None
        if not isinstance(given, dict):
            raise self._error("map?", path)
        if len(given) > 1:
            names = ",".join(given)
            text = f"We only support a single key in the `order` clause. Got {names}."
            raise self._error("single-key?", path, text)
        for name, direction in given.items():
            if direction not in ("asc", "desc"):
                text = (
                    'We only support "asc" or "desc" in the `order` clause.'
                    f" Got {json.dumps(direction)}."
                )
                raise self._error("valid-direction?", [*path, name], text)
            return name, direction == "desc"
        return None

    def _cursor(self, given: Json, path: list[str]) -> list[Json]:
        if (
            not isinstance(given, list)
            or len(given) not in (3, 4)
            or not is_uuid(given[0])
            or not is_uuid(given[1])
        ):
            text = f"Expected a join row for the cursor, got {json.dumps(given)}."
            raise self._error("join-row?", path, text)
        return given

    def _aggregate(self, given: Json, path: list[str]) -> bool:
        if given is None:
            return False
        if given != "count":
            text = f'The aggregate field only accepts "count", got {json.dumps(given)}.'
            raise self._error("supported-options?", path, text)
        if not self._caller.admin:
            text = "You can only use aggregates as an admin."
            raise self._error("admin?", path, text)
        return True

    def _error(self, expected: str, path: list[str], text: str | None = None) -> ApiError:
        error: dict[str, Json] = {"expected": expected, "in": path}
        if text is not None:
            error["message"] = text
        return validation_failed("query", self._root, [error])


def _sort_key(order: Attr | None, row: Row) -> tuple[Any, ...]:
    """Nulls are smallest; equal values are ordered by id."""
    if order is None:
        return (1, row.created, row.id)
    value = comparable(order.data_type, row.values.get(order.id))
    return (0, row.id) if value is None else (1, value, row.id)


def _page(found: Iterator[Row], options: Options) -> list[Row]:
    if options.cursors:
        found = iter(_between_cursors(list(found), options))
    end = None if options.limit is None else options.offset + options.limit
    rows = list(itertools.islice(found, options.offset, end))
    return rows if options.last is None else rows[-options.last :]


def _between_cursors(rows: list[Row], options: Options) -> list[Row]:
    for name, cursor in options.cursors:
        ids = [row.id for row in rows]
        if cursor[0] not in ids:
            continue
        place = ids.index(cursor[0])
        inclusive = name.endswith("Inclusive")
        if name.startswith("after"):
            rows = rows[place if inclusive else place + 1 :]
        else:
            rows = rows[: place + 1 if inclusive else place]
    return rows
