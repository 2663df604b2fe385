"""Runs one command again and again with a library of others. Prints median milliseconds.

Argument: which library. Settings on stdin: ``environ`` and ``times``.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")
settings = json.load(sys.stdin)
os.environ |= settings["environ"]
os.environ["DAYTONA_USE_DEPRECATED_POLLING"] = "true"


def langchain() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The sandbox backend of Deep Agents."""
    client = importlib.import_module("daytona").Daytona()
    native = client.create(timeout=0)
    box = importlib.import_module("langchain_daytona").DaytonaSandbox(sandbox=native)
    return lambda: box.execute("echo out; exit 3"), lambda: native.delete(timeout=0)


def bespoke() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Its own neutral interface."""
    box = importlib.import_module("bespokelabs.sandbox").Sandbox("daytona").__enter__()
    return lambda: box.execute_command("echo out; exit 3"), lambda: box.__exit__(None, None, None)


act, end = {"langchain": langchain, "bespoke": bespoke}[sys.argv[1]]()
spent = []
with contextlib.redirect_stdout(sys.stderr):
    answer = act()
    print(answer)
    for _ in range(settings["times"]):
        started = time.perf_counter()
        act()
        spent.append((time.perf_counter() - started) * 1000)
    end()
print(json.dumps({"ms": statistics.median(spent)}))
