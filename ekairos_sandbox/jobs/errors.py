"""What can go wrong with jobs beyond the common exception tree."""

from __future__ import annotations

from ekairos_sandbox.exceptions import CommandError, LifecycleError


class EpochMismatchError(LifecycleError):
    """The sandbox is not the one that was prepared: restored, replaced or never prepared.

    The command provably did not run. Prepare the sandbox again and start anew.
    """

    code = "epoch_mismatch"


class CommandStillRunningError(CommandError, TimeoutError):
    """The command had not ended when the caller's patience had; it goes on running."""

    code = "command_running"
    default_retryable = True
