"""Serve by hand: print address, app id and admin token as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer, Recorded


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def _log(seen: Recorded) -> None:
    """Print what a request is about, without its values."""
    body = json.loads(seen.body) if seen.body[:1] == b"{" else {}
    steps = (f"{step[0]} {step[1]}" for step in body.get("steps", ()))
    what = ", ".join([*steps, *body.get("query", ())])
    print(f"    {seen.status} {seen.method} {seen.path}  {what}", file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    """Serve one app until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.instantdb", description=__doc__)
    parser.add_argument(
        "--schema",
        metavar="sandbox|FILE",
        help="create the app with the sandbox schema, or with a schema document from a JSON file",
    )
    parser.add_argument("--log", action="store_true", help="print a line for each request")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    options = parser.parse_args(argv)
    document: Any = None
    if options.schema == "sandbox":
        document = SANDBOX_SCHEMA
    elif options.schema is not None:
        document = json.loads(Path(options.schema).read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, _stop)
    with InstantServer(options.port) as server:
        app = server.create_app(document, title="demo")
        hello = {"url": server.url, "app_id": app.id, "admin_token": app.admin_token}
        if options.log:
            server.recording, server.on_request = False, _log
        print(json.dumps(hello), flush=True)
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
