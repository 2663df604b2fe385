"""Serve by hand: print address and tokens as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from servers.sprites.server import SpritesServer


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(argv: list[str] | None = None) -> int:
    """Serve until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.sprites", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--idle", action="store_true", help="let idle machines fall asleep")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds more per request")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    with SpritesServer(options.port) as server:
        server.switches.idle = options.idle
        server.switches.latency_s = options.latency
        server.keep_bodies = False
        hello = {"url": server.url, "token": server.token, "other_token": server.other_token}
        print(json.dumps(hello), flush=True)
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
