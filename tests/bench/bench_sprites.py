"""Sprites on loopback, 40 ms more per request, beside bare requests and the official client"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.measure import Row
from helpers.sprites import Sprites
from oracles import oracle_env
from servers.sprites.server import SpritesServer

from ekairos_sandbox.clock import SystemClock

TESTS = Path(__file__).parents[1]
LATENCY_S = 0.04
SDK = "sprites-py==0.7.2"


def rows() -> Iterator[Row]:
    """Count requests with a service in this process, measure with one in another."""
    yield from _counted()
    packages = oracle_env.python_packages(SDK)
    with _service() as service:
        took = _client(packages, service, "commands")
        yield Row("bare `POST exec` of `true`", f"{took['bare']:.0f} ms")
        yield Row(
            "`shell` of `true`",
            f"{took['shell']:.0f} ms = {took['shell'] / took['bare']:.2f} x bare",
        )
        yield Row(
            "warm `run_command` of `true`",
            f"{took['ours']:.0f} ms = {took['ours'] / took['bare']:.2f} x bare",
        )
        yield Row(
            "`sprites-py`, `run` of `true`",
            f"{took['theirs']:.0f} ms; ours is {took['ours'] / took['theirs']:.2f} x",
            "1 x",
        )
        took = _client(packages, service, "files")
        for what, mine, bare, aim in (
            ("up, beside the same 5 requests bare", "up", "up_bare", "1.3 x"),
            ("down, beside the same 3 requests bare", "down", "down_bare", "1.3 x"),
            ("down, beside 1 request that checks nothing", "down", "down_once", ""),
        ):
            yield Row(
                f"64 MiB {what}",
                f"{took[mine]:.0f} ms : {took[bare]:.0f} ms = {took[mine] / took[bare]:.2f} x",
                aim,
            )
        yield Row("extra memory for both", f"{took['extra']:.0f} MiB", "32 MiB")
        streamed = _client(packages, service, "our_output")
        theirs = _client(packages, service, "their_output")
        yield Row(
            "100 MB of output streamed",
            f"{streamed['ended']:.0f} ms, {streamed['extra']:.0f} MiB extra, "
            f"{streamed['size'] / 1e6:.0f} MB arrived",
        )
        yield Row(
            "the same of a command that runs on and is then ended",
            f"{streamed['going_on']:.0f} ms",
        )
        yield Row(
            "`sprites-py`, 100 MB of output into a file",
            f"{theirs['ms']:.0f} ms, {theirs['extra']:.0f} MiB extra, "
            f"{theirs['size'] / 1e6:.0f} MB arrived",
        )


def _counted() -> Iterator[Row]:
    with SpritesServer() as server, tempfile.TemporaryDirectory() as folder:
        sprites = Sprites(server, Path(folder))
        service = sprites.service(SystemClock())
        box = service.create_sandbox(provider="sprites", sprites={"name": "sprite"})

        def requests() -> str:
            counts = server.counts()
            text = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            server.clear_requests()
            return f"{sum(counts.values())} ({text})"

        yield Row("create, ready for commands: requests", requests())
        box.run_command("true").check()
        server.clear_requests()
        box.run_command("true").check()
        yield Row("warm short command: requests", requests(), "1")
        by_id = sprites.service(SystemClock()).get_sandbox(box.sandbox_id)
        by_id.run_command("true").check()
        yield Row("by id from a new process: requests after 1 record read", requests(), "1")
        fresh = sprites.service(SystemClock()).reconnect_to_sandbox(box.sandbox_id)
        fresh.run_command("touch", ["file"]).check()
        fresh.read_file("file")
        yield Row("reconnect + run + read a file: requests", requests(), "2")
        fresh.write_files({f"d/{number}": b"x" for number in range(20)})
        yield Row("`write_files`, 20 small files: requests", requests(), "1")
        box.destroy()
        yield Row("destroy: requests", requests())
        sprites.close()


@contextlib.contextmanager
def _service() -> Iterator[dict[str, Any]]:
    """A service in a process of its own."""
    command = [sys.executable, "-m", "servers.sprites", "--latency", str(LATENCY_S)]
    with subprocess.Popen(
        command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


def _client(packages: Path, service: dict[str, Any], act: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.sprites_client"],
        cwd=TESTS,
        input=json.dumps({**service, "act": act}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(packages), "NO_PROXY": "127.0.0.1"},
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found
