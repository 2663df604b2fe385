"""Serve by hand: print the variables for a provider as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from servers.vercel.server import VercelServer


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(argv: list[str] | None = None) -> int:
    """Serve one project until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.vercel", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--latency-ms", type=float, default=0, help="delay of every answer")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    with VercelServer(options.port) as server:
        server.latency_s = options.latency_ms / 1000
        server.recording = False
        print(json.dumps(server.environ()), flush=True)
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
