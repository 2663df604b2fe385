"""The caller's side of a sandbox: find and end its holder, and have scripts run.

Keeps nothing open between calls, so it may be used by many threads and after a fork.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from ekairos_sandbox_local.memory_files import memory_file
from ekairos_sandbox_local.state import try_lock

_PIPE_BYTES = 1024 * 1024
_PATIENCE_S = 5.0
_PROLOGUE = b"exec 3<&-; { echo 500 >/proc/self/oom_score_adj; } 2>/dev/null\n"
"""Forget the script's descriptor; be the first to go when memory runs out."""


class NotAliveError(Exception):
    """Nobody answers for this sandbox; the request was provably not taken."""


class OtherSandboxError(Exception):
    """The folder belongs to another sandbox now; the request was not carried out."""


def connect(folder: Path, timeout_s: float) -> socket.socket:
    """Return a connection to the holder.

    Raises:
        NotAliveError: There is none, or it is starting.
        FileNotFoundError: There is no such folder.
        ProviderTimeoutError: It has more callers waiting than it can take.
    """
    limit = time.monotonic() + timeout_s
    # through /proc, because the path of a Unix socket has at most 107 bytes
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.setblocking(False)
        while True:
            try:
                connection.connect(f"/proc/self/fd/{handle}/sock")
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise timed_out("does not take calls") from None
                time.sleep(0.002)
            else:
                return connection
    except (ConnectionRefusedError, FileNotFoundError) as error:
        connection.close()
        raise NotAliveError from error
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(handle)


def is_alive(folder: Path) -> bool:
    """Tell whether a holder takes requests."""
    try:
        connect(folder, 1.0).close()
    except (NotAliveError, FileNotFoundError):
        return False
    except ProviderTimeoutError:
        return True
    return True


def run(
    folder: Path,
    external_id: str,
    script: bytes,
    *,
    uid: int | None,
    timeout_s: float,
    max_bytes: int,
    file: int | None = None,
) -> bytes:
    """Have a script run and return its output.

    Args:
        folder: The sandbox's folder.
        external_id: Which sandbox is meant.
        script: The script.
        uid: The user id it runs as, where that is not the caller's own.
        timeout_s: Seconds until the caller gives up.
        max_bytes: Bound of the output.
        file: A file in memory that the script gets as its descriptor 4.

    Raises:
        NotAliveError: No holder; the script did not run.
        OtherSandboxError: The sandbox is another one now; the script did not run.
        FileNotFoundError: There is no such folder.
        ProviderError: ``outcome="failed"`` if the script did not run, else ``"unknown"``.
    """
    limit = time.monotonic() + timeout_s
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(connect(folder, timeout_s))
        memory = memory_file(_PROLOGUE, script)
        stack.callback(os.close, memory)
        given = [memory] if file is None else [memory, file]
        output, written = os.pipe2(os.O_CLOEXEC)
        stack.callback(os.close, output)
        try:
            os.set_blocking(output, False)
            with contextlib.suppress(OSError):  # only slower
                fcntl.fcntl(written, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            if uid is not None:
                os.fchown(written, uid, uid)  # or /dev/stdout could not be opened inside
            try:
                given.insert(1, written)
                socket.send_fds(connection, [b"R" + external_id.encode()], given)
            except OSError as error:
                raise NotAliveError from error
        finally:
            os.close(written)
        try:
            return _collect(connection, output, limit, max_bytes)
        except OSError as error:
            if isinstance(error, ProviderTimeoutError):
                raise
            raise ProviderUnavailableError(
                f"the script's output could not be read: {error.strerror}",
                provider="local",
                outcome="unknown",
            ) from error


def _collect(connection: socket.socket, output: int, limit: float, max_bytes: int) -> bytes:
    """Read output until the exit code is there, which may be before the end of the output."""
    data = bytearray()
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    poller.register(output, select.POLLIN)
    while True:
        remaining = limit - time.monotonic()
        if remaining <= 0:
            raise timed_out("did not finish the script in time", outcome="unknown")
        ready = dict(poller.poll(remaining * 1000 + 1))
        if output in ready and _read(output, data, max_bytes) == b"":
            poller.unregister(output)
        if connection.fileno() in ready:
            _check_answer(connection)
            break
    # what is in the pipe now was written before the end; stragglers may go on for ever
    left = _PIPE_BYTES
    while left > 0 and (piece := _read(output, data, max_bytes)):
        left -= len(piece)
    return bytes(data)


def _read(output: int, data: bytearray, max_bytes: int) -> bytes | None:
    """Append what there is; None if there is nothing now, empty at the end."""
    try:
        piece = os.read(output, _PIPE_BYTES)
    except BlockingIOError:
        return None
    data += piece
    if len(data) > max_bytes:
        raise ProviderError(
            f"the script wrote more than {max_bytes} bytes", provider="local", outcome="unknown"
        )
    return piece


def _check_answer(connection: socket.socket) -> None:
    try:
        answer = connection.recv(64)
    except OSError:
        answer = b""
    kind = answer[:1]
    if kind == b"W":
        raise OtherSandboxError
    if kind == b"E":
        (number,) = struct.unpack("i", answer[1:])
        raise ProviderUnavailableError(
            f"the script could not be started: {os.strerror(number)}", provider="local"
        )
    if kind != b"X":
        raise ProviderUnavailableError(
            "the sandbox ended while the script was running", provider="local", outcome="unknown"
        )


def extend(folder: Path, external_id: str, lifetime_ms: int) -> None:
    """Have the holder end the sandbox so many milliseconds from now instead.

    Raises:
        NotAliveError: No holder.
        ProviderTimeoutError: It does not answer.
    """
    with connect(folder, _PATIENCE_S) as connection:
        try:
            connection.send(b"T" + external_id.encode() + b" %d" % lifetime_ms)
            if not select.select([connection], [], [], _PATIENCE_S)[0]:
                raise timed_out("does not answer", outcome="unknown")
            answer = connection.recv(64)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise NotAliveError from error
    if answer[:1] != b"T":
        raise NotAliveError


def end(folder: Path, external_id: str, timeout_s: float) -> bool:
    """End the holder and everything in its sandbox; return once they are dead.

    Call it behind the sandbox's door. True if the holder itself confirmed that nothing is left.

    Raises:
        ProviderTimeoutError: They could not be ended.
    """
    limit = time.monotonic() + timeout_s
    confirmed = False
    while not lock_is_free(folder):
        with contextlib.suppress(NotAliveError), connect(folder, 1.0) as connection:
            confirmed = _ask_to_end(connection, external_id, limit) or confirmed
        if time.monotonic() > limit:
            raise timed_out("did not end in time")
        time.sleep(0.001)
    return confirmed


def _ask_to_end(connection: socket.socket, external_id: str, limit: float) -> bool:
    """Ask politely; kill a holder that does not answer. True if it confirmed."""
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    with contextlib.suppress(OSError):
        connection.send(b"K" + external_id.encode())
        patience = min(max(limit - time.monotonic(), 0) / 2, _PATIENCE_S)
        if poller.poll(patience * 1000):
            with contextlib.suppress(OSError):
                return connection.recv(64)[:1] == b"K"
            return False
    size = struct.calcsize("3i")
    pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0]
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if not poller.poll(0):  # still connected, so the pid still is the holder's
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
    return False


def lock_is_free(folder: Path) -> bool:
    """Tell whether no holder lives."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not try_lock(fd):
            return False
        fcntl.flock(fd, fcntl.LOCK_UN)
        return True
    finally:
        os.close(fd)


def timed_out(what: str, outcome: Any = "failed") -> ProviderTimeoutError:
    """Return the error for a holder that takes too long."""
    return ProviderTimeoutError(f"the sandbox {what}", provider="local", outcome=outcome)
