"""This provider on Daytona's SDK 0.190.0, and that SDK by itself. Prints JSON.

Settings on stdin: ``environ`` for the provider, ``store`` for records, ``source`` folders.
"""

from __future__ import annotations

import json
import sys

settings = json.load(sys.stdin)
sys.path[:0] = settings["source"]

from ekairos_sandbox.exceptions import (  # noqa: E402
    SandboxGoneError,
    SandboxStoppedError,
)
from ekairos_sandbox.provider import ProviderContext, SandboxRef  # noqa: E402
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository  # noqa: E402
from ekairos_sandbox.service import SandboxService  # noqa: E402
from ekairos_sandbox_daytona import DaytonaProvider  # noqa: E402


def provider_at_work() -> dict[str, object]:
    """The main job and its neighbours, each once."""
    found: dict[str, object] = {}
    provider = DaytonaProvider(ProviderContext(environ=settings["environ"]))
    store = SqliteSandboxRepository(settings["store"])
    with SandboxService(store, environ={}, providers=[provider]) as service:
        raising = service.raising
        options = {"ephemeral": False, "auto_stop_interval_min": 0, "labels": {"a": "b"}}
        sandbox = raising.create_sandbox(provider="daytona", daytona=options)
        result = sandbox.run_command("sh", ["-c", "echo out; echo err >&2; exit 3"])
        found["command"] = [result.exit_code, result.output, result.error]
        data = bytes(range(256)) * 4096 * 5
        sandbox.write_files({"small": b"1", "big": data})
        found["files"] = [sandbox.read_file("small") == b"1", sandbox.read_file("big") == data]
        started = sandbox.start_command("echo", ["later"])
        found["background"] = sandbox.get_command(started.command_id).wait(30).output
        found["preview"] = sandbox.preview_url(80).url.startswith("https://80-")
        found["extended"] = sandbox.extend_timeout(60_000)
        found["native"] = sandbox.native().process.exec("echo native").result
        sandbox.stop()
        try:
            sandbox.run_command("true")
        except SandboxStoppedError as error:
            found["stopped"] = error.code
        sandbox.reconnect()
        found["kept"] = sandbox.read_file("small").decode()
        external_id = sandbox.record().external_sandbox_id
        found["listed"] = [i.external_id for i in provider.list_owned(store.owner)] == [external_id]
        found["found"] = provider.find(f"ekairos-{sandbox.sandbox_id}") is not None
        sandbox.destroy()
        try:
            provider.inspect(SandboxRef("ekairos-x", external_id=external_id))
        except SandboxGoneError as error:
            found["gone"] = error.code
        found["ttl"] = provider.field_support()["timeout_ms"].level
    return found


def sdk_by_itself() -> dict[str, object]:
    """What the release makes of the server's answers."""
    from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig

    environ = settings["environ"]
    client = Daytona(
        DaytonaConfig(api_key=environ["DAYTONA_API_KEY"], api_url=environ["DAYTONA_API_URL"])
    )
    made = client.create(CreateSandboxFromSnapshotParams(name="by-itself"), timeout=0)
    made.fs.upload_file(b"content", "file")
    found = {
        "get": client.get("by-itself").id == made.id,
        "exec": made.process.exec("echo out").result,
        "download": made.fs.download_file("file").decode(),
    }
    made.delete(timeout=0)
    return found


print(json.dumps({"provider": provider_at_work(), "sdk": sdk_by_itself()}))
