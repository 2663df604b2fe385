"""The way into one sprite: scripts over ``POST exec``, and what a sprite can do besides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import (
    ProviderError,
    ProviderUnavailableError,
    UnsupportedOperationError,
)
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.provider import Connection, Ownership, SandboxRef, gone
from ekairos_sandbox.results import Checkpoint, PreviewUrl
from ekairos_sandbox_sprites import checkpoints
from ekairos_sandbox_sprites.api import Sprite, SpriteMissingError, SpritesApi, sprite_path
from ekairos_sandbox_sprites.files import SpriteFiles

if TYPE_CHECKING:
    from ekairos_sandbox_sprites.options import SpritesSettings

PREVIEW_PORT = 8080
"""The only port that a sprite's URL leads to."""

BODY_BYTES = 10 * 1024 * 1024
"""Longest body that ``POST exec`` takes."""

# Standard error would come in the same answer.
_HEAD = b"exec 2>/dev/null\n"

# One HTTP chunk is one frame: its first byte is the stream, 3 for the exit code. Intermediaries
# may merge and split chunks, so frames cannot be told apart for certain; but what our scripts
# answer never holds these bytes, so that dropping all of them is as good.
_FRAMING = b"\1\2\3"
_EXIT = 3
_LINGER_S = 1.0
"""How long the end of the answer is waited for once the exit code has come."""

# A sprite that no request is attached to freezes after 30 s. Its own API, on a socket inside,
# knows tasks that keep it awake for a while.
KEEP_AWAKE = """\
ek_task() {
  curl -s -m 5 --unix-socket /.sprite/api.sock "$@"
}
case $1 in
hold) ek_task -X PUT "http://sprite/v1/tasks/$2" -d '{"expire":"3m"}' ;;
free) ek_task -X DELETE "http://sprite/v1/tasks/$2" ;;
esac
"""


# Commands bear the mark of their job in their environment; their supervisors see them end and do
# the rest.
_END_COMMANDS = b"""\
set --
for go in "$HOME"/.local/state/ekairos-sandbox/jobs/*/go; do
  [ -f "$go" ] && [ ! -L "$go" ] && read -r pid since boot mark rest <"$go" || continue
  case $mark in '' | *[!0-9a-f]*) ;; *) set -- "$@" -e "EKAIROS_JOB_MARK=$mark" ;; esac
done
signal=TERM n=0 left=y
while [ $# -gt 0 ] && [ -n "$left" ] && [ $n -lt 50 ]; do
  left=
  for p in $(grep -l "$@" /proc/[0-9]*/environ); do
    p=${p#/proc/}
    kill "-$signal" "${p%/environ}" && left=y
  done
  signal=0 n=$((n + 1))
  [ $n -lt 30 ] || signal=KILL
  [ -z "$left" ] || sleep 0.1
done
[ $# -gt 0 ] && [ -n "$left" ] || echo ended
"""


class SpritesConnection(Connection):
    """A way into one sprite. Holds nothing open; for many threads, also after a fork.

    A sprite that sleeps wakes up for any call.
    """

    max_script_bytes = BODY_BYTES - len(_HEAD)
    keep_awake = KEEP_AWAKE

    def __init__(
        self,
        api: SpritesApi,
        settings: SpritesSettings,
        ref: SandboxRef[Any],
        *,
        data: Mapping[str, Any],
        ownership: Ownership = "created",
    ) -> None:
        self.external_id = ref.external_id or ref.name
        url = data.get("url")
        self.url = url if isinstance(url, str) else None
        self.data = data
        self.ownership = ownership
        self._api = api
        self._settings = settings
        self._ref = ref
        self.clock = api.clock
        self.file_api = SpriteFiles(api, ref.name, self._existing, self._wake)

    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        """Run a script as the standard input of a shell inside; see ``Connection.shell``.

        When ``timeout_s`` is over the script may run on. The bytes 1, 2 and 3 are missing from
        what is returned.
        """
        output, last, ended = bytearray(), b"", False
        with (
            self._existing("shell"),
            self._api.stream(
                "POST",
                sprite_path(self._ref.name, "exec"),
                operation="shell",
                params={"cmd": "/bin/sh", "stdin": "true"},
                headers={"Content-Type": "application/octet-stream"},
                data=_HEAD + script,
                timeout_s=(10.0, timeout_s),
                deadline_s=timeout_s,
            ) as answer,
        ):
            try:
                for piece in answer:
                    output += piece.translate(None, _FRAMING)
                    last = (last + piece)[-2:]
                    if len(output) > max_bytes:
                        raise ProviderError(
                            f"the script wrote more than {max_bytes} bytes",
                            provider="sprites",
                            operation="shell",
                            outcome="unknown",
                        )
                    if len(piece) == 2 and piece[0] == _EXIT:
                        ended = True
                        answer.hurry(_LINGER_S)
            except TransportError:
                if not ended:
                    raise
        if len(last) == 2 and last[0] == _EXIT and last[1] not in _FRAMING:
            del output[-1:]
        return bytes(output)

    def end_commands(self) -> None:
        """End every command that was started by this library; up to 5 seconds.

        Raises:
            ProviderError: It is not known whether all have ended.
        """
        if b"ended" not in self.shell(_END_COMMANDS, timeout_s=30.0, max_bytes=65536):
            raise ProviderUnavailableError(
                "the commands in the sprite do not end, or their end was not told",
                provider="sprites",
                operation="stop",
                outcome="unknown",
            )

    def native(self) -> Any:
        """Return the object of the official SDK ``sprites-py`` for this sprite.

        It is imported now: it starts a thread of its own at the first command and is not for use
        after a fork. It adds headers about the calling process to every request unless
        ``SPRITES_CLIENT_SIGNALS=0`` is set. It works until the provider is closed.

        Raises:
            UnsupportedOperationError: The SDK is not installed; says how to install it.
        """
        return self._api.sdk.get().sprite(self._ref.name)

    def create_checkpoint(self, comment: str = "") -> Checkpoint:
        """Store the state of the files; a few seconds. Never repeated by itself.

        Raises:
            ProviderError: ``outcome="unknown"`` when its end was not seen; ``list_checkpoints``
                tells whether it is there.
        """
        with self._existing("create_checkpoint"):
            self._sprite("create_checkpoint")
            made = checkpoints.create(self._api, self._ref.name, comment)
        self.data = {**self.data, "lastCheckpointId": made.id}
        return made

    def list_checkpoints(self) -> list[Checkpoint]:
        """List the stored states, oldest first; ``v0`` is that of the new sprite."""
        with self._existing("list_checkpoints"):
            self._sprite("list_checkpoints")
            return checkpoints.listed(self._api, self._ref.name)

    def restore_checkpoint(self, checkpoint_id: str) -> None:
        """Return the files to a stored state. Blocks until the sprite can be used again.

        That takes the service some 20 seconds; given up after 5 minutes, and 2 more for coming
        back.
        """
        with self._existing("restore_checkpoint"):
            self._sprite("restore_checkpoint")
            checkpoints.restore(self._api, self._ref.name, checkpoint_id)
        self.data = {**self.data, "lastRestoredCheckpointId": checkpoint_id}

    def preview_url(self, port: int) -> PreviewUrl:
        """Return the sprite's URL, which leads to port 8080 inside.

        Unless it is public, requests must bear the header that comes with it: an API token of the
        whole organisation. The service takes it away before the program inside sees the request,
        but do not hand it on, to a browser for example.

        Raises:
            UnsupportedOperationError: For any other port.
        """
        if port != PREVIEW_PORT:
            raise UnsupportedOperationError(
                f"a sprite's URL leads to port {PREVIEW_PORT} only",
                provider="sprites",
                operation="preview_url",
                hint=f"let the program inside listen on port {PREVIEW_PORT}",
            )
        with self._existing("preview_url"):
            sprite = self._sprite("preview_url")
        if sprite.url is None:
            raise ProviderError(
                "the sprite has no URL", provider="sprites", operation="preview_url"
            )
        if sprite.url_settings.get("auth") == "public":
            return PreviewUrl(sprite.url)
        token = self._settings.token
        return PreviewUrl(sprite.url, token, (("Authorization", f"Bearer {token}"),))

    def _sprite(self, operation: str) -> Sprite:
        """Return the sprite, having made sure that it is not another one of the same name.

        Commands notice that by themselves, as they know the epoch.
        """
        sprite = self._api.get(self._ref.name, operation=operation)
        if sprite is None:
            raise SpriteMissingError
        if not self._is_it(sprite):
            raise gone(self._ref, "sprites", operation=operation)
        return sprite

    def _is_it(self, sprite: Sprite) -> bool:
        return self._ref.data.get("id") in (None, sprite.id)

    def _wake(self) -> None:
        self.shell(b"true\n", timeout_s=30.0, max_bytes=1024)

    @contextlib.contextmanager
    def _existing(self, operation: str) -> Iterator[None]:
        """Find out what it means when the service does not know the sprite."""
        try:
            yield
        except SpriteMissingError:
            problem = self._absence(operation)
        else:
            return
        raise problem

    def _absence(self, operation: str) -> ProviderError:
        try:
            found = self._api.prove_absent(self._ref.name, operation=operation)
        except ProviderError as error:
            # Whatever is wrong with the proof: the call itself had no effect.
            error.outcome = "failed"
            return error
        if found is None or not self._is_it(found):
            return gone(self._ref, "sprites", operation=operation)
        return self._api.unsteady(self._ref.name, operation)
