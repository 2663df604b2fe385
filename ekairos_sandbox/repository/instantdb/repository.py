"""Records in an InstantDB app, shared with the TypeScript package.

InstantDB has no conditional write. What it has is unique attributes: every write of ours creates,
in the same transaction, a *fence* whose key names the record and the new revision, so that of two
writers of one revision only one can succeed.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ekairos_sandbox.exceptions import (
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    RepositoryError,
    SandboxError,
    SchemaError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.models import (
    RecordChanges,
    RecordQuery,
    SandboxRecord,
    check_sandbox_id,
)
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.instantdb import records
from ekairos_sandbox.repository.instantdb.client import Step, client_of
from ekairos_sandbox.repository.instantdb.domain import check
from ekairos_sandbox.repository.instantdb.errors import RefusedError
from ekairos_sandbox.repository.instantdb.purge import FENCE_AGE_S, purge_fences
from ekairos_sandbox.repository.instantdb.records import Row, fence_key
from ekairos_sandbox.repository.instantdb.schema import FENCES, SANDBOXES
from ekairos_sandbox.results import RecordPage

REMEMBERED = 256
REMEMBERED_S = 3600.0

_log = logging.getLogger("ekairos_sandbox")


class InstantSandboxRepository(SandboxRepository):
    """Keeps records in an InstantDB app whose schema was pushed; see ``push_schema``.

    Creating the object does no I/O. Every call blocks up to about a minute of attempts.

    Args:
        db: An ``InstantClient``, or an ``instantdb.Instant`` whose settings are taken over.

    Attributes:
        client: What requests go through.
    """

    def __init__(self, db: object) -> None:
        self.client = client_of(db)
        self._clock = self.client.clock
        self._seen = _Seen()

    @property
    def owner(self) -> str:
        """Tag of the app, made from its id: the same on every server the app is moved to."""
        text = f"ekairos-sandbox {self.client.app_id}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def create(self, record: SandboxRecord) -> SandboxRecord:
        """See ``SandboxRepository.create``."""
        check_sandbox_id(record.id)
        record = record.canonical()
        step: Step = ["create", SANDBOXES, record.id, records.new_row(record)]
        obstacle = self._write(record.id, record.rev, [step])
        if obstacle is not None and obstacle.record is None:
            # What is in the way is left of a record that was deleted.
            left = [["delete", FENCES, fence["id"]] for fence in self._fences(record.id)]
            obstacle = self._write(record.id, record.rev, [step], first=left)
        if obstacle is not None:
            raise IdConflictError(
                f"there is a record with the id {record.id} already", sandbox_id=record.id
            )
        self._seen.put(record, self._clock.monotonic())
        return record

    def get(self, sandbox_id: str) -> SandboxRecord:
        """See ``SandboxRepository.get``. One request, two if another program changed it.

        Raises:
            SchemaError: Also where nothing can be found, because the app lacks the schema.
        """
        sandbox_id = check_sandbox_id(sandbox_id)
        self._seen.drop(sandbox_id)
        row, fence = self._look(sandbox_id, order="desc")
        proven = records.rev_of(fence["key"]) if fence else None
        if row is not None and proven and records.parse_record(row).rev < proven:
            # Either another program has overwritten ``params``, or the fence is of a transition
            # between the two reads. A second look at the record is later than that fence.
            row, _ = self._look(sandbox_id, order="desc")
        if row is None:
            # An app without the schema finds nothing and does not say why.
            check(self.client)
            raise _not_found(sandbox_id)
        record = records.parse_record(row, proven or 0)
        self._seen.put(record, self._clock.monotonic())
        return record

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        """See ``SandboxRepository.transition``. One request if this thread read the record."""
        sandbox_id = check_sandbox_id(sandbox_id)
        record = self._seen.get(sandbox_id, expected_rev, self._clock.monotonic())
        if record is None:
            record = self.get(sandbox_id)
            if record.rev != expected_rev:
                raise _conflict(sandbox_id)
        changed = record.with_changes(changes, expected_rev + 1)
        values = records.changed_row(changed, changes)
        self._seen.drop(sandbox_id)
        step: Step = ["update", SANDBOXES, sandbox_id, values, {"upsert": False}]
        obstacle = self._write(sandbox_id, changed.rev, [step])
        if obstacle is not None:
            raise _not_found(sandbox_id) if obstacle.record is None else _conflict(sandbox_id)
        self._seen.put(changed, self._clock.monotonic())
        return changed

    def list(self, query: RecordQuery) -> RecordPage:
        """See ``SandboxRepository.list``.

        Revisions are as the records show them, without a look at their fences.

        Raises:
            SchemaError: There is no record at all, because the app lacks the schema.
        """
        cursor = records.parse_cursor(query.cursor)
        extra = cursor[2] if cursor else 0
        while True:
            size = query.limit + 1 + extra
            found = self.client.query(records.list_query(query, cursor, size)).get(SANDBOXES, [])
            rows = found
            if cursor is not None:
                rows = [r for r in found if (r["createdAt"], r["id"]) < cursor[:2]]
            if len(rows) > query.limit or len(found) < size:
                break
            extra = 2 * extra + query.limit
        if not found and query == RecordQuery(limit=query.limit):
            check(self.client)
        page: list[SandboxRecord] = []
        broken: list[tuple[str, str]] = []
        for row in rows[: query.limit]:
            try:
                page.append(records.parse_record(row))
            except SchemaError as error:
                broken.append((row["id"], error.message))
        more = len(rows) > query.limit and rows[query.limit - 1].get("createdAt") is not None
        after = records.cursor_after(found, rows[query.limit - 1]) if more else None
        return RecordPage(tuple(page), after, tuple(broken))

    def delete(self, sandbox_id: str) -> None:
        """See ``SandboxRepository.delete``. Its fences go with it."""
        sandbox_id = check_sandbox_id(sandbox_id)
        self._seen.drop(sandbox_id)
        left = [["delete", FENCES, fence["id"]] for fence in self._fences(sandbox_id)]
        self.client.transact([["delete", SANDBOXES, sandbox_id], *left], replay_safe=True)

    def check(self, *, acting: bool = True) -> None:
        """Verify that the app's schema is complete; if ``acting``, remove fences of no more use.

        Raises:
            SchemaError: Names what is missing.
        """
        check(self.client)
        if not acting:
            return
        try:
            self.purge_fences()
        except RepositoryError as error:
            _log.info("old fences could not be removed: %s", error)

    def purge_fences(self, older_than_s: float = FENCE_AGE_S) -> int:
        """Delete fences of this age that their record has outgrown, and return how many.

        Args:
            older_than_s: Seconds; no process may write on the word of a record that it read longer
                ago. Default 30 days.
        """
        return purge_fences(self.client, older_than_s)

    def close(self) -> None:
        """Close connections; the next use opens new ones."""
        self.client.close()

    def _write(
        self, sandbox_id: str, rev: int, steps: Sequence[Step], *, first: Sequence[Step] = ()
    ) -> _Obstacle | None:
        """Carry out steps together with the fence of a revision, exactly once.

        Args:
            sandbox_id: The record.
            rev: The revision that it has afterwards.
            steps: What to do.
            first: What to do before the fence is made.

        Returns:
            None if it was done; what is in the way if it was not and will not be.

        Raises:
            SandboxError: As of the last attempt; ``outcome="unknown"`` if it may have been done.
        """
        key = fence_key(sandbox_id, rev)
        sent: list[str] = []

        def once() -> None:
            # Every attempt has a fence of its own. Two of one id would not exclude each other, and
            # an attempt that was delayed on its way could overwrite what came after it.
            sent.append(str(uuid.uuid4()))
            values = {"key": key, "createdAt": self._clock.now_ms()}
            fence: Step = ["create", FENCES, sent[-1], values]
            self.client.transact([*first, fence, *steps], retry=False)

        try:
            self.client.repeated(once, replay_safe=True)
        except SandboxError as error:
            problem = error
        else:
            return None
        blocked = isinstance(problem, RefusedError) and problem.attribute in (
            None,
            f"{FENCES}.key",
        )
        if not blocked and problem.outcome == "failed":
            raise problem
        return self._settle(sandbox_id, rev, sent, problem, blocked=blocked)

    def _settle(
        self,
        sandbox_id: str,
        rev: int,
        sent: Sequence[str],
        problem: SandboxError,
        *,
        blocked: bool,
    ) -> _Obstacle | None:
        """Find out by reading what became of a write, and answer as ``_write`` does."""
        try:
            row, fence = self._look(sandbox_id, since=rev, order="asc")
        except SandboxError as error:
            error.outcome = problem.outcome
            raise error if blocked else problem from None
        if fence is not None and fence["id"] in sent:
            return None
        taken = fence is not None and fence["key"] == fence_key(sandbox_id, rev)
        if not taken and not blocked:
            raise problem
        return _Obstacle(row)

    def _look(
        self, sandbox_id: str, *, order: str, since: int = 0
    ) -> tuple[Row | None, Row | None]:
        """Read a record and its newest or, from a revision on, its oldest fence."""
        found = self.client.query(
            {
                **records.record_query(sandbox_id),
                **records.fences_query(sandbox_id, since=since, order={"key": order}, limit=1),
            }
        )
        return _first(found.get(SANDBOXES)), _first(found.get(FENCES))

    def _fences(self, sandbox_id: str) -> Sequence[Row]:
        return self.client.query(records.fences_query(sandbox_id)).get(FENCES, [])


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why a write can not be done: its fence is taken, or the record is not as it must be."""

    record: Row | None


class _Seen:
    """The records that this thread saw last, so that a transition needs no read of its own."""

    def __init__(self) -> None:
        self.after_fork()
        reset_in_child(self)

    def after_fork(self) -> None:
        self._local = threading.local()

    def put(self, record: SandboxRecord, now: float) -> None:
        mine = self._mine()
        mine.pop(record.id, None)
        mine[record.id] = (now, record)
        if len(mine) > REMEMBERED:
            del mine[next(iter(mine))]

    def get(self, sandbox_id: str, rev: int, now: float) -> SandboxRecord | None:
        then, record = self._mine().get(sandbox_id, (0.0, None))
        fresh = record is not None and record.rev == rev and now - then < REMEMBERED_S
        return record if fresh else None

    def drop(self, sandbox_id: str) -> None:
        self._mine().pop(sandbox_id, None)

    def _mine(self) -> dict[str, tuple[float, SandboxRecord]]:
        mine: dict[str, Any] | None = getattr(self._local, "records", None)
        if mine is None:
            mine = self._local.records = {}
        return mine


def _first(rows: Sequence[Row] | None) -> Row | None:
    return rows[0] if rows else None


def _not_found(sandbox_id: str) -> RecordNotFoundError:
    return RecordNotFoundError(
        f"no sandbox has the id {sandbox_id}",
        sandbox_id=sandbox_id,
        hint="check the id, and that the app is the one it was created in",
    )


def _conflict(sandbox_id: str) -> RecordConflictError:
    return RecordConflictError(
        f"the record {sandbox_id} was changed by somebody else", sandbox_id=sandbox_id
    )
