"""How to measure."""

from __future__ import annotations

import contextlib
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ekairos_sandbox import RaisingSandbox, RaisingService, SandboxService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    what: str
    measured: str
    aim: str = ""


def in_turn(
    times: int, *acts: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Do each act in turn, ``times`` times over; return the median milliseconds of each."""
    spent: list[list[float]] = [[] for _ in acts]
    for _ in range(times):
        for act, times_of in zip(acts, spent, strict=True):
            started = clock()
            act()
            times_of.append((clock() - started) * 1000)
    return [statistics.median(one) for one in spent]


def peak_mib() -> float:
    """Highest memory this process has used since ``begin_peak``, MiB; Linux only."""
    # ``ru_maxrss`` begins with what the parent process had.
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) / 1024


def begin_peak() -> float:
    """Forget the peak of whatever ran before; return what is in use now, MiB."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


@contextlib.contextmanager
def service() -> Iterator[RaisingService]:
    """A service over a fresh SQLite file; what is left is destroyed."""
    with (
        tempfile.TemporaryDirectory() as folder,
        SandboxService(SqliteSandboxRepository(Path(folder) / "bench.db")) as made,
    ):
        try:
            yield made.raising
        finally:
            for record in made.raising.iter_sandboxes():
                made.raising.destroy_sandbox(record.id)


@contextlib.contextmanager
def sandbox() -> Iterator[RaisingSandbox]:
    """A local sandbox that has run a command already."""
    with service() as made:
        box = made.create_sandbox(provider="local")
        box.run_command("true").check()
        yield box
