"""What a hostile script inside cannot do; the attempts themselves are in ``local_attacks.py``."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.local_sandboxes import Local, host_processes, is_running, sh, wait_until

from ekairos_sandbox.provider import Connection

ATTACKS = (Path(__file__).parent / "local_attacks.py").read_text()
NAMES = [
    line.removeprefix("def ").partition("(")[0]
    for before, line in zip(ATTACKS.splitlines(), ATTACKS.splitlines()[1:], strict=False)
    if before == "@attack"
]
UID = 54_321
PYTHON = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin")
_NEEDS_PYTHON = pytest.mark.skipif(
    PYTHON is None,
    reason="the attempts are written in Python, which is not installed below /usr",
)


def attempt(connection: Connection, name: str, world: dict[str, Any]) -> str:
    script = f"python3 - 2>&1 <<'END'\n{ATTACKS}\nimport json\n"
    return sh(connection, f"{script}attempt({name!r}, json.loads({json.dumps(world)!r}))\nEND")


class Target:
    """A machine with things worth attacking, and a sandbox on it."""

    def __init__(self, folder: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        canary = f"canary-{secrets.token_hex(8)}"
        self.local = Local(folder / "state")
        secret = folder / "secret"
        secret.write_text(canary)
        secret.chmod(0o600)
        victim = subprocess.Popen(
            ["sleep", f"{secrets.randbelow(10**6)}999"],
            env={"CANARY": canary, "PATH": os.environ["PATH"]},
        )
        processes.append(victim)
        named = subprocess.Popen([sys.executable, "-c", "input()", canary], stdin=subprocess.PIPE)
        processes.append(named)
        self.victim = victim
        self.sockets = [socket.socket(), socket.socket(socket.AF_UNIX)]
        self.sockets.append(socket.socket(socket.AF_UNIX))
        self.sockets[0].bind(("127.0.0.1", 0))
        self.sockets[1].bind(f"\0{canary}")
        self.sockets[2].bind(str(folder / "socket"))
        (folder / "socket").chmod(0o777)
        for listening in self.sockets:
            listening.listen(100)
        plant_key(canary)
        other, _ = self.local.create()
        sh(other, f"touch /tmp/{canary} ~/{canary}; exec -a x sleep 1000 & echo")
        sh(
            other,
            f"python3 -c 'import socket, time; s = socket.socket(socket.AF_UNIX); "
            f's.bind("\\0other-{canary}"); s.listen(); open("up", "w"); time.sleep(1000)\' & :',
        )
        wait_until(lambda: sh(other, "ls up 2>/dev/null || :") == "up")
        self.connection, self.ref = self.local.create(vcpus=1)
        self.world: dict[str, Any] = {
            "canary": canary,
            "secret": str(secret),
            "state": str(self.local.state),
            "victim": victim.pid,
            "holder": self.local.holder_pid(self.ref),
            "port": self.sockets[0].getsockname()[1],
            "abstract": canary,
            "socket": str(folder / "socket"),
            "holder_socket": str(self.local.state / self.ref.name / "sock"),
            "shown_secret": None,
            "cpus": os.cpu_count(),
            "other_folder": str(self.local.state),
        }


def plant_key(name: str) -> None:
    """Put a key into this process's session keyring."""
    number = {"x86_64": 248, "aarch64": 217}.get(os.uname().machine)
    if number is not None:
        libc = ctypes.CDLL(None)
        libc.syscall(number, b"user", name.encode(), b"secret", ctypes.c_size_t(6), -3)


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    folder = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
    folder.chmod(0o711)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        target = Target(folder, processes)
        yield target
        for one in target.sockets:
            one.close()
        target.local.destroy_all()
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        shutil.rmtree(folder)


@_NEEDS_PYTHON
@pytest.mark.parametrize("name", NAMES)
def test_an_attempt_fails(target: Target, name: str) -> None:
    if name == "widen_cpu_affinity" and os.cpu_count() == 1:
        pytest.skip("needs two CPUs")

    assert attempt(target.connection, name, target.world) == "held"
    assert target.victim.poll() is None
    assert is_running(target.world["holder"])


@_NEEDS_PYTHON
@pytest.mark.parametrize(
    "name",
    [
        "connect_to_loopback",
        "connect_to_abstract_sockets",
        "connect_to_path_sockets",
        "see_processes_of_the_host",
        "signal_processes_of_the_host",
        "read_files_of_the_host",
        "find_descriptors_of_the_host",
        "reach_devices",
    ],
)
def test_without_isolation_the_same_attempt_succeeds(target: Target, name: str) -> None:
    """Shows that the attempts can succeed at all; never runs with more rights than a user's."""
    world = json.dumps({**target.world, "control": True})
    code = f"{ATTACKS}\nimport json\nattempt({name!r}, json.loads({world!r}))"
    rights: dict[str, Any] = {"user": UID, "group": UID, "extra_groups": []}
    with Path("/etc/hostname").open() as of_the_host:
        result = subprocess.run(
            [str(PYTHON), "-"],
            input=code,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            pass_fds=(of_the_host.fileno(),),
            **(rights if os.geteuid() == 0 else {}),
        )

    assert result.stdout.startswith("BROKE"), result.stderr


OPEN_WITH_HOST_NETWORK = (
    "connect_to_loopback",
    "connect_to_abstract_sockets",
    "find_a_route_out",
)


@_NEEDS_PYTHON
def test_with_the_hosts_network_loopback_and_abstract_sockets_are_open(target: Target) -> None:
    connection, ref = target.local.create(network="host")

    for name in OPEN_WITH_HOST_NETWORK:
        assert attempt(connection, name, target.world).startswith("BROKE"), name
    target.local.provider.destroy(ref)


@pytest.mark.slow
@_NEEDS_PYTHON
def test_with_the_hosts_network_everything_else_is_held(target: Target) -> None:
    connection, ref = target.local.create(network="host", vcpus=1)

    for name in set(NAMES) - set(OPEN_WITH_HOST_NETWORK):
        assert attempt(connection, name, target.world) == "held", name
    target.local.provider.destroy(ref)


@_NEEDS_PYTHON
@pytest.mark.skipif(os.geteuid() != 0, reason="the shown file must be somebody else's")
def test_a_shown_file_keeps_its_permissions(target: Target) -> None:
    folder = Path(tempfile.mkdtemp(prefix="ekairos-test-", dir="/opt"))
    try:
        folder.chmod(0o755)
        (folder / "secret").write_text("x")
        (folder / "secret").chmod(0o600)
        (folder / "open").write_text("shown")
        connection, ref = target.local.create(extra_ro_paths=(str(folder),))
        world = {**target.world, "shown_secret": str(folder / "secret")}

        assert sh(connection, f"cat {folder}/open") == "shown"
        assert sh(connection, f"echo x 2>&1 >{folder}/new || :").endswith("Read-only file system")
        assert attempt(connection, "read_a_shown_file_that_is_roots_alone", world) == "held"
        target.local.provider.destroy(ref)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@_NEEDS_PYTHON
def test_a_script_that_is_about_to_start_shows_nothing_of_its_holder(target: Target) -> None:
    """Between fork and exec it is a copy of the holder, with all that this has open."""
    watch = """
import os, time
fine = ("pipe:", "/dev/null", "/memfd:", "/proc/", "/usr/", "/etc/ld.so", "/home/sandbox")
found, limit = set(), time.monotonic() + 20
while time.monotonic() < limit and not os.path.exists("enough"):
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for what in ("environ", "maps"):
            try:
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    text = file.read()
            except OSError:
                continue
            if b"EKAIROS" in text or b"ekairos" in text:
                found.add(f"{what} of {pid}")
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                to = os.readlink(f"/proc/{pid}/fd/{fd}")
                if not to.startswith(fine):
                    found.add(to)
        except OSError:
            pass
open("watched", "w").write(str(sorted(found)))
"""
    connection, ref = target.local.create()
    sh(connection, f"cat > watch.py <<'END'\n{watch}\nEND\npython3 watch.py & :")
    for _ in range(300):
        sh(connection, "true")
    sh(connection, "touch enough")
    wait_until(lambda: sh(connection, "cat watched 2>/dev/null || :") != "")

    assert sh(connection, "cat watched") == "[]"
    target.local.provider.destroy(ref)


def test_a_guest_that_closes_its_folders_can_be_stopped_and_started(local: Local) -> None:
    connection, ref = local.create()
    sh(connection, "echo kept > note; chmod 0 /tmp .")
    local.provider.stop(ref)

    assert sh(local.provider.connect(ref), "cat note; touch /tmp/x; ls /tmp") == "kept\nx"


@pytest.mark.parametrize("how", ["kill -9 -1", "kill -9 1", "kill -STOP 1", "kill -STOP -1"])
def test_signals_to_everything_inside_leave_the_sandbox_usable(local: Local, how: str) -> None:
    connection, ref = local.create()
    holder = local.holder_pid(ref)

    connection.shell(f"{how}; kill -KILL $$".encode(), timeout_s=10, max_bytes=1000)

    assert sh(connection, "echo up") == "up"
    assert local.holder_pid(ref) == holder


def test_a_server_of_one_script_is_reachable_from_the_next(local: Local) -> None:
    connection, _ = local.create()
    sh(connection, "python3 -m http.server --bind 127.0.0.1 8000 >/dev/null 2>&1 & :")
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000').status)"

    wait_until(lambda: sh(connection, f'python3 -c "{fetch}" 2>/dev/null || :') == "200")


def test_limits_hold(local: Local) -> None:
    connection, _ = local.create(
        max_processes=40,
        memory_mb_per_process=256,
        max_file_size_mb=1,
        max_open_files=64,
        cpu_seconds_per_process=1,
    )

    assert sh(connection, "head -c 3000000 /dev/zero > big; wc -c < big").endswith("1048576")
    assert sh(connection, "ulimit -n; ulimit -c; ulimit -u 2>/dev/null || :").split()[:2] == [
        "64",
        "0",
    ]
    memory = "try: bytes(10**9); print('got it')\nexcept MemoryError: print('refused')"
    assert sh(connection, f'python3 -c "{memory}"') == "refused"
    assert sh(connection, "sh -c 'while :; do :; done'; echo $?").endswith(
        str(128 + signal.SIGKILL)
    )
    forks = (
        "import os, time\nn = 0\n"
        "try:\n while n < 100:\n  n += 1\n  if os.fork() == 0: time.sleep(1000)\n"
        "except BlockingIOError: print(n, flush=True)\nos.kill(0, 9)"
    )
    assert 20 < int(sh(connection, f"setsid python3 -c '{forks}'")) <= 41
    assert sh(connection, "head -c 70000000 /dev/zero > /dev/shm/x; echo $?") != "0"


def test_shared_memory_is_bounded(local: Local) -> None:
    connection, _ = local.create()
    script = "head -c 100000000 /dev/zero 2>/dev/null > /dev/shm/x; wc -c < /dev/shm/x"

    assert sh(connection, script) == str(64 * 1024 * 1024)


def test_the_number_of_cpus_is_held(local: Local) -> None:
    connection, _ = local.create(vcpus=1)

    assert sh(connection, "nproc") == "1"


def test_the_guests_first_process_shows_nothing_of_the_host(local: Local) -> None:
    connection, _ = local.create()

    output = sh(connection, "cat /proc/*/cmdline /proc/*/environ | tr '\\0' ' '")
    names = sh(connection, "tr '\\0' '\\n' < /proc/1/environ | sed 's/=.*//' | sort")
    assert str(local.state) not in output
    assert names.split() == ["HOME", "LANG", "LOGNAME", "PATH", "PWD", "TMPDIR", "USER"]


def test_arguments_of_bubblewrap_are_not_in_the_process_list(local: Local) -> None:
    _, ref = local.create()

    assert host_processes(str(local.state / ref.name / "home")) == []


def test_a_link_in_place_of_the_homes_file_leads_nowhere(local: Local, scratch: Path) -> None:
    (scratch / "precious").write_text("host")
    connection, ref = local.create()
    sh(connection, f"ln -s {scratch}/precious note")

    assert sh(connection, "cat note 2>/dev/null || echo missing") == "missing"
    local.provider.stop(ref)
    local.provider.connect(ref)
    assert (scratch / "precious").read_text() == "host"


def test_each_architectures_filter_is_well_formed() -> None:
    from ekairos_sandbox_local import seccomp

    for machine in ("x86_64", "aarch64"):
        program = seccomp.program(machine)
        assert program is not None
        assert len(program) % 8 == 0
        assert program[-8:] == bytes.fromhex("060000000000ff7f")
    assert seccomp.program("vax") is None
    assert not seccomp.supported("vax")
