"""A record store in memory, for tests of applications and of this library."""

from __future__ import annotations

import secrets
import threading

from pydantic import ValidationError

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    IdConflictError,
    RecordConflictError,
    RecordNotFoundError,
    SchemaError,
)
from ekairos_sandbox.models import RecordChanges, RecordQuery, SandboxRecord
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.results import RecordPage


class MemorySandboxRepository(SandboxRepository):
    """Keeps records in this process, as the JSON that another store would hold.

    Serves many threads. Nothing survives the object; a forked child has a copy of its own.

    Attributes:
        stored: The records as JSON text, by id.
    """

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self._created: dict[str, int] = {}
        self._owner = secrets.token_hex(8)
        self._lock = threading.RLock()

    @property
    def owner(self) -> str:
        """Tag of this store, random."""
        return self._owner

    def create(self, record: SandboxRecord) -> SandboxRecord:
        """See ``SandboxRepository.create``."""
        record = record.canonical()
        with self._lock:
            if record.id in self.stored:
                raise IdConflictError(
                    f"there is a record with the id {record.id} already", sandbox_id=record.id
                )
            self._keep(record)
        return record

    def get(self, sandbox_id: str) -> SandboxRecord:
        """See ``SandboxRepository.get``."""
        sandbox_id = sandbox_id.lower()
        with self._lock:
            text = self.stored.get(sandbox_id)
        if text is None:
            raise RecordNotFoundError(f"no sandbox has the id {sandbox_id}", sandbox_id=sandbox_id)
        return _parse(sandbox_id, text)

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        """See ``SandboxRepository.transition``."""
        sandbox_id = sandbox_id.lower()
        with self._lock:
            record = self.get(sandbox_id)
            if record.rev != expected_rev:
                raise RecordConflictError(
                    f"the record {sandbox_id} was changed by somebody else", sandbox_id=sandbox_id
                )
            changed = record.with_changes(changes, expected_rev + 1)
            self._keep(changed)
        return changed

    def list(self, query: RecordQuery) -> RecordPage:
        """See ``SandboxRepository.list``."""
        after = _place(query.cursor) if query.cursor is not None else None
        with self._lock:
            stored = dict(self.stored)
            places = sorted(((self._created[name], name) for name in stored), reverse=True)
        records: list[SandboxRecord] = []
        broken: list[tuple[str, str]] = []
        cursor = None
        for place in places:
            if after is not None and place >= after:
                continue
            try:
                record = _parse(place[1], stored[place[1]])
            except SchemaError as error:
                broken.append((place[1], error.message))
                continue
            if not _fits(record, query):
                continue
            if len(records) == query.limit:
                last = records[-1]
                cursor = f"{last.created_at}:{last.id}"
                break
            records.append(record)
        return RecordPage(tuple(records), cursor, tuple(broken))

    def delete(self, sandbox_id: str) -> None:
        """See ``SandboxRepository.delete``."""
        with self._lock:
            self.stored.pop(sandbox_id.lower(), None)

    def check(self, *, acting: bool = True) -> None:
        """Do nothing: it is always complete, and the only one."""
        del acting

    def _keep(self, record: SandboxRecord) -> None:
        self._created[record.id] = record.created_at
        self.stored[record.id] = record.model_dump_json(by_alias=True, exclude_none=True)


def _parse(sandbox_id: str, text: str) -> SandboxRecord:
    try:
        record = SandboxRecord.model_validate_json(text)
        _ = record.state
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise SchemaError(
            f"the record {sandbox_id} cannot be read: {fields}", sandbox_id=sandbox_id
        ) from error
    return record


def _fits(record: SandboxRecord, query: RecordQuery) -> bool:
    return (
        (query.status is None or record.status in query.status)
        and query.provider in (None, record.provider)
        and query.purpose in (None, record.purpose)
        and (query.created_after is None or record.created_at >= query.created_after)
        and (query.created_before is None or record.created_at < query.created_before)
    )


def _place(cursor: str) -> tuple[int, str]:
    time, colon, sandbox_id = cursor.partition(":")
    try:
        if colon:
            return int(time), sandbox_id
    except ValueError:
        pass
    raise ConfigurationError("this is no cursor of a page of records")
