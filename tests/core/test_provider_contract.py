"""What a provider has without writing it."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.folder_provider import FolderProvider

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.provider import ProviderContext


def test_a_check_looks_for_the_settings_that_the_account_needs(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="EKAIROS_FOLDER_ROOT is not set"):
        FolderProvider(ProviderContext(environ={})).check()
    FolderProvider(ProviderContext(environ={"EKAIROS_FOLDER_ROOT": str(tmp_path)})).check()


def test_there_are_no_limits_to_state_unless_a_provider_does() -> None:
    assert list(FolderProvider(ProviderContext(environ={})).limits()) == []
