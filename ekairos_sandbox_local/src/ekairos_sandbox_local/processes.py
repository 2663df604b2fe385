"""Ending processes that no namespace holds together. Standard library only."""

# loaded by the holder, which does without pathlib
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

MARK = "EKAIROS_SANDBOX_MARK"
"""Environment variable by which processes are recognised that no namespace holds together: those
of a sandbox without isolation, and bubblewrap before it has started the guest's first process."""


def descendants(pid: int) -> list[int]:
    """Return every process below one, its children's children included."""
    children: dict[int, list[int]] = {}
    for other in _all():
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{other}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(other)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def end_descendants(*, own_user: bool, timeout_s: float) -> None:
    """Kill everything below the calling process, which adopts orphans, and reap it.

    Args:
        own_user: The user id belongs to the sandbox alone, so that one call reaches all of it.
        timeout_s: Give up after this many seconds.
    """
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if own_user:
            _signal(-1, signal.SIGKILL)
        else:
            stopped: set[int] = set()
            while new := set(descendants(os.getpid())) - stopped:  # else forks outrun the kills
                for pid in new:
                    _signal(pid, signal.SIGSTOP)
                stopped |= new
            for pid in stopped:
                _signal(pid, signal.SIGKILL)
        if _reaped_all():
            return
        time.sleep(0.001)


def end_strays(mark: str, uid: int | None, timeout_s: float) -> None:
    """Kill what a sandbox left behind whose holder is dead.

    Finds processes by the sandbox's own user id or, without one, by the mark in the environment
    they were started with; a program that replaced its environment is not found.
    """
    wanted = f"{MARK}={mark}".encode()

    def of_uid(pid: int) -> bool:
        with open(f"/proc/{pid}/status", "rb") as file:
            return f"\nUid:\t{uid}\t".encode() in file.read()

    def marked(pid: int) -> bool:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return wanted in file.read().split(b"\0")

    limit = time.monotonic() + timeout_s
    matches: Callable[[int], bool] = marked if uid is None else of_uid
    while time.monotonic() < limit:
        found = False
        for pid in _all():
            with contextlib.suppress(OSError):
                if matches(pid) and not _is_zombie(pid):
                    os.kill(pid, signal.SIGKILL)
                    found = True
        if not found:
            return
        time.sleep(0.005)


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _reaped_all() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False
