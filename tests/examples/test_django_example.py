"""The Django project of the documentation, tested by itself and served by gunicorn."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

PROJECT = Path(__file__).resolve().parents[2] / "docs" / "examples" / "django_project"
REQUESTS = 500

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def test_its_own_tests_pass_without_any_sandbox() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "test"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 6 tests" in done.stderr


class Served:
    """The project under gunicorn.

    Attributes:
        url: Where it listens.
        log: What it wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.environ = {
            "PATH": os.environ["PATH"],
            "EKAIROS_SANDBOX_STORE": f"sqlite:///{folder}/records.db",
            "EKAIROS_SANDBOX_LOCAL_STATE": str(folder / "state"),
        }
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "--preload", "--workers", "2"),
                *("--threads", "16", "--bind", "127.0.0.1:0", "--log-file", str(self.log)),
                "project.wsgi",
            ],
            cwd=PROJECT,
            env=self.environ,
        )
        self.url = f"http://127.0.0.1:{self._logged(r'Listening at: http://127.0.0.1:([0-9]+)')[0]}"
        self.http = requests.Session()
        self.http.trust_env = False

    def workers(self, number: int = 2) -> list[int]:
        """Return the process ids of all workers that were ever started, at least ``number``."""
        return [int(pid) for pid in self._logged(r"Booting worker with pid: ([0-9]+)", number)]

    def _logged(self, pattern: str, number: int = 1) -> list[str]:
        while True:
            text = self.log.read_text() if self.log.exists() else ""
            found = re.findall(pattern, text)
            if len(found) >= number:
                return found
            assert self._process.poll() is None, text
            time.sleep(0.02)

    def post(self, path: str, body: Any = None) -> Any:
        answer = requests.post(f"{self.url}/sandboxes/{path}", json=body or {}, timeout=60)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        answer = requests.get(f"{self.url}/sandboxes/{path}", timeout=60)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def close(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0


@pytest.fixture
def served() -> Iterator[Served]:
    # Everybody may pass through it, unlike pytest's own folders of root.
    folder = Path(tempfile.mkdtemp(prefix="ekairos-test-"))
    folder.chmod(0o711)
    served = Served(folder)
    yield served
    served.close()
    shutil.rmtree(folder)


def test_500_requests_of_16_threads_lose_and_mix_nothing(served: Served) -> None:
    with ThreadPoolExecutor(16) as pool:
        ids = [made["id"] for made in pool.map(lambda _: served.post(""), range(4))]

        def one(number: int) -> bool:
            sandbox, token = ids[number % 4], secrets.token_hex(8)
            if number % 10 == 0:
                argv = ["sh", "-c", f"echo {token}; cat"]
                answer = requests.post(
                    f"{served.url}/sandboxes/{sandbox}/stream", json={"argv": argv}, timeout=60
                )
                return answer.content == f"{token}\n".encode()
            result = served.post(
                f"{sandbox}/run",
                {"argv": ["sh", "-c", f"cat; echo {token} >&2; exit 3"], "stdin": token},
            )
            return bool(
                (result["exit_code"], result["output"], result["error"]) == (3, token, f"{token}\n")
            )

        results = list(pool.map(one, range(REQUESTS)))
        assert results == [True] * REQUESTS
        list(
            pool.map(
                lambda name: requests.delete(f"{served.url}/sandboxes/{name}/", timeout=60), ids
            )
        )
    assert [path.name for path in (served.folder / "state").glob("**/ekairos-*")] == []
    assert "Traceback" not in served.log.read_text()


def test_files_go_up_and_down_as_streams(served: Served) -> None:
    address = f"{served.url}/sandboxes/{served.post('')['id']}"
    content = secrets.token_bytes(5_000_000)
    put = requests.put(f"{address}/files/in/data.bin", data=content, timeout=60)
    assert (put.status_code, put.json()) == (201, {"bytes": 5_000_000})
    assert requests.get(f"{address}/files/in/data.bin", timeout=60).content == content
    absent = requests.get(f"{address}/files/other", timeout=60)
    assert (absent.status_code, absent.json()["code"]) == (404, "file_not_found")
    requests.delete(f"{address}/", timeout=60)


def test_a_killed_worker_loses_nothing(served: Served) -> None:
    sandbox = served.post("")["id"]
    line = "echo begun >>count; sleep 2; wc -l <count"
    for _ in range(3):
        # The id is the client's choice, so that it may ask again without knowing what became of it.
        served.post(f"{sandbox}/commands", {"argv": ["sh", "-c", line], "command_id": "job"})
    for pid in served.workers():
        os.kill(pid, signal.SIGKILL)
    served.workers(4)
    while (found := served.get(f"{sandbox}/commands/job"))["state"] == "running":
        pass
    assert found["result"]["output"].strip() == "1"
    done = subprocess.run(
        [sys.executable, "manage.py", "reconcile_sandboxes", "--apply"],
        cwd=PROJECT,
        env=served.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1 records, 0 actions\n")
    requests.delete(f"{served.url}/sandboxes/{sandbox}/", timeout=60)
    assert (
        json.loads(requests.get(f"{served.url}/sandboxes/{sandbox}/", timeout=60).text)["status"]
        == "shutdown"
    )
