"""Volumes as folders, mounted by symbolic links where a test allows it."""

from __future__ import annotations

from pathlib import Path


class Mounts:
    """The contents of volumes, and the paths at which sandboxes see them.

    All sandboxes of a server share one file system, so a path shows one volume at a time.

    Attributes:
        below: Paths below this folder are mounted; None: none is.
    """

    def __init__(self, folder: Path) -> None:
        self.below: Path | None = None
        self._folder = folder
        self._links: list[Path] = []

    def add(self, volume_id: str, path: str) -> None:
        """Show a volume at a path."""
        link = Path(path)
        if self.below is None or not link.is_relative_to(self.below):
            return
        content = self._folder / volume_id
        content.mkdir(parents=True, exist_ok=True)
        content.chmod(0o777)
        self._folder.chmod(0o755)
        if link.is_symlink():
            link.unlink()
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(content)
        self._links.append(link)

    def remove(self) -> None:
        """Take all links away again."""
        for link in self._links:
            link.unlink(missing_ok=True)
