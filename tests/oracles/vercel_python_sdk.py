"""The official Python client against the server whose address comes in on stdin."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any


def main() -> None:
    settings = json.load(sys.stdin)
    sdk = importlib.import_module("vercel.sandbox.sync")
    credentials = sdk.SandboxCredentials(
        token=settings["token"], team_id=settings["team"], project_id=settings["project"]
    )
    client = sdk.SyncSandboxClient.create(
        options=sdk.SandboxServiceOptions(
            base_url=settings["url"], credentials_factory=lambda: credentials
        )
    )
    out: dict[str, Any] = {}

    def ran(box: Any, script: str) -> list[Any]:
        done = box.run_process("sh", ["-c", script], capture_output=True)
        return [done.returncode, done.stdout, done.stderr]

    def refused(call: Any) -> list[Any]:
        try:
            call()
        except sdk.SandboxApiError as error:
            return [error.status_code, str(getattr(error, "code", None))]
        return [200, ""]

    # One that this library made: found by its name, used, not ended.
    ours = client.get_sandbox(name=settings["ours"])
    out["ours"] = [ours.name, str(ours.status.value), dict(ours.tags or {})]
    out["ours ran"] = ran(ours, "cat from-us; echo from the sdk >from-sdk")

    box = client.create_sandbox(name="sdk-python", persistent=True, ports=[3000], tags={"a": "b"})
    out["created"] = [box.name, box.persistent, str(box.status.value)]
    out["ran"] = ran(box, "echo 'é漢\U0001f600'; echo no >&2; exit 3")
    out["lines"] = ran(box, "printf 'a\\342\\200\\250b\\r\\n'")
    box.fs.write_bytes("dir/file", bytes(range(256)), mode=0o640)
    out["file"] = list(box.fs.read_bytes("dir/file")) == list(range(256))
    out["mode"] = ran(box, "stat -c %a dir/file")
    out["exists"] = [box.fs.exists("dir/file"), box.fs.exists("dir/none")]
    box.fs.mkdir("made/deep", recursive=True)
    out["listed"] = sorted(entry.path for entry in box.fs.listdir("."))
    process = box.create_process("sh", ["-c", "echo begun; sleep 60"])
    process.kill()
    out["killed"] = process.wait()
    out["missing program"] = refused(lambda: box.run_process("no-such-program"))
    first = box.current_session_id
    box.stop()
    out["stopped"] = [str(client.get_sandbox(name="sdk-python").status.value)]
    resumed = client.resume_sandbox(name="sdk-python")
    out["resumed"] = [str(resumed.status.value), resumed.current_session_id != first]
    out["kept"] = ran(resumed, "wc -c <dir/file")
    snapshot = resumed.snapshot()
    out["snapshot"] = snapshot.id.startswith("snap_")
    out["after snapshot"] = ran(resumed, "wc -c <dir/file")
    out["duplicate"] = refused(lambda: client.create_sandbox(name="sdk-python"))
    out["names"] = sorted(found.name for found in client.query_sandboxes())
    resumed.destroy(delete_orphan_snapshots=True)
    out["gone"] = refused(lambda: client.get_sandbox(name="sdk-python"))
    client.close()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
