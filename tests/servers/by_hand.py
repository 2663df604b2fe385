"""Serving from a terminal, or for a program that starts a server and ends it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import FrameType
from typing import TypeVar

Server = TypeVar("Server")


def serve(
    make: Callable[[], AbstractContextManager[Server]], hello: Callable[[Server], Mapping[str, str]]
) -> int:
    """Serve until stdin ends or the process is told to stop by SIGTERM or Ctrl-C.

    Args:
        make: Returns the server.
        hello: Prepares it, and returns what is printed as a line of JSON.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _stop)
    with make() as server:
        print(json.dumps(hello(server)), flush=True)
        try:
            while sys.stdin.buffer.read(4096):
                pass
        except KeyboardInterrupt:
            return 130
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
