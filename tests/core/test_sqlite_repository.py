"""The SQLite store, with real files, threads and processes."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    RepositoryUnavailableError,
    SchemaError,
)
from ekairos_sandbox.models import RecordQuery, SandboxRecord
from ekairos_sandbox.repository import sqlite_file
from ekairos_sandbox.repository.file_identity import file_identity
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
UUID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"
NOBODY = 65534


def new(created_at: int = 1, **fields: Any) -> SandboxRecord:
    wire = {"id": str(uuid.uuid4()), "provider": "local", "status": "creating", **fields}
    return SandboxRecord.model_validate(
        {"params": {"ekairos": {"v": 1, "rev": 0}}, **wire, "createdAt": created_at}
    )


def ids(repository: SqliteSandboxRepository, **query: Any) -> list[str]:
    return [r.id for r in repository.iterate(RecordQuery.model_validate(query))]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sandboxes.db"


@pytest.fixture
def repository(path: Path) -> Iterator[SqliteSandboxRepository]:
    made = SqliteSandboxRepository(path)
    yield made
    made.close()


def fork(act: Callable[[], object], *, uid: int | None = None) -> int:
    """Run something in a forked child, whose exit code is 0 if it returned."""
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside other threads, which is what is shown to work here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if uid is not None:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def join(*pids: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def as_ordinary_user(act: Callable[[], object]) -> None:
    assert join(fork(act, uid=NOBODY if os.geteuid() == 0 else None)) == [0]


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A folder that an ordinary user can reach even if the tests run as root."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


# Records


def test_a_record_is_kept_with_everything_it_has(repository: SqliteSandboxRepository) -> None:
    made = new(
        7,
        unknownAttribute={"a": [None]},
        params={"x": None, "ekairos": {"v": 1, "rev": 0, "future": 1}},
    )
    assert repository.create(made) == made
    assert repository.get(made.id).wire() == made.wire()


def test_text_of_any_kind_is_kept(repository: SqliteSandboxRepository) -> None:
    made = new(purpose="häus 🦊 \0 '; DROP TABLE sandboxes; --")
    repository.create(made)
    assert repository.get(made.id).purpose == made.purpose


def test_uuids_in_params_are_kept_in_lower_case(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new(params={"a": UUID.upper(), "ekairos": {"v": 1, "rev": 0}}))
    assert made.user_params == {"a": UUID}
    assert repository.get(made.id).user_params == {"a": UUID}


def test_an_id_is_taken_once(repository: SqliteSandboxRepository) -> None:
    first = repository.create(new(id=UUID, purpose="first"))
    with pytest.raises(IdConflictError) as caught:
        repository.create(new(id=UUID, purpose="second"))
    assert caught.value.sandbox_id == UUID
    assert repository.get(UUID) == first


def test_an_unknown_id_is_a_lookup_error_that_says_what_to_check(
    repository: SqliteSandboxRepository,
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: repository.get(UUID),
        lambda: repository.transition(UUID, 0, {"status": "active"}),
    ]
    for call in calls:
        with pytest.raises(RecordNotFoundError) as caught:
            call()
        assert UUID in str(caught.value)
        assert "the store is the one it was created in" in str(caught.value)
        assert caught.value.sandbox_id == UUID


def test_a_transition_changes_what_it_names_and_counts(
    repository: SqliteSandboxRepository,
) -> None:
    made = repository.create(new(purpose="p", unknown=1))
    changed = repository.transition(made.id, 0, {"status": "active", "sandbox_url": "u"})
    assert (changed.rev, changed.status, changed.sandbox_url) == (1, "active", "u")
    assert repository.get(made.id).wire() == changed.wire()
    assert changed.wire() == {
        **made.wire(),
        "status": "active",
        "sandboxUrl": "u",
        "params": {"ekairos": {"v": 1, "rev": 1}},
    }


@pytest.mark.parametrize("expected", [0, 2])
def test_a_transition_from_another_revision_changes_nothing(
    repository: SqliteSandboxRepository, expected: int
) -> None:
    made = repository.create(new())
    now = repository.transition(made.id, 0, {"status": "active"})
    with pytest.raises(RecordConflictError) as caught:
        repository.transition(made.id, expected, {"status": "error"})
    assert caught.value.retryable is True
    assert repository.get(made.id) == now


def test_a_record_of_another_program_gets_revision_one(
    repository: SqliteSandboxRepository,
) -> None:
    made = repository.create(new(params={"daytona": {"ephemeral": True}}))
    changed = repository.transition(made.id, 0, {"status": "shutdown"})
    assert (changed.rev, changed.ours) == (1, False)
    assert changed.user_params == {"daytona": {"ephemeral": True}}


def test_a_deleted_record_is_gone_and_deleting_is_repeatable(
    repository: SqliteSandboxRepository,
) -> None:
    made = repository.create(new())
    repository.delete(made.id)
    repository.delete(made.id)
    with pytest.raises(RecordNotFoundError):
        repository.get(made.id)


def test_an_interrupted_write_is_undone(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new())

    def interrupted(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM sandboxes")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repository._write(interrupted)
    assert ids(repository) == [made.id]
    repository.transition(made.id, 0, {"status": "active"})


# Listing


def test_records_are_listed_newest_first_by_what_is_asked(
    repository: SqliteSandboxRepository,
) -> None:
    a = repository.create(new(10, status="active", purpose="p"))
    b = repository.create(new(20, status="error", provider="other"))
    c = repository.create(new(30, status="active", purpose="q"))
    assert ids(repository) == [c.id, b.id, a.id]
    assert ids(repository, status="active") == [c.id, a.id]
    assert ids(repository, status=["error", "active"]) == [c.id, b.id, a.id]
    assert ids(repository, status=[]) == []
    assert ids(repository, provider="other") == [b.id]
    assert ids(repository, purpose="p", status="active") == [a.id]
    assert ids(repository, created_after=20) == [c.id, b.id]
    assert ids(repository, created_before=20) == [a.id]
    assert ids(repository, created_after=20, created_before=30) == [b.id]
    repository.transition(b.id, 0, {"status": "shutdown"})
    assert ids(repository, status="shutdown") == [b.id]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
def test_pages_cover_every_record_once(repository: SqliteSandboxRepository, limit: int) -> None:
    made = [repository.create(new(created_at)) for created_at in (5, 5, 5, 6, 6, 7, -3)]
    expected = sorted(made, key=lambda r: (r.created_at, r.id), reverse=True)
    seen, cursor, pages = [], None, 0
    while True:
        page = repository.list(RecordQuery(limit=limit, cursor=cursor))
        assert len(page.records) <= limit
        seen += [record.id for record in page.records]
        cursor, pages = page.cursor, pages + 1
        if cursor is None:
            break
    assert seen == [record.id for record in expected]
    assert pages == -(-7 // limit)


def test_pages_are_stable_while_others_insert_and_delete(
    repository: SqliteSandboxRepository,
) -> None:
    made = [repository.create(new(created_at)).id for created_at in range(20)]
    made.reverse()
    seen: list[str] = []
    cursor = None
    for step in range(10):
        page = repository.list(RecordQuery(limit=2, cursor=cursor))
        seen += [record.id for record in page.records]
        cursor = page.cursor
        repository.create(new(100 + step))
        repository.delete(page.records[-1].id)
    assert cursor is None
    assert seen == made


@pytest.mark.parametrize(
    "cursor",
    ["", "x", ":", "5:", ":x", "--5:x", "-:x", "\u00b2:x", "\u0665:x", "9" * 30 + ":x", "5:x y"],
)
def test_what_is_no_cursor_is_refused(repository: SqliteSandboxRepository, cursor: str) -> None:
    with pytest.raises(ConfigurationError, match="no cursor"):
        repository.list(RecordQuery(cursor=cursor))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "the record"),
        ("[]", "the record"),
        ('{"id": "x", "provider": "p", "status": "s"}', "createdAt"),
        ('{"id": "x", "provider": "p", "status": "s", "createdAt": "hunter22"}', "createdAt"),
        (
            '{"id": "x", "provider": "p", "status": "s", "createdAt": 1,'
            ' "params": {"ekairos": {"rev": -1}}}',
            "rev",
        ),
    ],
)
def test_a_broken_record_is_reported_and_hides_no_other(
    repository: SqliteSandboxRepository, path: Path, data: str, reason: str
) -> None:
    made = [repository.create(new(created_at)).id for created_at in (3, 2, 1)]
    sql = "UPDATE sandboxes SET data = ? WHERE id = ?"
    repository._write(lambda db: db.execute(sql, (data, made[1])))
    page = repository.list(RecordQuery())
    assert [record.id for record in page.records] == [made[0], made[2]]
    assert page.broken == ((made[1], f"the record {made[1]} cannot be read: {reason}"),)
    assert ids(repository, limit=1) == [made[0], made[2]]
    with pytest.raises(SchemaError, match="cannot be read") as caught:
        repository.get(made[1])
    assert caught.value.sandbox_id == made[1]
    assert "hunter22" not in str(caught.value)
    with pytest.raises(SchemaError):
        repository.transition(made[1], 0, {"status": "active"})


# The file


def test_nothing_is_made_before_the_first_use(path: Path) -> None:
    SqliteSandboxRepository(path).close()
    assert not path.parent.exists()


def test_reading_makes_nothing(repository: SqliteSandboxRepository, path: Path) -> None:
    with pytest.raises(RecordNotFoundError, match="the store is the one it was created in"):
        repository.get(str(uuid.uuid4()))
    assert ids(repository) == []
    repository.check()
    assert not path.parent.exists()
    made = repository.create(new())
    assert ids(repository) == [made.id]


@posix
def test_file_and_folder_are_for_their_owner_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        repository = SqliteSandboxRepository(path)
        repository.create(new())
        found = {p.name: mode(p) for p in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert found == {
        "sandboxes.db": 0o600,
        "sandboxes.db-wal": 0o600,
        "sandboxes.db-shm": 0o600,
    }
    repository.close()


@posix
@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o702])
def test_a_folder_that_everybody_can_write_is_refused(path: Path, bits: int) -> None:
    path.parent.mkdir()
    path.parent.chmod(bits)
    with pytest.raises(ConfigurationError) as caught:
        SqliteSandboxRepository(path).create(new())
    assert str(path.parent) in caught.value.message
    # What is sticky, such as /tmp, is meant to be everybody's.
    assert (f"chmod o-w {path.parent}" in str(caught.value)) == (bits != 0o1777)
    assert list(path.parent.iterdir()) == []


@posix
def test_a_file_that_everybody_can_write_is_refused(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    made = repository.create(new())
    repository.close()
    path.chmod(0o606)
    with pytest.raises(ConfigurationError, match=f"the record file {path} can be written by"):
        repository.get(made.id)
    path.chmod(0o600)
    assert repository.get(made.id) == made


def test_a_relative_path_keeps_its_meaning_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repository = SqliteSandboxRepository("state/x.db")
    made = repository.create(new())
    repository.close()
    monkeypatch.chdir("/")
    assert repository.get(made.id) == made
    assert repository.path == tmp_path / "state" / "x.db"
    repository.close()


@pytest.mark.parametrize(
    "content",
    [b"hello, I am a text file\n" * 99, b"\0" * 4096, b"SQLite format 3\0" + b"x" * 9999],
    ids=["text", "zeros", "header"],
)
def test_a_file_that_is_no_database_is_refused_and_not_changed(path: Path, content: bytes) -> None:
    path.parent.mkdir(0o700)
    path.write_bytes(content)
    repository = SqliteSandboxRepository(path)
    for call in (lambda: repository.create(new()), lambda: repository.get(UUID), repository.check):
        with pytest.raises(SchemaError) as caught:
            call()
        assert str(path) in str(caught.value)
        assert "restore it from a backup" in str(caught.value)
    assert path.read_bytes() == content


def test_damaged_pages_are_found_by_check(repository: SqliteSandboxRepository, path: Path) -> None:
    for created_at in range(50):
        repository.create(new(created_at, purpose="x" * 200))
    repository.close()
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 3)
    with pytest.raises(SchemaError, match=str(path)):
        repository.check()
    repository.close()


def foreign(path: Path, *statements: str) -> bytes:
    path.parent.mkdir(0o700, exist_ok=True)
    db = sqlite3.connect(path)
    for statement in statements:
        db.execute(statement)
    db.commit()
    db.close()
    return path.read_bytes()


@pytest.mark.parametrize(
    "statements",
    [
        ("CREATE TABLE theirs (x)",),
        ("CREATE TABLE theirs (x)", "PRAGMA user_version = 1"),
        ("CREATE TABLE theirs (x)", "PRAGMA user_version = 7"),
        ("PRAGMA application_id = 1", "CREATE TABLE theirs (x)"),
        ("PRAGMA user_version = 3",),
    ],
)
def test_a_database_of_another_program_is_refused_and_not_changed(
    path: Path, statements: tuple[str, ...]
) -> None:
    before = foreign(path, *statements)
    with pytest.raises(SchemaError, match="is a SQLite file of another program"):
        SqliteSandboxRepository(path).create(new())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_of_a_newer_release_is_refused_and_not_changed(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    repository.create(new())
    repository.close()
    before = foreign(path, "PRAGMA user_version = 2")
    with pytest.raises(SchemaError, match=r"written by a newer release.*upgrade ekairos-sandbox"):
        repository.list(RecordQuery())
    assert path.read_bytes() == before


def test_a_folder_in_the_place_of_the_file_is_an_error(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(RepositoryUnavailableError, match="cannot be used"):
        SqliteSandboxRepository(path).create(new())


@posix
def test_a_link_that_leads_nowhere_is_an_error_and_no_empty_store(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("volume") / "sandboxes.db")
    repository = SqliteSandboxRepository(path)
    for act in (lambda: repository.get("x"), lambda: ids(repository), repository.check):
        with pytest.raises(RepositoryUnavailableError, match="cannot be used"):
            act()
    assert not path.with_name("volume").exists()


def test_a_file_in_the_place_of_the_folder_is_an_error(path: Path) -> None:
    path.parent.write_text("")
    with pytest.raises(RepositoryUnavailableError, match="cannot be used"):
        SqliteSandboxRepository(path).create(new())


@posix
def test_a_folder_without_permission_is_an_error(open_tmp: Path) -> None:
    (open_tmp / "locked").mkdir(0o755)

    def use() -> None:
        repository = SqliteSandboxRepository(open_tmp / "locked" / "x.db")
        with pytest.raises(RepositoryUnavailableError) as caught:
            repository.create(new())
        assert str(open_tmp / "locked" / "x.db") in str(caught.value)
        assert "check its folder's permissions and free space" in str(caught.value)
        assert caught.value.outcome == "failed"

    (open_tmp / "locked").chmod(0o555)
    as_ordinary_user(use)
    assert list((open_tmp / "locked").iterdir()) == []


@posix
def test_a_store_that_became_read_only_is_an_error_and_loses_nothing(open_tmp: Path) -> None:
    store = open_tmp / "store"
    store.mkdir()
    store.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(store, NOBODY, NOBODY)
    store.chmod(0o700)
    made = new()

    def use() -> None:
        repository = SqliteSandboxRepository(store / "x.db")
        repository.create(made)
        repository.close()
        (store / "x.db").chmod(0o400)
        store.chmod(0o500)
        with pytest.raises(RepositoryUnavailableError):
            repository.create(new())
        with pytest.raises(RepositoryUnavailableError):
            repository.transition(made.id, 0, {"status": "active"})
        store.chmod(0o700)
        (store / "x.db").chmod(0o600)
        assert ids(repository) == [made.id]

    as_ordinary_user(use)


def test_a_store_that_is_locked_too_long_is_unavailable(
    repository: SqliteSandboxRepository, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_S", 0.05)
    made = repository.create(new())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RepositoryUnavailableError, match="locked") as caught:
        repository.transition(made.id, 0, {"status": "active"})
    assert (caught.value.retryable, caught.value.outcome) == (True, "failed")
    assert caught.value.hint == "another program has been writing to it all the time; try again"
    assert repository.get(made.id) == made
    other.execute("COMMIT")
    other.close()
    assert repository.transition(made.id, 0, {"status": "active"}).rev == 1


FULL_DISK = """
import os, sys, uuid
from pathlib import Path
from ekairos_sandbox.exceptions import RepositoryUnavailableError
from ekairos_sandbox.models import RecordQuery, SandboxRecord
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

disk = Path(sys.argv[1])
filler = disk / "filler"
filler.write_bytes(bytes(600_000))
repository = SqliteSandboxRepository(disk / "state" / "x.db")

def new(size):
    return SandboxRecord(id=str(uuid.uuid4()), provider="p", status="active", created_at=1,
                         params={"x": "y" * size})

def kept():
    return {record.id: record.rev for record in repository.iterate(RecordQuery())}

expected = {}
try:
    for _ in range(1000):
        expected[repository.create(new(5000)).id] = 0
except RepositoryUnavailableError as error:
    assert "full" in str(error), error
    assert "free space" in str(error), error
    assert error.outcome == "failed"
else:
    raise AssertionError("the disk never became full")
assert len(expected) > 3, expected
assert kept() == expected
first = next(iter(expected))
try:
    while True:
        repository.transition(first, expected[first], {"params": {"x": "z" * 9000}})
        expected[first] += 1
except RepositoryUnavailableError as error:
    assert error.outcome == "failed"
assert kept() == expected
filler.unlink()
repository.transition(first, expected[first], {"status": "shutdown"})
expected[first] += 1
repository.check()
repository.close()
assert kept() == expected
repository.close()
"""


@posix
def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "-m"]
    mounted = [*unshare, "sh", "-c", 'mount -t tmpfs -o size=1m,mode=700 none "$0" && exec "$@"']
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        probe = subprocess.run([*mounted, str(disk), sys.executable, "-V"], capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    words = [*mounted, str(disk), sys.executable, "-c", FULL_DISK, str(disk)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Threads and processes


def increments(repository: SqliteSandboxRepository, sandbox_id: str, wins: int) -> list[int]:
    """Win this many transitions, each from what was just read; return the revisions written."""
    won: list[int] = []
    while len(won) < wins:
        seen = repository.get(sandbox_id)
        count = seen.user_params.get("count", 0)
        state = (seen.params or {})["ekairos"]
        try:
            changed = repository.transition(
                sandbox_id, seen.rev, {"params": {"count": count + 1, "ekairos": state}}
            )
        except RecordConflictError:
            continue
        won.append(changed.rev)
    return won


def test_threads_win_each_revision_once(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new())
    won: list[int] = []

    def work() -> None:
        won.extend(increments(repository, made.id, 8))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 65))
    last = repository.get(made.id)
    assert (last.rev, last.user_params) == (64, {"count": 64})


@posix
def test_processes_win_each_revision_once(repository: SqliteSandboxRepository, path: Path) -> None:
    made = repository.create(new())
    read_end, write_end = os.pipe()

    def work() -> None:
        for rev in increments(SqliteSandboxRepository(path), made.id, 10):
            os.write(write_end, b"%d\n" % rev)

    assert join(*(fork(work) for _ in range(4))) == [0, 0, 0, 0]
    os.close(write_end)
    with os.fdopen(read_end) as results:
        won = [int(line) for line in results]
    assert sorted(won) == list(range(1, 41))
    last = repository.get(made.id)
    assert (last.rev, last.user_params) == (40, {"count": 40})


def test_sixteen_threads_create_and_read(repository: SqliteSandboxRepository) -> None:
    made: list[str] = []

    def work() -> None:
        for _ in range(3):
            record = repository.create(new())
            assert repository.get(record.id) == record
            made.append(record.id)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(repository)) == sorted(made)
    assert len(made) == 48


@posix
def test_a_killed_writer_leaves_a_readable_store(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    made = repository.create(new())
    known = 0
    for _ in range(4):
        read_end, write_end = os.pipe()

        def work(write_end: int = write_end) -> None:
            own = SqliteSandboxRepository(path)
            while True:
                os.write(write_end, b"%d\n" % increments(own, made.id, 1)[0])

        pid = fork(work)
        os.close(write_end)
        with os.fdopen(read_end) as acknowledged:
            seen = [int(acknowledged.readline()) for _ in range(5)]
            os.kill(pid, signal.SIGKILL)
            assert join(pid) == [-signal.SIGKILL]
            seen += [int(line) for line in acknowledged]
        assert seen[0] in (known + 1, known + 2)
        assert all(after == before + 1 for before, after in pairwise(seen))
        now = repository.get(made.id)
        assert now.rev in (seen[-1], seen[-1] + 1)
        assert now.user_params == {"count": now.rev}
        known = seen[-1]
        repository.check()
    assert repository.transition(made.id, now.rev, {"status": "active"}).rev == now.rev + 1


@posix
def test_parent_and_child_go_on_after_a_fork(repository: SqliteSandboxRepository) -> None:
    first = repository.create(new(1))
    pid = fork(lambda: increments(repository, first.id, 10))
    increments(repository, first.id, 10)
    assert join(pid) == [0]
    assert repository.get(first.id).rev == 20
    repository.check()


@posix
def test_what_a_child_writes_is_kept_although_its_parent_closes_first(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    first = repository.create(new(1))
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    second, third = new(2), new(3)

    def work() -> None:
        repository.create(second)
        os.write(ready_write, b"x")
        os.read(go_read, 1)
        repository.create(third)

    pid = fork(work)
    os.read(ready_read, 1)
    repository.close()
    os.write(go_write, b"x")
    assert join(pid) == [0]
    for end in (ready_read, ready_write, go_read, go_write):
        os.close(end)
    again = SqliteSandboxRepository(path)
    assert ids(again) == [third.id, second.id, first.id]
    again.close()


@posix
def test_children_can_be_forked_while_threads_write(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new())
    stop = threading.Event()
    errors: list[BaseException] = []
    own = [0] * 4

    def write(number: int) -> None:
        try:
            while not stop.is_set():
                increments(repository, made.id, 1)
                own[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        statuses = [join(fork(lambda: increments(repository, made.id, 2)))[0] for _ in range(6)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert statuses == [0] * 6
    last = repository.get(made.id)
    assert last.rev == sum(own) + 12
    assert last.user_params == {"count": last.rev}


@posix
def test_a_grandchild_can_use_the_store_too(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new())

    def child() -> None:
        increments(repository, made.id, 1)
        assert join(fork(lambda: increments(repository, made.id, 1))) == [0]
        increments(repository, made.id, 1)

    assert join(fork(child)) == [0]
    assert repository.get(made.id).rev == 3


@posix
def test_processes_may_make_the_file_at_the_same_time(tmp_path: Path) -> None:
    for round_number in range(5):
        path = tmp_path / f"round{round_number}" / "x.db"
        read_end, write_end = os.pipe()
        owner_read, owner_write = os.pipe()

        def work(
            path: Path = path, read_end: int = read_end, owner_write: int = owner_write
        ) -> None:
            os.read(read_end, 1)
            repository = SqliteSandboxRepository(path)
            repository.create(new())
            os.write(owner_write, f"{repository.owner}\n".encode())

        pids = [fork(work) for _ in range(6)]
        os.write(write_end, b"x" * 6)
        assert join(*pids) == [0] * 6
        os.close(owner_write)
        with os.fdopen(owner_read) as owners:
            assert len(set(owners.read().split())) == 1
        repository = SqliteSandboxRepository(path)
        assert len(ids(repository)) == 6
        repository.close()
        os.close(read_end)
        os.close(write_end)


def test_threads_may_make_the_file_at_the_same_time(tmp_path: Path) -> None:
    for round_number in range(5):
        repository = SqliteSandboxRepository(tmp_path / f"round{round_number}" / "x.db")
        barrier = threading.Barrier(6)
        failed: list[BaseException] = []

        def work(
            repository: SqliteSandboxRepository = repository,
            barrier: threading.Barrier = barrier,
            failed: list[BaseException] = failed,
        ) -> None:
            barrier.wait()
            try:
                repository.create(new())
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(ids(repository)) == 6
        repository.close()


# Owner and place


def test_the_owner_is_a_tag_of_the_file(repository: SqliteSandboxRepository, path: Path) -> None:
    owner = repository.owner
    assert len(owner) == 16
    assert set(owner) <= set("0123456789abcdef")
    again = SqliteSandboxRepository(path)
    assert again.owner == owner
    again.close()
    other = SqliteSandboxRepository(path.with_name("other.db"))
    assert other.owner != owner
    other.close()


def test_another_process_sees_the_same_owner(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    code = (
        "import sys\nfrom ekairos_sandbox.repository.sqlite import SqliteSandboxRepository\n"
        "print(SqliteSandboxRepository(sys.argv[1]).owner)"
    )
    words = [sys.executable, "-c", code, str(path)]
    owner = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert repository.owner == owner


def test_the_untouched_file_passes_the_check(repository: SqliteSandboxRepository) -> None:
    repository.create(new())
    repository.check()
    repository.close()
    repository.check()


def test_a_file_in_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    # File systems give the number of an inode to the next file at once.
    path, seen = tmp_path / "file", set()
    for _ in range(3):
        path.write_bytes(b"")
        if file_identity(path) == str(path.stat().st_ino):
            pytest.skip("this file system has no lasting handles")
        seen.add(file_identity(path))
        path.unlink()
    assert len(seen) == 3


@pytest.mark.parametrize("copied", [True, False])
def test_a_file_that_was_copied_or_moved_is_refused_until_rekeyed(
    repository: SqliteSandboxRepository, path: Path, copied: bool
) -> None:
    made = repository.create(new())
    owner = repository.owner
    repository.close()
    other_path = path.with_name("elsewhere.db")
    (shutil.copy2 if copied else shutil.move)(path, other_path)
    other = SqliteSandboxRepository(other_path)
    assert ids(other) == [made.id]
    with pytest.raises(SchemaError, match=r"was copied or moved since it was made.*rekey"):
        other.check()
    assert other.owner == owner
    other.rekey(copied=copied)
    other.check()
    assert (other.owner == owner) is (not copied)
    assert ids(other) == [made.id]
    other.close()
    if copied:
        repository.check()
        assert repository.owner == owner


def test_a_copy_put_back_in_its_place_is_noticed(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    repository.create(new())
    repository.close()
    shutil.copy2(path, path.with_name("backup"))
    shutil.move(path.with_name("backup"), path)
    with pytest.raises(SchemaError, match="copied or moved"):
        repository.check()


@posix
def test_another_file_in_its_place_is_used_from_then_on(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    other = SqliteSandboxRepository(path.with_name("backup.db"))
    before, owner = other.create(new()), other.owner
    other.close()
    repository.create(new())
    assert repository.owner != owner
    for name in ("sandboxes.db-wal", "sandboxes.db-shm"):
        path.with_name(name).unlink(missing_ok=True)
    other.path.replace(path)
    after = repository.create(new())
    assert repository.owner == owner
    somebody = SqliteSandboxRepository(path)
    assert set(ids(somebody)) == {before.id, after.id}
    somebody.close()


@posix
def test_what_is_stored_after_the_file_was_removed_is_seen_by_others(
    repository: SqliteSandboxRepository, path: Path
) -> None:
    gone = repository.create(new())
    shutil.rmtree(path.parent)
    with pytest.raises(RecordNotFoundError):
        repository.get(gone.id)
    made = repository.create(new())
    somebody = SqliteSandboxRepository(path)
    assert ids(somebody) == [made.id]
    somebody.close()


# Letting go


def test_a_closed_store_opens_again_at_the_next_use(repository: SqliteSandboxRepository) -> None:
    made = repository.create(new())
    for _ in range(2):
        repository.close()
        repository.close()
        assert repository.get(made.id) == made


def test_closing_leaves_one_file(repository: SqliteSandboxRepository, path: Path) -> None:
    repository.create(new())
    repository.close()
    assert [p.name for p in path.parent.iterdir()] == ["sandboxes.db"]


def test_a_store_that_is_forgotten_is_closed(path: Path) -> None:
    repository = SqliteSandboxRepository(path)
    repository.create(new())
    del repository
    gc.collect()
    assert [p.name for p in path.parent.iterdir()] == ["sandboxes.db"]


@posix
def test_no_resource_is_left_open_at_exit_in_parent_and_forked_child(path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys, threading
        from ekairos_sandbox.models import RecordQuery, SandboxRecord
        from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

        repository = SqliteSandboxRepository(sys.argv[1])

        def use(n):
            repository.create(SandboxRecord(id=str(n), provider="p", status="s", created_at=n))

        threads = [threading.Thread(target=use, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pid = os.fork()
        use(20 if pid else 21)
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            assert len(repository.list(RecordQuery()).records) == 14
        """
    )
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", code, str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [p.name for p in path.parent.iterdir()] == ["sandboxes.db"]
