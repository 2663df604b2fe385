"""Many threads on several local sandboxes"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from bench.bench_local import BWRAP_OPTIONS
from bench.measure import Row, service

THREADS, TURNS, SANDBOXES = 32, 20, 8
BWRAP = ["bwrap", *BWRAP_OPTIONS.split(), "sh", "-c"]


def rows() -> Iterator[Row]:
    """Have every thread run commands, each of which says whose it is on both streams."""
    with service() as made:
        boxes = [made.create_sandbox(provider="local") for _ in range(SANDBOXES)]

        def ours(thread: int, script: str) -> tuple[str, str]:
            result = boxes[thread % SANDBOXES].run_command("sh", ["-c", script], timeout_s=60)
            return result.output, result.error

        def bare(command: list[str]) -> Callable[[int, str], tuple[str, str]]:
            def run(thread: int, script: str) -> tuple[str, str]:
                del thread
                done = subprocess.run(
                    [*command, script], capture_output=True, text=True, check=True
                )
                return done.stdout, done.stderr

            return run

        rates = {}
        for who, run in {
            "subprocess": bare(["sh", "-c"]),
            "bwrap": bare(BWRAP),
            "ours": ours,
        }.items():
            rates[who], wrong, errors = measured(run)
            if who == "ours":
                yield Row("commands that raised", str(errors), "0")
                yield Row("outputs that were not the command's own", str(wrong), "0")
        yield Row(
            f"{THREADS} threads x {TURNS} commands on {SANDBOXES} sandboxes",
            f"{rates['ours']:.0f} commands/s = {rates['ours'] / rates['bwrap']:.2f} x bwrap per "
            f"command ({rates['bwrap']:.0f}), {rates['ours'] / rates['subprocess']:.2f} x "
            f"subprocess ({rates['subprocess']:.0f})",
        )


def measured(run: Callable[[int, str], tuple[str, str]]) -> tuple[float, int, int]:
    """Return commands per second, and how many were wrong and how many raised."""
    wrong: list[object] = []
    errors: list[Exception] = []

    def work(thread: int) -> None:
        for turn in range(TURNS):
            try:
                found = run(thread, f"echo out-{thread}-{turn}; echo err-{thread}-{turn} >&2")
            except Exception as error:
                errors.append(error)
                continue
            if found != (f"out-{thread}-{turn}\n", f"err-{thread}-{turn}\n"):
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.perf_counter() - started
    return THREADS * TURNS / spent, len(wrong), len(errors)
