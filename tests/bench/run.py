"""Measures, and prints tables of medians and ratios. Run with ``make bench [ONLY=name]``.

Ratios compare things measured in turn within this one run, so that a busy machine slows both
sides; absolute figures hold for this machine at this moment only.
"""

from __future__ import annotations

import importlib
import os
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

SUBJECTS = sorted(
    path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*")
)


def main() -> None:
    """Run the subjects named on the command line, or all of them."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, uid {os.getuid()}\n")
    for name in sys.argv[1:] or SUBJECTS:
        subject = importlib.import_module(f"bench.bench_{name}")
        print(f"## {(subject.__doc__ or name).strip()}\n")
        print("| what | measured | aim |\n| --- | --- | --- |")
        for row in subject.rows():
            print(f"| {row.what} | {row.measured} | {row.aim} |", flush=True)
        print()


if __name__ == "__main__":
    main()
