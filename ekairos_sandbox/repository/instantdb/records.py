"""Records and fences as rows: what is written, and what is read back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.models import STATE_KEY, RecordChanges, RecordQuery, SandboxRecord, unreadable
from ekairos_sandbox.repository.instantdb.schema import FENCES, INDEXED, SANDBOXES

MAX_INDEXED_BYTES = 1024
_OVERHEAD_BYTES = 12
_REV_DIGITS = 10
_LAST_REV = 10**_REV_DIGITS - 1
_CURSOR = re.compile(r"(-?[0-9]{1,18}(?:\.[0-9]{1,18})?):([0-9a-f-]{36}):([0-9]{1,9})")

Row = dict[str, Any]


def fence_key(sandbox_id: str, rev: int) -> str:
    """Return the unique key that only one transition to a revision can have.

    The number has a fixed width, so that the order of the texts is that of the numbers.
    """
    return f"{sandbox_id}:rev:{rev:0{_REV_DIGITS}d}"


def rev_of(key: Any) -> int | None:
    """Return the revision in a fence's key, or None if it is no such key."""
    digits = str(key).rpartition(":rev:")[2]
    return int(digits) if len(digits) == _REV_DIGITS and digits.isdigit() else None


def fences_query(sandbox_id: str, *, since: int = 0, **options: Any) -> dict[str, Any]:
    """Return the query part for the fences of one record, from a revision on."""
    # One operator per condition: the server applies only the first of an object's operators.
    lowest = {"key": {"$gte": fence_key(sandbox_id, since)}}
    highest = {"key": {"$lte": fence_key(sandbox_id, _LAST_REV)}}
    return {FENCES: {"$": {"where": {"and": [lowest, highest]}, **options}}}


def record_query(sandbox_id: str) -> dict[str, Any]:
    """Return the query part for one record."""
    return {SANDBOXES: {"$": {"where": {"id": sandbox_id}}}}


def list_query(query: RecordQuery, cursor: tuple[float, str, int] | None, size: int) -> Any:
    """Return the query for a page of records, newest first."""
    where: list[dict[str, Any]] = []
    if query.status is not None:
        where.append({"status": {"$in": list(query.status)}})
    for name, condition in (
        ("provider", query.provider),
        ("purpose", query.purpose),
        ("createdAt", None if query.created_after is None else {"$gte": query.created_after}),
        ("createdAt", None if query.created_before is None else {"$lt": query.created_before}),
        ("createdAt", None if cursor is None else {"$lte": cursor[0]}),
    ):
        if condition is not None:
            where.append({name: condition})
    options: dict[str, Any] = {"order": {"createdAt": "desc"}, "limit": size}
    if where:
        options["where"] = {"and": where}
    return {SANDBOXES: {"$": options}}


def cursor_after(rows: list[Row], last: Row) -> str:
    """Return the cursor of a page that ends with ``last``.

    Besides the place it says how many of the rows there have the same time: as many may come
    again at the top of the next page.
    """
    time = last["createdAt"]
    ties = sum(1 for row in rows if row.get("createdAt") == time and row["id"] >= last["id"])
    return f"{time}:{last['id']}:{ties}"


def parse_cursor(text: str | None) -> tuple[float, str, int] | None:
    """Read a cursor back.

    Raises:
        ConfigurationError: It is none.
    """
    if text is None:
        return None
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise ConfigurationError("this is no cursor of a page of records")
    return json.loads(match[1]), match[2], int(match[3])


def parse_record(row: Row, fenced_rev: int = 0) -> SandboxRecord:
    """Return a row as a record.

    Args:
        row: As the server returned it.
        fenced_rev: The revision that its fences prove. Where the row shows an older one, or none,
            another program has overwritten ``params``; the record gets the proven one.

    Raises:
        SchemaError: It cannot be read; names the id and the fields.
    """
    try:
        record = SandboxRecord.model_validate(row)
        rev = record.rev
    except ValidationError as error:
        raise unreadable(str(row.get("id")), error) from error
    return record if rev >= fenced_rev else _with_rev(record, fenced_rev)


def new_row(record: SandboxRecord) -> Row:
    """Return the attributes of a new record, as they are sent."""
    row = {name: value for name, value in record.wire().items() if name != "id"}
    _check_sizes(row)
    return row


def changed_row(record: SandboxRecord, changes: RecordChanges) -> Row:
    """Return the attributes that a transition writes; the others stay as they are."""
    names = {"params", *changes}
    dumped = record.model_dump(mode="json", include=names, by_alias=True)
    _check_sizes(dumped)
    return dumped


def _with_rev(record: SandboxRecord, rev: int) -> SandboxRecord:
    params = dict(record.params or {})
    own = params.get(STATE_KEY)
    params[STATE_KEY] = {**(own if isinstance(own, Mapping) else {"v": 1}), "rev": rev}
    return record.model_copy(update={"params": params})


def _check_sizes(row: Row) -> None:
    for name in sorted(INDEXED & row.keys()):
        value = row[name]
        size = len(value.encode("utf-8", "surrogatepass")) if isinstance(value, str) else 0
        if size + _OVERHEAD_BYTES > MAX_INDEXED_BYTES:
            raise ConfigurationError(
                f"{name} is too long to be stored: {size} bytes, at most "
                f"{MAX_INDEXED_BYTES - _OVERHEAD_BYTES} are possible"
            )
