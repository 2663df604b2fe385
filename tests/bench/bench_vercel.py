"""Vercel over the loopback server, 40 ms more per request, beside the official Python client"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.measure import Row
from helpers.vercel import provider_for
from oracles import oracle_env
from servers.vercel.server import VercelServer

from ekairos_sandbox import SandboxService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

TESTS = Path(__file__).parents[1]
LATENCY_MS = 40
SDK = "vercel-sandbox==0.10.0"


def rows() -> Iterator[Row]:
    """Count requests with a server in this process, measure with one in another."""
    yield from _counted()
    packages = oracle_env.python_packages(SDK)
    with _server() as environ:
        mine = _client("ours", environ, packages)
        sdk = _client("theirs", environ, packages)
    for what in ("run", "run and read"):
        yield Row(f"SDK: {what}", f"{sdk[what]:.0f} ms")
        yield Row(what, f"{mine[what]:.0f} ms = {mine[what] / sdk[what]:.2f} x", "2 x")
    for way, remark in (("up", "not atomic"), ("down", "length not compared")):
        yield Row(f"SDK: 64 MiB {way}, {remark}", f"{sdk[way]:.0f} ms")
        yield Row(f"64 MiB {way}", f"{mine[way]:.0f} ms = {mine[way] / sdk[way]:.2f} x", "1.2 x")
    yield Row(
        "SDK: extra memory for both, and peak", f"{sdk['extra']:.0f} MiB, {sdk['peak']:.0f} MiB"
    )
    yield Row(
        "extra memory for both, and peak",
        f"{mine['extra']:.0f} MiB, {mine['peak']:.0f} MiB",
        "64 MiB extra",
    )


def _counted() -> Iterator[Row]:
    with VercelServer() as server, tempfile.TemporaryDirectory() as folder:

        def service() -> Any:
            return SandboxService(
                SqliteSandboxRepository(Path(folder) / "records.db"),
                environ={},
                providers=[provider_for(server.environ())],
            ).raising

        def count(act: Callable[[], object]) -> str:
            server.clear_requests()
            act()
            made = server.operations()
            return f"{len(made)} ({', '.join(made)})"

        mine = service()
        made: list[Any] = []
        yield Row("create", count(lambda: made.append(mine.create_sandbox(provider="vercel"))), "2")
        (box,) = made
        yield Row("warm short command", count(lambda: box.run_command("true")), "1")
        small = {f"{number}": b"x" for number in range(20)}
        yield Row("20 small files", count(lambda: box.write_files(small)), "1")
        by_id = count(lambda: service().run_command(box.sandbox_id, "true"))
        yield Row("by id from a new process", f"1 record read + {by_id}", "1 + 2")

        def again() -> None:
            other = service().reconnect_to_sandbox(box.sandbox_id)
            other.run_command("true")
            other.read_file("1")

        yield Row("reconnect, command, file", count(again), "3")
        large = os.urandom(64 << 20)
        yield Row("64 MiB up", count(lambda: box.write_files({"large": large})), "9")
        yield Row("64 MiB down", count(lambda: box.read_file("large")), "1")
        box.destroy()


@contextlib.contextmanager
def _server() -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "servers.vercel", "--latency-ms", str(LATENCY_MS)],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield json.loads(process.stdout.readline())
    process.wait()


def _client(who: str, environ: dict[str, str], packages: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-s", "-P", str(Path(__file__).with_name("vercel_client.py"))],
        input=json.dumps({"who": who, "environ": environ}),
        env={**os.environ, "PYTHONPATH": str(packages) if who == "theirs" else ""},
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured
