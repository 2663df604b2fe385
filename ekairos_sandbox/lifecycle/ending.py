"""Stopping and destroying: recorded first, then told to the provider, then settled."""

from __future__ import annotations

import logging

from ekairos_sandbox.exceptions import RecordConflictError, SandboxError
from ekairos_sandbox.lifecycle.ledger import CONFLICT_ROUNDS, Ledger
from ekairos_sandbox.models import SandboxRecord

GRACE_MS = 60_000
"""How long after a creation's deadline its effects may still show up at the provider."""

_log = logging.getLogger("ekairos_sandbox")


class Ending:
    """Stops and destroys sandboxes."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def stop(self, sandbox_id: str, *, destroy: bool = False) -> SandboxRecord:
        """Shut a sandbox down: it stays shut down even if the provider cannot be told now.

        Raises:
            ProviderError: The stop is recorded, the provider was not told; call again, or leave it
                to reconcile.
        """

        def decide(record: SandboxRecord) -> SandboxRecord:
            self._ledger.provider_of(record)
            return self._record_stop(record, destroy=destroy)

        return self.release(self._ledger.decide(sandbox_id, decide))

    def release(self, record: SandboxRecord) -> SandboxRecord:
        """Tell the provider what it has not been told yet, and record that it was.

        While a creation may still be under way, the record goes on saying that it is pending.
        """
        state = record.state
        if state is None or state.release is None:
            return record
        provider = self._ledger.provider_of(record)
        ref = self._ledger.ref(record)
        try:
            if state.release == "destroy":
                provider.destroy(ref)
            else:
                provider.stop(ref)
        except SandboxError as error:
            error.sandbox_id = error.sandbox_id or record.id
            error.hint = error.hint or "the stop is recorded; call it again, or run reconcile()"
            raise
        return self.settled(record)

    def settled(self, record: SandboxRecord) -> SandboxRecord:
        """Record that nothing is pending any more, unless a creation may still be under way."""
        for _ in range(CONFLICT_ROUNDS):
            state = record.state
            if state is None or state.release is None or self._in_flight(record):
                return record
            try:
                return self._ledger.transition(record, {"release": None, "deadline": None})
            except RecordConflictError:
                record = self._ledger.get(record.id)
                if record.status not in ("shutdown", "error"):
                    return record
        return record

    def _in_flight(self, record: SandboxRecord) -> bool:
        state = record.state
        if state is None or state.deadline is None:
            return False
        return self._ledger.clock.now_ms() < state.deadline + GRACE_MS

    def _record_stop(self, record: SandboxRecord, *, destroy: bool) -> SandboxRecord:
        state = record.state
        pending = state.release if state else None
        settled = pending is None and (
            record.status == "error"
            or (record.status == "shutdown" and state is not None and state.stop == "requested")
        )
        if settled and not destroy:
            return record
        unfinished = record.status in ("creating", "recreating")
        kind = "destroy" if destroy or unfinished or pending == "destroy" else "stop"
        if record.status == "error":
            return record if pending == kind else self._ledger.transition(record, {"release": kind})
        return self._ledger.transition(
            record,
            {"stop": "requested", "release": kind},
            status="shutdown",
            shutdown_at=record.shutdown_at or self._ledger.clock.now_ms(),
        )
