"""The Daytona provider on the oldest SDK it allows, and with a client of the SDK's old name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from oracles import oracle_env
from servers.daytona.server import DaytonaServer

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(420)]

CORE = ("platformdirs==4.*", "pluggy==1.*", "pydantic==2.*", "requests==2.*", "tenacity==9.*")


def run(server: DaytonaServer, tmp_path: Path, script: str, *requirements: str) -> Any:
    packages = oracle_env.python_packages(*CORE, *requirements)
    source = [str(oracle_env.ROOT), str(oracle_env.ROOT / "ekairos_sandbox_daytona" / "src")]
    store = str(tmp_path / "records.db")
    settings = {"environ": server.environ(), "source": source, "store": store}
    return oracle_env.run_python(packages, script, settings)


def test_the_oldest_sdk_works_against_the_server_of_its_release(tmp_path: Path) -> None:
    with DaytonaServer() as server:
        server.control.version = "0.190"
        out = run(server, tmp_path, "daytona_old_release.py", "daytona==0.190.0")
        assert server.internal_errors == []
        assert server.alive() == []
    assert out == {
        "provider": {
            "command": [3, "out\n", "err\n"],
            "files": [True, True],
            "background": "later\n",
            "preview": True,
            "extended": None,
            "native": "native\n",
            "stopped": "sandbox_stopped",
            "kept": "1",
            "listed": True,
            "found": True,
            "gone": "sandbox_not_found",
            "ttl": "recorded",
        },
        "sdk": {"get": True, "exec": "out\n", "download": "content"},
    }


def test_a_client_of_the_sdks_old_name_is_accepted(tmp_path: Path) -> None:
    with DaytonaServer() as server:
        out = run(server, tmp_path, "daytona_old_name.py", "daytona-sdk==0.226.1")
        assert server.alive() == []
    assert out == {"output": "old name\n", "native": "daytona_sdk"}
