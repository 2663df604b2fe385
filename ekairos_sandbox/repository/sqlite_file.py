"""The SQLite file under the records: opening and migrating it, and its connections."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias, TypeVar

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryUnavailableError,
    SchemaError,
)
from ekairos_sandbox.forks import pause_for_fork
from ekairos_sandbox.repository.file_identity import file_identity

T = TypeVar("T")

_Which: TypeAlias = tuple[int, int] | None

APPLICATION_ID = 0x454B5342
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 30.0

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


class Pool:
    """Open connections of this process, handed out one to a user at a time.

    No connection is open across a fork: SQLite in the child would take the parent's locks for its
    own and hold none, so that its writes could be lost. Nor is one used again when another file
    stands at the path: what it writes would be confirmed and seen by nobody.
    """

    SIZE = 8

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[sqlite3.Connection, _Which]] = []
        self.after_fork()
        pause_for_fork(self)

    def lend(self, act: Callable[[sqlite3.Connection], T]) -> T:
        """Call ``act`` with a connection and return what it returns.

        No context manager: one that Ctrl-C cuts off between the body and its own code lives as
        long as the traceback, its transaction open, and what cleans up then waits for itself.
        """
        db: sqlite3.Connection | None = None
        counted = keep = False
        which = _which(self._path)
        try:
            with self._lock:
                while self._paused:
                    self._changed.wait()
                while db is None and self._idle:
                    db, opened = self._idle.pop()
                    if opened != which:
                        db.close()
                        db = None
                self._used += 1
                counted = True
            if db is None:
                db = _open(self._path)
                # If it was exchanged in between, the next user finds out.
                which = which or _which(self._path)
            result = act(db)
            keep = True
        except sqlite3.Error:
            raise
        except Exception:
            keep = True
            raise
        else:
            return result
        finally:
            with self._lock:
                self._used -= counted
                if db is not None and keep and len(self._idle) < self.SIZE:
                    self._idle.append((db, which))
                elif db is not None:
                    db.close()
                self._changed.notify_all()

    def close(self) -> None:
        """Close those that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for db, _ in idle:
            db.close()

    def before_fork(self) -> None:
        """Hand out no more connections, wait until none is in use, and close all."""
        with self._lock:
            self._paused = True
            self._changed.wait_for(lambda: self._used == 0, timeout=BUSY_TIMEOUT_S)
        self.close()

    def after_fork_in_parent(self) -> None:
        """Hand them out again."""
        with self._lock:
            self._paused = False
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Begin anew in the child."""
        # Ctrl-C can come between a Condition and its lock, so the lock is taken by itself.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._used, self._paused = 0, False


def transact(db: sqlite3.Connection, act: Callable[[sqlite3.Connection], T]) -> T:
    """Call ``act`` in a transaction, which is undone if anything is raised.

    Raises:
        sqlite3.OperationalError: Provably nothing was written: the disk is full, or others write.
        RepositoryUnavailableError: It may have been written or not.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        result = act(db)
        _commit(db)
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    return result


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


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """The one place where errors of sqlite3 and of the file system become ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )
        raise RepositoryUnavailableError(
            f"the record file {path} cannot be used: {error}",
            hint="another program has been writing to it all the time; try again"
            if busy
            else "check its folder's permissions and free space",
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


def meta(db: sqlite3.Connection, key: str) -> str:
    """Return an entry of what the file says of itself."""
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    if row is None:
        raise SchemaError(f"the record file lacks its entry {key!r}")
    return str(row[0])


def set_meta(db: sqlite3.Connection, key: str, value: str) -> None:
    """Write such an entry."""
    db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def place(path: Path) -> str:
    """Return where a file stands, so that a copy of it is told from it."""
    # Not the device: its number changes with reboots on some file systems.
    return f"{path.resolve()} {file_identity(path)}"


def _which(path: Path) -> _Which:
    """Return which file stands at a path; None: none. While it is open no other is taken for it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _open(path: Path) -> sqlite3.Connection:
    _prepare_folder(path.parent)
    with suppress(FileExistsError):
        # SQLite would make it with the umask's permissions. A file that exists must not be opened
        # here: closing it would drop the locks that SQLite holds on it in other threads.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    refuse_world_writable(path)
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
    refuse_world_writable(folder)


def refuse_world_writable(path: Path) -> None:
    """Refuse a record file, or the folder of one, that everybody on this machine may write.

    Raises:
        ConfigurationError: It can be written by everybody.
    """
    if os.name != "posix" or not (mode := path.stat().st_mode) & stat.S_IWOTH:
        return
    what = "folder of the record file" if path.is_dir() else "record file"
    hint = "choose another with EKAIROS_SANDBOX_STORE"
    # What is sticky, such as /tmp, is meant to be everybody's.
    if not mode & stat.S_ISVTX:
        hint = f"chmod o-w {path}, or {hint}"
    raise ConfigurationError(f"the {what} {path} can be written by everybody", hint=hint)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the file to this library's schema; forward only."""
    if _version(db, path) == SCHEMA_VERSION:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        if _version(db, path) == 0:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            set_meta(db, "uuid", str(uuid.uuid4()))
            set_meta(db, "place", place(path))
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
