"""The suite for providers passes on a small correct provider."""

from __future__ import annotations

from typing import ClassVar

from helpers.folder_conformance import FolderFixtures

from ekairos_sandbox.testing import ProviderConformance
from ekairos_sandbox.testing.files import FileSuite


class TestFolder(FolderFixtures, ProviderConformance):
    big_file_bytes = 16 * 1024 * 1024
    big_output_bytes = 10_000_000


class TestFolderWithNativeFiles(FolderFixtures, FileSuite):
    big_file_bytes = 4 * 1024 * 1024
    environ: ClassVar[dict[str, str]] = {"EKAIROS_FOLDER_NATIVE": "1"}
