"""Apps on the loopback InstantDB server, and clients of ours for them."""

from __future__ import annotations

from typing import Any

from servers.instantdb.sandbox_schema import SANDBOX_SCHEMA
from servers.instantdb.server import App, InstantServer

from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.repository.instantdb import InstantClient, InstantSandboxRepository

T0 = 1_700_000_000_000
ID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"


class FakeClock:
    """Time that passes only by sleeping and by ``advance``."""

    def __init__(self) -> None:
        self.now = T0 / 1000
        self.waits: list[float] = []

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def advance(self, seconds: float) -> None:
        self.now += seconds


def client_for(server: InstantServer, app: App, **options: Any) -> InstantClient:
    """Return a client of ours for an app, on a clock that does not wait."""
    options = {"clock": FakeClock(), "environ": {}, **options}
    return InstantClient(app.id, app.admin_token, base_url=server.url, **options)


def sandbox_client(server: InstantServer, **options: Any) -> InstantClient:
    """Return a client for a new app that has the schema."""
    return client_for(server, server.create_app(schema=SANDBOX_SCHEMA), **options)


def record(sandbox_id: str = ID, **fields: Any) -> SandboxRecord:
    """Return a record of ours that is in no store yet."""
    state = {"v": 1, "rev": 0, "name": f"ekairos-{sandbox_id}"}
    return SandboxRecord(
        **{
            "id": sandbox_id,
            "provider": "local",
            "status": "creating",
            "created_at": T0,
            "params": {"ekairos": state, "mine": {"a": 1}},
            **fields,
        }
    )


def number_of(n: int) -> str:
    """Return the n-th of many ids, in order."""
    return f"00000000-0000-4000-8000-{n:012d}"


class Store:
    """A repository of ours on an app of its own, and a look behind it."""

    def __init__(self, server: InstantServer, app: App | None = None, **options: Any) -> None:
        self.server = server
        self.app = app or server.create_app(schema=SANDBOX_SCHEMA)
        self.client = client_for(server, self.app, **options)
        self.repository = InstantSandboxRepository(self.client)

    def again(self) -> Store:
        """Return another repository on the same app, as another process has it."""
        return Store(self.server, self.app)

    @property
    def clock(self) -> FakeClock:
        assert isinstance(self.client.clock, FakeClock)
        return self.client.clock

    def rows(self) -> list[dict[str, Any]]:
        """Return the stored records as they are, in order of creation."""
        return self.server.rows(self.app.id, "sandbox_sandboxes")

    def fences(self) -> list[str]:
        """Return the keys of the stored fences without their ids, sorted: ``["rev:0", ...]``."""
        keys = [row["key"] for row in self.server.rows(self.app.id, "sandbox_fences")]
        return sorted(f"rev:{int(key.rpartition(':')[2])}" for key in keys)

    def requests(self) -> list[str]:
        """Return the paths of all requests since ``server.clear_requests()``."""
        return [seen.path for seen in self.server.requests]
