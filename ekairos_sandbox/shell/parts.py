"""Write large files by a service's own uploads: parts beside the target, joined by one script.

Each part has a name of its own, so one that is sent twice, because the answer was lost, does no
harm.
"""

from __future__ import annotations

import contextlib

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import SandboxError, SandboxGoneError
from ekairos_sandbox.shell.base import FileApi, Shell
from ekairos_sandbox.shell.chunks import Chunks, Pieces
from ekairos_sandbox.shell.envelope import new_nonce
from ekairos_sandbox.shell.exchange import ask, assign
from ekairos_sandbox.shell.placing import PLACING, check_mode, finish, name_of, where

# R: what the names of the parts begin with; with a slash at its end, a directory.
_OPEN = b"""\
m=$(mkdir -m 700 "${R%/}" 2>&1) || [ -d "$R" ] || no failed "$m"
say done
"""

_NAMES = b"""\
i=0; set --
while [ $i -lt $C ]; do i=$((i+1)); set -- "$@" "$R$i"; done
"""

_REMOVE = b"""\
rm -f "$@"; case $R in */) rmdir "$R" ;; esac
say done
"""

# The parts are removed after the rename, the first one first: without it the file is in place.
_JOIN = b"""\
need cat
if [ -e "$1" ]; then
 m=$({ umask 077; cat "$@" >"$T"; } 2>&1) || no failed "$m"
 %selse
 [ -f "$P" ] && [ "$(stat -c %%s "$P")" = %d ] || no lost
fi
"""


def can_name(path: str) -> bool:
    """Whether a service can be told of a path: absolute, and nothing in it but printable text."""
    return path.startswith("/") and path.isprintable()


def can_write(path: str) -> bool:
    """Whether parts may be put beside a path, whatever its last component."""
    return can_name(_folder(path))


def write_in_parts(
    shell: Shell, api: FileApi, path: str, source: Chunks, mode: int, clock: Clock | None
) -> int:
    """Write a file as ``write_file`` does; one call more than parts, two where they need a folder.

    Raises:
        RemoteFileError: A directory or device is in the way, no permission, no space.
        TransferError: What is stored inside is not what was sent.
        ProviderError: A part could not be brought in.
    """
    parts = _Parts(shell, api, path, mode, clock)
    try:
        if not api.private:
            parts.open()
        while not source.at_end():
            parts.put(source.part(api.part_bytes))
        parts.join()
    except SandboxGoneError:
        raise
    except BaseException:
        parts.discard()
        raise
    return parts.size


class _Parts:
    """The parts of one file."""

    def __init__(
        self, shell: Shell, api: FileApi, path: str, mode: int, clock: Clock | None
    ) -> None:
        self._shell = shell
        self._api = api
        self._path = path
        self._mode = check_mode(mode)
        self._clock = clock
        nonce = new_nonce()
        self._where = PLACING + where(path, 0, nonce)
        self._prefix = f"{_folder(path)}.ekairos-{nonce}{'.' if api.private else '/'}"
        self._count = 0
        self.size = 0

    def open(self) -> None:
        """Make the folder, which nobody else can look into."""
        self._ask(self._where + assign("R", self._prefix) + _OPEN)

    def put(self, part: Pieces) -> None:
        """Bring in the next part."""
        self._count += 1
        self._api.put(f"{self._prefix}{self._count}", part)
        self.size += len(part)

    def join(self) -> None:
        """Make one file of the parts and put it in its place."""
        join = _JOIN % (finish(self.size, self._mode), self.size)
        self._ask(b"".join((self._where, self._names(), join, _REMOVE)))

    def discard(self) -> None:
        """Remove the parts, if the sandbox can be asked."""
        with contextlib.suppress(SandboxError):
            body = self._names() + _REMOVE
            ask(self._shell, body, [self._path], repeat=False, timeout_s=15.0, clock=self._clock)

    def _ask(self, body: bytes) -> None:
        ask(self._shell, body, [self._path], clock=self._clock)

    def _names(self) -> bytes:
        return b"%sC=%d\n%s" % (assign("R", self._prefix), self._count, _NAMES)


def _folder(path: str) -> str:
    """Return a path without its last component."""
    return path[: len(path) - len(name_of(path))]
