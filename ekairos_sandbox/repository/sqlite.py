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
import stat
import threading
import uuid
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    RepositoryUnavailableError,
    SchemaError,
)
from ekairos_sandbox.forks import pause_for_fork
from ekairos_sandbox.models import RecordChanges, RecordQuery, SandboxRecord
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.results import RecordPage

APPLICATION_ID = 0x454B5342
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0

_CURSOR = re.compile(r"(?P<time>-?[0-9]{1,18}):(?P<id>\S+)")

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    rev INTEGER NOT NULL,
    provider TEXT NOT NULL,
    status TEXT NOT NULL,
    purpose TEXT,
    created_at INTEGER NOT NULL,
    data TEXT NOT NULL
) STRICT;
CREATE INDEX sandboxes_by_time ON sandboxes (created_at DESC, id DESC);
"""


def default_path() -> Path:
    """Return the file used when none is named: in the user's data folder."""
    return Path(platformdirs.user_data_dir("ekairos-sandbox", appauthor=False)) / "sandboxes.db"


class SqliteSandboxRepository(SandboxRepository):
    """Keeps records in a SQLite file.

    Creating the object does no I/O; the file and its folder are made at first use, readable by
    their owner alone. Writes wait up to 30 seconds for another writer.

    Args:
        path: The file; None means ``default_path()``.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        # Absolute, so that a later change of directory does not lead to another file.
        self.path = (Path(path) if path is not None else default_path()).absolute()
        self._pool = _Pool(self.path)
        self._closer = weakref.finalize(self, self._pool.close)
        self._owner: str | None = None

    @property
    def owner(self) -> str:
        """Tag of this file, made from a random UUID that it keeps."""
        if self._owner is None:
            with self._reading() as db:
                self._owner = _tag(_meta(db, "uuid"))
        return self._owner

    def create(self, record: SandboxRecord) -> SandboxRecord:
        """See ``SandboxRepository.create``."""
        record = record.canonical()
        with self._writing() as db:
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
        return record

    def get(self, sandbox_id: str) -> SandboxRecord:
        """See ``SandboxRepository.get``."""
        with self._reading() as db:
            return _get(db, sandbox_id.lower())

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        """See ``SandboxRepository.transition``."""
        sandbox_id = sandbox_id.lower()
        with self._writing() as db:
            record = _get(db, sandbox_id)
            if record.rev != expected_rev:
                raise RecordConflictError(
                    f"the record {sandbox_id} was changed by somebody else", sandbox_id=sandbox_id
                )
            changed = record.with_changes(changes, expected_rev + 1)
            db.execute(
                "UPDATE sandboxes SET rev = ?, provider = ?, status = ?, purpose = ?,"
                " created_at = ?, data = ? WHERE id = ? AND rev = ?",
                (changed.rev, *_columns(changed), sandbox_id, expected_rev),
            )
        return changed

    def list(self, query: RecordQuery) -> RecordPage:
        """See ``SandboxRepository.list``."""
        where, values = _where(query)
        sql = "SELECT id, created_at, data FROM sandboxes"
        if where:
            sql += " WHERE " + " AND ".join(where)
        sql += " ORDER BY created_at DESC, id DESC LIMIT ?"
        with self._reading() as db:
            rows = db.execute(sql, (*values, query.limit + 1)).fetchall()
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
        with self._writing() as db:
            db.execute("DELETE FROM sandboxes WHERE id = ?", (sandbox_id.lower(),))

    def check(self, *, acting: bool = True) -> None:
        """Verify that the file is intact and, if ``acting``, stands where it was made.

        Raises:
            SchemaError: It was copied or moved, or is damaged.
        """
        with self._reading() as db:
            known, result = _meta(db, "place"), db.execute("PRAGMA quick_check(1)").fetchone()
        if result != ("ok",):
            raise SchemaError(f"the record file {self.path} is damaged")
        if acting and known != _place(self.path):
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
        with self._writing() as db:
            _set_meta(db, "place", _place(self.path))
            if copied:
                _set_meta(db, "uuid", str(uuid.uuid4()))
        self._owner = None

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._pool.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with _mapped(self.path), self._pool.connection() as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with _mapped(self.path), self._pool.connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                _commit(db)
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise


class _Pool:
    """Open connections of this process, handed out one to a user at a time.

    No connection is open across a fork: SQLite in the child would take the parent's locks for its
    own and hold none, so that its writes could be lost.
    """

    SIZE = 8

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._idle: list[sqlite3.Connection] = []
        self._used = 0
        self._paused = False
        pause_for_fork(self)

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        with self._changed:
            self._changed.wait_for(lambda: not self._paused)
            db = self._idle.pop() if self._idle else None
            self._used += 1
        keep = False
        try:
            if db is None:
                db = _open(self._path)
            yield db
            keep = True
        except sqlite3.Error:
            raise
        except Exception:
            keep = True
            raise
        finally:
            with self._changed:
                if db is not None and keep and len(self._idle) < self.SIZE:
                    self._idle.append(db)
                elif db is not None:
                    db.close()
                self._used -= 1
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            idle, self._idle = self._idle, []
        for db in idle:
            db.close()

    def before_fork(self) -> None:
        """Hand out no more connections, wait until none is in use, and close all."""
        with self._changed:
            self._paused = True
            self._changed.wait_for(lambda: self._used == 0, timeout=BUSY_TIMEOUT_S)
        self.close()

    def after_fork_in_parent(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def after_fork(self) -> None:
        self._changed, self._used, self._paused = threading.Condition(), 0, False


def _open(path: Path) -> sqlite3.Connection:
    _prepare_folder(path.parent)
    with suppress(FileExistsError):
        # SQLite would make it with the umask's permissions. A file that exists must not be opened
        # here: closing it would drop the locks that SQLite holds on it in other threads.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    _refuse_world_writable(path)
    db = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
    )
    try:
        db.execute("PRAGMA synchronous = FULL")
        _migrate(db, path)
        with suppress(sqlite3.OperationalError):
            # SQLite does not wait for others here. Whoever opens the file next tries again, and
            # until then it works, only slower.
            db.execute("PRAGMA journal_mode = WAL")
    except BaseException:
        db.close()
        raise
    return db


def _prepare_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_world_writable(folder)


def _refuse_world_writable(path: Path) -> None:
    if os.name == "posix" and path.stat().st_mode & stat.S_IWOTH:
        what = "folder of the record file" if path.is_dir() else "record file"
        raise ConfigurationError(
            f"the {what} {path} can be written by everybody",
            hint=f"chmod o-w {path}, or choose another with EKAIROS_SANDBOX_STORE",
        )


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this library's schema; forward only."""
    if _version(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db, path) == 0:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            _set_meta(db, "uuid", str(uuid.uuid4()))
            _set_meta(db, "place", _place(path))
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Return the version of the file's schema, 0 if it is empty. Changes nothing."""
    # One statement, so that a file which is being made is seen either empty or complete.
    application, version, tables = db.execute(
        "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)"
        " FROM pragma_application_id, pragma_user_version"
    ).fetchone()
    if application != APPLICATION_ID and (application or version or tables):
        raise SchemaError(f"{path} is a SQLite file of another program")
    if version > SCHEMA_VERSION:
        raise SchemaError(
            f"the record file {path} was written by a newer release",
            hint="upgrade ekairos-sandbox",
        )
    return int(version)


def _commit(db: sqlite3.Connection) -> None:
    try:
        db.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            raise  # Nothing was written.
        raise RepositoryUnavailableError(
            f"the record file could not be written: {error}",
            outcome="unknown",
            hint="check its folder's permissions and free space",
        ) from error


def _meta(db: sqlite3.Connection, key: str) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise SchemaError(f"the record file lacks its entry {key!r}")
    return str(row[0])


def _set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _place(path: Path) -> str:
    info = path.stat()
    # Not the device: its number changes with reboots on some file systems.
    return f"{path.resolve()} {info.st_ino}"


def _tag(text: str) -> str:
    return hashlib.sha256(f"ekairos-sandbox {text}".encode()).hexdigest()[:16]


def _columns(record: SandboxRecord) -> tuple[Any, ...]:
    data = json.dumps(record.wire(), ensure_ascii=False, allow_nan=False)
    return record.provider, record.status, record.purpose, record.created_at, data


def _get(db: sqlite3.Connection, sandbox_id: str) -> SandboxRecord:
    row = db.execute("SELECT data FROM sandboxes WHERE id = ?", (sandbox_id,)).fetchone()
    if row is None:
        raise RecordNotFoundError(
            f"no sandbox has the id {sandbox_id}",
            sandbox_id=sandbox_id,
            hint="check the id, and that the store is the one it was created in",
        )
    return _parse(sandbox_id, row[0])


def _parse(sandbox_id: str, data: str) -> SandboxRecord:
    try:
        record = SandboxRecord.model_validate_json(data)
        _ = record.state
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "the record" for e in error.errors())
        raise SchemaError(
            f"the record {sandbox_id} cannot be read: {fields}", sandbox_id=sandbox_id
        ) from error
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


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    """The one place where errors of sqlite3 and of the file system become ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RepositoryUnavailableError(
            f"the record file {path} cannot be used: {error}",
            hint="check its folder's permissions and free space",
        ) from error
    except sqlite3.DatabaseError as error:
        raise SchemaError(
            f"the record file {path} cannot be read: {error}",
            hint="restore it from a backup, or name another with EKAIROS_SANDBOX_STORE",
        ) from error
    except OSError as error:
        raise RepositoryUnavailableError(
            f"the record file {path} cannot be used: {error.strerror}",
            hint="check its folder's permissions and free space",
        ) from error
