"""The official Python client of Sprites against the server whose address comes in on stdin."""

from __future__ import annotations

import importlib
import io
import json
import sys
from typing import Any


def main() -> None:
    settings = json.load(sys.stdin)
    sdk = importlib.import_module("sprites")
    out: dict[str, Any] = {}
    with sdk.SpritesClient(settings["token"], base_url=settings["url"]) as client:
        made = client.create_sprite("oracle", labels=["a", "b"], wait_for_capacity=True)
        out["created"] = [made.name, made.status, made.labels, made.url]
        out["listed"] = [one.name for one in client.list_sprites().sprites]
        out["missing"] = _name_of(lambda: client.get_sprite("nothing"))
        home = settings["home"]

        done = made.run("sh", "-c", "echo out; echo err >&2; exit 3", capture_output=True)
        out["run"] = [done.returncode, done.stdout.decode(), done.stderr.decode()]
        command = made.command("cat", stdin=io.BytesIO(b"given"), stdout=io.BytesIO())
        command.run()
        out["stdin"] = command.stdout.getvalue().decode()

        files = made.filesystem()
        path = files / f"{home}/folder/file"
        path.write_bytes(bytes(range(256)))
        out["read"] = path.read_bytes() == bytes(range(256))
        out["names"] = sorted(one.name for one in (files / f"{home}/folder").iterdir())
        path.rename(f"{home}/folder/moved")
        out["moved"] = [(files / f"{home}/folder/moved").exists(), path.exists()]
        out["no file"] = _name_of(lambda: path.read_bytes())

        with made.create_checkpoint("from the oracle") as stream:
            out["checkpoint"] = [[event.type, event.data] for event in stream]
        out["checkpoints"] = [[one.id, one.comment] for one in made.list_checkpoints()]
        (files / f"{home}/folder/moved").unlink()
        with made.restore_checkpoint("v1") as stream:
            out["restore"] = [event.type for event in stream]
        out["restored"] = (files / f"{home}/folder/moved").exists()
        out["sessions"] = len(made.list_sessions())

        # What our provider gives out is the same kind of object.
        provider = importlib.import_module("ekairos_sandbox_sprites")
        contract = importlib.import_module("ekairos_sandbox.provider")
        environ = {"SPRITES_API_TOKEN": settings["token"], "SPRITES_API_URL": settings["url"]}
        ours = provider.SpritesProvider(contract.ProviderContext(environ=environ))
        native = ours.connect(contract.SandboxRef("oracle")).native()
        out["native"] = native.run("echo", "native", capture_output=True).stdout.decode()
        native.delete()
        ours.close()
        out["deleted"] = _name_of(lambda: client.get_sprite("oracle"))
    json.dump(out, sys.stdout)


def _name_of(call: Any) -> str:
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    main()
