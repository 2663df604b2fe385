from __future__ import annotations

import pytest

from ekairos_sandbox.redaction import known_secrets, likely_secrets, redact


@pytest.mark.parametrize(
    "name",
    [
        "SPRITES_TOKEN",
        "INSTANT_APP_ADMIN_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "MYSQL_PASSWD",
        "DAYTONA_API_KEY",
        "OPENAI_APIKEY",
        "GOOGLE_CREDENTIALS",
        "PRIVATE_KEY",
        "my_token",
    ],
)
def test_variables_that_sound_secret_are_known(name: str) -> None:
    assert known_secrets({name: "hunter22"}) == {"hunter22"}


def test_other_and_empty_variables_are_not() -> None:
    assert known_secrets({"HOME": "/root", "PATH": "/bin", "SPRITES_TOKEN": ""}) == set()


def test_every_occurrence_is_replaced() -> None:
    assert redact("a=hunter22, b=hunter22!", ["hunter22"]) == "a=***, b=***!"


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert redact("key hunter22-extended", ["hunter22", "hunter22-extended"]) == "key ***"


def test_short_values_are_left_alone() -> None:
    assert redact("user root in /root", ["root", "", "12345"]) == "user root in /root"
    assert redact("123456", ["123456"]) == "***"


def test_text_without_secrets_is_unchanged() -> None:
    assert redact("nothing here", ["hunter22"]) == "nothing here"
    assert redact("", ["hunter22"]) == ""


def test_places_that_look_secret_are_named_without_their_values() -> None:
    params = {
        "db": {"password": "hunter22", "host": "db.example"},
        "list": [{"api_key": "k"}, "plain", "hunter22-known"],
        "token": None,
        "secret": "",
        "max_tokens": 5,
        "note": "hunter22-known",
        "short": "abc",
    }
    assert list(likely_secrets(params, known=["hunter22-known", "abc"])) == [
        "params.db.password",
        "params.list.0.api_key",
        "params.list.2",
        "params.note",
    ]
    assert list(likely_secrets({})) == []
