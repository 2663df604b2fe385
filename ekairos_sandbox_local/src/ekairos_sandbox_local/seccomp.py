"""The system call filter: what a guest has no business to call.

A deny list in classic BPF, without libseccomp. It backs up the namespaces: it takes away parts of
the kernel that have let guests out before, and what namespaces do not cover (VSOCK sockets,
keyrings, CPU affinity, input faked into terminals). Standard library only.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

_LD, _JEQ, _JSET, _RET = 0x20, 0x15, 0x45, 0x06
_NR, _ARCH, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_PRETEND = _ERRNO
"""The call succeeds and does nothing. It keeps the limit on core dumps at 1: at 0, one that is
piped to a program of the host would be made all the same. Programs that set it to 0 would not go on
after an error."""
_X32_BIT = 0x40000000
_CLONE_NEWUSER = 0x10000000
_RLIMIT_CORE = 4
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SOCKET_FAMILIES = (1, 2, 10, 16)
"""UNIX, IPv4, IPv6 and netlink; any other family is refused."""


@dataclass(frozen=True)
class _Machine:
    audit_arch: int
    clone: int
    clone3: int
    ioctl: int
    socket: int
    setrlimit: int
    prlimit64: int
    denied: tuple[int, ...]


_COMMON = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "open_tree_attr": 467,
}

_X86_64 = {
    "syslog": 103,
    "pivot_root": 155,
    "chroot": 161,
    "acct": 163,
    "mount": 165,
    "umount2": 166,
    "swapon": 167,
    "swapoff": 168,
    "reboot": 169,
    "iopl": 172,
    "ioperm": 173,
    "init_module": 175,
    "delete_module": 176,
    "quotactl": 179,
    "sched_setaffinity": 203,
    "lookup_dcookie": 212,
    "kexec_load": 246,
    "add_key": 248,
    "request_key": 249,
    "keyctl": 250,
    "unshare": 272,
    "perf_event_open": 298,
    "open_by_handle_at": 304,
    "setns": 308,
    "finit_module": 313,
    "kexec_file_load": 320,
    "bpf": 321,
    "userfaultfd": 323,
}

_AARCH64 = {
    "lookup_dcookie": 18,
    "umount2": 39,
    "mount": 40,
    "pivot_root": 41,
    "chroot": 51,
    "quotactl": 60,
    "acct": 89,
    "unshare": 97,
    "kexec_load": 104,
    "init_module": 105,
    "delete_module": 106,
    "syslog": 116,
    "sched_setaffinity": 122,
    "reboot": 142,
    "add_key": 217,
    "request_key": 218,
    "keyctl": 219,
    "swapon": 224,
    "swapoff": 225,
    "perf_event_open": 241,
    "open_by_handle_at": 265,
    "setns": 268,
    "finit_module": 273,
    "bpf": 280,
    "userfaultfd": 282,
    "kexec_file_load": 294,
}

_MACHINES = {
    "x86_64": _Machine(
        0xC000003E, 56, 435, 16, 41, 160, 302, tuple({**_X86_64, **_COMMON}.values())
    ),
    "aarch64": _Machine(
        0xC00000B7, 220, 435, 29, 198, 164, 261, tuple({**_AARCH64, **_COMMON}.values())
    ),
}


def supported(machine: str) -> bool:
    """Tell whether there is a filter for this ``os.uname().machine``."""
    return machine in _MACHINES


def program(machine: str) -> bytes | None:
    """Return the filter as an array of ``struct sock_filter``, or None for other machines.

    Processes of another architecture's system calls are killed, those of x32 too. Arguments are
    compared in their low 32 bits, which is all that the kernel looks at for these calls.
    """
    table = _MACHINES.get(machine)
    if table is None:
        return None
    denied = _ERRNO | errno.EPERM
    code = [(_LD, 0, 0, _ARCH), (_JEQ, 1, 0, table.audit_arch), (_RET, 0, 0, _KILL_PROCESS)]
    code.append((_LD, 0, 0, _NR))
    if machine == "x86_64":
        code += [(_JSET, 0, 1, _X32_BIT), (_RET, 0, 0, _KILL_PROCESS)]
    for number in table.denied:
        code += [(_JEQ, 0, 1, number), (_RET, 0, 0, denied)]
    code += [(_JEQ, 0, 1, table.clone3), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
    code += [
        (_JEQ, 0, 4, table.clone),
        (_LD, 0, 0, _ARG0),
        (_JSET, 0, 1, _CLONE_NEWUSER),
        (_RET, 0, 0, denied),
        (_RET, 0, 0, _ALLOW),
        (_JEQ, 0, 5, table.ioctl),
        (_LD, 0, 0, _ARG1),
        (_JEQ, 1, 0, _TIOCSTI),
        (_JEQ, 0, 1, _TIOCLINUX),
        (_RET, 0, 0, denied),
        (_RET, 0, 0, _ALLOW),
        (_JEQ, 0, 4, table.setrlimit),
        (_LD, 0, 0, _ARG0),
        (_JEQ, 0, 1, _RLIMIT_CORE),
        (_RET, 0, 0, _PRETEND),
        (_RET, 0, 0, _ALLOW),
        (_JEQ, 0, 8, table.prlimit64),
        (_LD, 0, 0, _ARG1),
        (_JEQ, 0, 5, _RLIMIT_CORE),
        (_LD, 0, 0, _ARG2),  # the address of the new limit, null where it is only read
        (_JEQ, 0, 2, 0),
        (_LD, 0, 0, _ARG2 + 4),
        (_JEQ, 1, 0, 0),
        (_RET, 0, 0, _PRETEND),
        (_RET, 0, 0, _ALLOW),
        (_JEQ, 0, len(_SOCKET_FAMILIES) + 2, table.socket),
        (_LD, 0, 0, _ARG0),
    ]
    left = len(_SOCKET_FAMILIES)
    for family in _SOCKET_FAMILIES:
        code.append((_JEQ, left, 0, family))
        left -= 1
    code += [(_RET, 0, 0, _ERRNO | errno.EAFNOSUPPORT), (_RET, 0, 0, _ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)
