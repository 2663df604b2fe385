"""Options, field support, and what may be shown to a guest."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.provider import LocalProvider
from helpers.local_sandboxes import OWNER, Local, sh
from pydantic import ValidationError

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox_local import plugin, seccomp


def test_the_plugin_offers_the_provider() -> None:
    assert plugin.ekairos_sandbox_provider() is LocalProvider


def test_the_defaults_are_closed() -> None:
    options = LocalOptions()

    assert (options.network, options.isolation, options.extra_ro_paths) == (
        "none",
        "bubblewrap",
        (),
    )


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/home", "/root", "/etc", "/var", "/run", "/proc", "/sys", "/dev", "/tmp"),
        *("/proc/1", "/sys/fs", "/run/docker.sock", "/var/run/x", "/dev/shm", "/tmp/x"),
        *("/var/tmp", "/home/sandbox", "/home/sandbox/x"),
        *("usr/share", "/opt/../etc", "/opt/", "//opt", "", "/a\0b"),
    ],
)
def test_paths_that_may_not_be_shown_are_refused(path: str) -> None:
    with pytest.raises(ValidationError):
        LocalOptions(extra_ro_paths=(path,))


@pytest.mark.parametrize("given", [{"network": "all"}, {"isolation": "weak"}, {"nework": "host"}])
def test_unknown_values_and_names_are_refused(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        LocalOptions.model_validate(given)


def test_links_and_the_state_folder_are_seen_through(
    scratch: Path, make_local: Callable[..., Local], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ekairos_sandbox_local.options._REFUSED_TREES", ("/proc",))
    local = make_local(state=scratch / "inside" / "state")
    (scratch / "link").symlink_to("/proc/1")
    (scratch / "root").symlink_to("/")
    refused = {
        str(scratch / "link"): "part of /proc",
        str(scratch / "root"): "too broad",
        str(scratch / "nothing"): "does not exist",
        str(scratch): "holds the folder of sandboxes",
        str(scratch / "inside" / "state"): "holds the folder of sandboxes",
        str(scratch / "inside" / "state" / "x"): "does not exist",
    }
    for path, why in refused.items():
        with pytest.raises(ConfigurationError, match=why):
            local.create(extra_ro_paths=(path,))
    assert list(local.provider.list_owned(OWNER)) == []


def test_a_shown_folder_is_readable_and_its_programs_come_first(
    scratch: Path, local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = scratch / "tools"
    (shown / "bin").mkdir(parents=True)
    (shown / "bin" / "greet").write_text("#!/bin/sh\necho hello\n")
    (shown / "bin" / "greet").chmod(0o755)
    monkeypatch.setattr("ekairos_sandbox_local.options._REFUSED_TREES", ())

    connection, _ = local.create(extra_ro_paths=(str(shown),), runtime="greet")

    assert sh(connection, "greet") == "hello"
    assert sh(connection, f"touch {shown}/x 2>/dev/null || echo read-only") == "read-only"
    assert sh(connection, f"ls {scratch}") == "tools"


def test_field_support_follows_the_options() -> None:
    closed = LocalProvider.field_support()
    host = LocalProvider.field_support(LocalOptions(network="host"))
    plain = LocalProvider.field_support(LocalOptions(isolation="none"))

    assert {name: support.level for name, support in closed.items()} == {
        "timeout_ms": "enforced",
        "runtime": "enforced",
        "vcpus": "enforced" if seccomp.supported(os.uname().machine) else "recorded",
        "ports": "refused",
    }
    assert host["ports"].level == "enforced"
    assert plain["vcpus"].level == "recorded"


def run_filter(program: bytes, number: int, arch: int, *arguments: int) -> int:
    """Interpret classic BPF on a system call, as the kernel does; return its verdict."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(arguments + (0,) * 6)[:6])
    code = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        kind, when_true, when_false, operand = code[at]
        at += 1
        if kind == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, operand)
        elif kind == 0x15:
            at += when_true if accumulator == operand else when_false
        elif kind == 0x45:
            at += when_true if accumulator & operand else when_false
        else:
            assert kind == 0x06
            return int(operand)


ALLOW, EPERM, ENOSYS, EAFNOSUPPORT, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x50061, 0x80000000
PRETEND = 0x50000
X86, ARM, I386 = 0xC000003E, 0xC00000B7, 0x40000003


@pytest.mark.parametrize(
    ("machine", "arch", "number", "arguments", "verdict"),
    [
        ("x86_64", X86, 0, (), ALLOW),  # read
        ("x86_64", X86, 59, (), ALLOW),  # execve
        ("x86_64", X86, 165, (), EPERM),  # mount
        ("x86_64", X86, 250, (), EPERM),  # keyctl
        ("x86_64", X86, 323, (), EPERM),  # userfaultfd
        ("x86_64", X86, 442, (), EPERM),  # mount_setattr
        ("x86_64", X86, 435, (), ENOSYS),  # clone3
        ("x86_64", X86, 56, (17,), ALLOW),  # clone: fork
        ("x86_64", X86, 56, (0x3D0F00,), ALLOW),  # clone: thread
        ("x86_64", X86, 56, (0x10000011,), EPERM),  # clone: user namespace
        ("x86_64", X86, 16, (1, 0x5401), ALLOW),  # ioctl: TCGETS
        ("x86_64", X86, 16, (1, 0x5412), EPERM),  # ioctl: TIOCSTI
        ("x86_64", X86, 16, (1, 0x541C), EPERM),  # ioctl: TIOCLINUX
        ("x86_64", X86, 16, (1, 0x100005412), EPERM),  # only the low 32 bits count
        ("x86_64", X86, 41, (1,), ALLOW),  # socket: UNIX
        ("x86_64", X86, 41, (2,), ALLOW),
        ("x86_64", X86, 41, (10,), ALLOW),
        ("x86_64", X86, 41, (16,), ALLOW),
        ("x86_64", X86, 41, (40,), EAFNOSUPPORT),  # socket: VSOCK
        ("x86_64", X86, 41, (38,), EAFNOSUPPORT),
        ("x86_64", X86, 41, (17,), EAFNOSUPPORT),
        ("x86_64", X86, 160, (7,), ALLOW),  # setrlimit: open files
        ("x86_64", X86, 160, (4,), PRETEND),  # setrlimit: core
        ("x86_64", X86, 302, (0, 7, 1), ALLOW),  # prlimit64: open files
        ("x86_64", X86, 302, (0, 4, 0), ALLOW),  # prlimit64: core, read
        ("x86_64", X86, 302, (0, 4, 1), PRETEND),  # prlimit64: core, set
        ("x86_64", X86, 302, (0, 4, 1 << 32), PRETEND),
        ("x86_64", X86, 302, (0, 4 + (1 << 32), 1 << 32), PRETEND),
        ("aarch64", ARM, 164, (4,), PRETEND),
        ("aarch64", ARM, 261, (0, 4, 1), PRETEND),
        ("aarch64", ARM, 261, (0, 3, 1), ALLOW),
        ("x86_64", X86, 0x40000000, (), KILL),  # x32
        ("x86_64", I386, 20, (), KILL),
        ("aarch64", ARM, 63, (), ALLOW),  # read
        ("aarch64", ARM, 40, (), EPERM),  # mount
        ("aarch64", ARM, 219, (), EPERM),  # keyctl
        ("aarch64", ARM, 265, (), EPERM),  # open_by_handle_at
        ("aarch64", ARM, 220, (17,), ALLOW),
        ("aarch64", ARM, 220, (0x10000011,), EPERM),
        ("aarch64", ARM, 29, (1, 0x5412), EPERM),
        ("aarch64", ARM, 198, (40,), EAFNOSUPPORT),
        ("aarch64", ARM, 198, (1,), ALLOW),
        ("aarch64", X86, 0, (), KILL),
    ],
)
def test_the_filter_decides(
    machine: str, arch: int, number: int, arguments: tuple[int, ...], verdict: int
) -> None:
    program = seccomp.program(machine)

    assert program is not None
    assert run_filter(program, number, arch, *arguments) == verdict


def test_other_machines_have_no_filter() -> None:
    assert seccomp.program("riscv64") is None
    assert not seccomp.supported("riscv64")
