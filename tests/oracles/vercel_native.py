"""``native()`` with the official Python client installed, on the server given on stdin."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from ekairos_sandbox import SandboxService
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox_vercel import VercelProvider, run_command_in_sandbox


def main() -> None:
    environ = json.load(sys.stdin)
    provider = VercelProvider(ProviderContext(environ=environ))
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        repository = SqliteSandboxRepository(Path(folder) / "records.db")
        with SandboxService(repository, environ={}, providers=[provider]) as service:
            sandbox = service.raising.create_sandbox(provider="vercel")
            sandbox.write_files({"file": b"from us"})
            native = sandbox.native()
            out["class"] = type(native).__name__
            out["name"] = native.name == sandbox.record().external_sandbox_id
            sandbox.reconnect()
            done = run_command_in_sandbox(native, "sh", ["-c", "cat file; exit 4"])
            out["ran"] = [done.exit_code, done.output, done.error]
            out["ends it on leaving a with block"] = hasattr(native, "__exit__")
            out["lives on"] = sandbox.run_command(["echo", "on"]).output
            sandbox.destroy()
    provider.close()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
