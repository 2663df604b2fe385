"""Stored states of a sandbox's files. Call everything here behind the sandbox's door.

::

    checkpoints/<n>/about.json, home, tmp    one stored state; appears by one rename
    checkpoints/.new-*                       half-made ones
    restored/home, tmp                       decided upon: to take the place of the present files
    .old-*                                   files whose place was taken

A state is brought back by copying it first, then renaming the copy to ``restored``. Before that
nothing has changed; from then on whoever comes behind the door finishes it.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import secrets
import subprocess
from pathlib import Path
from typing import Any

from ekairos_sandbox.exceptions import ProviderError, ProviderTimeoutError
from ekairos_sandbox.provider import no_checkpoint
from ekairos_sandbox.results import Checkpoint
from ekairos_sandbox_local import copier, starting
from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.state import Meta
from ekairos_sandbox_local.trees import make_guest_folders, remove_tree

_MIB = 1024 * 1024
_MAX_ENTRIES = 2_000_000
_COPY_S = 1800.0


def create(
    folder: Path, meta: Meta, options: LocalOptions, comment: str, *, now_ms: int, door: int
) -> Checkpoint:
    """Store the present state of the files.

    Raises:
        ProviderError: There are too many states, or too much in this one; nothing was stored.
    """
    sweep(folder)
    found = listed(folder)
    if len(found) >= options.max_checkpoints:
        raise _failed(
            f"the sandbox has {len(found)} checkpoints, which is all it may have",
            hint="make the next sandbox with a higher max_checkpoints",
        )
    last = max((int(one.id) for one in found), default=0)
    made = Checkpoint(str(last + 1), now_ms, comment)
    fresh = _copied(folder, folder, meta, options, door)
    about = {"created_at": now_ms, "comment": comment}
    (fresh / "about.json").write_text(json.dumps(about))
    fresh.rename(folder / "checkpoints" / made.id)
    return made


def listed(folder: Path) -> list[Checkpoint]:
    """Return the stored states, oldest first; needs no door."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in (folder / "checkpoints").iterdir():
            if path.name.isdigit():
                about = json.loads((path / "about.json").read_text())
                found.append(Checkpoint(path.name, about["created_at"], about["comment"]))
    return sorted(found, key=lambda one: int(one.id))


def stage(
    folder: Path, meta: Meta, options: LocalOptions, checkpoint_id: str, *, door: int
) -> Path:
    """Copy a stored state, ready to take the place of the present files.

    Raises:
        CheckpointNotFoundError: There is no such state; nothing has changed.
        ProviderError: It cannot be copied; nothing has changed.
    """
    if checkpoint_id not in {one.id for one in listed(folder)}:
        raise no_checkpoint(checkpoint_id, "local")
    sweep(folder)
    return _copied(folder, folder / "checkpoints" / checkpoint_id, meta, options, door)


def commit(folder: Path, staged: Path) -> None:
    """Put what was staged in the place of the present files; call it with no holder alive."""
    staged.rename(folder / "restored")
    finish(folder)
    sweep(folder)


def finish(folder: Path) -> None:
    """Finish what a process began that died while it brought a state back."""
    restored = folder / "restored"
    if not restored.is_dir():
        return
    for name in copier.FOLDERS:
        if (restored / name).is_dir():
            with contextlib.suppress(FileNotFoundError):
                (folder / name).rename(folder / f".old-{secrets.token_hex(8)}")
            (restored / name).rename(folder / name)
    remove_tree(restored)


def sweep(folder: Path) -> None:
    """Remove what is half-made and what is no longer needed."""
    for path in (*folder.glob(".old-*"), *folder.glob("checkpoints/.new-*")):
        with contextlib.suppress(OSError):  # next time then; it goes with the sandbox at the latest
            remove_tree(path)


def _copied(source_of: Path, source: Path, meta: Meta, options: LocalOptions, door: int) -> Path:
    store = source_of / "checkpoints"
    store.mkdir(mode=0o700, exist_ok=True)
    fresh = store / f".new-{secrets.token_hex(8)}"
    fresh.mkdir(mode=0o700)
    try:
        make_guest_folders(fresh, meta.uid)
        _run_copier(
            {
                "source": str(source),
                "target": str(fresh),
                "uid": meta.uid,
                "parent": os.getpid(),
                "max_bytes": options.max_checkpoint_mb * _MIB,
                "max_entries": _MAX_ENTRIES,
            },
            door,
        )
    except BaseException:
        remove_tree(fresh)
        raise
    return fresh


def _run_copier(config: dict[str, Any], door: int) -> None:
    with starting.helper("copier", pass_fds=(door,)) as process:
        try:
            answer, _ = process.communicate(marshal.dumps(config), _COPY_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ProviderTimeoutError(
                f"the files could not be copied within {_COPY_S:.0f} s", provider="local"
            ) from None
        except BaseException:
            process.kill()
            raise
    if not answer:
        raise _failed("the process that copies the files ended without a word")
    report = marshal.loads(answer)  # noqa: S302 - from a process of our own
    if report:
        kind, text = report
        hint = "make the next sandbox with a higher max_checkpoint_mb" if kind == "limit" else None
        raise _failed(f"the files could not be copied: {text}", hint=hint)


def _failed(text: str, hint: str | None = None) -> ProviderError:
    return ProviderError(text, provider="local", retryable=False, hint=hint)
