"""Exit codes, and which error leads to which.

All but the usual 0, 1 and 2 are above 99, where the exit code of a command that ``run`` passes on
is least likely to be taken for one of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line itself; ``docs/cli.md`` lists them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFIGURATION = 100
    NOT_FOUND = 101
    STOPPED = 102
    NOT_READY = 103
    BROKEN = 104
    CONFLICT = 105
    PROVIDER = 106
    UNAVAILABLE = 107
    OUTCOME_UNKNOWN = 108
    STILL_RUNNING = 109
    NOT_STARTED = 110
    UNSUPPORTED = 111
    FINDINGS = 112
    INCOMPLETE = 113
    TIMED_OUT = 124
    KILLED = 137


BY_ERROR: Mapping[str, Exit] = {
    "sandbox_error": Exit.FAILED,
    "configuration_error": Exit.CONFIGURATION,
    "wrong_account": Exit.CONFIGURATION,
    "plugin_error": Exit.CONFIGURATION,
    "provider_not_installed": Exit.CONFIGURATION,
    "provider_load_error": Exit.CONFIGURATION,
    "provider_conflict": Exit.CONFIGURATION,
    "schema_error": Exit.CONFIGURATION,
    "record_not_found": Exit.NOT_FOUND,
    "sandbox_not_found": Exit.NOT_FOUND,
    "command_not_found": Exit.NOT_FOUND,
    "checkpoint_not_found": Exit.NOT_FOUND,
    "file_not_found": Exit.NOT_FOUND,
    "sandbox_stopped": Exit.STOPPED,
    "sandbox_not_running": Exit.STOPPED,
    "sandbox_not_ready": Exit.NOT_READY,
    "sandbox_failed": Exit.BROKEN,
    "lifecycle_error": Exit.CONFLICT,
    "id_conflict": Exit.CONFLICT,
    "record_conflict": Exit.CONFLICT,
    "epoch_mismatch": Exit.CONFLICT,
    "repository_error": Exit.PROVIDER,
    "provider_error": Exit.PROVIDER,
    "provider_auth": Exit.PROVIDER,
    "provider_rate_limited": Exit.UNAVAILABLE,
    "provider_timeout": Exit.UNAVAILABLE,
    "provider_unavailable": Exit.UNAVAILABLE,
    "repository_unavailable": Exit.UNAVAILABLE,
    "outcome_unknown": Exit.OUTCOME_UNKNOWN,
    "command_running": Exit.STILL_RUNNING,
    "command_start_failed": Exit.NOT_STARTED,
    "unsupported_operation": Exit.UNSUPPORTED,
    "command_error": Exit.FAILED,
    "command_failed": Exit.FAILED,
    "file_error": Exit.FAILED,
    "transfer_failed": Exit.FAILED,
}
"""The exit code for each ``SandboxError.code``."""
