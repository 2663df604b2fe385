"""What is not imported until it is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

REMOTE_AND_HEAVY = (
    "requests",
    "urllib3",
    "http.client",
    "ssl",
    "sqlite3",
    "asyncio",
    "subprocess",
    "multiprocessing",
    "platformdirs",
    "pytest",
    "ekairos_sandbox_local",
    "ekairos_sandbox.repository.instantdb",
    "ekairos_sandbox.repository.sqlite",
    "ekairos_sandbox.testing",
)


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after running ``code``."""
    script = f"{code}\nimport sys\nprint(chr(10).join(sys.modules))"
    words = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = loaded_by("import ekairos_sandbox")
    assert {name for name in loaded if name.startswith("ekairos_sandbox.")} == set()
    assert "pydantic" not in loaded


def test_the_service_loads_nothing_heavy_and_no_provider() -> None:
    loaded = loaded_by("from ekairos_sandbox import SandboxService, SandboxConfig, hookimpl")
    assert "ekairos_sandbox.service" in loaded
    assert loaded & set(REMOTE_AND_HEAVY) == set()
    assert {name for name in loaded if name.startswith("ekairos_sandbox_")} == set()


@pytest.mark.parametrize("module", ["exceptions", "models", "results", "hookspecs", "provider"])
def test_the_contract_can_be_imported_by_itself(module: str) -> None:
    loaded = loaded_by(f"import ekairos_sandbox.{module}")
    assert loaded & set(REMOTE_AND_HEAVY) == set()


def test_listing_the_installed_providers_imports_none() -> None:
    loaded = loaded_by(
        "from ekairos_sandbox import PluginRegistry\nassert 'local' in PluginRegistry().names()"
    )
    assert {name for name in loaded if name.startswith("ekairos_sandbox_")} == set()


def test_a_service_over_sqlite_loads_no_http_client_and_no_provider() -> None:
    loaded = loaded_by(
        "from ekairos_sandbox import SandboxService\n"
        "SandboxService.from_env({'EKAIROS_SANDBOX_STORE': 'sqlite:////nowhere/x.db'})"
    )
    assert "sqlite3" in loaded
    assert loaded & {"requests", "urllib3", "ssl", "ekairos_sandbox_local"} == set()
