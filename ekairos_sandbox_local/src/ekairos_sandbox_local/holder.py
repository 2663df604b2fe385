"""The process that keeps one sandbox alive. Standard library only; Linux only.

It runs detached from whoever started it: it holds the sandbox's lock, starts bubblewrap, joins
the namespaces, gives up every privilege, and then forks scripts on request from a Unix socket
that the guest neither sees nor reaches. Being outside the guest's process namespace, it cannot be
signalled or traced from inside; being inside its other namespaces, it can do no more than a guest.

One packet is one request, one packet the answer::

    R + external id, descriptors [script, output]   ->  X + exit code (negative: a signal)
        or [script, output, file for descriptor 4]       E + errno: the script did not start
    K + external id                                 ->  K when everything has ended
    T + external id + blank + ms from now           ->  T: the deadline has been moved
    anything with another id                        ->  W

The holder starts behind the sandbox's door, whose descriptor it inherits: should the caller die
meanwhile, nobody else takes its turn before the sandbox is up. The configuration comes on standard
input; what became of the start goes to standard output: an empty tuple, or kind and text of what
went wrong.
"""

# What is imported here adds to the time that a sandbox takes to start: typing, pathlib, json,
# dataclasses and contextlib would double it, and so would what socket and signal add to the modules
# of the interpreter that they are made of. Hence also marshal, between two processes of one Python.
# ruff: noqa: PTH108, PTH110, SIM105

from __future__ import annotations

import errno
import fcntl
import gc
import marshal
import os
import resource
import select
import struct
import sys
import time

from ekairos_sandbox_local import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Any, NoReturn
else:
    import _signal as signal
    import _socket as socket

_KINDS = ("ipc", "uts", "cgroup", "pid", "mnt", "net")
_START_S = 30
_END_S = 10.0


class _StartError(Exception):
    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.report = (kind, detail)


class Holder:
    """One sandbox: its guest, its socket and the scripts under way."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        remaining = config["remaining_ms"]
        self.deadline = None if remaining is None else _now() + remaining / 1000
        self.isolated = config["isolation"] == "bubblewrap"
        self.guest = 0
        self.guest_pidfd = -1
        self.scripts: dict[int, socket.socket] = {}
        self.connections: dict[int, socket.socket] = {}
        self.ended_for: list[socket.socket] = []
        if not self.isolated:  # now, because the user that this becomes may not be let in there
            from ekairos_sandbox_local.processes import end_descendants

            self.end_descendants = end_descendants

    def start(self) -> None:
        """Bring the sandbox up to the point where it takes requests."""
        config = self.config
        if config["door"] is not None:
            os.set_inheritable(config["door"], False)
        _reset_signals()
        signal.alarm(_START_S)  # ends this process and with it whatever it has started
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1))  # see launch
        folder = os.open(config["folder"], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchdir(folder)
        os.close(folder)
        self.lock = os.open("lock", os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _StartError("busy", "another holder is alive") from error
        log = os.open("holder.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        os.dup2(log, 2)
        os.close(log)
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.path.lexists("sock"):
            os.unlink("sock")
        os.umask(0o077)
        self.server.bind("sock")  # not listening yet: refused means "starting"
        os.umask(0o022)
        for group in config["cgroups"]:
            _write(f"{group}/cgroup.procs", b"0")
        self._become_unprivileged(config["uid"])
        namespaces.new_session_keyring()
        if config["cpus"]:
            os.sched_setaffinity(0, config["cpus"])
        if self.isolated:
            self._start_guest()
        else:
            namespaces.adopt_orphans()
            namespaces.no_new_privileges()
            os.chdir(config["home"])
        self.null = os.open("/dev/null", os.O_RDWR)
        self.limits = namespaces.attainable(config["limits"])
        namespaces.set_dumpable(dumpable=False)
        self.wakeup, written = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.server.setblocking(False)
        self.server.listen(1024)
        signal.alarm(0)

    def _become_unprivileged(self, uid: int | None) -> None:
        if uid is None:
            return
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)

    def _start_guest(self) -> None:
        config = self.config
        program = config["filter"]
        files = [_memory_file(text.encode()) for text in config["files"]]
        arguments = [text.format(*files) if text[:1] == "{" else text for text in config["args"]]
        info_read, info = os.pipe()
        ready_read, ready = os.pipe()
        errors_read, errors = os.pipe()
        given = [*files, info]
        arguments += ["--info-fd", str(info)]
        if program is not None:
            given.append(_memory_file(program))
            arguments += ["--seccomp", str(given[-1])]
        given.append(_memory_file("\0".join([*arguments, ""]).encode()))
        command = ["bwrap", "--args", str(given[-1]), "--", *config["first_process"]]
        holder = os.getpid()
        self.guest = os.fork()
        if self.guest == 0:
            try:
                namespaces.die_with_parent()  # bubblewrap sees to that itself, but only later
                if os.getppid() != holder:
                    os._exit(1)
                null = os.open("/dev/null", os.O_RDWR)
                for target, fd in enumerate((null, ready, errors)):
                    os.dup2(fd, target)
                for fd in given:
                    os.set_inheritable(fd, True)
                _default_signals()
                os.execve(config["bwrap"], command, config["mark"])  # noqa: S606
            finally:
                os._exit(127)
        for fd in (*given, ready, errors):
            os.close(fd)
        if _read_until(ready_read, b"ready\n") != b"ready\n":
            detail = _read_until(errors_read, None).decode(errors="replace").strip()
            raise _StartError("bubblewrap", detail[-2000:])
        info_text = _read_until(info_read, b"}").partition(b'"child-pid":')[2]
        pid = int(info_text.strip(b" }\n").partition(b",")[0])
        for fd in (ready_read, errors_read, info_read):
            os.close(fd)
        self.guest_pidfd = os.pidfd_open(pid)
        kinds = [kind for kind in _KINDS if os.path.exists(f"/proc/{pid}/ns/{kind}")]
        if config["host_network"]:
            kinds.remove("net")
        opened = namespaces.open_namespaces(pid, tuple(kinds))
        if select.select([self.guest_pidfd], [], [], 0)[0]:
            raise _StartError("bubblewrap", "the first process ended at once")
        namespaces.set_limits(pid, config["limits"])
        namespaces.join(opened)
        os.chdir(config["home"])
        namespaces.drop_capabilities()
        namespaces.no_new_privileges()
        if program is not None:
            namespaces.install_filter(program)

    def serve(self) -> NoReturn:
        """Take requests until told to end, until the deadline, or until the guest is dead."""
        poller = select.poll()
        for fd in (self.server.fileno(), self.wakeup):
            poller.register(fd, select.POLLIN)
        gc.freeze()
        while self.deadline is None or _now() < self.deadline:
            # a wall of an hour also catches up with a machine that slept
            wait = 3600.0 if self.deadline is None else min(self.deadline - _now(), 3600.0)
            for fd, _ in poller.poll(max(wait, 0) * 1000 + 1):
                if fd == self.server.fileno():
                    self._accept(poller)
                elif fd == self.wakeup:
                    os.read(self.wakeup, 4096)
                else:
                    poller.unregister(fd)
                    self._request(self.connections.pop(fd))
            if not self._reap() or self.ended_for:
                break
        self._end()
        for connection in self.ended_for:
            _answer(connection, b"K")
        os._exit(0)

    def _accept(self, poller: select.poll) -> None:
        try:
            fd, _ = self.server._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:  # gone again, or no descriptors left
            return
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        self.connections[connection.fileno()] = connection
        poller.register(connection.fileno(), select.POLLIN)

    def _request(self, connection: socket.socket) -> None:
        size = struct.calcsize("i")
        try:
            packet, extra, _, _ = connection.recvmsg(
                64, socket.CMSG_SPACE(3 * size), socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            connection.close()
            return
        fds: list[int] = []
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds += struct.unpack(f"{len(data) // size}i", data[: len(data) // size * size])
        try:
            external_id, _, number = packet[1:].decode(errors="replace").partition(" ")
            if not packet:
                connection.close()
            elif external_id != self.config["external_id"]:
                _answer(connection, b"W")
            elif packet[:1] == b"K":
                self.ended_for.append(connection)
            elif packet[:1] == b"T" and number.isascii() and number.isdigit():
                self.deadline = _now() + int(number) / 1000
                _answer(connection, b"T")
            elif packet[:1] == b"R" and len(fds) in (2, 3):
                self._run(connection, *fds)
            else:
                connection.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _run(
        self, connection: socket.socket, script: int, output: int, file: int | None = None
    ) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            _answer(connection, b"E" + struct.pack("i", error.errno or errno.EAGAIN))
            return
        if pid == 0:
            try:
                self._become_script(script, output, file)
            finally:
                os._exit(127)
        self.scripts[pid] = connection

    def _become_script(self, script: int, output: int, file: int | None) -> None:
        os.setsid()
        given = (self.null, output, self.null, script) + (() if file is None else (file,))
        # out of the way first: one may have the number that another shall get
        for target, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, 5) for fd in given]):
            os.dup2(fd, target)
        os.closerange(len(given), 65536)
        if not self.isolated:
            namespaces.die_with_parent()
        for kind, value in self.limits:
            resource.setrlimit(kind, (value, value))
        _default_signals()
        os.execve("/bin/sh", ["sh", "/dev/fd/3"], self.config["environment"])  # noqa: S606

    def _reap(self) -> bool:
        """Answer for scripts that have ended; False when the guest itself has."""
        alive = True
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.guest:
                alive = False
            connection = self.scripts.pop(pid, None)
            if connection is not None:
                _answer(connection, b"X" + struct.pack("i", os.waitstatus_to_exitcode(status)))
        return alive

    def _end(self) -> None:
        self.server.close()
        if not self.isolated:
            self.end_descendants(own_user=self.config["uid"] is not None, timeout_s=_END_S)
            return
        try:
            signal.pidfd_send_signal(self.guest_pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        # the namespace is not gone before each of its processes is reaped
        try:
            while os.waitpid(-1, 0):
                pass
        except ChildProcessError:
            pass


def main() -> NoReturn:
    """Run a holder, detached, as its configuration on standard input says."""
    config = marshal.load(sys.stdin.buffer)  # noqa: S302 - from the process that started it
    if os.fork():
        os._exit(0)
    holder = Holder(config)
    report: tuple[str, ...] = ()
    try:
        try:
            holder.start()
        except _StartError as error:
            report = error.report
        except OSError as error:
            report = ("system", f"{error.strerror}: {_where(error)}")
        if config["door"] is not None:
            os.close(config["door"])
        try:
            os.write(1, marshal.dumps(report))
        except BrokenPipeError:  # the caller died; the next one finds it
            pass
        if report:
            os._exit(1)
        os.dup2(holder.null, 0)
        os.dup2(holder.null, 1)
        holder.serve()
    except BaseException:  # noqa: BLE001 - the log is the only place left to say it
        import traceback

        traceback.print_exc()
        os._exit(1)


def _where(error: OSError) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    step = trace.tb_frame.f_code.co_name if trace is not None else "start"
    return f"{error.filename or step}"


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _memory_file(data: bytes) -> int:
    fd = os.memfd_create("ekairos")
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, data)
    os.close(fd)


def _read_until(fd: int, end: bytes | None) -> bytes:
    data = b""
    while (end is None or end not in data) and len(data) < 65536:
        piece = os.read(fd, 4096)
        if not piece:
            break
        data += piece
    return data


def _reset_signals() -> None:
    """Undo what the caller's thread blocks and its program ignores; both are inherited."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE}:
        try:
            signal.signal(number, signal.SIG_DFL)
        except OSError:  # it belongs to the C library
            continue


def _default_signals() -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, inherited by exec
        signal.signal(number, signal.SIG_DFL)


def _answer(connection: socket.socket, packet: bytes) -> None:
    try:
        connection.send(packet)
    except OSError:  # the client is gone; its script ran to its end
        pass
    connection.close()
