"""Volumes as folders that sandboxes see through symbolic links."""

from __future__ import annotations

from pathlib import Path


class Mounts:
    """The contents of volumes, and the paths at which sandboxes see them.

    All sandboxes of a server share one file system, so a path shows one volume at a time, and
    only paths below one folder are mounted at all.

    Attributes:
        below: That folder.
    """

    def __init__(self, folder: Path) -> None:
        self.below = folder / "seen"
        self._contents = folder / "contents"

    def add(self, volume_id: str, path: str) -> None:
        """Show a volume at a path, with everything in it open to every user, as the real ones."""
        link = Path(path)
        if not link.is_relative_to(self.below):
            return
        content = self._contents / volume_id
        content.mkdir(parents=True, exist_ok=True)
        for item in (content, *content.rglob("*")):
            item.chmod(0o777 if item.is_dir() else 0o666)
        link.unlink(missing_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(content)
