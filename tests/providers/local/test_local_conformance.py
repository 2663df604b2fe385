"""The local provider passes the suite for providers."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
from ekairos_sandbox_local.provider import LocalProvider

from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.testing import ProviderConformance


class TestLocal(ProviderConformance):
    provider_factory = "ekairos_sandbox_local.provider:LocalProvider"
    preview_options = MappingProxyType({"network": "host"})

    @pytest.fixture(scope="class")
    @classmethod
    def provider(cls) -> Iterator[LocalProvider]:
        # Everybody may pass through it, unlike pytest's own folders of root.
        folder = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
        folder.chmod(0o711)
        environ = {"PATH": os.environ["PATH"], "EKAIROS_SANDBOX_LOCAL_STATE": str(folder / "state")}
        yield LocalProvider(ProviderContext(environ=environ))
        shutil.rmtree(folder)

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls, provider: LocalProvider) -> LocalProvider:
        state = provider.context.environ["EKAIROS_SANDBOX_LOCAL_STATE"]
        environ = {**provider.context.environ, "EKAIROS_SANDBOX_LOCAL_STATE": f"{state}-other"}
        return LocalProvider(ProviderContext(environ=environ))
