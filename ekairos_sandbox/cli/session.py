"""What the commands of one invocation share: its options, its environment, and the service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ekairos_sandbox.raising import RaisingService
    from ekairos_sandbox.repository.base import SandboxRepository
    from ekairos_sandbox.settings import StoreSetting

STORE_VARIABLE = "EKAIROS_SANDBOX_STORE"


@dataclass
class Session:
    """One invocation.

    Attributes:
        json: Whether to print JSON instead of text for people.
        store: Record store given on the command line; None: that of the environment.
        debug: Whether to show tracebacks and log messages.
    """

    json: bool = False
    store: str | None = None
    debug: bool = False

    @property
    def environ(self) -> dict[str, str]:
        """The environment, with the options that stand for variables on top."""
        given = {} if self.store is None else {STORE_VARIABLE: self.store}
        return {**os.environ, **given}

    @contextmanager
    def service(self, *, creating: bool = False) -> Iterator[RaisingService]:
        """Open the service for the length of a block.

        Args:
            creating: Whether it is right that a record file is made now.

        Raises:
            ConfigurationError: Such a file was named, and there is none: nothing that is asked of
                it could be found. The file that nobody named may be missing.
        """
        from ekairos_sandbox.exceptions import ConfigurationError
        from ekairos_sandbox.service import SandboxService

        path = self.store_setting().path
        if path and not creating and not Path(path).exists():
            raise ConfigurationError(
                f"there is no record file {Path(path).absolute()}",
                hint=f"check --store and {STORE_VARIABLE}; `create` makes the file",
            )
        with SandboxService.from_env(self.environ) as service:
            yield service.raising

    def store_setting(self) -> StoreSetting:
        """Say which record store is in use.

        Raises:
            ConfigurationError: The variables are incomplete or contradict each other.
        """
        from ekairos_sandbox.settings import store_setting

        return store_setting(self.environ)

    @contextmanager
    def repository(self) -> Iterator[SandboxRepository]:
        """Open the record store by itself for the length of a block."""
        from ekairos_sandbox.repository.choice import open_repository

        repository = open_repository(self.store_setting(), self.environ)
        try:
            yield repository
        finally:
            repository.close()


pass_session = click.make_pass_decorator(Session)
