"""Files of a sprite: small ones by script, large ones by its file API.

Small files go through ``shell`` because that takes one request where the file API would take
two: one to write beside the target and one to move it there, or one to read and one for the size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ekairos_sandbox.exceptions import (
    ProviderError,
    RemoteFileError,
    SandboxError,
    TransferError,
)
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.provider_http import problem_of
from ekairos_sandbox.shell import files as shell_files
from ekairos_sandbox.shell import writing
from ekairos_sandbox.shell.chunks import Chunks
from ekairos_sandbox_sprites.api import SpriteMissingError, SpritesApi, sprite_path

SMALL_BYTES = 256 * 1024
PART_BYTES = 16 * 1024 * 1024
"""Longest body that the file API takes."""

PIECE_BYTES = 1 << 20
ATTEMPTS = 4


class _Body:
    """Bytes in pieces, of a known length, that can be sent more than once."""

    def __init__(self, source: Chunks) -> None:
        self._pieces: list[bytes] = []
        left = PART_BYTES
        while left and (piece := source.take(min(left, PIECE_BYTES))):
            self._pieces.append(piece)
            left -= len(piece)
        self._size = PART_BYTES - left

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


def write(
    shell: Connection,
    api: SpritesApi,
    name: str,
    path: str,
    chunks: Iterable[bytes],
    mode: int,
) -> int:
    """Write a file in one step for everybody who reads it; return its size."""
    source = Chunks(chunks)
    first = source.take(SMALL_BYTES)
    if source.at_end():
        return shell_files.write_file(shell, path, [first], mode=mode, clock=api.clock)
    source.put_back(first)
    if not path.startswith("/"):
        pieces = iter(lambda: source.take(PIECE_BYTES), b"")
        return shell_files.write_file(shell, path, pieces, mode=mode, clock=api.clock)
    parts = writing.Parts(path, mode)
    try:
        while not source.at_end():
            body = _Body(source)
            _put(api, name, parts.new(len(body)), body)
        parts.join(shell, clock=api.clock)
    except SpriteMissingError:
        raise
    except BaseException:
        parts.discard(shell, clock=api.clock)
        raise
    return parts.size


def _put(api: SpritesApi, name: str, path: str, body: _Body) -> None:
    def once() -> None:
        answer = api.call(
            "PUT",
            sprite_path(name, "fs", "write"),
            operation="write_file",
            repeat="never",
            accept=(200, 201, 204, 400, 403, 404, 409, 500),
            params={
                "path": path,
                "workingDir": "/",
                "mode": "0600",
                # The specification calls it one way, the clients the other.
                "mkdir": "true",
                "mkdirParents": "true",
            },
            headers={"Content-Type": "application/octet-stream"},
            data=body,
        )
        if answer.status < 300:
            return
        problem = problem_of(answer)
        if problem.code.startswith("E"):
            raise RemoteFileError(
                f"refused in the sandbox: {problem.message or problem.code}: {path!r}", path=path
            )
        raise api.error(answer, operation="write_file")

    api.repeated(once, repeat="always")


def read(shell: Connection, api: SpritesApi, name: str, path: str, offset: int) -> Iterator[bytes]:
    """Return an iterator over a file's bytes from ``offset`` on."""
    head = shell_files.read_head(shell, path, offset=offset, limit=SMALL_BYTES, clock=api.clock)
    if head.is_last(offset):
        return iter([head.data] if head.data else [])
    if head.size == 0 or not path.startswith("/"):
        return shell_files.read_file(shell, path, offset=offset, clock=api.clock)
    return _Reading(shell, api, name, path, head).pieces(offset)


class _Reading:
    """A large file on its way; goes on where it was cut off, if it is still the same file."""

    def __init__(
        self, shell: Connection, api: SpritesApi, name: str, path: str, head: shell_files.Piece
    ) -> None:
        self._shell = shell
        self._api = api
        self._name = name
        self._path = path
        self._head = head

    def pieces(self, done: int) -> Iterator[bytes]:
        failures = 0
        while True:
            try:
                for piece in self._once(done):
                    done += len(piece)
                    yield piece
                if done >= self._head.size:
                    break
                problem: SandboxError = TransferError(
                    f"{self._path!r} was cut short: {done} of {self._head.size} bytes arrived"
                )
            except ProviderError as error:
                problem = error
            failures += 1
            if failures == ATTEMPTS or problem.retryable is False:
                raise TransferError(problem.message, operation="read_file") from problem
            self._api.clock.sleep(0.5 * 2**failures)
            now = shell_files.read_head(self._shell, self._path, limit=1, clock=self._api.clock)
            if now.identity != self._head.identity:
                raise self._changed()
        if done > self._head.size:
            raise self._changed()

    def _once(self, skip: int) -> Iterator[bytes]:
        with self._api.stream(
            "GET",
            sprite_path(self._name, "fs", "read"),
            operation="read_file",
            params={"path": self._path, "workingDir": "/"},
        ) as answer:
            for piece in answer:
                if skip < len(piece):
                    yield piece[skip:] if skip else piece
                skip = max(0, skip - len(piece))

    def _changed(self) -> TransferError:
        return TransferError(
            f"{self._path!r} changed while it was being read", hint="read it again"
        )
