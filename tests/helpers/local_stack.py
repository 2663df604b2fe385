"""A repository like Daytona's, a docker that only takes notes, and an API that comes up late."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.memory_world import ManualClock
from servers.http import Exchange, HttpServer, Response

GIT_ENVIRON = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.com",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.com",
}
HANGS = 256
STUB = """\
import json, os, pathlib, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
words = sys.argv[1:]
folder = pathlib.Path(os.environ["STUB_DOCKER"])
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if words[:2] == ["compose", "--file"]:
    del words[1:3]
replies = json.loads((folder / "replies").read_text())
for count in range(len(words), 0, -1):
    code, out, err = replies.get(" ".join(words[:count]), (None, "", ""))
    if code is not None:
        break
print(out, end="", flush=True)
print(err, end="", file=sys.stderr)
if code == HANGS:
    signal.pause()
sys.exit(code or 0)
"""


class Repository:
    """A git repository: ``v0.190.0`` holds a compose file, ``main`` only a README after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit({"docker/docker-compose.yaml": "services: {}\n", "README.md": "0.189\n"})
        self.git("branch", "stable")
        self.commit({"README.md": "0.190\n", "scripts/dns.sh": "#!/bin/sh\necho\n"})
        self.git("tag", "v0.190.0")
        self.git("rm", "--quiet", "-r", "docker", "scripts")
        self.commit({"README.md": "moved\n"})

    def git(self, *arguments: str) -> str:
        """Run git in it and return what it prints."""
        return git(self.folder, *arguments)

    def commit(self, files: Mapping[str, str]) -> str:
        """Commit files and return the commit."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a change")
        return self.git("rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return what it prints."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={"PATH": os.environ["PATH"], **GIT_ENVIRON},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


class StubDocker:
    """A program ``docker`` that writes its arguments down and answers as it is told.

    Attributes:
        replies: By the first words of the arguments, without ``--file PATH``: exit code, standard
            output, standard error. What is not named succeeds and prints nothing. The exit code
            ``HANGS`` means that it goes on until it is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replies: dict[str, tuple[int, str, str]] = {}
        folder.mkdir()
        program = folder / "docker"
        program.write_text(f"#!{sys.executable} -IS\nHANGS = {HANGS}\n{STUB}")
        program.chmod(0o755)
        self.describe({})

    def describe(self, config: Mapping[str, Any]) -> None:
        """Say what ``docker compose config`` prints."""
        self.reply("compose config --format json", out=json.dumps(config))

    def reply(self, words: str, *, code: int = 0, out: str = "", err: str = "") -> None:
        """Say how it answers to arguments that begin with these words."""
        self.replies[words] = (code, out, err)
        (self.folder / "replies").write_text(json.dumps(self.replies))

    def calls(self) -> list[list[str]]:
        """What it was called with."""
        notes = self.folder / "calls"
        return (
            [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        )


def environment(folder: Path, *programs: str, **more: str) -> dict[str, str]:
    """An environment in which only these programs of the machine are on ``PATH``."""
    shelf = folder / "bin"
    shelf.mkdir(exist_ok=True)
    for name in programs:
        found = shutil.which(name)
        assert found is not None
        if not (shelf / name).exists():
            (shelf / name).symlink_to(found)
    return {"PATH": str(shelf), "HOME": str(folder), **GIT_ENVIRON, **more}


def free_port() -> int:
    """A port at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def api(port: int, body: Any, *, statuses: tuple[int, ...] = ()) -> Iterator[list[str]]:
    """Serve an answer on a port, after some other statuses; yields the paths asked for."""
    paths: list[str] = []
    before = list(statuses)

    def answer(exchange: Exchange) -> Response:
        paths.append(exchange.request.target)
        return Response(before.pop(0) if before else 200, body)

    server = HttpServer(("127.0.0.1", port), answer)
    server.start()
    try:
        yield paths
    finally:
        server.stop()
        server.server_close()


class StartingClock(ManualClock):
    """A clock that starts something the first time that somebody sleeps."""

    def __init__(self, start: Callable[[], object]) -> None:
        super().__init__()
        self._start = start

    def sleep(self, seconds: float) -> None:
        if not self.slept:
            self._start()
        super().sleep(seconds)
