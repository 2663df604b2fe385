"""Running a script inside a container: ``docker exec`` with the script on standard input."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox_docker.engine import NAME, Deadline, Engine, answered, engine_errors

_STDOUT = 1
_HEADER = struct.Struct(">BxxxL")
_CONTEXT: dict[str, Any] = {"provider": NAME, "operation": "shell"}
_END = b"\nexit\n"
"""Ends the shell without an end of input: a TLS connection cannot be closed in one direction."""


def run(
    engine: Engine, container: str, script: bytes, *, deadline: Deadline, max_bytes: int
) -> bytes:
    """Run a script and return its standard output. See ``Connection.shell``."""
    api = engine.api("shell", deadline)
    # The shell does nothing before it is sent something: until then, every failure is proven.
    try:
        with engine_errors("shell"):
            made = api.exec_create(container, ["sh"], stdin=True, stdout=True, stderr=False)
            api.timeout = deadline.left("shell")  # type: ignore[assignment]
            stream = api.exec_start(made["Id"], socket=True)
    except ProviderError as error:
        raise _meaning(error) from None
    with _held(stream) as connection:
        connection.settimeout(deadline.left("shell"))
        try:
            connection.sendall(script + _END)
            return _output(connection, deadline, max_bytes)
        except TimeoutError:
            raise ProviderTimeoutError(
                "the script did not end in time", outcome="unknown", **_CONTEXT
            ) from None
        except OSError as error:
            raise ProviderUnavailableError(
                f"the connection to the Docker engine broke: {type(error).__name__}",
                outcome="unknown",
                **_CONTEXT,
            ) from None


@contextmanager
def _held(stream: Any) -> Iterator[socket.socket]:
    """Give the connection that the SDK has taken over, and close it."""
    try:
        # Plain connections come wrapped in a SocketIO, which has no timeouts.
        yield getattr(stream, "_sock", stream)
    finally:
        response = getattr(stream, "_response", None)
        if response is not None:
            response.close()
        stream.close()


def _output(connection: socket.socket, deadline: Deadline, max_bytes: int) -> bytes:
    """Collect standard output until the engine closes the connection."""
    output, waiting = bytearray(), bytearray()
    while True:
        connection.settimeout(deadline.left("shell", outcome="unknown"))
        received = connection.recv(1 << 16)
        if not received:
            return bytes(output)
        waiting += received
        while len(waiting) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(waiting)
            end = _HEADER.size + size
            if len(waiting) < end:
                break
            if kind == _STDOUT:
                output += waiting[_HEADER.size : end]
            del waiting[:end]
        # What waits is the beginning of a piece.
        if len(output) + max(0, len(waiting) - _HEADER.size) > max_bytes:
            raise ProviderError(
                f"the script wrote more than {max_bytes} bytes",
                outcome="unknown",
                retryable=False,
                **_CONTEXT,
            )


def _meaning(error: ProviderError) -> ProviderError:
    """Return the error for a shell that was not started."""
    if answered(error, 404, "No such container"):
        return SandboxGoneError("the container does not exist", status=404, **_CONTEXT)
    if answered(error, 409) or answered(error, 404, "No such exec instance"):
        return SandboxNotRunningError("the container is not running", status=409, **_CONTEXT)
    return error
