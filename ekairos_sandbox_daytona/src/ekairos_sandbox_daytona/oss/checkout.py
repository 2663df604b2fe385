"""The checkout of Daytona's sources, which hold the compose file. Local changes are never lost."""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import tempfile
from pathlib import Path

from ekairos_sandbox_daytona.oss.problems import ExitCode, StackError
from ekairos_sandbox_daytona.oss.programs import Ended, Program

REPOSITORY = "https://github.com/daytonaio/daytona"
LAST_REF = "v0.190.0"
"""The last version that was published with its code; what comes after holds a README."""
COMPOSE_FILE = "docker/docker-compose.yaml"

_REFUSALS = ("would be overwritten", "Not possible to fast-forward")
# What git takes for the name of a commit, without what git would take for an option.
_REF = re.compile(r"[A-Za-z0-9_.@][A-Za-z0-9_./@+~^-]*")


class Checkout:
    """A git checkout of Daytona in one folder.

    Args:
        home: The folder.
        git: What git commands are run with.
        needs_compose_file: Whether only a commit that holds the compose file will do.
    """

    def __init__(self, home: Path, git: Program, *, needs_compose_file: bool = True) -> None:
        self.home = home
        self._git = git
        self._needs_compose_file = needs_compose_file

    @property
    def exists(self) -> bool:
        """Whether there is a checkout."""
        return (self.home / ".git").exists()

    def require(self) -> None:
        """Raise unless there is a checkout."""
        if not self.exists:
            raise StackError(
                ExitCode.NOT_INITIALISED,
                f"there is no checkout of Daytona in {self.home}",
                "run `ekairos-daytona-local init` first",
            )

    def create(self, repository: str, ref: str) -> None:
        """Clone a repository and check a ref out. An attempt that fails leaves nothing behind."""
        _check_ref(ref)
        if repository.startswith("-"):
            raise StackError(ExitCode.USAGE, "this is not the address of a repository")
        if self.home.exists() and not (self.home.is_dir() and not any(self.home.iterdir())):
            raise StackError(
                ExitCode.LOCAL_CHANGES,
                f"{self.home} holds something else than a git checkout",
                "move it away, or name another folder with DAYTONA_OSS_HOME",
            )
        self._git.path()
        self.home.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{self.home.name}-", dir=self.home.parent))
        try:
            fresh = Checkout(
                partial / "clone", self._git, needs_compose_file=self._needs_compose_file
            )
            # Everything, so that switching later needs no network and cannot stop half-way.
            # Scripts and configurations are mounted into Linux containers, so their line ends
            # stay as they are on Windows too.
            _done(
                self._git.run(
                    "clone",
                    "--quiet",
                    "--no-checkout",
                    "--config=core.autocrlf=false",
                    "--",
                    repository,
                    fresh.home,
                ),
                "the repository cannot be cloned",
            )
            fresh._check_out(ref)
            with contextlib.suppress(FileNotFoundError):
                self.home.rmdir()
            fresh.home.rename(self.home)
        finally:
            _remove(partial)

    def switch(self, ref: str) -> None:
        """Check a ref out, fetching what is missing.

        Raises:
            StackError: It does not exist, or there are local changes; nothing was changed.
        """
        self.require()
        _check_ref(ref)
        if self.is_at(ref) and not self._is_branch(ref):
            return
        self._refuse_changes()
        if self._commit(ref) is None or self._is_branch(ref):
            self._fetch()
        self._check_out(ref)

    def update(self) -> None:
        """Bring a branch up to date by a fast-forward; a tag or a commit stays what it is.

        Raises:
            StackError: There are local changes or commits; nothing was changed.
        """
        self.require()
        self._refuse_changes()
        self._fetch()
        branch = self._line("symbolic-ref", "--quiet", "--short", "HEAD")
        if branch:
            self._forward(branch)

    def is_at(self, ref: str) -> bool:
        """Whether a ref is what is checked out, as far as that is known without the network."""
        _check_ref(ref)
        branch = self._line("symbolic-ref", "--quiet", "--short", "HEAD")
        return branch == ref or self._line("rev-parse", "HEAD") == self._commit(ref)

    def described(self) -> str:
        """Return the ref and the commit that are checked out, for people."""
        self.require()
        commit = self._line("rev-parse", "--short", "HEAD")
        name = self._line("symbolic-ref", "--quiet", "--short", "HEAD") or self._line(
            "describe", "--tags", "--exact-match", "HEAD"
        )
        return f"{name} ({commit})" if name else commit

    def _check_out(self, ref: str) -> None:
        commit = self._commit(ref)
        if commit is None:
            raise StackError(
                ExitCode.UNKNOWN_REF,
                f"the repository has no tag, branch or commit {ref}",
                f"the last version with code is {LAST_REF}",
            )
        if self._needs_compose_file and not self._line(
            "ls-tree", "--name-only", commit, COMPOSE_FILE
        ):
            raise StackError(
                ExitCode.UNKNOWN_REF,
                f"{ref} holds no {COMPOSE_FILE}",
                f"the last version with code is {LAST_REF}",
            )
        if self._is_branch(ref):
            self._checked("checkout", "--quiet", ref)
            self._forward(ref)
        else:
            self._checked("checkout", "--quiet", "--detach", commit)

    def _forward(self, branch: str) -> None:
        remote = f"refs/remotes/origin/{branch}"
        if self._line("rev-parse", "--verify", "--quiet", remote):
            self._checked("merge", "--quiet", "--ff-only", remote)

    def _checked(self, *arguments: str) -> None:
        """Run a git command that refuses by itself to overwrite what is not its own."""
        done = self._in_home(*arguments)
        if any(text in done.error for text in _REFUSALS):
            raise StackError(
                ExitCode.LOCAL_CHANGES,
                f"git refuses to change {self.home}: {done.reason}",
                "commit, stash or move away what is your own",
            )
        _done(done, f"{self.home} cannot be changed")

    def _refuse_changes(self) -> None:
        status = self._in_home("status", "--porcelain", "--untracked-files=no")
        _done(status, f"{self.home} cannot be examined")
        if status.output:
            raise StackError(
                ExitCode.LOCAL_CHANGES,
                f"{self.home} has local changes, for example in {status.output.split()[1]}",
                "commit or stash them, or discard them with git",
            )
        on_branch = self._line("symbolic-ref", "--quiet", "HEAD")
        if not on_branch and not self._line("for-each-ref", "--count=1", "--contains", "HEAD"):
            raise StackError(
                ExitCode.LOCAL_CHANGES,
                f"{self.home} has local commits that no branch holds",
                "keep them with `git branch NAME`",
            )

    def _fetch(self) -> None:
        done = self._in_home("fetch", "--quiet", "--tags", "origin")
        _done(done, "the repository cannot be fetched")

    def _is_branch(self, ref: str) -> bool:
        return not self._line("rev-parse", "--verify", "--quiet", f"refs/tags/{ref}") and bool(
            self._line("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{ref}")
        )

    def _commit(self, ref: str) -> str | None:
        """Return the commit that a tag, a branch of the origin or a commit's name stands for."""
        for name in (f"refs/tags/{ref}", f"refs/remotes/origin/{ref}", ref):
            found = self._line("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
            if found:
                return found
        return None

    def _line(self, *arguments: str) -> str:
        """Return the first line that a git command writes; empty if it fails or writes none."""
        done = self._in_home(*arguments)
        return done.output.partition("\n")[0].rstrip() if done.code == 0 else ""

    def _in_home(self, *arguments: str) -> Ended:
        return self._git.run("-C", self.home, *arguments)


def _check_ref(ref: str) -> None:
    if not _REF.fullmatch(ref) or ".." in ref:
        raise StackError(ExitCode.UNKNOWN_REF, "this is not the name of a tag, branch or commit")


def _done(ended: Ended, what: str) -> None:
    if ended.code != 0:
        raise StackError(ExitCode.FAILED, f"{what}: {ended.reason}")


def _remove(folder: Path) -> None:
    """Remove a folder, also where git left read-only files, which Windows does not remove."""
    if not folder.exists():
        return
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode | stat.S_IWUSR)
    shutil.rmtree(folder, ignore_errors=True)
