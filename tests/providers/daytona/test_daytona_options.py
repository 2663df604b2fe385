"""Each option, and the config fields, as the API gets to see them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from ekairos_sandbox_daytona.options import DaytonaOptions
from helpers.daytona import provider_for
from pydantic import ValidationError
from servers.daytona.server import DaytonaServer

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    FieldNotEnforcedWarning,
    UnsupportedOperationError,
)
from ekairos_sandbox.raising import RaisingService
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService


def sent(server: DaytonaServer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.seen("POST", "/api/sandbox")[-1].body)
    return body


def test_without_options_a_sandbox_is_ephemeral_and_all_else_is_daytonas_default(
    server: DaytonaServer, service: RaisingService
) -> None:
    sandbox = service.create_sandbox(provider="daytona")
    body = sent(server)
    labels = body.pop("labels")
    assert labels["ekairos_ephemeral"] == "1"
    assert body == {
        "name": f"ekairos-{sandbox.sandbox_id}",
        "env": {},
        "public": False,
        "autoDeleteInterval": 0,
        "kvm": False,
        "spot": False,
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"name": "mine_1"}, {"name": "mine_1"}),
        ({"snapshot": "big-one"}, {"snapshot": "big-one"}),
        ({"env_vars": {"A": "1"}}, {"env": {"A": "1"}}),
        ({"public": True}, {"public": True}),
        ({"user": "worker"}, {"user": "worker"}),
        ({"ephemeral": True}, {"autoDeleteInterval": 0}),
        ({"ephemeral": False}, {"autoDeleteInterval": None}),
        ({"auto_delete_interval_min": 0}, {"autoDeleteInterval": 0}),
        ({"auto_delete_interval_min": 90}, {"autoDeleteInterval": 90}),
        ({"auto_delete_interval_min": -1}, {"autoDeleteInterval": -1}),
        ({"auto_stop_interval_min": 0}, {"autoStopInterval": 0}),
        ({"auto_stop_interval_min": 7}, {"autoStopInterval": 7}),
        ({"auto_archive_interval_min": 60}, {"autoArchiveInterval": 60}),
        ({"network_block_all": True}, {"networkBlockAll": True}),
        ({"network_allow_list": ("10.0.0.0/8", "1.1.1.1/32")},
         {"networkAllowList": "10.0.0.0/8,1.1.1.1/32"}),
        ({"domain_allow_list": ("example.org",)}, {"domainAllowList": "example.org"}),
        ({"image": "alpine:3.20"}, {"buildInfo": {"dockerfileContent": "FROM alpine:3.20\n"}}),
    ],
    ids=lambda value: next(iter(value)),
)  # fmt: skip
def test_an_option_is_what_the_api_gets(
    server: DaytonaServer,
    service: RaisingService,
    options: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    service.create_sandbox(provider="daytona", daytona=options)
    body = sent(server)
    assert {name: body.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    ("options", "runtime", "language"),
    [
        ({}, "python3.12", "python"),
        ({}, "node22", "javascript"),
        ({}, "ts-node", "typescript"),
        ({}, "my-typescript", "typescript"),
        ({}, "ruby", "python"),
        ({"language": "javascript"}, "python3.12", "javascript"),
    ],
)
def test_the_language_is_the_options_or_the_runtimes(
    server: DaytonaServer,
    service: RaisingService,
    options: dict[str, Any],
    runtime: str,
    language: str,
) -> None:
    with pytest.warns(FieldNotEnforcedWarning, match="runtime"):
        service.create_sandbox(provider="daytona", runtime=runtime, daytona=options)
    assert sent(server)["labels"]["code-toolbox-language"] == language


def test_a_lifetime_is_given_in_minutes_never_shorter(
    server: DaytonaServer, service: RaisingService
) -> None:
    service.create_sandbox(provider="daytona", timeout_ms=90_000)
    assert sent(server)["ttlMinutes"] == 2


def test_a_server_that_ignores_the_lifetime_is_warned_of(
    server: DaytonaServer, service: RaisingService
) -> None:
    server.control.version = "0.190"
    with pytest.warns(FieldNotEnforcedWarning, match="lifetime"):
        service.create_sandbox(provider="daytona", timeout_ms=90_000)


def test_cpus_are_asked_for_with_an_image_and_warned_of_with_a_snapshot(
    server: DaytonaServer, service: RaisingService
) -> None:
    service.create_sandbox(
        provider="daytona", resources={"vcpus": 1.5}, daytona={"image": "alpine"}
    )
    assert sent(server)["cpu"] == 2
    with pytest.warns(FieldNotEnforcedWarning, match="vcpus"):
        service.create_sandbox(
            provider="daytona", resources={"vcpus": 2}, daytona={"snapshot": "big"}
        )
    assert "cpu" not in sent(server)


DECLARED = "FROM python:3.11.12-slim-bookworm\n"


@pytest.mark.parametrize(
    ("environ", "options", "runtime", "expected"),
    [
        ({}, {"declarative": {"python": "3.11", "pip": ["numpy"]}}, None, [DECLARED, " numpy\n"]),
        ({}, {"declarative": {"base": "debian:12"}}, None, ["FROM debian:12\n"]),
        ({}, {"image": "declarative"}, None, ["FROM python:3.12.10-slim"]),
        ({}, {"image": "declarative"}, "python3.13", ["FROM python:3.13.3-slim"]),
        ({"IMAGE": "1"}, {}, None, ["FROM python:3.12.10-slim"]),
        ({"IMAGE": "yes", "PYTHON": "3.11"}, {}, None, [DECLARED]),
        ({"IMAGE": "1", "BASE": "alpine", "PIP": "b, a"}, {}, None, ["FROM alpine\n", " a b\n"]),
        ({"IMAGE": "1"}, {"image": "alpine"}, None, ["FROM alpine\n"]),
    ],
)
def test_a_declarative_image_is_built_from_options_or_environment(
    server: DaytonaServer,
    tmp_path: Path,
    environ: dict[str, str],
    options: dict[str, Any],
    runtime: str | None,
    expected: list[str],
) -> None:
    variables = {f"SANDBOX_DAYTONA_DECLARATIVE_{name}": text for name, text in environ.items()}
    provider = provider_for(server, **variables)
    store = SqliteSandboxRepository(tmp_path / "records.db")
    with SandboxService(store, environ={}, providers=[provider]) as service:
        service.raising.create_sandbox(provider="daytona", runtime=runtime, daytona=options)
    content = sent(server)["buildInfo"]["dockerfileContent"]
    assert [part in content for part in expected] == [True] * len(expected)


def test_a_python_that_the_sdk_does_not_know_is_refused_before_any_request(
    server: DaytonaServer, service: RaisingService
) -> None:
    with pytest.raises(ConfigurationError, match="declarative image"):
        service.create_sandbox(provider="daytona", daytona={"declarative": {"python": "3.3"}})
    assert server.counts()["POST /api/sandbox"] == 0


def test_an_image_of_the_sdk_is_used_and_not_stored(
    server: DaytonaServer, service: RaisingService
) -> None:
    from daytona import Image

    image = Image.base("alpine").env({"API_KEY": "hush-4711"})
    sandbox = service.create_sandbox(provider="daytona", daytona={"image": image})
    assert "hush-4711" in sent(server)["buildInfo"]["dockerfileContent"]
    record = sandbox.record()
    assert record.state is not None
    assert record.state.withheld == ["daytona.image"]
    assert "hush-4711" not in record.model_dump_json()


def test_env_vars_are_not_stored(server: DaytonaServer, service: RaisingService) -> None:
    sandbox = service.create_sandbox(provider="daytona", daytona={"env_vars": {"K": "hush-4711"}})
    assert sandbox.run_command("sh", ["-c", "echo $K"]).output == "hush-4711\n"
    record = sandbox.record()
    assert record.state is not None
    assert record.state.withheld == ["daytona.env_vars"]
    assert "hush-4711" not in record.model_dump_json()


def test_volumes_are_mounted_by_id(
    server: DaytonaServer, service: RaisingService, caplog: pytest.LogCaptureFixture
) -> None:
    volume = server.boxes.create_volume(server.organisation.id, "cache")
    mount = {"volume_id": volume.id, "mount_path": "/home/daytona/.ekairos", "subpath": "a"}
    with caplog.at_level(logging.INFO, "ekairos_sandbox.daytona"):
        service.create_sandbox(provider="daytona", daytona={"volumes": [mount]})
    assert sent(server)["volumes"] == [
        {"volumeId": volume.id, "mountPath": "/home/daytona/.ekairos", "subpath": "a"}
    ]
    assert caplog.messages == []


def test_a_volume_that_is_named_is_made_waited_for_and_mounted(
    server: DaytonaServer, service: RaisingService
) -> None:
    server.boxes.volume_delay_s = 0.05
    mount = {"volume_name": "ekairos-cache", "mount_path": "/data"}
    service.create_sandbox(provider="daytona", daytona={"volumes": [mount]})
    service.create_sandbox(provider="daytona", daytona={"volumes": [mount]})
    (volume,) = server.boxes.all_volumes(server.organisation.id)
    assert (volume.name, volume.state) == ("ekairos-cache", "ready")
    assert sent(server)["volumes"] == [{"volumeId": volume.id, "mountPath": "/data"}]


def test_mounts_are_logged_on_demand(
    server: DaytonaServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider = provider_for(server, SANDBOX_DAYTONA_LOG_VOLUMES="1")
    volume = server.boxes.create_volume(server.organisation.id, "cache")
    mount = {"volume_id": volume.id, "mount_path": "/data"}
    store = SqliteSandboxRepository(tmp_path / "records.db")
    with (
        caplog.at_level(logging.INFO, "ekairos_sandbox.daytona"),
        SandboxService(store, environ={}, providers=[provider]) as service,
    ):
        service.raising.create_sandbox(provider="daytona", daytona={"volumes": [mount]})
    assert caplog.messages == [f"the volume {volume.id} is mounted at /data"]


@pytest.mark.parametrize(
    "options",
    [
        {"name": "with space"},
        {"name": ""},
        {"name": "x" * 64},
        {"image": 7},
        {"image": "a", "snapshot": "b"},
        {"snapshot": "b", "declarative": {}},
        {"ephemeral": True, "auto_delete_interval_min": 5},
        {"auto_stop_interval_min": -1},
        {"labels": {"ekairos-owner": "me"}},
        {"labels": {"ekairos": "0"}},
        {"labels": {"code-toolbox-language": "python"}},
        {"labels": {"a": 1}},
        {"volumes": [{"mount_path": "/data"}]},
        {"volumes": [{"volume_id": "a", "volume_name": "b", "mount_path": "/data"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "data"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/data/../etc"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/home"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/home/daytona"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/home/daytona/.local"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/root/.local/state"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/home/me"}], "user": "me"},
        {"volumes": [{"volume_id": "a", "mount_path": "/root/.local/state/ekairos-sandbox/jobs"}]},
        {
            "volumes": [
                {"volume_id": "a", "mount_path": "/d"},
                {"volume_id": "b", "mount_path": "/d"},
            ]
        },
        {"volumes": [{"volume_id": "a", "mount_path": "/data", "subpath": "../b"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/data", "subpath": "/b"}]},
        {"volumes": [{"volume_id": "a", "mount_path": "/data", "subpath": ""}]},
        {"snapshot": ""},
        {"image": ""},
        {"user": ""},
        {"nonsense": 1},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_without_a_request(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DaytonaOptions.model_validate(options)


def test_ports_are_all_reachable(service: RaisingService) -> None:
    service.create_sandbox(provider="daytona", ports=(3000, 8080))


def test_a_switch_that_is_neither_on_nor_off_is_named(server: DaytonaServer) -> None:
    from ekairos_sandbox.provider import CreateSpec, Tags

    provider = provider_for(server, SANDBOX_DAYTONA_EPHEMERAL="maybe")
    with pytest.raises(ConfigurationError, match="SANDBOX_DAYTONA_EPHEMERAL"):
        provider.create(CreateSpec("ekairos-x", Tags("o", "x", 1), DaytonaOptions(), 60))


def test_an_option_that_the_installed_sdk_does_not_know_is_refused(
    server: DaytonaServer, service: RaisingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ekairos_sandbox_daytona.api import Sdk

    has = Sdk.has
    monkeypatch.setattr(
        Sdk, "has", lambda self, model, name: name != "domain_allow_list" and has(self, model, name)
    )
    with pytest.raises(UnsupportedOperationError, match=r"domain_allow_list.*pip install"):
        service.create_sandbox(provider="daytona", daytona={"domain_allow_list": ["example.org"]})
    assert server.alive() == []
