"""Comparing records with what providers have, and settling what crashes left behind.

Everything is decided by a record that is read again at the moment of acting, and every change is
a compare-and-set, so two reconcilers, or one beside living programs, do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from ekairos_sandbox.exceptions import (
    RecordConflictError,
    RecordNotFoundError,
    RepositoryError,
    SandboxError,
    SandboxGoneError,
)
from ekairos_sandbox.lifecycle import Ending, Ledger
from ekairos_sandbox.lifecycle.ending import GRACE_MS
from ekairos_sandbox.lifecycle.ledger import incarnation_of
from ekairos_sandbox.models import RecordQuery, SandboxRecord, SandboxState
from ekairos_sandbox.provider import Provider, SandboxInfo, SandboxRef, Tags
from ekairos_sandbox.redaction import known_secrets, redact_error
from ekairos_sandbox.results import ReconcileAction, ReconcileReport

_log = logging.getLogger("ekairos_sandbox")


class Reconciler:
    """Finds what is not as recorded."""

    def __init__(self, ledger: Ledger, ending: Ending) -> None:
        self._ledger = ledger
        self._ending = ending

    @cached_property
    def _owner(self) -> str:
        """The record store's tag, which a store may have to read."""
        return self._ledger.repository.owner

    def run(
        self,
        *,
        apply: bool,
        destroy_unrecorded: bool | Collection[str],
        providers: Sequence[str] | None,
    ) -> ReconcileReport:
        """See ``RaisingService.reconcile``."""
        self._ledger.repository.check(acting=apply)
        actions: list[ReconcileAction] = []
        # Providers first: a sandbox made after its listing is simply not seen this time.
        listings: dict[str, dict[str, SandboxInfo] | None] = {}
        for name in self._names(providers):
            listings[name] = self._listing(name, actions)
        checked = 0
        settled: set[str] = set()
        accounted: set[tuple[str, str]] = set()
        oldest: SandboxRecord | None = None
        for record in self._records(settled, actions, everything=providers is None):
            if oldest is None or record.created_at < oldest.created_at:
                oldest = record
            listing = listings.get(record.provider)
            if listing is None:
                continue
            checked += 1
            listed = _listed(record, listing)
            action = self._examine(record, listed=listed, apply=apply)
            if action is not None:
                actions.append(action)
                settled.add(record.id)
            elif listed and record.external_sandbox_id:
                accounted.add((record.provider, record.external_sandbox_id))
        strays = _Strays(self._ledger, oldest, destroy_unrecorded)
        for name, found in listings.items():
            for info in (found or {}).values():
                if (name, info.external_id) in accounted:
                    continue
                if info.tags is not None and info.tags.sandbox_id in settled:
                    continue
                action = self._unaccounted(name, info, strays, apply=apply)
                if action is not None:
                    actions.append(action)
        return ReconcileReport(tuple(actions), checked, apply)

    def _records(
        self, settled: set[str], actions: list[ReconcileAction], *, everything: bool
    ) -> Iterator[SandboxRecord]:
        """Yield the records; those that cannot be read are reported, as nothing speaks for them."""
        for page in self._ledger.repository.pages(RecordQuery(limit=500)):
            yield from page.records
            if everything:
                settled.update(sandbox_id for sandbox_id, _ in page.broken)
                actions += (
                    ReconcileAction(
                        "skipped", sandbox_id, "", None, "its record cannot be read", error=reason
                    )
                    for sandbox_id, reason in page.broken
                )

    def _names(self, providers: Sequence[str] | None) -> list[str]:
        if providers is not None:
            return list(dict.fromkeys(providers))
        records = self._ledger.repository.iterate(RecordQuery(limit=500))
        return sorted({record.provider for record in records})

    def _listing(self, name: str, actions: list[ReconcileAction]) -> dict[str, SandboxInfo] | None:
        """Return the provider's sandboxes that bear our mark; None if that cannot be known."""
        try:
            provider = self._ledger.provider(name)
            return {info.external_id: info for info in provider.list_owned(self._owner)}
        except Exception as error:  # noqa: BLE001 - see _problem
            problem = self._problem(error, f"the sandboxes of {name}")
            actions.append(
                ReconcileAction(
                    "skipped", "", name, None, "its sandboxes cannot be listed", error=problem
                )
            )
            return None

    def _examine(
        self, record: SandboxRecord, *, listed: bool, apply: bool
    ) -> ReconcileAction | None:
        found = self._due(record, listed=listed)
        if found is None:
            return None
        kind, detail, settle = found
        return self._carry_out(
            ReconcileAction(kind, record.id, record.provider, record.external_sandbox_id, detail),
            settle if apply else None,
        )

    def _due(
        self, record: SandboxRecord, *, listed: bool
    ) -> tuple[str, str, Callable[[], SandboxRecord]] | None:
        """Decide what is due for a record, without changing anything.

        Args:
            record: The record.
            listed: Whether the provider's list shows its sandbox running. Only the others are
                looked at one by one.
        """
        state = record.state
        now = self._ledger.clock.now_ms()
        if state is None or (record.ours and state.owner != self._owner):
            return None
        if record.status == "creating" and _over(state, now):
            return (
                "finish-create",
                "its creation was never finished; what is left of it is destroyed",
                lambda: self._again(record, self._fail),
            )
        if record.status in ("shutdown", "error") and state.release is not None:
            if not _over(state, now) and state.deadline is not None:
                return None
            return (
                "release",
                "the provider was not told of its end",
                lambda: self._again(record, self._ending.release),
            )
        if record.status == "active" and state.expires_at is not None and state.expires_at <= now:
            return (
                "expired",
                "its lifetime is over",
                lambda: self._again(record, self._expire),
            )
        if record.status == "active" and record.ours and not listed and self._is_gone(record):
            return (
                "lost",
                "it no longer exists at the provider",
                lambda: self._again(record, self._lose),
            )
        if record.status == "recreating" and _over(state, now):
            return (
                "finish-create",
                "it was to be made anew, which was never finished; what is left is destroyed",
                lambda: self._again(record, self._lose_unfinished),
            )
        return None

    def _again(
        self, record: SandboxRecord, settle: Callable[[SandboxRecord], SandboxRecord]
    ) -> SandboxRecord:
        """Read the record once more and act only if it is as it was judged."""
        fresh = self._ledger.get(record.id)
        if _judged(fresh) != _judged(record):
            raise RecordConflictError("it was changed meanwhile", sandbox_id=record.id)
        self._ledger.provider_of(fresh)
        return settle(fresh)

    def _fail(self, record: SandboxRecord) -> SandboxRecord:
        stored = (record.params or {}).get("error")
        record = self._ledger.transition(
            record,
            {"release": "destroy"},
            status="error",
            error=str(stored or "its creation was never finished"),
        )
        return self._ending.release(record)

    def _expire(self, record: SandboxRecord) -> SandboxRecord:
        record = self._ledger.transition(
            record,
            {"stop": "expired", "release": "stop"},
            status="shutdown",
            shutdown_at=self._ledger.clock.now_ms(),
        )
        return self._ending.release(record)

    def _lose(self, record: SandboxRecord) -> SandboxRecord:
        return self._ledger.transition(
            record,
            {"stop": "lost", "release": None},
            status="shutdown",
            shutdown_at=self._ledger.clock.now_ms(),
        )

    def _lose_unfinished(self, record: SandboxRecord) -> SandboxRecord:
        record = self._ledger.transition(
            record,
            {"stop": "lost", "release": "destroy"},
            status="shutdown",
            shutdown_at=self._ledger.clock.now_ms(),
        )
        return self._ending.release(record)

    def _is_gone(self, record: SandboxRecord) -> bool:
        try:
            provider = self._ledger.provider_of(record)
            provider.inspect(self._ledger.ref(record))
        except SandboxGoneError:
            return True
        except Exception as error:  # noqa: BLE001 - see _problem
            problem = self._problem(error, f"the sandbox {record.id}")
            _log.info("the sandbox %s could not be looked at: %s", record.id, problem)
        return False

    def _unaccounted(
        self, name: str, info: SandboxInfo, strays: _Strays, *, apply: bool
    ) -> ReconcileAction | None:
        """Judge a sandbox with our mark by the record that its tags name."""
        tags = info.tags
        if tags is None or tags.owner != self._owner:
            return None
        try:
            record = self._ledger.get(tags.sandbox_id)
        except RecordNotFoundError:
            action = ReconcileAction(
                "unrecorded", tags.sandbox_id, name, info.external_id, "it has no record"
            )
        except SandboxError as error:
            return ReconcileAction(
                "skipped",
                tags.sandbox_id,
                name,
                info.external_id,
                "its record cannot be read",
                error=str(error),
            )
        else:
            return self._leftover(name, info, tags, record, apply=apply)
        if not apply or not strays.meant(tags.sandbox_id):
            return action

        def settle() -> None:
            strays.verify(tags.sandbox_id, info.created_at)
            self._destroy(name, info)

        return self._carry_out(action, settle)

    def _leftover(
        self, name: str, info: SandboxInfo, tags: Tags, record: SandboxRecord, *, apply: bool
    ) -> ReconcileAction | None:
        """Judge a sandbox whose record exists: it may be one too many, or running unasked."""
        state = record.state
        settle: Callable[[], object]
        if record.provider != name or tags.incarnation < incarnation_of(record):
            kind, detail = "superseded", "a later incarnation has taken its place"
            settle = lambda: self._destroy(name, info)  # noqa: E731
        elif state is None or state.release is not None:
            return None
        elif record.status == "error":
            kind, detail = "release", "its creation failed, yet it exists"
            settle = lambda: self._again(record, self._fail)  # noqa: E731
        elif (record.status, state.stop, info.state) == ("shutdown", "requested", "running"):
            kind, detail = "release", "it was stopped, yet it runs"
            settle = lambda: self._again(record, self._stop_again)  # noqa: E731
        elif (record.status, state.stop, info.state) == (
            "shutdown",
            "lost",
            "stopped",
        ) and self._is_gone(record):
            kind, detail = "release", "it has ended for good, yet the provider still lists it"
            settle = lambda: self._again(record, self._clear_away)  # noqa: E731
        else:
            return None
        return self._carry_out(
            ReconcileAction(kind, record.id, name, info.external_id, detail),
            settle if apply else None,
        )

    def _stop_again(self, record: SandboxRecord) -> SandboxRecord:
        return self._ending.release(self._ledger.transition(record, {"release": "stop"}))

    def _clear_away(self, record: SandboxRecord) -> SandboxRecord:
        return self._ending.release(self._ledger.transition(record, {"release": "destroy"}))

    def _destroy(self, name: str, info: SandboxInfo) -> None:
        provider: Provider[Any] = self._ledger.provider(name)
        provider.destroy(SandboxRef(name=info.name, external_id=info.external_id, tags=info.tags))

    def _carry_out(
        self, action: ReconcileAction, settle: Callable[[], object] | None
    ) -> ReconcileAction:
        if settle is None:
            return action
        applied, problem = True, None
        try:
            settle()
        except Exception as error:  # noqa: BLE001 - see _problem
            applied, problem = False, self._problem(error, f"the sandbox {action.sandbox_id}")
        return ReconcileAction(
            action.kind,
            action.sandbox_id,
            action.provider,
            action.external_id,
            action.detail,
            applied,
            problem,
        )

    def _problem(self, error: Exception, what: str) -> str:
        """Say what went wrong with a part of the work, so that the rest of it goes on.

        A provider may be anybody's, and one that fails in its own way must not keep what the
        others left behind from being settled.
        """
        if isinstance(error, SandboxError):
            return str(error)
        redact_error(error, known_secrets(self._ledger.context.environ))
        _log.error("reconciling %s failed unexpectedly", what, exc_info=error)
        return f"{type(error).__name__}: {self._ledger.reason(error)}"


class _Strays:
    """Which sandboxes without a record may be destroyed.

    A record is written before its sandbox is made, so a sandbox that has none lost it. Where many
    did, it is the store that was emptied, restored or exchanged, and nothing in it speaks against
    destroying all that runs. So a store is believed only about the time that it remembers: it
    must still have a record that is older than the sandbox.
    """

    def __init__(
        self, ledger: Ledger, oldest: SandboxRecord | None, which: bool | Collection[str]
    ) -> None:
        self._ledger = ledger
        self._oldest = oldest
        self._all = which is True
        self._named = frozenset() if isinstance(which, bool) else frozenset(which)

    def meant(self, sandbox_id: str) -> bool:
        return self._all or sandbox_id in self._named

    def verify(self, sandbox_id: str, created_at: int | None) -> None:
        """Raise unless this one was named, or the store remembers the time when it was made."""
        if sandbox_id in self._named:
            return
        oldest = self._oldest
        if oldest is not None and (created_at is None or oldest.created_at <= created_at):
            # It may have been emptied since.
            self._ledger.get(oldest.id)
            return
        raise RepositoryError(
            "the record store remembers nothing from the time when it was made: it may have been "
            "emptied, restored or exchanged since",
            sandbox_id=sandbox_id,
            hint=(
                "look for the right store or its backup; to destroy the sandbox all the same, "
                f"pass destroy_unrecorded=[{sandbox_id!r}]"
            ),
        )


def _listed(record: SandboxRecord, listing: Mapping[str, SandboxInfo]) -> bool:
    """Whether a record is active and its very sandbox is among those that run."""
    state, info = record.state, listing.get(record.external_sandbox_id or "")
    return (
        record.status == "active"
        and state is not None
        and info is not None
        and info.state == "running"
        and info.tags == Tags(state.owner, record.id, state.incarnation)
    )


def _judged(record: SandboxRecord) -> tuple[object, ...]:
    """Return what a record is judged by.

    That is not its revision: a store that other programs write to may show an older one in a
    listing than in the record itself.
    """
    state = record.state
    return record.status, record.updated_at, state and state.model_copy(update={"rev": 0})


def _over(state: SandboxState, now: int) -> bool:
    """Whether nothing that a creation began can still show up."""
    return state.deadline is not None and state.deadline + GRACE_MS <= now
