"""The entities as a part of an app: schema, rules, service, command line."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from helpers.instant import ID, T0, Store, client_for, record, sandbox_client
from servers.instantdb.faults import Fault
from servers.instantdb.server import InstantServer

import ekairos_sandbox
from ekairos_sandbox import SandboxService
from ekairos_sandbox.exceptions import (
    ConfigurationError,
    RepositoryUnavailableError,
    SchemaError,
)
from ekairos_sandbox.models import RecordQuery
from ekairos_sandbox.repository.instantdb import (
    InstantClient,
    InstantSandboxRepository,
    check,
    compose_schema,
    push_rules,
    push_schema,
    sandbox_domain,
)

CLOSED = {"allow": {"$default": "false"}}
NOTES = {"entities": {"notes": {"attrs": {"title": {"valueType": "string", "config": {}}}}}}


@pytest.fixture
def client(server: InstantServer) -> Iterator[InstantClient]:
    """A client for an app without a schema."""
    client = client_for(server, server.create_app())
    yield client
    server.faults.clear()
    server.job_polls = 0
    client.close()


def changed(**attrs: dict[str, Any] | None) -> dict[str, Any]:
    """Return our schema with other attributes of records; None leaves one out."""
    document = copy.deepcopy(sandbox_domain.schema)
    there = document["entities"]["sandbox_sandboxes"]["attrs"]
    for name, attr in attrs.items():
        if attr is None:
            del there[name]
        else:
            there[name] = attr
    return document


def attr(kind: str, *, indexed: bool = False, unique: bool = False, required: bool = False) -> Any:
    config = {"indexed": indexed, "unique": unique}
    return {"valueType": kind, "required": required, "config": config}


# Schema as data


def test_the_schema_has_the_attributes_of_the_typescript_package_and_fences() -> None:
    entities = sandbox_domain.schema["entities"]
    assert list(entities["sandbox_sandboxes"]["attrs"]) == [
        "externalSandboxId",
        "provider",
        "sandboxUrl",
        "status",
        "timeout",
        "runtime",
        "vcpus",
        "ports",
        "purpose",
        "params",
        "createdAt",
        "updatedAt",
        "shutdownAt",
    ]
    assert entities["sandbox_fences"]["attrs"]["key"] == attr(
        "string", indexed=True, unique=True, required=True
    )


def test_the_schema_is_a_copy_each_time() -> None:
    sandbox_domain.schema["entities"].clear()
    assert "sandbox_fences" in sandbox_domain.schema["entities"]


def test_schemas_compose_and_agreeing_parts_may_overlap() -> None:
    link = {"forward": {"on": "notes", "has": "many", "label": "x"}}
    mine = {**NOTES, "links": {"l": link}, "rooms": {"r": {}}}
    whole = compose_schema(sandbox_domain, mine, NOTES, sandbox_domain.schema)
    assert set(whole["entities"]) == {"sandbox_sandboxes", "sandbox_fences", "notes"}
    assert (whole["links"], whole["rooms"]) == ({"l": link}, {"r": {}})
    assert whole["entities"]["notes"] == NOTES["entities"]["notes"]


def test_an_entity_can_be_extended_by_another_part() -> None:
    more = {"entities": {"sandbox_sandboxes": {"attrs": {"team": attr("string")}}}}
    attrs = compose_schema(sandbox_domain, more)["entities"]["sandbox_sandboxes"]["attrs"]
    assert {"team", "provider"} <= set(attrs)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (
            {"entities": {"sandbox_sandboxes": {"attrs": {"status": attr("number")}}}},
            r"the attribute sandbox_sandboxes\.status is defined twice",
        ),
        ({"links": {"l": {"forward": 2}}}, "the link l is defined twice"),
        ({"rooms": {"r": 2}}, "the room r is defined twice"),
        ({"entitys": {}}, "no section 'entitys'"),
    ],
)
def test_parts_that_contradict_each_other_are_an_error(part: Any, what: str) -> None:
    first = {"links": {"l": {"forward": 1}}, "rooms": {"r": 1}}
    with pytest.raises(ConfigurationError, match=what):
        compose_schema(sandbox_domain, first, part)


# Pushing


def test_a_push_makes_an_empty_app_usable_and_repeating_it_does_nothing(
    client: InstantClient,
) -> None:
    plan = push_schema(client, plan_only=True)
    assert (plan.applied, "add-attr sandbox_fences.key" in plan.steps) == (False, True)
    assert "sandbox_fences" not in client.schema()["blobs"]
    push = push_schema(client)
    assert (push.applied, push.steps) == (True, plan.steps)
    check(client)
    InstantSandboxRepository(client).create(record())
    assert push_schema(client).steps == ()


def test_a_push_can_carry_an_app_s_own_entities(client: InstantClient) -> None:
    push_schema(client, compose_schema(sandbox_domain, NOTES))
    assert client.schema()["blobs"]["notes"]["title"]["checked-data-type"] == "string"
    check(client)


def test_a_push_waits_for_the_work_on_existing_attributes(
    server: InstantServer, client: InstantClient
) -> None:
    server.job_polls = 3
    loose = changed(createdAt=attr("json"), purpose=attr("string"))
    client.apply_schema(loose)
    client.transact(
        [
            [
                "create",
                "sandbox_sandboxes",
                ID,
                {"provider": "p", "status": "active", "createdAt": T0},
            ]
        ]
    )
    push = push_schema(client)
    assert set(push.steps) == {
        "index sandbox_sandboxes.createdAt",
        "required sandbox_sandboxes.createdAt",
        "check-data-type sandbox_sandboxes.createdAt",
        "index sandbox_sandboxes.purpose",
    }
    check(client)
    repository = InstantSandboxRepository(client)
    assert [found.id for found in repository.iterate(RecordQuery())] == [ID]


def test_a_push_whose_answer_was_lost_still_waits(
    server: InstantServer, client: InstantClient
) -> None:
    server.job_polls = 1
    client.apply_schema(changed(purpose=attr("string")))
    path = f"/superadmin/apps/{client.app_id}/schema/push/apply"
    server.faults.add(Fault.DROP_AFTER, path=path)
    # The second answer names no jobs; nobody polls them, so they stay unfinished here.
    with pytest.raises(RepositoryUnavailableError, match="still at work") as caught:
        push_schema(client, timeout_s=5)
    assert "schema check" in str(caught.value)
    with pytest.raises(SchemaError, match=r"sandbox_sandboxes\.purpose is still being indexed"):
        check(client)


def test_a_push_that_takes_too_long_says_that_it_goes_on(
    server: InstantServer, client: InstantClient
) -> None:
    server.job_polls = 1000
    client.apply_schema(changed(purpose=attr("string")))
    with pytest.raises(RepositoryUnavailableError, match="still at work"):
        push_schema(client, timeout_s=30)


def test_data_that_does_not_fit_names_the_attribute_and_not_the_data(
    client: InstantClient,
) -> None:
    client.apply_schema(changed(purpose=attr("json")))
    row = {"provider": "p", "status": "s", "createdAt": T0, "purpose": ["hidden-4711"]}
    client.transact([["create", "sandbox_sandboxes", ID, row]])
    with pytest.raises(SchemaError, match="purpose: invalid-triple-error") as caught:
        push_schema(client)
    assert "hidden-4711" not in str(caught.value)


def test_a_push_takes_no_index_away_that_the_app_has(client: InstantClient) -> None:
    client.apply_schema(changed(runtime=attr("string", indexed=True), team=attr("string")))
    assert push_schema(client).steps == ()
    blobs = client.schema()["blobs"]["sandbox_sandboxes"]
    assert (blobs["runtime"]["index?"], "team" in blobs) == (True, True)


def test_a_push_that_the_server_refuses_is_reported(
    server: InstantServer, client: InstantClient
) -> None:
    server.set_status(client.app_id, "read-only")
    with pytest.raises(RepositoryUnavailableError, match="read-only"):
        push_schema(client)


# Checking


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (changed(vcpus=None), "sandbox_sandboxes.vcpus is missing"),
        (
            changed(createdAt=attr("string", indexed=True, required=True)),
            "sandbox_sandboxes.createdAt has the type string, not number",
        ),
        (changed(params=attr("string")), "sandbox_sandboxes.params has the type string, not json"),
        (changed(status=attr("string")), "sandbox_sandboxes.status is not indexed"),
        (
            changed(runtime=attr("string", unique=True)),
            "sandbox_sandboxes.runtime is unique, which it must not be",
        ),
        (
            changed(purpose=attr("string", indexed=True, required=True)),
            "sandbox_sandboxes.purpose is required, which it must not be",
        ),
    ],
)
def test_a_check_names_what_is_not_as_it_must_be(
    client: InstantClient, document: Any, what: str
) -> None:
    client.apply_schema(document)
    with pytest.raises(SchemaError) as caught:
        InstantSandboxRepository(client).check()
    assert what in str(caught.value)
    assert "schema push" in str(caught.value)


def test_a_check_of_an_empty_app_names_everything(client: InstantClient) -> None:
    with pytest.raises(SchemaError) as caught:
        check(client)
    assert caught.value.message.count("is missing") == 15


def test_a_fence_key_that_is_not_unique_is_found(client: InstantClient) -> None:
    document = sandbox_domain.schema
    document["entities"]["sandbox_fences"]["attrs"]["key"]["config"]["unique"] = False
    client.apply_schema(document)
    with pytest.raises(SchemaError, match=r"sandbox_fences\.key is not unique"):
        check(client)


# Rules


def test_rules_close_our_namespaces_and_leave_the_others(
    server: InstantServer, client: InstantClient
) -> None:
    theirs = {"notes": {"allow": {"view": "true"}}, "attrs": {"allow": {"create": "false"}}}
    client.replace_rules(theirs)
    assert push_rules(client) is True
    expected = {**theirs, "sandbox_sandboxes": CLOSED, "sandbox_fences": CLOSED}
    assert server.rules(client.app_id) == expected
    assert push_rules(client) is False


def test_without_rules_ours_are_the_first(server: InstantServer, client: InstantClient) -> None:
    assert push_rules(client) is True
    assert server.rules(client.app_id) == {"sandbox_sandboxes": CLOSED, "sandbox_fences": CLOSED}


def test_closed_namespaces_are_closed_to_guests_and_open_to_us(server: InstantServer) -> None:
    store = Store(server)
    store.repository.create(record())
    push_rules(store.client)
    guest = {"app-id": store.app.id, "as-guest": "true", "Content-Type": "application/json"}
    body = json.dumps({"query": {"sandbox_sandboxes": {}, "sandbox_fences": {}}}).encode()
    answer = store.client.http.request(
        "POST", "/admin/query", headers=guest, data=body, authenticated=False
    )
    assert answer.json() == {"sandbox_sandboxes": [], "sandbox_fences": []}
    assert store.repository.get(ID).id == ID


@pytest.mark.parametrize(
    "rules",
    [
        {"sandbox_sandboxes": {"allow": {"view": "true"}}},
        {"sandbox_fences": {"allow": {"$default": "true"}}},
    ],
)
def test_rules_of_somebody_s_own_for_our_namespaces_are_not_touched(
    server: InstantServer, client: InstantClient, rules: Any
) -> None:
    client.replace_rules(rules)
    with pytest.raises(ConfigurationError, match="rules of its own"):
        push_rules(client)
    assert server.rules(client.app_id) == rules


def test_rules_in_an_unknown_form_are_not_touched(
    client: InstantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "rules", lambda: ["new", "form"])
    with pytest.raises(ConfigurationError, match="not a document"):
        push_rules(client)


def test_rules_that_somebody_else_replaced_at_the_same_moment_are_noticed(
    client: InstantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "replace_rules", lambda code: None)
    with pytest.raises(ConfigurationError, match="replaced by somebody else"):
        push_rules(client)


# The service


def test_the_domain_makes_a_service_over_an_app(server: InstantServer) -> None:
    with sandbox_domain(sandbox_client(server)) as service:
        assert isinstance(service, SandboxService)
        assert service.list_sandboxes().unwrap().records == ()
    assert repr(sandbox_domain) == "sandbox_domain"


def test_the_environment_leads_to_the_app(server: InstantServer) -> None:
    store = Store(server)
    store.repository.create(record())
    environ = {
        "INSTANT_APP_ID": store.app.id,
        "INSTANT_APP_ADMIN_TOKEN": store.app.admin_token,
        "INSTANT_API_URI": server.url,
    }
    for extra in ({}, {"EKAIROS_SANDBOX_STORE": "instantdb"}):
        with SandboxService.from_env({**environ, **extra}) as service:
            assert service.get_record(ID).unwrap().status == "creating"


def test_the_package_offers_what_an_app_needs() -> None:
    for name in ("InstantClient", "compose_schema", "push_rules", "push_schema", "sandbox_domain"):
        assert name in ekairos_sandbox.__all__
        assert getattr(ekairos_sandbox, name) is not None


def test_nothing_is_destroyed_on_the_word_of_an_emptied_app(server: InstantServer) -> None:
    """The schema is gone, or the app is another one: either way no sandbox is touched."""
    store = Store(server, server.create_app())
    with sandbox_domain(store.client) as service:
        result = service.reconcile(apply=True, destroy_unrecorded=True)
        assert not result.ok
        assert result.code == "schema_error"
