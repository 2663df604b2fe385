"""The toolbox's way to move files: multipart forms, both ways."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from ekairos_sandbox.exceptions import ProviderError, ProviderUnavailableError, RemoteFileError
from ekairos_sandbox.http import HttpResponse, HttpStream
from ekairos_sandbox.shell.chunks import Pieces
from ekairos_sandbox_daytona.api import NAME, DaytonaApi

PART_BYTES = 16 * 1024 * 1024
HEAD_BYTES = 64 * 1024
"""Where the head of a file in an answer must have ended."""

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')


class ToolboxFiles:
    """Moves files of one sandbox; see ``FileApi``.

    Args:
        api: The way to Daytona.
        toolbox: The address of its toolbox.
        sandbox_id: Whose files.
        refused: Says why a toolbox refused a request.
    """

    part_bytes = PART_BYTES
    private = False

    def __init__(
        self,
        api: DaytonaApi,
        toolbox: str,
        sandbox_id: str,
        refused: Callable[[HttpResponse], ProviderError],
    ) -> None:
        self._api = api
        self._toolbox = toolbox
        self._files = f"/{sandbox_id}/files"
        self._refused = refused

    def put(self, path: str, part: Pieces) -> None:
        """Make a file that whoever sees it may read, or write anew into it."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="files[0].path"\r\n\r\n{path}'
            f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="files[0].file"; '
            f'filename="part"\r\nContent-Type: application/octet-stream\r\n\r\n'
        )
        answer = self._api.toolbox(self._toolbox).call(
            "POST",
            f"{self._files}/bulk-upload",
            operation="write_file",
            repeat="always",
            accept=(200, 201, 400, 404),
            data=Pieces([head.encode(), *part.pieces, f"\r\n--{boundary}--\r\n".encode()]),
            headers={
                **self._api.sdk.headers,
                "Content-Type": f"multipart/form-data; boundary={boundary}",
            },
        )
        if answer.status >= 400:
            raise self._no(answer, path)

    def get(self, path: str) -> Iterator[bytes]:
        """Yield a file.

        The last open-source toolbox always uses the same boundary, which the file may hold too; so
        the file ends where the answer does.
        """
        with self._api.toolbox(self._toolbox).stream(
            "POST",
            f"{self._files}/bulk-download",
            operation="read_file",
            accept=(200, 400, 404),
            json_body={"paths": [path]},
            headers=self._api.sdk.headers,
        ) as answer:
            if answer.status != 200:
                raise self._no(HttpResponse(answer.status, answer.headers, answer.read()), path)
            head, content = _only_part(answer)
            if b'name="error"' in head:
                said = _object(b"".join(content))
                raise RemoteFileError(f"Daytona does not read it: {said.get('message')}", path=path)
            yield from content

    def _no(self, answer: HttpResponse, path: str) -> ProviderError | RemoteFileError:
        errors = _object(answer.body).get("errors")
        if answer.status == 400 and isinstance(errors, list) and errors:
            return RemoteFileError(f"Daytona refused it: {errors[0]}: {path!r}", path=path)
        return self._refused(answer)


def _only_part(answer: HttpStream) -> tuple[bytes, Iterator[bytes]]:
    """Return the head of the one part of a multipart answer, and what it holds."""
    found = _BOUNDARY.search(answer.headers.get("content-type", ""))
    boundary = b"--" + found[1].encode() if found else b""
    pieces = iter(answer)
    begun = bytearray()
    while b"\r\n\r\n" not in begun:
        piece = next(pieces, b"")
        begun += piece
        if not piece or len(begun) > HEAD_BYTES:
            raise _damaged()
    head, _, rest = bytes(begun).partition(b"\r\n\r\n")
    if not boundary or not head.startswith(boundary):
        raise _damaged()
    return head, _until(b"\r\n" + boundary + b"--", rest, pieces)


def _until(end: bytes, held: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield everything before ``end``, which is the last that comes, with a line's end or not."""
    keep = len(end) + 2
    for piece in pieces:
        held += piece
        if len(held) > keep:
            yield held[:-keep]
            held = held[-keep:]
    content, found, after = held.rpartition(end)
    if not found or after.strip():
        raise _damaged()
    if content:
        yield content


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _damaged() -> ProviderUnavailableError:
    return ProviderUnavailableError(
        "the toolbox's answer is cut short, or not what it should be",
        provider=NAME,
        operation="read_file",
    )
