"""How the suite for providers runs on folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar

import pytest
from helpers.folder_provider import FolderProvider

from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing.base import Suite


class FolderFixtures(Suite):
    provider_factory = "helpers.folder_provider:FolderProvider"
    environ: ClassVar[dict[str, str]] = {}

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls, tmp_path_factory: pytest.TempPathFactory) -> FolderProvider:
        root = tmp_path_factory.mktemp("folders")
        environ = {
            "EKAIROS_FOLDER_ROOT": str(root),
            "EKAIROS_FOLDER_TOKEN": "folder-secret-71",
            **cls.environ,
        }
        return FolderProvider(ProviderContext(environ=environ))

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls, provider: FolderProvider) -> FolderProvider:
        environ = {**provider.context.environ, "EKAIROS_FOLDER_ACCOUNT": "other"}
        return FolderProvider(ProviderContext(environ=environ))

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls, provider: FolderProvider) -> Callable[[str], None]:
        def make(name: str) -> None:
            provider.make(name, None)

        return make

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls, provider: FolderProvider) -> Callable[[], AbstractContextManager[None]]:
        @contextmanager
        def cut_off() -> Iterator[None]:
            sign = provider.root.parent / "unreachable"
            sign.touch()
            try:
                yield
            finally:
                sign.unlink()

        return cut_off
