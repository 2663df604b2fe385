"""The ``where`` clause: conditions compiled to predicates over rows."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any

from servers.instantdb.attrs import Attr
from servers.instantdb.errors import ApiError, validation_failed
from servers.instantdb.tables import Row
from servers.instantdb.transact import Store
from servers.instantdb.values import comparable, date_value, fits, is_uuid, same, type_name

Json = Any
Predicate = Callable[[Row], bool]

_COMPARATORS = frozenset({"$gt", "$gte", "$lt", "$lte", "$like", "$ilike"})
_OPERATORS = _COMPARATORS | {"in", "$in", "$not", "$ne", "$isNull"}
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_ALIASES = {"in": "$in", "$ne": "$not"}


class UnknownNameError(Exception):
    """A namespace or attribute that does not exist: the whole query part finds nothing."""


def _never(row: Row) -> bool:
    return False


class WhereClause:
    """Compiles one clause for one namespace; invalid ones raise, unknown names too."""

    def __init__(self, store: Store, root: Json, path: list[str]) -> None:
        self._store = store
        self._root = root
        self._path = path

    def compile(self, etype: str, clause: Json) -> Predicate:
        if not isinstance(clause, dict):
            raise self._error("map?", [])
        parts: list[Predicate] = []
        unknown: UnknownNameError | None = None
        for key, condition in clause.items():
            try:
                parts.append(self._condition(etype, key, condition))
            except UnknownNameError as error:
                unknown = error
        if unknown is not None:
            raise unknown
        return _all_of(parts)

    def _condition(self, etype: str, key: str, condition: Json) -> Predicate:
        if key in ("and", "or") and isinstance(condition, list):
            if not condition:
                text = f"The list of `{key}` conditions can't be empty."
                raise self._error("non-empty-list?", [key], text)
            parts = [self.compile(etype, part) for part in condition]
            if key == "and":
                return _all_of(parts)
            return lambda row: any(part(row) for part in parts)
        return self._leaf(etype, key.split("."), condition)

    def _leaf(self, etype: str, path: list[str], condition: Json) -> Predicate:
        op, operand = self._operator(path, condition)
        label, rest = path[0], path[1:]
        attr = self._store.catalog.find(etype, label)
        reverse = None if attr else self._store.catalog.find_reverse(etype, label)
        link = attr or reverse
        if link is None:
            raise UnknownNameError(f"{etype}.{label}")
        if not rest:
            if link.is_ref:
                return self._link_leaf(link, reverse is not None, op, operand)
            return self._value_leaf(link, op, operand)
        if not link.is_ref:
            text = f"{etype}.{label} needs to be a link"
            raise validation_failed("attr", link.to_json(), [{"message": text}])
        return self._walk(link, reverse is not None, rest, condition, op, operand)

    def _walk(
        self,
        link: Attr,
        reverse: bool,
        rest: list[str],
        condition: Json,
        op: str,
        operand: Json,
    ) -> Predicate:
        target = link.etype if reverse else str(link.rev_etype)
        inner = self._leaf(target, rest, condition)
        absent_counts = op == "$not" or (op == "$isNull" and operand)
        tables = self._store.tables

        def found(row: Row) -> bool:
            others = [tables.row(target, eid) for eid in self._linked(link, row, reverse)]
            rows = [other for other in others if other is not None]
            return any(map(inner, rows)) if rows else absent_counts

        return found

    def _linked(self, link: Attr, row: Row, reverse: bool) -> list[str]:
        return list(self._store.tables.linked(link, row.id, reverse=reverse))

    def _operator(self, path: list[str], condition: Json) -> tuple[str, Json]:
        """The operator that counts: of several in one object, only the first is looked at."""
        place = [".".join(path)]
        if isinstance(condition, dict):
            if not condition or not _OPERATORS.issuperset(condition):
                raise self._error("where-value-valid-keys?", place)
            for key, value in condition.items():
                self._check_operand(key, value, place)
            if condition.get("$isNull") is True:
                return "$isNull", True
            op = next(iter(condition))
            return _ALIASES.get(op, op), condition[op]
        if not isinstance(condition, str | int | float):
            raise self._error("where-value-valid?", place)
        return "$in", [condition]

    def _check_operand(self, op: str, value: Json, place: list[str]) -> None:
        if op in ("$in", "in"):
            good = isinstance(value, list) and all(
                item is None or isinstance(item, str | int | float) for item in value
            )
        elif op == "$isNull":
            good = isinstance(value, bool)
        else:
            good = isinstance(value, str | int | float)
        if not good:
            raise self._error("where-value-valid?", [*place, op])

    def _value_leaf(self, attr: Attr, op: str, operand: Json) -> Predicate:
        read = _reader(attr)
        if op == "$isNull":
            return lambda row: (read(row) is None) is operand
        if op in _COMPARATORS:
            return self._comparison(attr, op, operand)
        wanted = operand if op == "$in" else [operand]
        for value in wanted:
            if value is None and not attr.index:
                raise self._error("where-value-valid?", [attr.label, "$in"])
            if attr.data_type is not None and not attr.checking and not fits(attr.data_type, value):
                raise self._wrong_type(attr, value)
        keys = {self._key(attr, value) for value in wanted}
        if op == "$not":
            return lambda row: self._key(attr, read(row)) not in keys
        if not keys:
            return _never
        if attr.data_type == "string" and not attr.checking and attr.label != "id":
            texts, attr_id = frozenset(wanted), attr.id
            if None not in texts:
                return lambda row: row.values.get(attr_id) in texts
        return lambda row: (
            self._key(attr, read(row)) in keys and (read(row) is not None or ("null",) in keys)
        )

    def _key(self, attr: Attr, value: Json) -> tuple[Any, ...]:
        if attr.data_type == "date" and attr.index and value is not None:
            return ("date", date_value(value))
        return same(value)

    def _comparison(self, attr: Attr, op: str, operand: Json) -> Predicate:
        self._check_comparable(attr)
        read = _reader(attr)
        if op in ("$like", "$ilike"):
            if not isinstance(operand, str) or attr.data_type != "string":
                raise self._wrong_type(attr, operand, op)
            pattern = _like(operand, ignore_case=op == "$ilike")
            return lambda row: isinstance(read(row), str) and bool(pattern.fullmatch(read(row)))
        if not fits(str(attr.data_type), operand):
            raise self._wrong_type(attr, operand, op)
        bound = comparable(attr.data_type, operand)
        compare = _COMPARE[op]
        # Among strings a null counts as smaller than every text.
        for_null = op in ("$lt", "$lte") and attr.data_type == "string"
        if attr.data_type == "date":

            def matches_date(row: Row) -> bool:
                value = date_value(read(row))
                return value is not None and bool(compare(value, bound))

            return matches_date
        attr_id = attr.id

        def matches(row: Row) -> bool:
            value = row.values.get(attr_id)
            return for_null if value is None else bool(compare(value, bound))

        return matches

    def _check_comparable(self, attr: Attr) -> None:
        name, what = attr.name, "using comparison operators"
        if attr.checking:
            text = (
                f"The `{name}` attribute is still in the process of checking its data type."
                f" It must finish before {what}."
            )
            raise self._error("checked-data-type?", [attr.label], text)
        if attr.indexing:
            text = (
                f"The `{name}` attribute is still in the process of indexing."
                f" It must finish before {what}."
            )
            raise self._error("indexed?", [attr.label], text)
        if not attr.index:
            text = f"The `{name}` attribute must be indexed to use comparison operators."
            raise self._error("indexed?", [attr.label], text)
        if attr.data_type is None:
            text = f"The `{name}` attribute must have an enforced type to use comparison operators."
            raise self._error("checked-data-type?", [attr.label], text)

    def _link_leaf(self, link: Attr, reverse: bool, op: str, operand: Json) -> Predicate:
        if op == "$isNull":
            return lambda row: (not self._linked(link, row, reverse)) is operand
        if op in _COMPARATORS:
            self._check_comparable(link)
        wanted = operand if op == "$in" else [operand]
        for value in wanted:
            if not is_uuid(value):
                text = f"Expected {link.label} to be a uuid, got {json.dumps(value)}"
                raise self._error("uuid?", [link.label], text)
        ids = {str(value).lower() for value in wanted}
        if op == "$not":
            return lambda row: ids.isdisjoint(self._linked(link, row, reverse))
        return lambda row: not ids.isdisjoint(self._linked(link, row, reverse))

    def _wrong_type(self, attr: Attr, value: Json, op: str | None = None) -> ApiError:
        text = (
            f"The data type of `{attr.name}` is `{attr.data_type}`, but the query got the value"
            f" `{json.dumps(value)}` of type `{type_name(value)}`."
        )
        place = [attr.label] if op is None else [attr.label, op]
        return self._error(f"{attr.data_type}?", place, text)

    def _error(self, expected: str, place: list[str], text: str | None = None) -> ApiError:
        error: dict[str, Json] = {"expected": expected, "in": [*self._path, "where", *place]}
        if text is not None:
            error["message"] = text
        return validation_failed("query", self._root, [error])


def _all_of(parts: list[Predicate]) -> Predicate:
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        first, second = parts
        return lambda row: first(row) and second(row)
    return lambda row: all(part(row) for part in parts)


def _reader(attr: Attr) -> Callable[[Row], Json]:
    if attr.label == "id":
        return lambda row: row.id
    return lambda row: row.values.get(attr.id)


def _like(pattern: str, *, ignore_case: bool) -> re.Pattern[str]:
    parts = []
    escaped = False
    for char in pattern:
        if escaped or char not in "%_\\":
            parts.append(re.escape(char))
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            parts.append(".*" if char == "%" else ".")
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile("".join(parts), flags)
