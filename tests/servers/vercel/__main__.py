"""Serve by hand: print the variables for a provider as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import sys

from servers import by_hand
from servers.vercel.server import VercelServer


def main(argv: list[str] | None = None) -> int:
    """Serve one project until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.vercel", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--latency-ms", type=float, default=0, help="delay of every answer")
    options = parser.parse_args(argv)

    def hello(server: VercelServer) -> dict[str, str]:
        server.latency_s = options.latency_ms / 1000
        server.recording = False
        return server.environ()

    return by_hand.serve(lambda: VercelServer(options.port), hello)


if __name__ == "__main__":
    sys.exit(main())
