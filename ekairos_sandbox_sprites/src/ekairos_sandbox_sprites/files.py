"""The file API of a sprite, for large files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ekairos_sandbox.exceptions import ProviderError, RemoteFileError
from ekairos_sandbox.http import HttpResponse
from ekairos_sandbox.provider_http import problem_of
from ekairos_sandbox.shell.chunks import Pieces
from ekairos_sandbox_sprites.api import SpritesApi, sprite_path

PART_BYTES = 16 * 1024 * 1024
"""Longest body that the file API takes."""

_REFUSALS = (400, 403, 404, 409, 500)

Existing = Callable[[str], AbstractContextManager[None]]
"""Finds out, for an operation, what it means when the service does not know the sprite."""


class SpriteFiles:
    """Moves files by the paths of one sprite; see ``FileApi``."""

    part_bytes = PART_BYTES
    private = True

    def __init__(
        self, api: SpritesApi, name: str, existing: Existing, wake: Callable[[], object]
    ) -> None:
        self._api = api
        self._name = name
        self._existing = existing
        self._wake = wake

    def put(self, path: str, part: Pieces) -> None:
        """Make a file of mode 0600, with its parents.

        File requests to a sprite that sleeps have been seen to hang, while a command wakes it: so
        one goes before each repetition.
        """
        attempts = 0

        def once() -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                self._wake()
            answer = self._api.call(
                "PUT",
                sprite_path(self._name, "fs", "write"),
                operation="write_file",
                repeat="never",
                accept=(200, 201, 204, *_REFUSALS),
                params={
                    "path": path,
                    "workingDir": "/",
                    "mode": "0600",
                    # The specification calls it one way, the clients the other.
                    "mkdir": "true",
                    "mkdirParents": "true",
                },
                headers={"Content-Type": "application/octet-stream"},
                data=part,
            )
            if answer.status >= 300:
                raise self._refusal(answer, path, "write_file")

        with self._existing("write_file"):
            self._api.repeated(once, repeat="always")

    def get(self, path: str) -> Iterator[bytes]:
        """Yield a file; the service says neither how long it is nor whether it has changed."""
        with (
            self._existing("read_file"),
            self._api.stream(
                "GET",
                sprite_path(self._name, "fs", "read"),
                operation="read_file",
                accept=(200, *_REFUSALS),
                params={"path": path, "workingDir": "/"},
            ) as answer,
        ):
            if answer.status != 200:
                whole = HttpResponse(answer.status, answer.headers, answer.read())
                raise self._refusal(whole, path, "read_file")
            yield from answer

    def _refusal(
        self, answer: HttpResponse, path: str, operation: str
    ) -> RemoteFileError | ProviderError:
        problem = problem_of(answer)
        if problem.code.startswith("E"):
            return RemoteFileError(
                f"refused in the sandbox: {problem.message or problem.code}: {path!r}", path=path
            )
        return self._api.error(answer, operation=operation)
