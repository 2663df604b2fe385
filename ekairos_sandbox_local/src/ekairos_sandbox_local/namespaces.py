"""System calls that Python does not offer, through ctypes. Standard library only; Linux only.

``os.setns`` exists from Python 3.12 on, so this is what 3.11 needs.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import struct

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 24, 36, 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_SECCOMP_MODE_FILTER = 2
_NS_GET_USERNS = 0xB701
_KEYCTL_JOIN_SESSION_KEYRING = 1
_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "loongarch64": 219,
    "ppc64le": 271,
    "s390x": 280,
    "armv7l": 311,
    "i686": 288,
}

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _prctl(option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _check(_libc.prctl(option, *(ctypes.c_ulong(value) for value in padded)))


def new_session_keyring() -> None:
    """Leave the caller's session keyring for a new, empty one."""
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        raise OSError(38, f"no keyring call known for {os.uname().machine}")
    try:
        _check(_libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None))
    except OSError as error:
        if error.errno != 38:  # a kernel without keyrings has none to leave
            raise


def open_namespaces(pid: int, kinds: tuple[str, ...]) -> list[int]:
    """Open the namespaces of a process in the order in which they can be joined.

    The mounts, pids and network belong to an outer user namespace, the process itself lives in
    one nested in it: the outer one comes first, the nested one last.
    """
    opened = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds}
    inner = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    outer = fcntl.ioctl(opened["mnt"], _NS_GET_USERNS)
    same = os.fstat(outer).st_ino == os.fstat(inner).st_ino
    return [outer, *opened.values()] + ([] if same else [inner])


def join(namespaces: list[int]) -> None:
    """Enter the namespaces in this order and close them."""
    for fd in namespaces:
        _check(_libc.setns(fd, 0))
        os.close(fd)


def drop_capabilities() -> None:
    """Give up every capability, for ever."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(64):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != 22:  # beyond the last one that this kernel knows
                raise
            break
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)))


def no_new_privileges() -> None:
    """Make setuid programs harmless from here on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def install_filter(program: bytes) -> None:
    """Filter system calls of this process and its children from here on."""
    code = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, then a pointer
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    if struct.calcsize("P") == 4:
        header = struct.pack("HxxP", len(program) // 8, ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header, len(header))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(buffer))


def set_dumpable(*, dumpable: bool) -> None:
    """Allow or forbid that processes of the same user look into this one."""
    _prctl(_PR_SET_DUMPABLE, int(dumpable))


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Have this process killed when the one that forked it dies."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def set_limits(pid: int, limits: list[tuple[int, int]]) -> None:
    """Set resource limits, soft and hard alike, of a process; 0 means this one.

    A hard limit that is lower already stays.
    """
    for kind, value in attainable(limits, pid):
        resource.prlimit(pid, kind, (value, value))


def attainable(limits: list[tuple[int, int]], pid: int = 0) -> list[tuple[int, int]]:
    """Return resource limits with none above the hard one of a process; 0 means this one."""
    found = []
    for kind, value in limits:
        hard = resource.prlimit(pid, kind)[1]
        found.append((kind, value if hard == resource.RLIM_INFINITY else min(value, hard)))
    return found
