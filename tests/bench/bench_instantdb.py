"""Records in InstantDB, on the loopback server"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.measure import Row, in_turn
from helpers.instant import ID, T0, Store, number_of, record
from oracles import oracle_env
from servers.instantdb.server import InstantServer

from ekairos_sandbox import SandboxService
from ekairos_sandbox.clock import SystemClock
from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository

SDK = "instantdb==1.0.67"
RECORDS = 20_000
TESTS = Path(__file__).parents[1]


def rows() -> Iterator[Row]:
    """Count requests; measure memory and CPU with the server in a process of its own."""
    yield from _requests()
    with _served() as app:
        client = InstantClient(app["app_id"], app["admin_token"], base_url=app["url"], environ={})
        repository = InstantSandboxRepository(client)
        repository.create(record())
        yield from _cpu(repository, app)
        repository.delete(ID)
        yield from _listing(repository, app)
        repository.close()
    yield from _imports()


def _requests() -> Iterator[Row]:
    with InstantServer() as server:
        store = Store(server, clock=SystemClock())

        def count(act: Callable[[], object]) -> str:
            server.clear_requests()
            act()
            return str(len(server.requests))

        made = store.repository.create(record())
        fresh = store.again().repository
        yield Row("requests: one record read", count(lambda: fresh.get(ID)), "1")
        change: Any = {"status": "active"}
        yield Row("requests: one transition", count(lambda: fresh.transition(ID, 0, change)), "1")
        store.repository.delete(made.id)
        with SandboxService(store.repository) as service:
            verbs = service.raising
            yield Row(
                "requests: `create_sandbox`",
                count(lambda: verbs.create_sandbox(provider="local", sandbox_id=ID)),
                "2",
            )
            warm = count(lambda: verbs.run_command(ID, "true"))
            yield Row("requests: a warm `run_command`", warm, "0")
            verbs.destroy_sandbox(ID)


def _cpu(repository: InstantSandboxRepository, app: dict[str, str]) -> Iterator[Row]:
    sys.path.append(str(oracle_env.python_packages(SDK)))
    sdk = importlib.import_module("instantdb")
    client = repository.client
    query: Any = {"sandbox_sandboxes": {"$": {"where": {"id": ID}}}}
    values = {"status": "active", "updatedAt": T0}
    step = ["update", "sandbox_sandboxes", ID, values, {"upsert": False}]
    with sdk.Instant(
        app_id=app["app_id"], admin_token=app["admin_token"], api_uri=app["url"]
    ) as db:
        boxes = db.tx.sandbox_sandboxes
        pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "query": (lambda: client.query(query), lambda: db.query(query)),
            "transact": (
                lambda: client.transact([step]),
                lambda: db.transact([boxes[ID].update(values, {"upsert": False})]),
            ),
        }
        for name, (ours, theirs) in pairs.items():
            assert ours()
            assert theirs()
            mine, official = in_turn(200, ours, theirs, clock=time.process_time)
            yield Row(
                f"CPU of one `{name}`, ours and the official SDK's",
                f"{mine:.2f} ms and {official:.2f} ms = {mine / official:.2f} x",
                "1.5 x",
            )


LISTING = """
import json, sys, time
from bench.measure import begin_peak, peak_mib
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository
url, app_id, token = sys.argv[1:]
repository = InstantSandboxRepository(InstantClient(app_id, token, base_url=url, environ={}))
repository.list(RecordQuery(limit=1))
before, started = begin_peak(), time.perf_counter()
listed = sum(1 for _ in repository.iterate(RecordQuery(limit=500)))
print(json.dumps([listed, time.perf_counter() - started, peak_mib() - before]))
"""


def _listing(repository: InstantSandboxRepository, app: dict[str, str]) -> Iterator[Row]:
    values = {"provider": "p", "status": "active", "params": {"ekairos": {"v": 1, "rev": 0}}}
    for start in range(0, RECORDS, 500):
        repository.client.transact(
            [
                ["create", "sandbox_sandboxes", number_of(n), {**values, "createdAt": T0 + n // 9}]
                for n in range(start, start + 500)
            ]
        )
    # In a process of its own, as the highest memory of this one is that of earlier work.
    words = [sys.executable, "-c", LISTING, app["url"], app["app_id"], app["admin_token"]]
    done = subprocess.run(words, cwd=TESTS, capture_output=True, text=True, check=True)
    listed, spent, extra = json.loads(done.stdout)
    assert listed == RECORDS
    what = f"{listed} records listed page by page"
    yield Row(what, f"{spent:.1f} s, {extra:.0f} MiB extra", "64 MiB extra")


def _imports() -> Iterator[Row]:
    script = (
        "import sys, ekairos_sandbox.repository.instantdb as r;"
        "r.InstantSandboxRepository(r.InstantClient(%r, 't', environ={}));"
        "print([n for n in ('instantdb', 'httpx', 'requests') if n in sys.modules])"
    )
    words = [sys.executable, "-c", script % ID]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    yield Row("HTTP libraries and SDK imported with the repository", done.stdout.strip(), "[]")


@contextlib.contextmanager
def _served() -> Iterator[dict[str, str]]:
    words = [sys.executable, "-m", "servers.instantdb", "--schema", "sandbox"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=TESTS, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
        server.stdin.close()
