"""Errors about creations that did not come to a good end."""

from __future__ import annotations

from ekairos_sandbox.exceptions import SandboxFailedError, SandboxStoppedError
from ekairos_sandbox.models import SandboxRecord


def failed(record: SandboxRecord) -> SandboxFailedError:
    """Build the error for a record that says that its creation failed."""
    reason = (record.params or {}).get("error")
    return SandboxFailedError(
        f"the creation of the sandbox {record.id} failed: {reason or 'no reason was stored'}",
        provider=record.provider,
        sandbox_id=record.id,
    )


def stopped_meanwhile(record: SandboxRecord) -> SandboxStoppedError:
    """Build the error for a creation that a stop overtook."""
    return SandboxStoppedError(
        f"the sandbox {record.id} was stopped while it was being created",
        provider=record.provider,
        operation="create",
        sandbox_id=record.id,
    )


def never_finished(record: SandboxRecord) -> SandboxFailedError:
    """Build the error for a creation whose deadline has passed."""
    return SandboxFailedError(
        f"the creation of the sandbox {record.id} was never finished",
        provider=record.provider,
        operation="create",
        sandbox_id=record.id,
        hint="reconcile() removes what is left of it; create a new one",
    )
