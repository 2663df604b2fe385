"""Attempts to get out of a sandbox. Runs inside, on the standard library alone.

``attempt(name, world)`` prints ``held``, or ``BROKE`` and what could be done. ``world`` names
things of the host that the guest should not reach.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import pty
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

World = dict[str, Any]
ATTACKS: dict[str, Callable[[World], Iterator[str]]] = {}
_libc = ctypes.CDLL(None, use_errno=True)
OWN_SETTINGS = {  # of the sandbox's own ipc and pid namespaces
    *(f"fs/mqueue/{name}" for name in ("msg_default", "msg_max", "msgsize_default")),
    *(f"fs/mqueue/{name}" for name in ("msgsize_max", "queues_max")),
    *(f"kernel/{name}" for name in ("auto_msgmni", "msgmax", "msgmnb", "msgmni", "sem")),
    *(f"kernel/{name}" for name in ("msg_next_id", "sem_next_id", "shm_next_id")),
    *(f"kernel/{name}" for name in ("shm_rmid_forced", "shmall", "shmmax", "shmmni")),
    *(f"kernel/{name}" for name in ("ns_last_pid", "pid_max")),
}
_X86 = os.uname().machine == "x86_64"


def attack(function: Callable[[World], Iterator[str]]) -> Callable[[World], Iterator[str]]:
    ATTACKS[function.__name__] = function
    return function


def attempt(name: str, world: World) -> None:
    found = list(ATTACKS[name](world))
    print("BROKE " + "; ".join(found) if found else "held")


def call(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call; return 0 or what went wrong."""
    result = _libc.syscall(number, *arguments)
    return ctypes.get_errno() if result < 0 else 0


def processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def readable(path: str | Path) -> bool:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except OSError:
        return False
    return True


@attack
def read_files_of_the_host(world: World) -> Iterator[str]:
    for path in (world["secret"], "/etc/shadow", "/etc/gshadow", world["state"], "/root"):
        if readable(path) or (Path(path).is_dir() and os.access(path, os.R_OK)):
            yield path
    if os.listdir("/home") != ["sandbox"]:  # noqa: PTH208
        yield "/home"


@attack
def follow_a_link_to_the_host(world: World) -> Iterator[str]:
    link = Path("link-out")
    link.unlink(missing_ok=True)
    link.symlink_to(world["secret"])
    if readable(link):
        yield "link"


@attack
def see_processes_of_the_host(world: World) -> Iterator[str]:
    for process in processes():
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            if world["canary"].encode() in content:
                yield f"{process}/{name}"


@attack
def signal_processes_of_the_host(world: World) -> Iterator[str]:
    for pid in (world["victim"], world["holder"]):
        if "control" not in world and (Path("/proc") / str(pid)).exists():
            continue  # an own process that happens to have this number
        for reach in (lambda: os.kill(pid, 0), lambda: os.pidfd_open(pid)):  # noqa: B023
            try:
                reach()
            except ProcessLookupError:
                continue
            except PermissionError:  # so it is there
                pass
            yield str(pid)


@attack
def enter_the_root_of_another_process(world: World) -> Iterator[str]:
    for process in processes():
        for name in ("root", "cwd"):
            if readable(f"{process}/{name}{world['secret']}"):
                yield f"{process}/{name}"


@attack
def write_to_the_system(world: World) -> Iterator[str]:
    del world
    for folder in ("/", "/usr", "/usr/bin", "/etc", "/etc/ssl", "/dev", "/home", "/var", "/run"):
        try:
            (Path(folder) / "intruder").touch()
        except OSError:
            continue
        yield folder
    for path in ("/etc/passwd", "/etc/hosts", "/etc/ld.so.cache", "/usr/bin/env"):
        if os.access(path, os.W_OK):
            yield path


@attack
def change_mounts(world: World) -> Iterator[str]:
    del world
    remount, bind, detach = 32, 4096, 2
    for what, arguments in {
        "remount": (None, b"/usr", None, remount, None),
        "remount bind": (None, b"/usr", None, remount | bind, None),
        "bind": (b"/tmp", b"/usr", None, bind, None),
        "tmpfs": (b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        "proc": (b"proc", b"/tmp", b"proc", 0, None),
    }.items():
        if _libc.mount(*arguments) == 0:
            yield what
    if _libc.umount2(b"/proc", detach) == 0:
        yield "umount"
    if _libc.chroot(b"/tmp") == 0:
        yield "chroot"


@attack
def gain_privileges(world: World) -> Iterator[str]:
    del world
    status = Path("/proc/self/status").read_text()
    for line in ("NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"):
        if line not in status:
            yield line
    for change in (os.setuid, os.setgid):
        try:
            change(0)
        except OSError:
            continue
        yield change.__name__
    for first in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Seccomp:\t2"):
        if first not in Path("/proc/1/status").read_text():
            yield f"first process without {first}"


@attack
def write_kernel_settings(world: World) -> Iterator[str]:
    del world
    for folder, _, files in os.walk("/proc/sys"):
        for name in files:
            path = f"{folder}/{name}"
            try:
                os.close(os.open(path, os.O_WRONLY))
            except OSError:
                continue
            if path.removeprefix("/proc/sys/") not in OWN_SETTINGS:
                yield path
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/kcore"):
        for mode in (os.O_WRONLY, os.O_RDWR):
            try:
                os.close(os.open(path, mode))
            except OSError:
                continue
            yield path


@attack
def read_a_shown_file_that_is_roots_alone(world: World) -> Iterator[str]:
    if world["shown_secret"] and readable(world["shown_secret"]):
        yield world["shown_secret"]


@attack
def connect_to_loopback(world: World) -> Iterator[str]:
    try:
        socket.create_connection(("127.0.0.1", world["port"]), 2).close()
    except OSError:
        return
    yield "127.0.0.1"


@attack
def connect_to_abstract_sockets(world: World) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect("\0" + world["abstract"])
        except OSError:
            return
        yield "abstract socket"


@attack
def connect_to_path_sockets(world: World) -> Iterator[str]:
    for path in (world["socket"], world["holder_socket"]):
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            with socket.socket(socket.AF_UNIX, kind) as client:
                try:
                    client.connect(path)
                except OSError:
                    continue
                yield path


@attack
def find_a_route_out(world: World) -> Iterator[str]:
    del world
    routes = Path("/proc/net/route").read_text().splitlines()[1:]
    if routes:
        yield f"{len(routes)} routes"
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        yield "interfaces"


@attack
def make_user_namespaces(world: World) -> Iterator[str]:
    del world
    new_user, new_ns = 0x10000000, 0x00020000
    if _libc.unshare(new_user) == 0:
        yield "unshare"
    if _libc.unshare(new_ns) == 0:
        yield "unshare mounts"
    pid = _libc.syscall(56 if _X86 else 220, new_user | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    if pid > 0:
        yield "clone"
    if call(435, bytes(88), 88) != errno.ENOSYS:
        yield "clone3"
    for path in Path("/proc/sys/user").iterdir():
        if path.name == "max_user_namespaces":
            try:
                path.write_text("100")
            except OSError:
                continue
            yield "raised the limit"


@attack
def join_namespaces(world: World) -> Iterator[str]:
    del world
    for process in processes():
        for name in ("user", "mnt", "net", "pid"):
            try:
                fd = os.open(f"{process}/ns/{name}", os.O_RDONLY)
            except OSError:
                continue
            if _libc.setns(fd, 0) == 0:
                yield f"{process}/ns/{name}"
            os.close(fd)


@attack
def reach_devices(world: World) -> Iterator[str]:
    del world
    try:
        os.mknod("mem", 0o600 | 0o020000, os.makedev(1, 1))
    except OSError:
        pass
    else:
        yield "mknod"
    known = {"null", "zero", "full", "random", "urandom", "tty", "console", "stdin", "stdout"}
    known |= {"stderr", "fd", "core", "shm", "pts", "ptmx"}
    for path in Path("/dev").iterdir():
        if path.name not in known:
            yield str(path)
    if Path("/sys").exists():
        yield "/sys"


@attack
def read_kernel_memory_and_log(world: World) -> Iterator[str]:
    del world
    if call(103 if _X86 else 116, 3, bytes(4096), 4096) == 0:
        yield "syslog"
    for path in ("/dev/mem", "/dev/kmem", "/dev/kmsg", "/proc/kcore", "/proc/kmsg"):
        if readable(path):
            yield path
    symbols = Path("/proc/kallsyms")
    if readable(symbols):
        with symbols.open() as file:
            if any(int(line.split()[0], 16) for _, line in zip(range(50), file, strict=False)):
                yield "kallsyms"


@attack
def find_descriptors_of_the_host(world: World) -> Iterator[str]:
    del world
    fine = ("pipe:", "/dev/null", "/memfd:", "/proc/", "/tmp/", "/home/sandbox")
    for process in processes():
        try:
            opened = list((process / "fd").iterdir())
        except OSError:
            continue
        for fd in opened:
            try:
                target = str(fd.readlink())
            except OSError:
                continue
            if not target.startswith(fine):
                yield f"{fd} -> {target}"


@attack
def change_the_script_that_runs(world: World) -> Iterator[str]:
    del world
    for process in processes():
        try:
            opened = list((process / "fd").iterdir())
        except OSError:
            continue
        for fd in opened:
            try:
                if str(fd.readlink()).startswith("/memfd:script"):
                    with fd.open("r+b") as file:
                        file.write(b"x")
                        file.flush()
                        yield str(fd)
            except OSError:
                continue


@attack
def read_the_callers_keyring(world: World) -> Iterator[str]:
    number = 250 if _X86 else 219
    session, search, read = -3, 10, 11
    key = _libc.syscall(number, search, session, b"user", world["canary"].encode(), 0)
    if key > 0:
        yield f"key {key}"
    if call(number, read, session, bytes(64), 64) == 0:
        yield "session keyring"
    if world["canary"] in Path("/proc/keys").read_text():
        yield "/proc/keys"


@attack
def open_sockets_that_no_namespace_holds(world: World) -> Iterator[str]:
    del world
    for name, family, kind in (
        ("vsock", 40, socket.SOCK_STREAM),
        ("alg", 38, socket.SOCK_SEQPACKET),
        ("packet", 17, socket.SOCK_RAW),
        ("bluetooth", 31, socket.SOCK_RAW),
        ("can", 29, socket.SOCK_RAW),
        ("raw", socket.AF_INET, socket.SOCK_RAW),
    ):
        try:
            socket.socket(family, kind, 255 if name == "raw" else 0).close()
        except OSError:
            continue
        yield name


@attack
def type_into_terminals(world: World) -> Iterator[str]:
    del world
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
        yield "/dev/tty"
    except OSError:
        pass
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, 0x5412, b"x")
        yield "TIOCSTI"
    except OSError:
        pass
    os.close(master)
    os.close(slave)


@attack
def use_risky_system_calls(world: World) -> Iterator[str]:
    del world
    numbers = {"io_uring_setup": (425, 425), "fsopen": (430, 430), "open_tree": (428, 428)}
    numbers |= {"bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282)}
    numbers |= {"add_key": (248, 217), "kexec_load": (246, 104), "quotactl": (179, 60)}
    for name, (x86, arm) in numbers.items():
        if call(x86 if _X86 else arm, 0, 0, 0, 0, 0) != errno.EPERM:
            yield name


@attack
def use_another_abi(world: World) -> Iterator[str]:
    del world
    if not _X86:
        return
    code = "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39); print('alive')"
    result = subprocess.run(["python3", "-c", code], capture_output=True, check=False)
    if result.returncode != -signal.SIGSYS:
        yield f"x32 ended with {result.returncode}"


@attack
def widen_cpu_affinity(world: World) -> Iterator[str]:
    try:
        os.sched_setaffinity(0, range(world["cpus"]))
    except OSError:
        return
    yield f"{len(os.sched_getaffinity(0))} CPUs"


@attack
def reach_another_sandbox(world: World) -> Iterator[str]:
    for folder in ("/tmp", "/dev/shm", "/home/sandbox", world["other_folder"]):
        if (Path(folder) / world["canary"]).exists():
            yield folder
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect("\0other-" + world["abstract"])
        except OSError:
            return
        yield "abstract socket of the other"


@attack
def run_programs_with_more_rights(world: World) -> Iterator[str]:
    """Mounts that honour setuid bits or device files."""
    del world
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        options = fields[5].split(",")
        if "nosuid" not in options:
            yield f"{fields[4]} honours setuid"
        if "nodev" not in options and not fields[4].startswith("/dev"):
            yield f"{fields[4]} honours devices"
    effective = [line for line in _status("self") if line.startswith("Uid:")][0].split()[2]  # noqa: RUF015
    for folder in ("/usr/bin", "/usr/sbin", "/usr/lib"):
        for entry in os.scandir(folder):
            if entry.is_file() and entry.stat().st_mode & 0o6000 and os.access(entry, os.X_OK):
                with subprocess.Popen([entry.path], stdin=-3, stdout=-3, stderr=-3) as program:
                    try:
                        found = [x for x in _status(program.pid) if x.startswith("Uid:")]
                    except OSError:
                        found = []
                    program.kill()
                if found and found[0].split()[2] != effective:
                    yield entry.path


def _status(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


@attack
def ask_for_outer_namespaces(world: World) -> Iterator[str]:
    del world
    get_owner, get_parent = 0xB701, 0xB702
    for kind in ("mnt", "net", "pid", "uts", "ipc", "user", "cgroup"):
        for process in ("self", "1"):
            try:
                opened = [os.open(f"/proc/{process}/ns/{kind}", os.O_RDONLY)]
            except OSError:
                continue
            for fd in opened:
                for ask in (get_owner, get_parent):
                    try:
                        opened.append(fcntl.ioctl(fd, ask))
                    except OSError:
                        continue
                if len(opened) > 20:
                    break
            for fd in opened:
                if _libc.setns(fd, 0) == 0:
                    yield f"{process}/{kind}"
                os.close(fd)


@attack
def raise_limits(world: World) -> Iterator[str]:
    del world
    for name in ("NOFILE", "NPROC", "FSIZE", "CORE", "MEMLOCK", "RTPRIO", "NICE"):
        kind = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY:
            continue
        try:
            resource.setrlimit(kind, (hard, hard + 1))
        except (OSError, ValueError):
            continue
        if resource.getrlimit(kind)[1] != hard:
            yield name


@attack
def have_a_core_dumped(world: World) -> Iterator[str]:
    """At a limit of 0, a program of the host that takes core dumps would be called."""
    del world
    for change in (
        lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        lambda: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)),
    ):
        with contextlib.suppress(OSError, ValueError):
            change()
        if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):
            yield str(resource.getrlimit(resource.RLIMIT_CORE))


@attack
def take_precedence(world: World) -> Iterator[str]:
    del world
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -5)
        yield "nice"
    except OSError:
        pass
    for policy in (os.SCHED_FIFO, os.SCHED_RR):
        try:
            os.sched_setscheduler(0, policy, os.sched_param(1))
        except OSError:
            continue
        yield "real time"
    if call(251 if _X86 else 30, 1, 0, 1 << 13) == 0:
        yield "ioprio"
    try:
        Path("/proc/self/oom_score_adj").write_text("-500")
    except OSError:
        return
    yield "oom_score_adj"


@attack
def set_the_clock_and_the_name(world: World) -> Iterator[str]:
    del world
    with contextlib.suppress(OSError):
        time.clock_settime(time.CLOCK_REALTIME, time.time())
        yield "clock"
    with contextlib.suppress(OSError):
        socket.sethostname("intruder")
        yield "name"
    if _libc.adjtimex(b"\1" + bytes(207)) >= 0:
        yield "adjtimex"


@attack
def change_the_network(world: World) -> Iterator[str]:
    del world
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for request, data in ((0x8914, b"lo" + bytes(14) + bytes(24)), (0x890B, bytes(120))):
            try:
                fcntl.ioctl(any_socket, request, data)
            except OSError:
                continue
            yield hex(request)
    try:
        with socket.socket(socket.AF_INET6) as client:
            client.settimeout(2)
            client.bind(("::", 80))
        yield "port 80"
    except OSError:
        pass


@attack
def read_what_the_kernel_tells_root(world: World) -> Iterator[str]:
    del world
    names = "slabinfo timer_list kpageflags kpagecount vmallocinfo pagetypeinfo sysvipc/../kmsg"
    for name in names.split():
        if readable(f"/proc/{name}"):
            yield name
    with contextlib.suppress(OSError), Path("/proc/iomem").open() as file:
        if any(int(line.split("-")[0], 16) for line in file):
            yield "iomem"
    with contextlib.suppress(OSError), Path("/proc/self/pagemap").open("rb") as file:
        file.seek(id(names) // 4096 * 8)
        if int.from_bytes(file.read(8), "little") & ((1 << 55) - 1):
            yield "physical addresses"


@attack
def find_control_groups(world: World) -> Iterator[str]:
    del world
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.rpartition(":")[2] != "/":
            yield line
    if Path("/sys").exists():
        yield "/sys"
    if _libc.mount(b"none", b"/tmp", b"cgroup2", 0, None) == 0:
        yield "mounted"


@attack
def trace_the_first_process(world: World) -> Iterator[str]:
    """It may be traced, being the guest's own, but has nothing that a script has not."""
    outside = (world["state"], str(Path(world["secret"]).parent))
    status = "\n".join(_status(1))
    for line in ("NoNewPrivs:\t1", "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000"):
        if line not in status:
            yield line
    with contextlib.suppress(OSError):
        for name in ("cwd", "root", "exe"):
            target = str(Path(f"/proc/1/{name}").readlink())
            if target.startswith(outside):
                yield f"{name} -> {target}"
