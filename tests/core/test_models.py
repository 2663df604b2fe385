from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.models import (
    RecordQuery,
    Resources,
    SandboxConfig,
    SandboxRecord,
    SandboxState,
    check_sandbox_id,
    lower_uuids,
)
from ekairos_sandbox.plans import parse_config

UUID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"
WIRE_NAMES = {
    "id": "id",
    "provider": "provider",
    "status": "status",
    "external_sandbox_id": "externalSandboxId",
    "sandbox_url": "sandboxUrl",
    "timeout": "timeout",
    "runtime": "runtime",
    "vcpus": "vcpus",
    "ports": "ports",
    "purpose": "purpose",
    "params": "params",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "shutdown_at": "shutdownAt",
}
MINIMAL: dict[str, Any] = {"id": UUID, "provider": "local", "status": "active", "createdAt": 1}

few = settings(max_examples=40, deadline=None)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
unknown_names = texts.filter(lambda name: name not in {*WIRE_NAMES, *WIRE_NAMES.values()})
not_null = json_values.filter(lambda value: value is not None)
times = st.integers(0, 2**43)
wires = st.builds(
    lambda known, optional, unknown: {**unknown, **known, **optional},
    st.fixed_dictionaries(
        {"id": texts, "provider": texts, "status": texts, "createdAt": times},
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "externalSandboxId": texts,
            "sandboxUrl": texts,
            "timeout": st.integers(0, 2**43),
            "runtime": texts,
            "vcpus": st.integers(1, 64) | st.floats(0.25, 64),
            "ports": st.lists(st.integers(1, 65535), max_size=3),
            "purpose": texts,
            "params": st.dictionaries(texts, json_values, max_size=4),
            "updatedAt": times,
            "shutdownAt": times,
        },
    ),
    st.dictionaries(unknown_names, not_null, max_size=3),
)


def record(**fields: Any) -> SandboxRecord:
    return SandboxRecord.model_validate({**MINIMAL, **fields})


# Records


@few
@given(wires)
def test_a_record_survives_reading_and_writing(wire: dict[str, Any]) -> None:
    before = copy.deepcopy(wire)
    assert SandboxRecord.model_validate(wire).wire() == before
    text = json.dumps(wire)
    assert SandboxRecord.model_validate_json(text).wire() == before


@few
@given(wires, st.integers(0, 1000))
def test_a_transition_keeps_everything_that_is_not_named(wire: dict[str, Any], rev: int) -> None:
    changed = SandboxRecord.model_validate(wire).with_changes({"status": "shutdown"}, rev).wire()
    params = changed.pop("params")
    assert params.pop("ekairos")["rev"] == rev
    before = lower_uuids(wire.get("params", {}))
    before.pop("ekairos", None)
    assert params == before
    expected = {key: value for key, value in wire.items() if key != "params"}
    assert changed == {**expected, "status": "shutdown"}


def test_the_wire_has_the_names_of_the_entity() -> None:
    full = SandboxRecord(
        id=UUID,
        provider="local",
        status="active",
        external_sandbox_id="e",
        sandbox_url="u",
        timeout=1000,
        runtime="python3.12",
        vcpus=2,
        ports=[8080],
        purpose="p",
        params={"a": 1},
        created_at=1,
        updated_at=2,
        shutdown_at=3,
    )
    assert list(SandboxRecord.model_fields) == list(WIRE_NAMES)
    assert set(full.wire()) == set(WIRE_NAMES.values())


def test_nulls_inside_params_survive_and_absent_attributes_are_left_out() -> None:
    wire = {**MINIMAL, "params": {"a": None, "b": {"c": [None, {"d": None}]}}}
    assert record(**wire).wire() == wire
    assert record(purpose=None, params=None).wire() == MINIMAL


def test_a_transition_can_clear_an_attribute() -> None:
    changed = record(externalSandboxId="e").with_changes({"external_sandbox_id": None}, 1)
    assert "externalSandboxId" not in changed.wire()


def test_a_transition_leaves_the_record_it_came_from_alone() -> None:
    first = record(params={"ekairos": {"v": 1, "rev": 3, "name": "n", "future": [1]}, "a": 1})
    second = first.with_changes({"params": {"ekairos": {"v": 1, "name": "n"}, "b": 2}}, 4)
    assert (first.rev, first.user_params) == (3, {"a": 1})
    assert (second.rev, second.user_params) == (4, {"b": 2})
    third = first.with_changes({"status": "shutdown"}, 4)
    assert third.state is not None
    assert third.state.model_extra == {"future": [1]}
    assert third.wire()["params"]["ekairos"] == {"v": 1, "rev": 4, "name": "n", "future": [1]}


@pytest.mark.parametrize("params", [None, {}, {"daytona": {"ephemeral": True}}, {"ekairos": "odd"}])
def test_a_record_of_another_program_is_not_ours_and_has_revision_zero(params: Any) -> None:
    foreign = record(params=params)
    assert (foreign.state, foreign.ours, foreign.rev) == (None, False, 0)
    stopped = foreign.with_changes({"status": "shutdown"}, 1)
    assert (stopped.ours, stopped.rev) == (False, 1)


def test_a_record_with_a_name_is_ours() -> None:
    ours = record(params={"ekairos": {"v": 1, "rev": 2, "name": "ekairos-x"}})
    assert (ours.ours, ours.rev) == (True, 2)


def test_a_state_of_a_newer_release_keeps_its_unknown_keys() -> None:
    state = SandboxState.model_validate({"v": 1, "rev": 1, "new": {"x": None}})
    assert state.model_dump(mode="json")["new"] == {"x": None}


def test_a_state_of_a_newer_version_is_not_read() -> None:
    with pytest.raises(ValidationError):
        SandboxState.model_validate({"v": 2, "rev": 1})


def test_statuses_of_other_programs_are_read() -> None:
    assert record(status="hibernating").status == "hibernating"


def test_created_is_an_aware_time() -> None:
    assert record(createdAt=1_700_000_000_123).created == datetime(
        2023, 11, 14, 22, 13, 20, 123_000, tzinfo=UTC
    )


def test_records_are_immutable_and_survive_pickling() -> None:
    one = record(params={"a": [1]}, unknown="x")
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(ValidationError):
        one.status = "error"


def test_a_broken_record_does_not_show_its_values() -> None:
    with pytest.raises(ValidationError) as caught:
        record(timeout="hunter22", params="hunter22")
    assert "hunter22" not in str(caught.value)


# UUIDs


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (UUID.upper(), UUID),
        (f"x{UUID.upper()}", f"x{UUID.upper()}"),
        (UUID.upper().replace("-", ""), UUID.upper().replace("-", "")),
        ({"A": [UUID.upper(), "B"]}, {"A": [UUID, "B"]}),
        ({UUID.upper(): {"k": UUID.upper()}}, {UUID: {"k": UUID}}),
        ((UUID.upper(),), [UUID]),
        (None, None),
        (5, 5),
        (True, True),
        ("TEXT", "TEXT"),
    ],
)
def test_uuids_become_lower_case_wherever_they_stand(value: Any, expected: Any) -> None:
    assert lower_uuids(value) == expected


@few
@given(json_values)
def test_lowering_uuids_changes_nothing_else_and_is_stable(value: Any) -> None:
    assert lower_uuids(lower_uuids(value)) == lower_uuids(value)
    assert json.dumps(lower_uuids(value)).lower() == json.dumps(value).lower()


@pytest.mark.parametrize("text", [UUID, UUID.upper(), f"  {UUID}\n"])
def test_an_id_is_brought_into_its_canonical_form(text: str) -> None:
    assert check_sandbox_id(text) == UUID


@pytest.mark.parametrize(
    "text",
    ["", "x", UUID[:-1], UUID + "0", UUID.replace("-", ""), f"{{{UUID}}}", f"urn:uuid:{UUID}",
     "../" + UUID, UUID + "\0", UUID[:-1] + "\u0661"],
)  # fmt: skip
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="a sandbox id is a UUID like"):
        check_sandbox_id(text)


# Config

SECRET = "hunter22"
DEEP: Any = SECRET
for _ in range(230):
    DEEP = [DEEP]

BAD: list[tuple[Mapping[str, Any], str]] = [
    ({"provider": ""}, "provider: is not a provider name"),
    ({"provider": "Hunter22"}, "provider: is not a provider name"),
    ({"provider": "hunter22 x"}, "provider: is not a provider name"),
    ({"provider": 5}, "provider: "),
    ({"runtime": ""}, "runtime: "),
    ({"runtime": SECRET * 20}, "runtime: "),
    ({"timeout_ms": 999}, "timeout_ms: "),
    ({"timeout_ms": 0}, "timeout_ms: "),
    ({"timeout_ms": -5000}, "timeout_ms: "),
    ({"timeout_ms": 1000.5}, "timeout_ms: "),
    ({"timeout_ms": SECRET}, "timeout_ms: "),
    ({"timeout_ms": float("inf")}, "timeout_ms: "),
    ({"ports": [0]}, "ports.0: "),
    ({"ports": [80, 65536]}, "ports.1: "),
    ({"ports": [80, 80]}, "ports: holds a port twice"),
    ({"ports": SECRET}, "ports: "),
    ({"ports": 80}, "ports: "),
    ({"resources": {"vcpus": 0}}, "resources.vcpus: "),
    ({"resources": {"vcpus": -1}}, "resources.vcpus: "),
    ({"resources": {"vcpus": 257}}, "resources.vcpus: "),
    ({"resources": {"vcpus": float("nan")}}, "resources.vcpus: "),
    ({"resources": {"cpus": SECRET}}, "resources.cpus: "),
    ({"resources": 2}, "resources: "),
    ({"purpose": SECRET * 50}, "purpose: "),
    ({"purpose": "\ud800"}, "purpose: "),
    ({"params": {"ekairos": SECRET}}, "params: must not hold the key 'ekairos'"),
    ({"params": SECRET}, "params: "),
    ({"params": {"x": ...}}, "params.x: "),
    ({"params": {"x": float("nan")}}, "params: holds NaN"),
    ({"params": {"x": [float("-inf")]}}, "params: holds NaN"),
    ({"params": {"x": SECRET + "\ud800"}}, "params: holds NaN, infinity or half a character"),
    ({"params": {"x": DEEP}}, "params: holds NaN, infinity or half a character, or is too deep"),
    ({"env": {"1A": SECRET}}, "env: has a key that is no variable name"),
    ({"env": {"A=B": SECRET}}, "env: has a key that is no variable name"),
    ({"env": {"": SECRET}}, "env: has a key that is no variable name"),
    ({"env": {"A": SECRET + "\0"}}, "env: has a value with a NUL"),
    ({"env": {"A": SECRET + "\ud800"}}, "env: has a value with a NUL or half a character"),
    ({"env": {"A": 5}}, "env.A: "),
    ({"env": {"A": None}}, "env.A: "),
    ({"env": [f"A={SECRET}"]}, "env: "),
    ({"env": None}, "env: "),
    ({"env_from": ["A B"]}, "env_from: is not a variable name"),
    ({"env_from": "API_KEY"}, "env_from: "),
    ({"env_from": [f"A={SECRET}"]}, "env_from: is not a variable name"),
    ({"on_gone": SECRET}, "on_gone: "),
    ({"provider_options": SECRET}, "provider_options: "),
    ({"provider_options": [SECRET]}, "provider_options: "),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "text"), BAD, ids=lambda value: str(value)[:50])
def test_a_bad_field_is_named_and_its_value_is_not_shown(
    fields: Mapping[str, Any], text: str
) -> None:
    for config, others in ((fields, {}), (SandboxConfig(), fields)):
        with pytest.raises(ConfigurationError) as caught:
            parse_config(config, **others)
        shown = str(caught.value)
        assert shown.startswith(f"the config is not valid: {text}")
        assert SECRET not in shown.lower()
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def test_several_bad_fields_are_all_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config({"timeout_ms": 1, "ports": [0], "on_gone": "x"})
    assert str(caught.value).count(";") == 2


def test_a_config_is_a_model_a_mapping_or_fields() -> None:
    expected = SandboxConfig(provider="local", timeout_ms=5000)
    assert parse_config(expected) is expected
    assert parse_config({"provider": "local", "timeout_ms": 5000}) == expected
    assert parse_config(None, provider="local", timeout_ms=5000) == expected
    assert parse_config({"provider": "other"}, provider="local", timeout_ms=5000) == expected
    assert parse_config(expected, timeout_ms=7000).timeout_ms == 7000
    assert parse_config(None) == SandboxConfig()


def test_fields_on_top_of_a_model_keep_its_sections_and_secrets() -> None:
    base = SandboxConfig.model_validate(
        {"env": {"A": SECRET}, "local": {"network": "host"}, "resources": {"vcpus": 2}}
    )
    merged = parse_config(base, purpose="p")
    assert merged.sections == {"local": {"network": "host"}}
    assert merged.env["A"].get_secret_value() == SECRET
    assert merged.resources == Resources(vcpus=2)


def test_both_spellings_of_a_section_mean_the_same() -> None:
    one = parse_config(None, provider_options={"local": {"network": "host"}})
    other = parse_config(None, local={"network": "host"})
    assert one.sections == other.sections == {"local": {"network": "host"}}
    both = parse_config(None, provider_options={"a": {}}, b={})
    assert both.sections == {"a": {}, "b": {}}


def test_a_section_given_twice_is_refused() -> None:
    twice = parse_config(None, provider_options={"local": {"x": SECRET}}, local={"x": SECRET})
    with pytest.raises(ConfigurationError, match="options for 'local' are given twice") as caught:
        _ = twice.sections
    assert SECRET not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    config = parse_config(
        None,
        env={"A": SECRET},
        provider_options={"vercel": {"password": SECRET}},
        daytona={"env_vars": {"B": SECRET}},
    )
    for shown in (
        repr(config),
        str(config),
        f"{config.env}",
        config.model_dump_json(include={"env"}),
    ):
        assert SECRET not in shown
    assert "provider=None" in repr(config)


def test_a_config_is_immutable() -> None:
    with pytest.raises(ValidationError):
        SandboxConfig().purpose = "x"


@few
@given(
    st.builds(
        lambda optional: optional,
        st.fixed_dictionaries(
            {},
            optional={
                "provider": st.from_regex(r"[a-z][a-z0-9_-]{0,39}", fullmatch=True),
                "runtime": storable.filter(bool),
                "timeout_ms": st.integers(1000, 10**12),
                "ports": st.lists(st.integers(1, 65535), unique=True, max_size=4),
                "purpose": storable,
                "params": st.dictionaries(texts, json_values, max_size=3).filter(
                    lambda params: "ekairos" not in params and r"\u0000" not in json.dumps(params)
                ),
                "env_from": st.lists(
                    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), max_size=3
                ),
                "on_gone": st.sampled_from(["recreate", "fail"]),
            },
        ),
    )
)
def test_a_config_survives_json(fields: dict[str, Any]) -> None:
    config = parse_config(fields)
    dumped = config.model_dump(mode="json", exclude_unset=True)
    assert dumped == fields
    assert parse_config(json.loads(json.dumps(dumped))) == config


# Queries


def test_one_status_may_be_given_as_text() -> None:
    assert RecordQuery.model_validate({"status": "active"}).status == ("active",)
    assert RecordQuery.model_validate({"status": ["a", "b"]}).status == ("a", "b")


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": 501},
        {"limit": -1},
        {"created_after": 10**20},
        {"created_before": -(10**20)},
        {"status": [5]},
    ],
)
def test_a_query_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RecordQuery.model_validate(fields)


def test_params_with_a_nul_character_are_refused() -> None:
    for params in ({"a": "x\0"}, {"b": [{"k\0": 1}]}):
        with pytest.raises(ConfigurationError, match="params: holds a NUL character"):
            parse_config({"params": params})
    assert parse_config({"params": {"a": "\\u0000"}}).params == {"a": "\\u0000"}


@pytest.mark.parametrize("field", ["purpose", "runtime"])
@pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
def test_text_that_not_every_store_can_keep_is_refused(field: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{field}: "):
        parse_config({field: text})


def test_the_place_of_an_error_is_told_in_few_words() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(900):
        inner["a"] = inner = {}
    with pytest.raises(ConfigurationError) as caught:
        parse_config({"params": deep})
    assert len(str(caught.value)) < 300
