"""The contract of a record store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from ekairos_sandbox.models import RecordChanges, RecordQuery, SandboxRecord
from ekairos_sandbox.results import RecordPage


class SandboxRepository(ABC):
    """Keeps records. Safe to use from several threads, processes and forked children.

    Every change of a record after its creation is a transition: a compare-and-set on the record's
    revision. Errors of the layer below are mapped to ``RepositoryError`` and its subclasses. Ids
    are taken in any case; UUID texts are kept in lower case wherever they stand in a record.
    """

    @property
    @abstractmethod
    def owner(self) -> str:
        """Tag of this store, 16 lower-case hexadecimal digits; every sandbox made bears it."""

    @abstractmethod
    def create(self, record: SandboxRecord) -> SandboxRecord:
        """Store a new record and return it as stored.

        Raises:
            IdConflictError: A record with this id exists; it was not changed.
            RepositoryUnavailableError: ``outcome="unknown"`` if it may have been stored.
        """

    @abstractmethod
    def get(self, sandbox_id: str) -> SandboxRecord:
        """Return a record.

        Raises:
            RecordNotFoundError: There is none.
            SchemaError: It cannot be read; names the id and the field.
        """

    @abstractmethod
    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        """Change a record if it still has the revision ``expected_rev``, and return it as stored.

        The new revision is ``expected_rev + 1``. Attributes not named stay as they are.

        Raises:
            RecordConflictError: The revision is another one; nothing was changed.
            RecordNotFoundError: There is no such record.
            RepositoryUnavailableError: ``outcome="unknown"`` if it may have been changed.
        """

    @abstractmethod
    def list(self, query: RecordQuery) -> RecordPage:
        """Return one page of records, newest first."""

    @abstractmethod
    def delete(self, sandbox_id: str) -> None:
        """Remove a record; no record is no error. The sandbox itself is not touched."""

    @abstractmethod
    def check(self, *, acting: bool = True) -> None:
        """Verify that the store is complete and the very one the records were made in.

        Args:
            acting: Whether something may be destroyed on the word of its records. Without it a
                copy of a store passes: looking at one does no harm.

        Raises:
            SchemaError: It is not; says what to do.
        """

    def iterate(self, query: RecordQuery) -> Iterator[SandboxRecord]:
        """Yield all matching records, page by page; unreadable ones are left out."""
        for page in self.pages(query):
            yield from page.records

    def pages(self, query: RecordQuery) -> Iterator[RecordPage]:
        """Yield the page that is asked for and all that follow it."""
        while True:
            page = self.list(query)
            yield page
            if page.cursor is None:
                return
            query = query.model_copy(update={"cursor": page.cursor})

    def close(self) -> None:
        """Let go of files and sockets. Safe to call twice; the next use opens them again."""
        return
