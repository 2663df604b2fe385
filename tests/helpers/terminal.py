"""A real terminal: a shell in a tmux of its own, and what its screen shows."""

from __future__ import annotations

import re
import secrets
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping


class Terminal:
    """A window with a shell in it. Use it as a context manager."""

    def __init__(self, environ: Mapping[str, str], *, width: int = 100, height: int = 30) -> None:
        self._socket = f"ekairos-test-{secrets.token_hex(6)}"
        # Not below a test's own folder: the path of a socket has 107 bytes at most.
        self._folder = tempfile.mkdtemp(prefix="ekairos-tmux-")
        given = {**environ, "TMUX_TMPDIR": self._folder, "TERM": "screen-256color", "PS1": "$ "}
        self._environ = {"LANG": "C.UTF-8", **given}
        self._size = ("-x", str(width), "-y", str(height))

    def __enter__(self) -> Terminal:
        shell = shlex.join(["env", *(f"{k}={v}" for k, v in self._environ.items()), "sh"])
        self._tmux("-u", "-f", "/dev/null", "new-session", "-d", *self._size, shell)
        self.wait_for(lambda screen: screen.startswith("$"))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._tmux("kill-server")
        shutil.rmtree(self._folder)

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def press(self, key: str) -> None:
        """Press a key such as ``C-c``."""
        self._tmux("send-keys", key)

    def run(self, line: str) -> str:
        """Type a line on an empty screen, wait for its end, and return what it showed."""
        mark = secrets.token_hex(4)
        # Typed in two parts, so that only what the shell prints looks like the mark.
        self.type(f"clear; {line}; echo {mark[:4]}''{mark[4:]}")
        screen = self.wait_for(lambda screen: mark in screen)
        before = screen[: screen.index(mark)]
        return before.split(f"''{mark[4:]}\n", 1)[-1].rstrip("\n")

    def resize(self, width: int) -> None:
        """Make the window narrower or wider."""
        self._tmux("resize-window", "-x", str(width))

    def screen(self, *, escapes: bool = False) -> str:
        """Return what the screen shows, with colours as escape sequences if wanted."""
        options = ("-e",) if escapes else ()
        return self._tmux("capture-pane", "-p", *options)

    def title(self) -> str:
        """Return the window's title, which programs can set."""
        return self._tmux("display-message", "-p", "#{pane_title}").strip()

    def wait_for(self, shows: Callable[[str], bool], *, timeout_s: float = 30.0) -> str:
        """Return the screen as soon as it shows something."""
        limit = time.monotonic() + timeout_s
        while not shows(screen := self.screen()):
            assert time.monotonic() < limit, f"it never came about:\n{screen}"
            time.sleep(0.02)
        return screen

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._socket, *words],
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout


COLOUR = re.compile(r"\x1b\[[0-9;]*m")
