"""Which credentials are taken, and what is said when they are not complete."""

from __future__ import annotations

import base64
import json

import pytest
from ekairos_sandbox_vercel.credentials import Credentials, find_credentials
from helpers.vercel import provider_for

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox_vercel import VercelProvider

OWN = {
    "SANDBOX_VERCEL_TOKEN": "own-token",
    "SANDBOX_VERCEL_TEAM_ID": "team_own",
    "SANDBOX_VERCEL_PROJECT_ID": "prj_own",
}
COMMON = {
    "VERCEL_TOKEN": "common-token",
    "VERCEL_TEAM_ID": "team_common",
    "VERCEL_PROJECT_ID": "prj_common",
}


def oidc(**claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.c2ln"


OIDC = {"VERCEL_OIDC_TOKEN": oidc(owner_id="team_oidc", project_id="prj_oidc")}


def test_arguments_come_before_the_environment() -> None:
    found = find_credentials(OWN, token="given", team_id="team_given", project_id="prj_given")
    assert found == Credentials("given", "team_given", "prj_given", "token")


@pytest.mark.parametrize(
    ("environ", "team"),
    [
        ({**OIDC, **COMMON, **OWN}, "team_own"),
        ({**OIDC, **COMMON}, "team_common"),
        (OIDC, "team_oidc"),
    ],
    ids=["own", "common", "oidc"],
)
def test_the_first_level_that_has_credentials_is_taken_whole(
    environ: dict[str, str], team: str
) -> None:
    assert find_credentials(environ).team_id == team


def test_a_deployment_s_project_id_beside_its_oidc_token_begins_no_level() -> None:
    environ = {**OIDC, "VERCEL_PROJECT_ID": "prj_common"}
    assert find_credentials(environ).project_id == "prj_oidc"


@pytest.mark.parametrize("missing", list(OWN))
def test_a_partial_level_is_an_error_that_names_what_is_missing(missing: str) -> None:
    environ = {**COMMON, **OIDC, **OWN}
    del environ[missing]
    with pytest.raises(ConfigurationError, match=f"but not {missing}") as caught:
        find_credentials(environ)
    assert "own-token" not in str(caught.value)


def test_a_common_token_without_team_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="not VERCEL_TEAM_ID and VERCEL_PROJECT_ID"):
        find_credentials({"VERCEL_TOKEN": "t", **OIDC})


def test_partial_arguments_are_an_error() -> None:
    with pytest.raises(ConfigurationError, match="token but not team_id and project_id"):
        find_credentials(OWN, token="given")


def test_without_credentials_the_error_names_the_variables() -> None:
    with pytest.raises(ConfigurationError, match="SANDBOX_VERCEL_TOKEN"):
        find_credentials({})


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", oidc(owner_id="team"), oidc(owner_id=1, project_id=2), "e30.W10.x"]
)
def test_an_oidc_token_without_team_and_project_is_an_error_that_does_not_show_it(
    token: str,
) -> None:
    with pytest.raises(ConfigurationError, match="VERCEL_OIDC_TOKEN") as caught:
        find_credentials({"VERCEL_OIDC_TOKEN": token})
    assert token not in str(caught.value)


def test_what_to_do_when_they_are_refused_depends_on_where_they_are_from() -> None:
    assert find_credentials(OWN).advice == (
        "check that SANDBOX_VERCEL_TOKEN is valid and may use team team_own and project prj_own"
    )
    assert find_credentials(OIDC).advice == (
        "VERCEL_OIDC_TOKEN may have expired; `vercel env pull` fetches a new one"
    )


def test_the_account_is_base_url_team_and_project_whatever_the_token() -> None:
    first = provider_for(OWN).account()
    assert first == "https://vercel.com/api team=team_own project=prj_own"
    assert provider_for({**OWN, "SANDBOX_VERCEL_TOKEN": "other"}).account() == first
    assert provider_for({**OWN, "SANDBOX_VERCEL_TEAM_ID": "team_2"}).account() != first
    elsewhere = {**OWN, "SANDBOX_VERCEL_BASE_URL": "https://sandbox.example/api"}
    assert provider_for(elsewhere).account() != first


def test_both_addresses_of_the_api_are_one_account() -> None:
    other = {**OWN, "SANDBOX_VERCEL_BASE_URL": "https://api.vercel.com/"}
    assert provider_for(other).account() == provider_for(OWN).account()


def test_making_a_provider_asks_for_nothing() -> None:
    provider = VercelProvider()
    provider.close()
    with pytest.raises(ConfigurationError):
        provider_for({}).account()


def test_the_token_is_sent_to_no_plain_http() -> None:
    environ = {**OWN, "SANDBOX_VERCEL_BASE_URL": "http://sandbox.example"}
    with pytest.raises(ConfigurationError, match="SANDBOX_VERCEL_BASE_URL"):
        provider_for(environ).account()


def test_a_token_is_in_no_repr() -> None:
    assert "own-token" not in repr(find_credentials(OWN))
