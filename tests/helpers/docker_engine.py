"""A Docker engine of the tests' own, and an image without a registry; nothing of them is left.

Everything is private: socket, data, bridge. The host's firewall and forwarding are not touched;
published ports work through Docker's proxy.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGE = "ekairos-test:1"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "docker"
_TOOLS = ("dockerd", "docker", "debootstrap", "ip", "tar", "apt-get")
_START_S = 60.0


class NoEngineError(Exception):
    """No engine can run here; says why."""


@contextmanager
def docker_engine() -> Iterator[str]:
    """Start an engine that has ``IMAGE``; give what ``DOCKER_HOST`` is to be.

    Raises:
        NoEngineError: It cannot be started.
    """
    if sys.platform != "linux":
        raise NoEngineError("the tests start an engine on Linux only")
    if os.geteuid() != 0:
        raise NoEngineError("only root can start an engine")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise NoEngineError(f"not installed: {', '.join(missing)}")
    files = _rootfs()
    folder = Path(tempfile.mkdtemp(prefix="ek-docker-"))
    try:
        with _bridge() as bridge, _daemon(folder, bridge) as host:
            with files.open("rb") as archive:
                _run("docker", "--host", host, "import", "-", IMAGE, stdin=archive.fileno())
            yield host
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _rootfs() -> Path:
    """Return a tar of a minimal system like this one, made at the first call."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    archive = CACHE / f"{release}-minbase.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        root = f"{folder}/root"
        _run("debootstrap", "--variant=minbase", release, root, _mirror(release))
        part = f"{folder}/root.tar"
        leave_out = ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*"]
        _run("tar", "-C", root, *leave_out, "-cf", part, ".")
        Path(part).replace(archive)
    return archive


def _mirror(release: str) -> str:
    """Return where apt gets this release from."""
    answer = _run("apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)")
    for line in answer.splitlines():
        name, _, address = line.partition(" ")
        if name == release:
            return address
    raise NoEngineError(f"apt knows no mirror of {release or 'this system'}")


@contextmanager
def _bridge() -> Iterator[str]:
    """Make a network of the engine's own."""
    name = f"ekd{os.getpid()}"[:15]
    number = ipaddress.ip_address("10.213.0.1") + 256 * (os.getpid() % 256)
    _run("ip", "link", "add", "name", name, "type", "bridge")
    try:
        _run("ip", "addr", "add", f"{number}/24", "dev", name)
        _run("ip", "link", "set", name, "up")
        yield name
    finally:
        _run("ip", "link", "del", name)


@contextmanager
def _daemon(folder: Path, bridge: str) -> Iterator[str]:
    path = folder / "docker.sock"
    untouched = ["iptables", "ip6tables", "ip-forward", "ip-masq"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                "dockerd",
                f"--data-root={folder}/data",
                f"--exec-root={folder}/exec",
                f"--pidfile={folder}/docker.pid",
                f"--host=unix://{path}",
                f"--bridge={bridge}",
                *(f"--{what}=false" for what in untouched),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + _START_S
        while not _answers(path):
            if daemon.poll() is not None or time.monotonic() > end:
                last = (folder / "log").read_text(errors="replace").splitlines()[-3:]
                raise NoEngineError("dockerd did not start: " + " / ".join(last))
            time.sleep(0.1)
        yield f"unix://{path}"
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b"200 OK" in connection.recv(1000)
        except OSError:
            return False


def _run(*words: str, stdin: int = subprocess.DEVNULL) -> str:
    done = subprocess.run(words, stdin=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NoEngineError(f"{words[0]} failed: " + " / ".join(last))
    return done.stdout
