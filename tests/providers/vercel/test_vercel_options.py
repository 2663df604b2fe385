"""Options, the body they become, and what is refused before any request."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from ekairos_sandbox_vercel.options import create_body
from pydantic import ValidationError
from servers.vercel.faults import Fault
from servers.vercel.server import VercelServer

from ekairos_sandbox.exceptions import ConfigurationError, ProviderError
from ekairos_sandbox.provider import CreateSpec, Tags
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox_vercel import VercelOptions, VercelProvider

TAGS = Tags("0f1e2d3c4b5a6978", "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21", 1)


def spec(options: dict[str, Any] | None = None, **fields: Any) -> CreateSpec[VercelOptions]:
    made = CreateSpec("ekairos-x", TAGS, VercelOptions.model_validate(options or {}), 60.0)
    return replace(made, **fields)


def test_without_options_a_sandbox_is_not_persistent_and_lives_half_an_hour() -> None:
    assert create_body(spec(), "prj_1") == {
        "projectId": "prj_1",
        "name": "ekairos-x",
        "persistent": False,
        "timeout": 1_800_000,
        "resources": {"vcpus": 2},
        "tags": {
            "ekairos-owner": "0f1e2d3c4b5a6978",
            "ekairos-id": "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21",
            "ekairos-incarnation": "1",
        },
    }


def test_every_option_reaches_the_body() -> None:
    options = {
        "image": "vercel/sandbox/python:3.14",
        "persistent": True,
        "env": {"STAGE": "dev"},
        "tags": {"team": "a"},
        "source": {
            "type": "git",
            "url": "https://example.com/r.git",
            "depth": 1,
            "username": "u",
            "password": "p",
        },
        "network_policy": {
            "allow": ["a.example"],
            "rules": {"b.example": [{"transform": []}]},
            "subnets": {"deny": ["10.0.0.0/8"]},
        },
        "region": "fra1",
        "memory": 8192,
        "snapshot_expiration": 0,
        "keep_last_snapshots": 3,
    }
    body = create_body(spec(options, timeout_ms=60_000, vcpus=4, ports=(3000,)), "prj_1")
    assert body["image"] == "vercel/sandbox/python:3.14"
    assert body["persistent"] is True
    assert body["env"] == {"STAGE": "dev"}
    assert body["tags"]["team"] == "a"
    assert len(body["tags"]) == 4
    assert body["source"] == {
        "type": "git",
        "url": "https://example.com/r.git",
        "depth": 1,
        "username": "u",
        "password": "p",
    }
    assert body["networkPolicy"] == {
        "allow": {"a.example": [], "b.example": [{"transform": []}]},
        "subnets": {"deny": ["10.0.0.0/8"]},
    }
    assert (body["region"], body["timeout"], body["ports"]) == ("fra1", 60_000, [3000])
    assert body["resources"] == {"vcpus": 4, "memory": 8192}
    assert (body["snapshotExpiration"], body["keepLastSnapshots"]) == (0, {"count": 3})
    json.dumps(body)


@pytest.mark.parametrize(
    ("source", "wire"),
    [
        (
            {"type": "snapshot", "snapshot_id": "snap_1"},
            {"type": "snapshot", "snapshotId": "snap_1"},
        ),
        (
            {"type": "tarball", "url": "https://example.com/a.tgz"},
            {"type": "tarball", "url": "https://example.com/a.tgz"},
        ),
    ],
)
def test_a_source_has_the_service_s_spelling(source: dict[str, Any], wire: dict[str, Any]) -> None:
    assert create_body(spec({"source": source}), "prj_1")["source"] == wire


def test_a_bare_network_mode_is_enough() -> None:
    body = create_body(spec({"network_policy": "deny-all"}), "prj_1")
    assert body["networkPolicy"] == {"mode": "deny-all"}


def test_runtime_decides_the_version_of_the_endpoint(
    server: VercelServer, service: RaisingService
) -> None:
    service.create_sandbox(provider="vercel", runtime="node24").destroy()
    service.create_sandbox(provider="vercel").destroy()
    assert [request.path for request in server.seen("create")] == [
        "/v2/sandboxes",
        "/v3/sandboxes",
    ]
    assert "runtime" not in json.loads(server.seen("create")[1].body)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"timeout_ms": 86_400_001}, "timeout_ms must be from 1000 to 86400000"),
        ({"resources": {"vcpus": 3}}, "resources.vcpus must be 1 or an even number up to 32"),
        ({"resources": {"vcpus": 34}}, "resources.vcpus"),
        ({"resources": {"vcpus": 1.5}}, "resources.vcpus"),
        ({"ports": [80]}, "ports must be at most 15 from 1024 to 65535"),
        ({"ports": list(range(3000, 3016))}, "ports must be at most 15"),
        ({"vercel": {"memory": 2048}}, "memory must be 4096 with 2 CPUs"),
        ({"runtime": "node24", "vercel": {"image": "x"}}, "runtime must be left out"),
        ({"vercel": {"tags": {"a": "1", "b": "2", "c": "3"}}}, "at most 2"),
        ({"vercel": {"tags": {"ekairos-id": "1"}}}, "are taken"),
        ({"vercel": {"tags": {"a": "x" * 257}}}, "256"),
        ({"vercel": {"name": "with space"}}, "letters"),
        ({"vercel": {"name": "x" * 129}}, "letters"),
        ({"vercel": {"name": "sessions"}}, "reserved"),
        ({"vercel": {"image": ""}}, "vercel.*image"),
        ({"vercel": {"region": ""}}, "vercel.*region"),
        ({"vercel": {"tags": {"": "1"}}}, "empty"),
        ({"vercel": {"env": {"A=B": "1"}}}, "no variable name"),
        ({"vercel": {"network_policy": {}}}, "needs either a mode, or some of allow"),
        (
            {"vercel": {"network_policy": {"mode": "deny-all", "allow": ["a.example"]}}},
            "needs either a mode, or some of allow",
        ),
        ({"vercel": {"snapshot_expiration": 1000}}, "86400000"),
        ({"vercel": {"keep_last_snapshots": 11}}, "10"),
        ({"vercel": {"unknown": 1}}, "unknown"),
    ],
)
def test_what_the_service_would_refuse_is_refused_before_any_request(
    server: VercelServer, service: RaisingService, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        service.create_sandbox(provider="vercel", **config)
    assert server.operations() == []
    assert list(service.iter_sandboxes()) == []


def test_secret_options_are_not_stored_and_their_names_are(
    server: VercelServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(
        provider="vercel",
        vercel={
            "env": {"API_KEY": "secret-1"},
            "source": {"type": "git", "url": "https://e.example/r", "password": "secret-2"},
            "network_policy": {"rules": {"a.example": [{"transform": "secret-3"}]}},
            "region": "iad1",
        },
    )
    record = sandbox.record()
    assert "secret-" not in record.model_dump_json()
    assert record.state is not None
    assert record.state.withheld == ["vercel.env", "vercel.network_policy", "vercel.source"]
    assert record.state.config["options"] == {"region": "iad1"}
    assert json.loads(server.seen("create")[0].body)["env"] == {"API_KEY": "secret-1"}


def test_secret_options_that_the_service_repeats_are_neither_told_nor_stored(
    server: VercelServer, service: RaisingService
) -> None:
    server.faults.add(Fault.ECHO, "create")
    with pytest.raises(ProviderError, match=r"Invalid request: .*\*\*\*") as caught:
        service.create_sandbox(
            provider="vercel",
            vercel={
                "env": {"A": "x" * 30 + "secret-1", "B": "secret-2" * 40},
                "source": {"type": "git", "url": "https://e.example/r", "password": "secret-3"},
            },
        )
    (record,) = service.iter_sandboxes()
    assert "secret-" not in str(caught.value)
    assert "secret-" not in record.model_dump_json()


def test_secrets_are_in_no_repr_and_no_error() -> None:
    options = VercelOptions.model_validate({"env": {"K": "secret-1"}})
    assert "secret-1" not in repr(options)
    with pytest.raises(ValidationError) as caught:
        VercelOptions.model_validate({"env": {"K": ["secret-1"]}})
    assert "secret-1" not in str(caught.value)


def test_all_config_fields_are_enforced() -> None:
    assert {how.level for how in VercelProvider.field_support().values()} == {"enforced"}
    assert set(VercelProvider.field_support()) == {"timeout_ms", "vcpus", "runtime", "ports"}
