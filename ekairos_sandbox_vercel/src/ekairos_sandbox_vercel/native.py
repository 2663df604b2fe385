"""The official SDK's own object for a sandbox, and commands by way of it."""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import UnsupportedOperationError
from ekairos_sandbox.results import CommandResult

if TYPE_CHECKING:
    from ekairos_sandbox_vercel.api import VercelApi

INSTALL = "pip install 'ekairos-sandbox-vercel[sdk]'"


class Native:
    """Opens the SDK when it is first asked for, with the same account, and closes it."""

    def __init__(self, api: VercelApi, name: str) -> None:
        self._api = api
        self._name = name
        self._lock = threading.Lock()
        self._client: Any = None

    def sandbox(self) -> Any:
        """Return the SDK's ``SyncSandbox``; never the variant that deletes it on leaving ``with``.

        Asks the service once. It works as long as the connection is not closed.

        Raises:
            UnsupportedOperationError: The SDK is not installed; says how to install it.
        """
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client.get_sandbox(name=self._name)

    def _open(self) -> Any:
        try:
            sync = importlib.import_module("vercel.sandbox.sync")
        except ImportError:
            raise UnsupportedOperationError(
                "the official SDK is not installed",
                provider="vercel",
                operation="native",
                hint=INSTALL,
            ) from None
        given = self._api.credentials
        credentials = sync.SandboxCredentials(
            token=given.token, team_id=given.team_id, project_id=given.project_id
        )
        return sync.SyncSandboxClient.create(
            options=sync.SandboxServiceOptions(
                base_url=self._api.base_url, credentials_factory=lambda: credentials
            )
        )

    def close(self) -> None:
        """Close the SDK's client, if there is one. Safe to call twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


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
