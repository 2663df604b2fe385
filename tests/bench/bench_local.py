"""The local provider beside bare processes"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from bench.measure import Row, in_turn, sandbox, service

BWRAP_OPTIONS = """
    --unshare-user --unshare-ipc --unshare-pid --unshare-uts --unshare-net --uid 1000 --gid 1000
    --new-session --die-with-parent --disable-userns --clearenv --setenv PATH /usr/bin:/bin
    --ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64
    --dev /dev --proc /proc --tmpfs /tmp --chdir /tmp
"""
BWRAP = ["bwrap", *BWRAP_OPTIONS.split(), "sh", "-c", "true"]


def rows() -> Iterator[Row]:
    """Compare a command in a living sandbox with a sandbox per command and with no sandbox."""
    with sandbox() as box:
        live = box.service._operations.cache.get(box.sandbox_id)
        assert live is not None
        bare, bwrap, shell, run = in_turn(
            60,
            lambda: subprocess.run(["true"], check=True),
            lambda: subprocess.run(BWRAP, check=True),
            lambda: live.connection.shell(b"true", timeout_s=10, max_bytes=1000),
            lambda: box.run_command("true"),
        )
    yield Row("bare `subprocess` of `true`", f"{bare:.1f} ms")
    yield Row("bare `bwrap ... sh -c true`", f"{bwrap:.1f} ms")
    yield Row("`shell` of `true`", f"{shell:.1f} ms = {shell / bwrap:.2f} x bwrap", "0.4 x")
    yield Row("`run_command` of `true`", f"{run:.1f} ms = {run / bwrap:.2f} x bwrap", "2 x")
    with service() as made:

        def create() -> None:
            made.create_sandbox(provider="local").run_command("true")

        create()
        (both,) = in_turn(15, create)
    yield Row("create + first command", f"{both:.0f} ms", "60 ms")
