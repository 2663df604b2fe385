"""JSON as it is sent and as it comes back."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.http import HttpResponse, json_bytes
from ekairos_sandbox.http_errors import TransportError
from ekairos_sandbox.repository.instantdb.errors import unreachable

Json = Any

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parsed(
    answer: HttpResponse, expect: Callable[[dict[str, Json]], bool] = lambda body: True
) -> dict[str, Json]:
    """Return an answer's JSON object if it is as expected.

    Raises:
        RepositoryUnavailableError: It is something else; that leaves open what was done.
    """
    try:
        body = answer.json()
    except TransportError as error:
        problem = unreachable(error)
    else:
        if isinstance(body, dict) and expect(body):
            return body
        problem = unreachable(TransportError("the answer is not one of InstantDB"))
    raise problem


def encoded(body: Json) -> bytes:
    """Return JSON as it is sent.

    Raises:
        ConfigurationError: It holds what the store cannot keep.
    """
    data = json_bytes(body)
    if _NUL.search(data):
        raise ConfigurationError("a value cannot be sent or stored: it holds a NUL character")
    return data
