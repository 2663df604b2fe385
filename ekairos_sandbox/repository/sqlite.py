"""Records in one SQLite file, for use without any account.

The file is safe between threads, processes and forked children. It knows the place it was made
in: a copy would speak for sandboxes that are the original's, so ``check`` refuses it until
``rekey``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import platformdirs
from pydantic import ValidationError

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    SchemaError,
)
from ekairos_sandbox.models import RecordChanges, RecordQuery, SandboxRecord, unreadable
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.sqlite_file import Pool, mapped, meta, place, set_meta, transact
from ekairos_sandbox.results import RecordPage

T = TypeVar("T")

_CURSOR = re.compile(r"(?P<time>-?[0-9]{1,18}):(?P<id>\S+)")


def default_path() -> Path:
    """Return the file used when none is named: in the user's data folder."""
    return Path(platformdirs.user_data_dir("ekairos-sandbox", appauthor=False)) / "sandboxes.db"


class SqliteSandboxRepository(SandboxRepository):
    """Keeps records in a SQLite file.

    Creating the object does no I/O; the file and its folder are made when the first record is
    stored, readable by their owner alone: reading makes nothing, so that a mistyped path leaves no
    empty store behind. Writes wait up to 30 seconds for another writer.

    Args:
        path: The file; None means ``default_path()``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        # Absolute, so that a later change of directory does not lead to another file.
        self.path = (Path(path) if path is not None else default_path()).absolute()
        self._pool = Pool(self.path)
        self._closer = weakref.finalize(self, self._pool.close)

    @property
    def owner(self) -> str:
        """Tag of this file, made from a random UUID that it keeps; makes the file if need be."""
        # Read each time: another file may have been put into its place.
        return _tag(self._use(lambda db: meta(db, "uuid")))

    def create(self, record: SandboxRecord) -> SandboxRecord:
        """See ``SandboxRepository.create``."""
        record = record.canonical()

        def insert(db: sqlite3.Connection) -> None:
            try:
                db.execute(
                    "INSERT INTO sandboxes (id, rev, provider, status, purpose, created_at, data)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (record.id, record.rev, *_columns(record)),
                )
            except sqlite3.IntegrityError as error:
                raise IdConflictError(
                    f"there is a record with the id {record.id} already", sandbox_id=record.id
                ) from error

        self._write(insert)
        return record

    def get(self, sandbox_id: str) -> SandboxRecord:
        """See ``SandboxRepository.get``."""
        sandbox_id = sandbox_id.lower()
        return self._read(lambda db: _get(db, sandbox_id), lambda: _missing(sandbox_id))

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        """See ``SandboxRepository.transition``."""
        sandbox_id = sandbox_id.lower()

        def update(db: sqlite3.Connection) -> SandboxRecord:
            record = _get(db, sandbox_id)
            if record.rev != expected_rev:
                raise RecordConflictError(
                    f"the record {sandbox_id} was changed by somebody else", sandbox_id=sandbox_id
                )
            changed = record.with_changes(changes, expected_rev + 1)
            # The record's own revision is what counts; nobody else writes in this transaction.
            db.execute(
                "UPDATE sandboxes SET rev = ?, provider = ?, status = ?, purpose = ?,"
                " created_at = ?, data = ? WHERE id = ?",
                (changed.rev, *_columns(changed), sandbox_id),
            )
            return changed

        return self._write(update)

    def list(self, query: RecordQuery) -> RecordPage:
        """See ``SandboxRepository.list``."""
        where, values = _where(query)
        sql = "SELECT id, created_at, data FROM sandboxes"
        if where:
            sql += " WHERE " + " AND ".join(where)
        sql += " ORDER BY created_at DESC, id DESC LIMIT ?"
        values.append(query.limit + 1)
        rows = self._read(lambda db: db.execute(sql, values).fetchall(), list)
        records: list[SandboxRecord] = []
        broken: list[tuple[str, str]] = []
        for row_id, _, data in rows[: query.limit]:
            try:
                records.append(_parse(row_id, data))
            except SchemaError as error:
                broken.append((row_id, error.message))
        cursor = None
        if len(rows) > query.limit:
            last_id, last_time, _ = rows[query.limit - 1]
            cursor = f"{last_time}:{last_id}"
        return RecordPage(tuple(records), cursor, tuple(broken))

    def delete(self, sandbox_id: str) -> None:
        """See ``SandboxRepository.delete``."""
        self._write(
            lambda db: db.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox_id.lower(),))
        )

    def check(self, *, acting: bool = True) -> None:
        """Verify that the file is intact and, if ``acting``, stands where it was made.

        Raises:
            SchemaError: It was copied or moved, or is damaged.
        """
        known, result = self._read(
            lambda db: (meta(db, "place"), db.execute("PRAGMA quick_check(1)").fetchone()),
            lambda: ("", None),
        )
        if result is None:
            return
        if result != ("ok",):
            raise SchemaError(f"the record file {self.path} is damaged")
        if acting and known != place(self.path):
            raise SchemaError(
                f"the record file {self.path} was copied or moved since it was made",
                hint="run `ekairos-sandbox store rekey --moved` if this is now the only one, "
                "`--copied` if the other is still in use",
            )

    def rekey(self, *, copied: bool) -> None:
        """Accept the place where the file stands now.

        Args:
            copied: True if the original is still in use elsewhere: this file gets a new owner
                tag, and what its records point to is left to the original. False if the file
                was moved.
        """

        def bind(db: sqlite3.Connection) -> None:
            set_meta(db, "place", place(self.path))
            if copied:
                set_meta(db, "uuid", str(uuid.uuid4()))

        self._write(bind)

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._pool.close()

    def _read(self, act: Callable[[sqlite3.Connection], T], absent: Callable[[], T]) -> T:
        """Return what ``act`` returns, or, where there is no file, ``absent``."""
        with mapped(self.path):
            try:
                # Not through a link: where one leads nowhere, a volume may not be mounted.
                self.path.lstat()
            except FileNotFoundError:
                return absent()
            return self._pool.lend(act)

    def _write(self, act: Callable[[sqlite3.Connection], T]) -> T:
        return self._use(lambda db: transact(db, act))

    def _use(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Return what ``act`` returns; the file is made if there is none."""
        with mapped(self.path):
            return self._pool.lend(act)


def _tag(text: str) -> str:
    return hashlib.sha256(f"ekairos-sandbox {text}".encode()).hexdigest()[:16]


def _columns(record: SandboxRecord) -> tuple[Any, ...]:
    data = json.dumps(record.wire(), ensure_ascii=False, allow_nan=False)
    return record.provider, record.status, record.purpose, record.created_at, data


def _get(db: sqlite3.Connection, sandbox_id: str) -> SandboxRecord:
    row = db.execute("SELECT data FROM sandboxes WHERE id = ?", (sandbox_id,)).fetchone()
    return _missing(sandbox_id) if row is None else _parse(sandbox_id, row[0])


def _missing(sandbox_id: str) -> NoReturn:
    raise RecordNotFoundError(
        f"no sandbox has the id {sandbox_id}",
        sandbox_id=sandbox_id,
        hint="check the id, and that the store is the one it was created in",
    )


def _parse(sandbox_id: str, data: str) -> SandboxRecord:
    try:
        record = SandboxRecord.model_validate_json(data)
        _ = record.state
    except ValidationError as error:
        raise unreadable(sandbox_id, error) from error
    return record


def _where(query: RecordQuery) -> tuple[list[str], list[Any]]:
    where: list[str] = []
    values: list[Any] = []
    if query.status is not None:
        where.append(f"status IN ({', '.join('?' * len(query.status))})")
        values += query.status
    for column, operator, value in (
        ("provider", "=", query.provider),
        ("purpose", "=", query.purpose),
        ("created_at", ">=", query.created_after),
        ("created_at", "<", query.created_before),
    ):
        if value is not None:
            where.append(f"{column} {operator} ?")
            values.append(value)
    if query.cursor is not None:
        cursor = _CURSOR.fullmatch(query.cursor)
        if cursor is None:
            raise ConfigurationError("this is no cursor of a page of records")
        where.append("(created_at, id) < (?, ?)")
        values += [int(cursor["time"]), cursor["id"]]
    return where, values
