"""One service, 64 threads, a minute of short commands, one request in a hundred going wrong."""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers.daytona.server import DaytonaServer
from servers.sprites.server import SpritesServer
from servers.sprites.switches import Rule
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox import SandboxError, SandboxService
from ekairos_sandbox.testing import MemorySandboxRepository

THREADS = 64
SANDBOXES = 8
SECONDS = 60.0
GROWTH_MIB = 64

Place = tuple[str, Mapping[str, str], Mapping[str, Any], Callable[[], None]]
"""Provider, environment, options, and what lets faults begin."""


@contextmanager
def sprites() -> Iterator[Place]:
    rng = random.Random(1)
    kinds: list[dict[str, Any]] = [
        {"kind": "before"},
        {"kind": "after"},
        {"kind": "html"},
        {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
        {"kind": "status", "status": 503},
    ]

    def chance(method: str, path: str) -> Rule | None:
        return Rule(**rng.choice(kinds)) if rng.random() < 0.01 else None

    with SpritesServer() as server:
        server.keep_bodies = False
        environ = {"SPRITES_API_TOKEN": server.token, "SPRITES_API_BASE_URL": server.url}
        yield "sprites", environ, {}, lambda: setattr(server.switches, "chance", chance)
        assert server.internal_errors == []


@contextmanager
def vercel() -> Iterator[Place]:
    kinds = [
        *(Fault.RESET_BEFORE, Fault.RESET_AFTER, Fault.RATE_LIMITED, Fault.SERVER_ERROR),
        *(Fault.BAD_GATEWAY, Fault.BAD_GATEWAY_AFTER, Fault.CUT, Fault.CUT_MID_LINE),
        *(Fault.END_EARLY, Fault.ERROR_RECORD),
    ]
    with VercelServer() as server:
        server.recording = False

        def begin() -> None:
            for kind in kinds:
                server.faults.add(kind, "run", times=None, every=100 * len(kinds))

        yield "vercel", server.environ(), {}, begin
        server.faults.clear()
        assert server.internal_errors == []


@contextmanager
def daytona() -> Iterator[Place]:
    with DaytonaServer() as server:

        def begin() -> None:
            for number in range(500):
                how = [("drop", 0), ("drop_after", 0), ("answer", 502), ("answer_after", 500)]
                kind, status = how[number % 4]
                server.faults.add(
                    kind,  # type: ignore[arg-type]
                    "POST",
                    ".*/process/execute",
                    skip=100 * number,
                    status=status,
                )

        options = {"ephemeral": False, "auto_stop_interval_min": 0}
        yield "daytona", server.environ(), options, begin
        server.faults.clear()
        assert server.internal_errors == []


def resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.soak
@pytest.mark.timeout(240)
@pytest.mark.parametrize("place", [sprites, vercel, daytona])
def test_nothing_is_lost_mixed_or_grows(place: Callable[[], Any]) -> None:
    counts: Counter[str] = Counter()
    took: list[float] = []
    sizes: list[float] = []
    with (
        place() as (name, environ, options, begin),
        SandboxService(MemorySandboxRepository(), environ=environ) as service,
    ):
        raising = service.raising
        ids = [
            raising.create_sandbox(provider=name, provider_options={name: options}).sandbox_id
            for _ in range(SANDBOXES)
        ]
        begin()
        started = time.monotonic()

        def work(number: int) -> None:
            while time.monotonic() - started < SECONDS:
                token, at = secrets.token_hex(8), time.monotonic()
                try:
                    result = raising.run_command(ids[number % SANDBOXES], "echo", [token])
                except SandboxError as error:
                    counts[error.code] += 1
                    continue
                took.append(time.monotonic() - at)
                counts["right" if result.output == f"{token}\n" else "WRONG"] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            for thread in threads:
                thread.join(SECONDS / 6 / THREADS)
            sizes.append(resident_mib())
        for sandbox_id in ids:
            raising.destroy_sandbox(sandbox_id)
    took.sort()
    growth = sizes[-1] - sizes[len(sizes) // 3]
    print(
        f"{name}: {dict(counts)}, {counts['right'] / SECONDS:.0f} commands/s, "
        f"p50 {took[len(took) // 2]:.2f} s, p99 {took[len(took) * 99 // 100]:.2f} s, "
        f"memory {growth:+.0f} MiB"
    )
    assert set(counts) == {"right"}
    assert growth < GROWTH_MIB
