"""Which URLs a token may be sent to."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from ekairos_sandbox.exceptions import ConfigurationError

_NO_URL = re.compile(r"[\\\s\x00-\x1f\x7f]")


def check_base_url(url: str, *, allow_http: bool, setting: str) -> str:
    """Return a base URL without a slash at its end.

    Args:
        url: The URL.
        allow_http: Whether plain ``http://`` to other hosts than loopback is allowed.
        setting: What it was set with, for the error; its value is not shown.

    Raises:
        ConfigurationError: It is no URL that a token may be sent to.
    """
    parts = urlsplit(url.strip())
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    # Libraries differ in where a host ends that is followed by a backslash.
    if not good or parts.query or parts.fragment or _NO_URL.search(url.strip()):
        raise ConfigurationError(
            f"{setting} is not a base URL", hint="use a form like https://host or https://host/path"
        )
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{setting} must not hold a user name or password", hint="use the token's variable"
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(url):
        raise ConfigurationError(
            f"{setting} would send the token over plain http",
            hint="use https://, or allow_http=True if the network between is trusted",
        )
    return parts.geturl().rstrip("/")


def is_loopback(url: str) -> bool:
    """Tell whether a URL leads to this very machine, by its text alone."""
    host = urlsplit(url.strip()).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
