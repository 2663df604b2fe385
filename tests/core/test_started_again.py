"""A sandbox that others stop and start again while it is still being created."""

from __future__ import annotations

import copy

from ekairos_sandbox import SandboxRecord, SandboxService
from ekairos_sandbox.exceptions import RecordConflictError
from ekairos_sandbox.models import RecordChanges
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import FakeProvider, MemorySandboxRepository


class StartedAgain(MemorySandboxRepository):
    """Others stop a creation and start its sandbox again, and have yet to prepare it."""

    met = False

    def transition(
        self, sandbox_id: str, expected_rev: int, changes: RecordChanges
    ) -> SandboxRecord:
        if changes.get("status") != "active" or self.met:
            return super().transition(sandbox_id, expected_rev, changes)
        self.met = True
        params = copy.deepcopy(changes["params"])
        params["ekairos"]["home"] = None
        super().transition(sandbox_id, expected_rev, {**changes, "params": params})
        raise RecordConflictError("somebody else was first")


def test_a_creation_whose_sandbox_was_started_again_and_not_prepared_yet_goes_on() -> None:
    store = StartedAgain()
    with SandboxService(
        store, environ={}, providers=[FakeProvider(ProviderContext(environ={}))]
    ) as service:
        made = service.raising.create_sandbox(provider="fake")
        record = service.raising.get_record(made.sandbox_id)
    assert store.met
    assert (record.status, record.state and record.state.home is not None) == ("active", True)
