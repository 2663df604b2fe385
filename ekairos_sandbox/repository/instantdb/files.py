"""Files that an app keeps: the namespace ``$files`` and the bytes behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from ekairos_sandbox import checks
from ekairos_sandbox.exceptions import ConfigurationError, RepositoryError
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.repository.instantdb.errors import unreachable
from ekairos_sandbox.repository.instantdb.wire import parsed

if TYPE_CHECKING:
    from ekairos_sandbox.repository.instantdb.client import InstantClient

_PATH = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_FIELDS = ("path", "size", "content-type", "url")


@dataclass(frozen=True, slots=True)
class InstantFile:
    """A stored file.

    Attributes:
        id: Its id in ``$files``.
        path: Its path, unique in the app.
        size: Bytes; None if the server does not say.
        content_type: Its media type, or None.
        url: Where anybody can download it for some days; treat it as a secret.
    """

    id: str
    path: str
    size: int | None = None
    content_type: str | None = None
    url: str | None = field(default=None, repr=False)


class InstantFiles:
    """The stored files of one app."""

    def __init__(self, client: InstantClient) -> None:
        self._client = client

    def upload(
        self, path: str, data: bytes | BinaryIO, *, content_type: str | None = None
    ) -> InstantFile:
        """Store a file; one that has the same path is replaced.

        Args:
            path: Printable ASCII, e.g. ``"reports/1.txt"``.
            data: The content; an open binary file is streamed from its current position.
            content_type: Its media type; None leaves it to the server.

        Raises:
            TypeError: It is text; encode it first.
            RepositoryError: It was not stored, or ``outcome="unknown"``.
        """
        if not isinstance(data, bytes) and not hasattr(data, "read"):
            raise TypeError(f"data is bytes or a file opened with 'rb', not {type(data).__name__}")
        headers = {"app-id": self._client.app_id, "path": _checked(path)}
        if content_type is not None:
            headers["Content-Type"] = _checked(content_type)
        rewind = None if isinstance(data, bytes) else _rewinder(data)

        def once() -> dict[str, Any]:
            if rewind is not None:
                rewind()
            answer = self._client.send("PUT", "/admin/storage/upload", headers=headers, data=data)
            return parsed(answer, _names_a_file)

        if isinstance(data, bytes) or rewind is not None:
            answer = self._client.repeated(once, replay_safe=True)
        else:
            answer = once()
        stored = answer["data"]
        return InstantFile(stored["id"], path, stored.get("size"), content_type)

    def list(self, path: str | None = None) -> list[InstantFile]:
        """Return the stored files, or the one that has this path."""
        options: dict[str, Any] = {"fields": list(_FIELDS)}
        if path is not None:
            options["where"] = {"path": path}
        rows = self._client.query({"$files": {"$": options}}).get("$files", [])
        return [
            InstantFile(
                row["id"], row["path"], row.get("size"), row.get("content-type"), row.get("url")
            )
            for row in rows
        ]

    def download(self, path: str) -> Iterator[bytes]:
        """Yield the content of a file in pieces.

        Raises:
            RepositoryError: There is none, or the transfer was cut off.
        """
        found = self.list(path)
        if not found or found[0].url is None:
            raise RepositoryError("the app has no file of this path")
        try:
            # The address is its own permission: the admin token stays here.
            with self._client.http.stream("GET", found[0].url, authenticated=False) as answer:
                if answer.status == 200:
                    yield from answer
                    return
                problem: RepositoryError = RepositoryError(
                    f"the file cannot be downloaded: HTTP {answer.status}"
                )
        except TransportError as error:
            problem = unreachable(error)
        raise problem

    def delete(self, paths: Sequence[str]) -> int:
        """Delete files by path and return how many there were; safe to repeat."""
        body = {"filenames": checks.words(paths, "paths")}
        answer = self._client.call(
            "POST", "/admin/storage/files/delete", body, replay_safe=True
        ).get("data")
        return len((answer or {}).get("ids") or ())


def _names_a_file(answer: dict[str, Any]) -> bool:
    stored = answer.get("data")
    return isinstance(stored, dict) and "id" in stored


def _rewinder(file: BinaryIO) -> Callable[[], object] | None:
    """Return what brings a file back to where it is now; None if it cannot go back."""
    if not file.seekable():
        return None
    start = file.tell()
    return lambda: file.seek(start)


def _checked(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ConfigurationError(
            "paths and types of stored files are printable ASCII", hint="it travels in a header"
        )
    return text
