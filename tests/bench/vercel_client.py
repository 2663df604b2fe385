"""One client in a process of its own: what it takes, and its memory. Settings come in as JSON."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import begin_peak, in_turn, peak_mib

MIB = 1 << 20
TIMES = 25


def ours(environ: dict[str, str], folder: Path) -> dict[str, Callable[[], object]]:
    """Files go from and to the disk, as ``upload`` and ``download`` do it."""
    from ekairos_sandbox import SandboxService
    from ekairos_sandbox.provider import ProviderContext
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
    from ekairos_sandbox_vercel import VercelProvider

    provider = VercelProvider(ProviderContext(environ=environ))
    repository = SqliteSandboxRepository(folder / "records.db")
    service = SandboxService(repository, environ={}, providers=[provider]).raising
    box = service.create_sandbox(provider="vercel")
    return {
        "run": lambda: box.run_command("true").check(),
        "run and read": lambda: (box.run_command("sh", ["-c", "echo x >f"]), box.read_file("f")),
        "up": lambda: box.upload(folder / "source", "big"),
        "down": lambda: box.download("big", folder / "copy"),
        "end": box.destroy,
    }


def theirs(environ: dict[str, str], folder: Path) -> dict[str, Callable[[], object]]:
    """The official client; its files are whole in memory."""
    sdk: Any = importlib.import_module("vercel.sandbox.sync")
    credentials = sdk.SandboxCredentials(
        token=environ["SANDBOX_VERCEL_TOKEN"],
        team_id=environ["SANDBOX_VERCEL_TEAM_ID"],
        project_id=environ["SANDBOX_VERCEL_PROJECT_ID"],
    )
    client = sdk.SyncSandboxClient.create(
        options=sdk.SandboxServiceOptions(
            base_url=environ["SANDBOX_VERCEL_BASE_URL"], credentials_factory=lambda: credentials
        )
    )
    box = client.create_sandbox(name="by-the-sdk")

    def run(script: str) -> Any:
        return box.run_process("sh", ["-c", script], capture_output=True)

    return {
        "run": lambda: box.run_process("true", capture_output=True),
        "run and read": lambda: (run("echo x >f"), box.fs.read_bytes("f")),
        "up": lambda: box.fs.write_bytes("big", (folder / "source").read_bytes()),
        "down": lambda: (folder / "copy").write_bytes(box.fs.read_bytes("big")),
        "end": lambda: (box.destroy(), client.close()),
    }


def main() -> None:
    order = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "source").write_bytes(os.urandom(MIB) * 64)
        acts = {"ours": ours, "theirs": theirs}[order["who"]](order["environ"], folder)
        acts["run"]()
        took = dict(
            zip(
                ("run", "run and read"),
                in_turn(TIMES, acts["run"], acts["run and read"]),
                strict=True,
            )
        )
        before = begin_peak()
        took["up"], took["down"] = in_turn(3, acts["up"], acts["down"])
        took["extra"] = peak_mib() - before
        took["peak"] = peak_mib()
        acts["end"]()
    json.dump(took, sys.stdout)


if __name__ == "__main__":
    main()
