"""Serve by hand: print API address and API key as JSON, stop with stdin or SIGTERM."""

from __future__ import annotations

import argparse
import sys

from servers import by_hand
from servers.daytona.server import DaytonaServer


def main(argv: list[str] | None = None) -> int:
    """Serve one organisation until stdin ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="servers.daytona", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--shell", default="/bin/bash", help="what commands are piped to")
    options = parser.parse_args(argv)
    return by_hand.serve(
        lambda: DaytonaServer(options.port, shell=options.shell), DaytonaServer.environ
    )


if __name__ == "__main__":
    sys.exit(main())
