from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderNotInstalledError,
    UnsupportedOperationError,
)
from ekairos_sandbox.models import STATE_KEY, SandboxConfig, SandboxRecord, SandboxState
from ekairos_sandbox.plans import (
    Plan,
    make_plan,
    parse_config,
    plan_of_record,
    stored_options,
    used_fields,
)
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import (
    ConfigField,
    Connection,
    CreateSpec,
    FieldSupport,
    Provider,
    ProviderOptions,
    SandboxInfo,
    SandboxRef,
    not_stored,
)

SECRET = "hunter22"
UUID = "6f1d7c2e-0c1a-4f5e-9d55-1f0d3a7b9c21"


class Source(ProviderOptions):
    url: str
    revision: str | None = None
    password: SecretStr | None = None
    headers: dict[str, str] = not_stored(default_factory=dict)


class SdkImage:
    """What an SDK of a provider could want: no JSON."""


class Options(ProviderOptions):
    name: str | None = None
    image: str | None = None
    size: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    mounts: tuple[str, ...] = ()
    token: SecretStr | None = None
    env_vars: dict[str, str] = not_stored(default_factory=dict)
    source: Source | None = None
    sources: list[Source] = Field(default_factory=list)
    sdk_image: SdkImage | None = None
    limit: float | None = None
    anything: Any = None


class OtherModel(BaseModel):
    image: str = "x"


class Stub(Provider[Options]):
    """Never carries anything out."""

    name = "stub"
    options_model: ClassVar[type[ProviderOptions]] = Options

    @classmethod
    def field_support(cls, options: Options | None = None) -> Mapping[ConfigField, FieldSupport]:
        if options is not None and options.image == "with-ports":
            return {"ports": FieldSupport("enforced")}
        return {
            "timeout_ms": FieldSupport("enforced"),
            "vcpus": FieldSupport("recorded", "it has one size"),
            "ports": FieldSupport("refused", "it has no network"),
        }

    def account(self) -> str:
        raise AssertionError("no call is made for a plan")

    def create(self, spec: CreateSpec[Options]) -> Connection:
        raise AssertionError("no call is made for a plan")

    def connect(self, ref: SandboxRef[Options]) -> Connection:
        raise AssertionError("no call is made for a plan")

    def inspect(self, ref: SandboxRef[Options]) -> SandboxInfo:
        raise AssertionError("no call is made for a plan")

    def find(self, name: str) -> SandboxInfo | None:
        raise AssertionError("no call is made for a plan")

    def list_owned(self, owner: str) -> Iterator[SandboxInfo]:
        raise AssertionError("no call is made for a plan")

    def stop(self, ref: SandboxRef[Options]) -> None:
        raise AssertionError("no call is made for a plan")

    def destroy(self, ref: SandboxRef[Options]) -> None:
        raise AssertionError("no call is made for a plan")


class Sprites(Stub):
    name = "sprites"


def registry() -> PluginRegistry:
    made = PluginRegistry()
    made.register_provider(Stub)
    made.register_provider(Sprites)
    return made


REGISTRY = registry()


def plan(environ: Mapping[str, str] | None = None, /, **fields: Any) -> Plan:
    return make_plan(parse_config({"provider": "stub", **fields}), REGISTRY, environ or {})


def state_of(made: Plan) -> SandboxState:
    return SandboxState(name="ekairos-x", config=made.stored, withheld=made.withheld)


def record_of(made: Plan) -> SandboxRecord:
    """The record that a creation stores, as it comes back from a store."""
    record = SandboxRecord(
        id=UUID,
        provider=made.cls.name,
        status="shutdown",
        purpose=made.config.purpose,
        params={**made.config.params, STATE_KEY: state_of(made).model_dump(mode="json")},
        created_at=1,
    )
    return SandboxRecord.model_validate_json(json.dumps(record.wire()))


def again(made: Plan, environ: Mapping[str, str] | None = None) -> Plan:
    return plan_of_record(record_of(made), REGISTRY, environ or {})


# Which provider


@pytest.mark.parametrize(
    ("config", "environ", "name"),
    [
        ({"provider": "stub"}, {}, "stub"),
        ({"provider": "stub"}, {"SANDBOX_PROVIDER": "sprites"}, "stub"),
        ({}, {"SANDBOX_PROVIDER": "stub"}, "stub"),
        ({}, {"SANDBOX_PROVIDER": ""}, "sprites"),
        ({}, {}, "sprites"),
    ],
)
def test_config_then_variable_then_sprites(
    config: dict[str, Any], environ: dict[str, str], name: str
) -> None:
    made = make_plan(parse_config(config), REGISTRY, environ)
    assert made.cls.name == name
    assert made.stored == {"provider": name, "on_gone": "recreate"}


@pytest.mark.parametrize(
    ("config", "environ"),
    [({"provider": "stubb"}, {}), ({}, {"SANDBOX_PROVIDER": "stubb"})],
)
def test_an_unknown_provider_never_falls_through(
    config: dict[str, Any], environ: dict[str, str]
) -> None:
    with pytest.raises(ProviderNotInstalledError) as caught:
        make_plan(parse_config(config), REGISTRY, environ)
    assert str(caught.value).startswith("no provider 'stubb' is installed; installed: ")
    assert "sprites, stub" in str(caught.value)
    assert str(caught.value).endswith("(did you mean 'stub'?)")


# Sections


@pytest.mark.parametrize("section", ["local", "sprites", "timeoutms", "tiemout_ms", "Stub"])
def test_a_foreign_or_misspelt_section_is_refused(section: str) -> None:
    for fields in ({section: {"x": SECRET}}, {"provider_options": {section: {"x": SECRET}}}):
        with pytest.raises(ConfigurationError) as caught:
            plan(**fields)
        assert f"the config has a field {section!r}" in str(caught.value)
        assert "no section of the provider 'stub'" in str(caught.value)
        assert "timeout_ms" in str(caught.value)
        assert SECRET not in str(caught.value)


def test_a_section_is_a_mapping_or_the_providers_own_model() -> None:
    as_mapping = plan(stub={"image": "i", "size": 2})
    as_model = plan(provider_options={"stub": Options(image="i", size=2)})
    assert as_mapping.options == as_model.options == Options(image="i", size=2)
    assert as_mapping.stored == as_model.stored
    assert plan().options == Options()


@pytest.mark.parametrize("section", [SECRET, 5, None, [("image", SECRET)], OtherModel()])
def test_a_section_of_another_type_is_refused(section: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(stub=section)
    assert f"the section 'stub' is {type(section).__name__}, not a mapping or Options" in str(
        caught.value
    )
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "where"),
    [
        ({"imagee": SECRET}, "imagee"),
        ({"size": SECRET}, "size"),
        ({"token": 5}, "token"),
        ({"source": {"url": "u", "password": [SECRET]}}, "source.password"),
        ({"source": {"revision": SECRET}}, "source.url"),
        ({"sdk_image": SECRET}, "sdk_image"),
        ({5: SECRET}, "5"),
    ],
)
def test_a_wrong_option_is_named_and_its_value_is_not_shown(
    section: dict[Any, Any], where: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan(stub=section)
    assert str(caught.value).startswith(f"the section 'stub' is not valid: {where}: ")
    assert SECRET not in str(caught.value)
    assert caught.value.provider == "stub"
    assert caught.value.__suppress_context__


# What the provider does with a field


def test_a_refused_field_is_an_error_with_the_reason() -> None:
    with pytest.raises(UnsupportedOperationError) as caught:
        plan(ports=[8080])
    assert str(caught.value) == (
        "the provider 'stub' cannot honour ports=(8080,) (it has no network)"
    )
    assert (caught.value.provider, caught.value.operation) == ("stub", "create")


@pytest.mark.parametrize("key", ["stub", "error"])
def test_params_do_not_hold_what_the_record_would_overwrite(key: str) -> None:
    with pytest.raises(ConfigurationError, match=f"must not hold the key '{key}'"):
        plan(params={key: 1})
    assert plan(params={"other": 1}).config.params == {"other": 1}


def test_recorded_and_enforced_fields_are_stored() -> None:
    made = plan(timeout_ms=5000, resources={"vcpus": 2}, runtime="python3.12")
    assert made.stored == {
        "provider": "stub",
        "timeout_ms": 5000,
        "vcpus": 2.0,
        "runtime": "python3.12",
        "on_gone": "recreate",
    }


def test_support_may_depend_on_the_options() -> None:
    assert plan(ports=[8080], stub={"image": "with-ports"}).stored["ports"] == [8080]


def test_fields_that_are_not_set_are_never_refused() -> None:
    assert used_fields(SandboxConfig()) == {}
    config = parse_config(None, timeout_ms=1000, ports=[1], runtime="r", resources={"vcpus": 1})
    assert used_fields(config) == {"timeout_ms": 1000, "vcpus": 1, "runtime": "r", "ports": (1,)}


# What is stored


@pytest.mark.parametrize(
    ("section", "withheld"),
    [
        ({"token": SECRET}, "stub.token"),
        ({"env_vars": {"A": SECRET}}, "stub.env_vars"),
        ({"image": f"https://me:{SECRET}@registry/x"}, "stub.image"),
        ({"image": f"https://{SECRET}@registry/x"}, "stub.image"),
        ({"image": f"--index-url=https://me:{SECRET}@registry/x"}, "stub.image"),
        ({"image": f"HTTPS://me:{SECRET}@registry/x"}, "stub.image"),
        ({"labels": {"a": f"git+ssh://me:{SECRET}@host/x"}}, "stub.labels"),
        ({"labels": {f"https://me:{SECRET}@host/x": "a"}}, "stub.labels"),
        ({"mounts": ["/a", f"s3://me:{SECRET}@bucket"]}, "stub.mounts"),
        ({"source": {"url": "https://x", "password": SECRET}}, "stub.source"),
        ({"source": {"url": "https://x", "headers": {"a": SECRET}}}, "stub.source"),
        ({"source": {"url": f"https://me:{SECRET}@x"}}, "stub.source"),
        ({"sources": [{"url": "https://x", "password": SECRET}]}, "stub.sources"),
        ({"sources": [{"url": "https://x", "headers": {"a": SECRET}}]}, "stub.sources"),
        ({"sdk_image": SdkImage()}, "stub.sdk_image"),
        ({"anything": {"deep": [SecretStr(SECRET)]}}, "stub.anything"),
        ({"anything": OtherModel.model_construct(image=SecretStr(SECRET))}, "stub.anything"),
        ({"anything": SECRET.encode()}, "stub.anything"),
        ({"limit": float("inf")}, "stub.limit"),
    ],
)
def test_what_is_secret_or_no_json_is_named_instead_of_stored(
    section: dict[str, Any], withheld: str
) -> None:
    made = plan(stub={**section, "size": 3})
    assert made.withheld == [withheld]
    assert made.stored["options"] == {"size": 3}
    assert SECRET not in json.dumps(made.stored)


def test_secrets_are_not_in_the_repr_of_a_plan() -> None:
    made = plan(
        {"KEY": SECRET},
        env={"A": SECRET},
        env_from=["KEY"],
        stub={
            "token": SECRET,
            "env_vars": {"A": SECRET},
            "source": {"url": "u", "headers": {"h": SECRET}},
        },
    )
    assert SECRET not in repr(made)


def test_the_secrets_of_a_plan_are_the_values_of_its_environment_and_of_secret_options() -> None:
    made = plan(
        {"KEY": "from-outside"},
        env={"A": "given"},
        env_from=["KEY"],
        stub={
            "image": "https://user:url-password@host/image",
            "size": 3,
            "token": "token",
            "env_vars": {"NAME": "variable"},
            "labels": {"NAME": "plain"},
            "sources": [{"url": "u", "password": "password", "headers": {"h": "header"}}],
            "anything": {"deep": [SecretStr("deep")]},
        },
    )
    assert made.secrets == {
        "from-outside",
        "given",
        "user:url-password",
        "url-password",
        "token",
        "variable",
        "password",
        "header",
        "deep",
    }


def test_env_is_never_stored_and_env_from_by_name() -> None:
    made = plan({"KEY": SECRET, "OTHER": "x"}, env={"B": SECRET, "A": "1"}, env_from=["KEY"])
    assert made.env == {"KEY": SECRET, "B": SECRET, "A": "1"}
    assert made.withheld == ["env.A", "env.B"]
    assert made.stored == {"provider": "stub", "env_from": ["KEY"], "on_gone": "recreate"}


def test_env_wins_over_env_from() -> None:
    assert plan({"A": "outside"}, env={"A": "given"}, env_from=["A"]).env == {"A": "given"}


def test_a_missing_variable_of_env_from_is_named() -> None:
    with pytest.raises(ConfigurationError, match="env_from names B, C, which the environment"):
        plan({"A": "1"}, env_from=["A", "B", "C"])


def test_an_empty_secret_option_is_not_withheld() -> None:
    made = plan(stub={"token": None, "source": {"url": "u", "password": None}})
    assert made.withheld == []
    assert made.stored["options"] == {"token": None, "source": {"url": "u", "password": None}}


def test_what_was_not_set_is_not_stored() -> None:
    assert "options" not in plan().stored
    assert plan(stub={"size": 1}).stored["options"] == {"size": 1}
    assert plan(stub={"source": {"url": "u"}}).stored["options"] == {"source": {"url": "u"}}


# From the record back to a plan


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"stub": {"size": 1}},
        {"stub": {"name": "mine", "image": "i", "labels": {"a": "b"}, "mounts": ["/a", "/b"]}},
        {"stub": {"source": {"url": "https://x", "revision": "r"}}},
        {"stub": {"sources": [{"url": "https://x"}, {"url": "https://y", "password": None}]}},
        {"stub": {"limit": 0.5, "anything": {"a": [1, None, True]}}},
        {"timeout_ms": 5000, "runtime": "python3.12", "resources": {"vcpus": 0.5}},
        {"on_gone": "fail", "purpose": "p", "params": {"a": None}},
        {"ports": [8080, 80], "stub": {"image": "with-ports"}},
    ],
    ids=str,
)
def test_a_record_leads_back_to_the_same_plan(fields: dict[str, Any]) -> None:
    made = plan(**fields)
    rebuilt = again(made)
    assert rebuilt.options == made.options
    assert rebuilt.stored == made.stored
    assert rebuilt.withheld == []
    assert rebuilt.chosen_name == made.chosen_name
    assert rebuilt.config.purpose == made.config.purpose
    for name in ("runtime", "timeout_ms", "ports", "resources", "env_from", "on_gone"):
        assert getattr(rebuilt.config, name) == getattr(made.config, name)


@settings(max_examples=40, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
            "size": st.integers(-(2**60), 2**60),
            "labels": st.dictionaries(st.sampled_from("abc"), st.sampled_from("abc"), max_size=3),
            "mounts": st.lists(st.sampled_from(["/a", "/b c"]), max_size=3),
            "limit": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        },
    )
)
def test_any_storable_options_lead_back_to_themselves(section: dict[str, Any]) -> None:
    made = plan(stub=section)
    assert made.withheld == []
    assert again(made).options == made.options


def test_env_from_is_read_again() -> None:
    made = plan({"KEY": "old"}, env_from=["KEY"])
    assert again(made, {"KEY": "new"}).env == {"KEY": "new"}
    with pytest.raises(ConfigurationError, match="env_from names KEY"):
        again(made)


def test_what_was_withheld_blocks_the_way_back_and_is_named() -> None:
    made = plan(env={"API_KEY": SECRET}, stub={"token": SECRET, "size": 2})
    with pytest.raises(ConfigurationError) as caught:
        again(made)
    assert str(caught.value) == (
        "the sandbox cannot be made anew: env.API_KEY, stub.token was not stored "
        "(create a new sandbox, and pass secrets by env_from)"
    )
    assert caught.value.sandbox_id == UUID


def test_options_can_be_read_as_far_as_they_were_stored() -> None:
    made = plan(stub={"size": 2, "token": SECRET})
    assert stored_options(record_of(made), Stub) == Options(size=2)
    foreign = SandboxRecord(id=UUID, provider="stub", status="active", created_at=1)
    assert stored_options(foreign, Stub) is None


def test_stored_options_that_no_longer_fit_are_none() -> None:
    record = record_of(plan(stub={"size": 2}))
    state = {**record.wire()["params"][STATE_KEY], "config": {"options": {"old_field": 1}}}
    changed = record.model_copy(update={"params": {STATE_KEY: state}})
    assert stored_options(changed, Stub) is None


# Whether two calls mean the same sandbox


def test_the_same_config_is_recognised_whatever_its_secrets() -> None:
    state = state_of(plan(env={"A": "old"}, stub={"size": 2, "token": "old"}))
    assert plan(env={"A": "new"}, stub={"size": 2, "token": "new"}).same_as(state)
    assert not plan(env={"A": "old"}, stub={"size": 3, "token": "old"}).same_as(state)
    assert not plan(env={"B": "old"}, stub={"size": 2, "token": "old"}).same_as(state)
    assert not plan(stub={"size": 2}).same_as(state)
    assert not plan(timeout_ms=5000, env={"A": "o"}, stub={"size": 2, "token": "o"}).same_as(state)


def test_the_same_config_is_recognised_although_stores_lower_uuids() -> None:
    made = plan(stub={"image": UUID.upper()})
    stored = record_of(made).with_changes({}, 1)
    assert stored.state is not None
    assert stored.state.config["options"] == {"image": UUID}
    assert made.same_as(stored.state)
