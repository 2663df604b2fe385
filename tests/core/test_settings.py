from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import product

import pytest

from ekairos_sandbox import settings
from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.service import SandboxService
from ekairos_sandbox.settings import StoreSetting, default_provider, store_setting

APP = {"INSTANT_APP_ID": "app-1"}
PUBLIC_APP = {"NEXT_PUBLIC_INSTANT_APP_ID": "app-2"}
TOKEN = {"INSTANT_APP_ADMIN_TOKEN": "hunter22-token"}
INSTANT = StoreSetting("instantdb")
EMBEDDED = StoreSetting("sqlite", local_only=True)

WITHOUT_STORE: list[tuple[Mapping[str, str], StoreSetting | str]] = [
    ({}, EMBEDDED),
    (APP, "INSTANT_APP_ADMIN_TOKEN is not set, but INSTANT_APP_ID is"),
    (PUBLIC_APP, "INSTANT_APP_ADMIN_TOKEN is not set, but NEXT_PUBLIC_INSTANT_APP_ID is"),
    ({**APP, **PUBLIC_APP}, "INSTANT_APP_ADMIN_TOKEN is not set, but INSTANT_APP_ID is"),
    (TOKEN, "INSTANT_APP_ID is not set, but INSTANT_APP_ADMIN_TOKEN is"),
    ({**APP, **TOKEN}, INSTANT),
    ({**PUBLIC_APP, **TOKEN}, INSTANT),
    ({**APP, **PUBLIC_APP, **TOKEN}, INSTANT),
    ({"INSTANT_APP_ID": "", **TOKEN}, "INSTANT_APP_ID is not set"),
    ({"INSTANT_APP_ID": "", **PUBLIC_APP, **TOKEN}, INSTANT),
    ({**APP, "INSTANT_APP_ADMIN_TOKEN": ""}, "INSTANT_APP_ADMIN_TOKEN is not set"),
    ({"INSTANT_APP_ID": "", "INSTANT_APP_ADMIN_TOKEN": ""}, EMBEDDED),
]
STORES: list[tuple[str, StoreSetting | str]] = [
    ("sqlite:///relative/x.db", StoreSetting("sqlite", "relative/x.db")),
    ("sqlite:////absolute/x.db", StoreSetting("sqlite", "/absolute/x.db")),
    ("  sqlite:///x.db\n", StoreSetting("sqlite", "x.db")),
    ("sqlite:///", "EKAIROS_SANDBOX_STORE is not a store"),
    ("sqlite://x.db", "EKAIROS_SANDBOX_STORE is not a store"),
    ("sqlite:x.db", "EKAIROS_SANDBOX_STORE is not a store"),
    ("sqlite", "EKAIROS_SANDBOX_STORE is not a store"),
    ("/x.db", "EKAIROS_SANDBOX_STORE is not a store"),
    ("InstantDB", "EKAIROS_SANDBOX_STORE is not a store"),
    ("postgres://me:hunter22@db/x", "EKAIROS_SANDBOX_STORE is not a store"),
]
INSTANT_STORE: list[tuple[Mapping[str, str], StoreSetting | str]] = [
    ({}, "the InstantDB store needs INSTANT_APP_ID and INSTANT_APP_ADMIN_TOKEN"),
    (APP, "the InstantDB store needs INSTANT_APP_ADMIN_TOKEN"),
    (PUBLIC_APP, "the InstantDB store needs INSTANT_APP_ADMIN_TOKEN"),
    (TOKEN, "the InstantDB store needs INSTANT_APP_ID"),
    ({**APP, **TOKEN}, INSTANT),
    ({**PUBLIC_APP, **TOKEN}, INSTANT),
]


def check(environ: Mapping[str, str], expected: StoreSetting | str) -> None:
    if isinstance(expected, StoreSetting):
        assert store_setting(environ) == expected
        return
    with pytest.raises(ConfigurationError) as caught:
        store_setting(environ)
    assert str(caught.value).startswith(expected)
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("unset", [{}, {"EKAIROS_SANDBOX_STORE": " "}])
@pytest.mark.parametrize(("environ", "expected"), WITHOUT_STORE)
def test_the_instantdb_variables_decide_where_no_store_is_named(
    environ: Mapping[str, str], expected: StoreSetting | str, unset: Mapping[str, str]
) -> None:
    check({**environ, **unset}, expected)


@pytest.mark.parametrize(
    ("text", "expected", "others"),
    [(*row, others) for row, others in product(STORES, [{}, APP, TOKEN, {**PUBLIC_APP, **TOKEN}])],
)
def test_a_named_store_wins_over_the_instantdb_variables(
    text: str, expected: StoreSetting | str, others: Mapping[str, str]
) -> None:
    check({**others, "EKAIROS_SANDBOX_STORE": text}, expected)


@pytest.mark.parametrize(("environ", "expected"), INSTANT_STORE)
def test_the_store_instantdb_needs_its_variables(
    environ: Mapping[str, str], expected: StoreSetting | str
) -> None:
    check({**environ, "EKAIROS_SANDBOX_STORE": "instantdb"}, expected)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({}, "sprites"),
        ({"SANDBOX_PROVIDER": ""}, "sprites"),
        ({"SANDBOX_PROVIDER": "  "}, "sprites"),
        ({"SANDBOX_PROVIDER": "local"}, "local"),
        ({"SANDBOX_PROVIDER": " local\n"}, "local"),
        ({"SANDBOX_PROVIDER": "my-own_1"}, "my-own_1"),
    ],
)
def test_the_default_provider(environ: Mapping[str, str], name: str) -> None:
    assert default_provider(environ) == name


@pytest.mark.parametrize("name", ["Local", "lo cal", "-local", "1local", "a" * 41, "lócal"])
def test_what_is_no_provider_name_is_refused_without_showing_it(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        default_provider({"SANDBOX_PROVIDER": name})
    assert "SANDBOX_PROVIDER" in str(caught.value)
    assert name not in str(caught.value)


def test_every_variable_that_is_read_is_in_the_table() -> None:
    read: set[str] = set()

    class Recording(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:
            read.add(key)
            return str(super().get(key, default) or "")

    default_provider(Recording())
    store_setting(Recording())
    assert read <= set(settings.VARIABLES)
    assert set(settings.VARIABLES) - read == {"INSTANT_API_URI"}
    assert all(text.endswith(".") for text in settings.VARIABLES.values())


def test_nothing_is_read_from_the_process_environment() -> None:
    assert "os" not in vars(settings)
    assert "environ" in inspect.signature(store_setting).parameters


def test_half_an_instantdb_setting_is_an_error_of_from_env() -> None:
    with pytest.raises(ConfigurationError, match="INSTANT_APP_ADMIN_TOKEN is not set"):
        SandboxService.from_env(APP)
