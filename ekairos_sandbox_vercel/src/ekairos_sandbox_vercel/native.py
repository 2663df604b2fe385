"""The official SDK's own object for a sandbox, and commands by way of it."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Sequence
from typing import Any

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox.results import CommandResult
from ekairos_sandbox_vercel.credentials import Credentials

INSTALL = "pip install 'ekairos-sandbox-vercel[sdk]'"


def open_sdk(credentials: Credentials, base_url: str) -> Any:
    """Return a client of the SDK for the same account.

    Raises:
        UnsupportedOperationError: The SDK is not installed; says how to install it.
    """
    try:
        sync = importlib.import_module("vercel.sandbox.sync")
    except ImportError:
        raise UnsupportedOperationError(
            "the official SDK is not installed",
            provider="vercel",
            operation="native",
            hint=INSTALL,
        ) from None
    given = sync.SandboxCredentials(
        token=credentials.token,
        team_id=credentials.team_id,
        project_id=credentials.project_id,
    )
    return sync.SyncSandboxClient.create(
        options=sync.SandboxServiceOptions(base_url=base_url, credentials_factory=lambda: given)
    )


def run_command_in_sandbox(sandbox: Any, command: str, args: Sequence[str] = ()) -> CommandResult:
    """Run a command in a sandbox of the official SDK, as ``native()`` returns it.

    For programs that hold such an object anyway. It is the SDK's own way: no durable command id,
    no recovery of lost output, text only. Blocks until the command has ended.

    Args:
        sandbox: A ``SyncSandbox`` of ``vercel-sandbox``.
        command: The program; no shell is involved.
        args: Its arguments.

    Raises:
        Exception: Whatever the SDK raises.
    """
    done = sandbox.run_process(command, list(args), capture_output=True)
    stdout, stderr = _bytes(done.stdout), _bytes(done.stderr)
    return CommandResult(
        command_id=str(getattr(done, "id", None) or uuid.uuid4()),
        command=(command, *args),
        exit_code=done.returncode,
        stdout=stdout,
        stderr=stderr,
        stdout_size=len(stdout),
        stderr_size=len(stderr),
    )


def _bytes(text: str | bytes | None) -> bytes:
    return text.encode() if isinstance(text, str) else text or b""
