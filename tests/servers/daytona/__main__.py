"""Serve by hand: print API address and API key as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from types import FrameType

from servers.daytona.server import DaytonaServer


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main(argv: list[str] | None = None) -> int:
    """Serve one organisation until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.daytona", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--shell", default="/bin/bash", help="what commands are piped to")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _stop)
    with DaytonaServer(options.port, shell=options.shell) as server:
        print(json.dumps(server.environ()), flush=True)
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
