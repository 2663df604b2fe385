"""Serve by hand: print address and tokens as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import sys

from servers import by_hand
from servers.sprites.server import SpritesServer


def main(argv: list[str] | None = None) -> int:
    """Serve until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.sprites", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--idle", action="store_true", help="let idle machines fall asleep")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds more per request")
    options = parser.parse_args(argv)

    def hello(server: SpritesServer) -> dict[str, str]:
        server.switches.idle = options.idle
        server.switches.latency_s = options.latency
        server.keep_bodies = False
        return {"url": server.url, "token": server.token, "other_token": server.other_token}

    return by_hand.serve(lambda: SpritesServer(options.port), hello)


if __name__ == "__main__":
    sys.exit(main())
