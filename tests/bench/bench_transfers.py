"""Large transfers and the client's memory"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measure import Row, begin_peak, peak_mib, sandbox

MIB = 1 << 20


def rows() -> Iterator[Row]:
    """Move 1 GiB both ways and stream 200 MB of output."""
    with tempfile.TemporaryDirectory() as folder, sandbox() as box:
        source, back = Path(folder) / "source", Path(folder) / "back"
        block = os.urandom(MIB)
        with source.open("wb") as file:
            for _ in range(1024):
                file.write(block)
        acts: dict[str, Callable[[], object]] = {
            "1 GiB up": lambda: box.upload(source, "big"),
            "1 GiB down": lambda: box.download("big", back),
        }
        for what, act in acts.items():
            before, started = begin_peak(), time.perf_counter()
            act()
            spent = time.perf_counter() - started
            extra = peak_mib() - before
            yield Row(what, f"{1024 / spent:.0f} MiB/s, {extra:.0f} MiB extra", "64 MiB extra")
        assert back.stat().st_size == 1024 * MIB
        before, started = begin_peak(), time.perf_counter()
        with box.stream_command(["head", "-c", "200000000", "/dev/zero"]) as stream:
            size = sum(len(chunk.data) for chunk in stream)
        spent = time.perf_counter() - started
        extra = peak_mib() - before
        assert size == 200_000_000
        yield Row(
            "200 MB of output streamed", f"{200 / spent:.0f} MB/s, {extra:.0f} MiB extra",
            "64 MiB extra",
        )  # fmt: skip
