"""Daytona over the loopback service, 40 ms per request"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.measure import Row, in_turn
from ekairos_sandbox_daytona.provider import DaytonaProvider
from oracles.oracle_env import python_packages
from servers.daytona.server import DaytonaServer

from ekairos_sandbox import SandboxService
from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository

LATENCY_S = 0.04
OTHERS = {"langchain": "langchain-daytona==0.0.9", "bespoke": "bespokelabs-sandbox[daytona]==0.3.0"}
COMMAND = "echo out; exit 3"


def rows() -> Iterator[Row]:
    """Count requests, and compare with the SDK and with what others build on it."""
    yield Row("`import ekairos_sandbox_daytona.plugin` over core", f"{_plugin_ms():.1f} ms", "5 ms")
    with DaytonaServer() as server, _service(server) as (service, store):
        server.latency_s = LATENCY_S
        box = service.create_sandbox(provider="daytona", daytona={"ephemeral": False})
        box.run_command("true")
        native = _sdk(server).get(str(box.record().external_sandbox_id))

        def by_id() -> None:
            with _service(server, store) as (other, _):
                other.run_command(box.sandbox_id, "true")

        def again() -> None:
            box.reconnect()
            box.run_command("true")
            box.read_file("small")

        box.write_files({"small": b"x"})
        yield Row("warm `run_command`", _count(server, lambda: box.run_command("true")), "1")
        yield Row("by id from a new process", "1 record read + " + _count(server, by_id), "1 + 2")
        yield Row("reconnect, command, file", _count(server, again), "3")
        sdk, own = in_turn(
            30,
            lambda: native.process.exec(COMMAND),
            lambda: box.run_command("sh", ["-c", COMMAND]),
        )
        yield Row("SDK's own `process.exec`, streams mixed", f"{sdk:.0f} ms, 1 request")
        yield Row("`run_command`", f"{own:.0f} ms, 1 request = {own / sdk:.2f} x", "1.5 x")
        for name, requirement in OTHERS.items():
            yield _other(server, name, requirement, sdk)
        yield from _transfers(box, native)
    with DaytonaServer() as server, _service(server) as (service, _):
        server.latency_s = LATENCY_S
        client = _sdk(server)

        def create() -> None:
            service.create_sandbox(provider="daytona").run_command("true")

        create()
        requests = _count(server, create)
        sdk, own = in_turn(10, lambda: client.create().process.exec("true"), create)
        yield Row("SDK: create + first command", f"{sdk:.0f} ms, 2 requests")
        yield Row("create + first command", f"{own:.0f} ms, {requests} = {own / sdk:.2f} x", "2 x")


def _plugin_ms() -> float:
    code = (
        "import time, ekairos_sandbox.service; started = time.perf_counter()\n"
        "import ekairos_sandbox_daytona.plugin; print((time.perf_counter() - started) * 1000)"
    )
    command = [sys.executable, "-I", "-c", code]
    spent = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(7)
    ]
    return statistics.median(spent)


def _transfers(box: Any, native: Any) -> Iterator[Row]:
    data = os.urandom(64 << 20)
    up_sdk, up, down_sdk, down = in_turn(
        2,
        lambda: native.fs.upload_file(data, "by-sdk"),
        lambda: box.write_files({"by-us": data}),
        lambda: native.fs.download_file("by-sdk"),
        lambda: box.read_file("by-us"),
    )
    yield Row("SDK: 64 MiB up, neither atomic nor checked", f"{up_sdk:.0f} ms")
    yield Row("64 MiB up", f"{up:.0f} ms = {up / up_sdk:.2f} x")
    yield Row("SDK: 64 MiB down, may be cut unnoticed", f"{down_sdk:.0f} ms")
    yield Row("64 MiB down", f"{down:.0f} ms = {down / down_sdk:.2f} x")


def _other(server: DaytonaServer, name: str, requirement: str, sdk_ms: float) -> Row:
    """Run another library in a process of its own."""
    title = f"`{requirement.partition('[')[0].partition('==')[0]}`"
    script = Path(__file__).with_name("daytona_others.py")
    times = 10
    server.clear_requests()
    done = subprocess.run(
        [sys.executable, "-s", "-P", str(script), name],
        input=json.dumps({"environ": server.environ(), "times": times}),
        env={**os.environ, "PYTHONPATH": str(python_packages(requirement))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return Row(title, f"failed: {done.stderr.strip().splitlines()[-1][:80]}")
    ms = json.loads(done.stdout)["ms"]
    inside = sum(n for kind, n in server.counts().items() if " /toolbox/" in kind)
    return Row(title, f"{ms:.0f} ms, {inside / (times + 1):.1f} requests = {ms / sdk_ms:.2f} x")


def _count(server: DaytonaServer, act: Callable[[], object]) -> str:
    server.clear_requests()
    act()
    counted: Counter[str] = server.counts()
    return str(counted.total())


def _sdk(server: DaytonaServer) -> Any:
    from daytona import Daytona, DaytonaConfig

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return Daytona(
            DaytonaConfig(
                api_key=server.organisation.api_key,
                api_url=server.api_url,
                use_deprecated_polling=True,
            )
        )


@contextlib.contextmanager
def _service(
    server: DaytonaServer, store: Path | None = None
) -> Iterator[tuple[RaisingService, Path]]:
    """A service that shares nothing with others but the record file."""
    with tempfile.TemporaryDirectory() as folder:
        path = store or Path(folder) / "bench.db"
        provider = DaytonaProvider(ProviderContext(environ=server.environ()))
        with SandboxService(
            SqliteSandboxRepository(path), environ={}, providers=[provider]
        ) as service:
            yield service.raising, path
