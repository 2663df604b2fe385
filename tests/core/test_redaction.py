from __future__ import annotations

import pytest

from ekairos_sandbox.exceptions import ProviderError
from ekairos_sandbox.redaction import known_secrets, likely_secrets, redact, redact_error


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


def test_a_secret_of_several_lines_is_found_on_one() -> None:
    key = "-----BEGIN KEY-----\nabc\ndef\n"
    assert redact("bad: -----BEGIN KEY----- abc def!", [key]) == "bad: ***!"
    assert redact(f"bad: {key}!", [key]) == "bad: ***!"


def test_the_begin_of_a_secret_at_the_end_of_a_shortened_text_is_found() -> None:
    assert redact("bad: hunter22-ext…", ["hunter22-extended"]) == "bad: ***…"
    assert redact("bad: hunter22-extended…", ["hunter22-extended"]) == "bad: ***…"
    assert redact("hunter2…", ["hunter22-extended"]) == "***…"
    assert redact("bad: hunte…", ["hunter22-extended"]) == "bad: hunte…"
    assert redact("bad: hunter22-ext", ["hunter22-extended"]) == "bad: hunter22-ext"


def test_an_error_and_what_led_to_it_are_cleaned() -> None:
    first = ValueError("no hunter22", 22)
    error = ProviderError("bad: hunter22", provider="hunter22", hint="not hunter22")
    error.__cause__ = first
    first.__context__ = error
    redact_error(error, ["hunter22"])
    assert str(error) == "bad: *** (not ***)"
    assert error.provider == "hunter22"
    assert first.args == ("no ***", 22)


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
