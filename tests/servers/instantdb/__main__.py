"""Serve by hand: print address, app id and admin token as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from servers import by_hand
from servers.http import Request
from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import InstantServer


def _log(seen: Request) -> None:
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

    def hello(server: InstantServer) -> dict[str, str]:
        if options.log:
            server.recording, server.on_request = False, _log
        app = server.create_app(document, title="demo")
        return {"url": server.url, "app_id": app.id, "admin_token": app.admin_token}

    return by_hand.serve(lambda: InstantServer(options.port), hello)


if __name__ == "__main__":
    sys.exit(main())
