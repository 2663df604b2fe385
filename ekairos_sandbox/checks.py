"""Checks on what callers hand in: a mistake is named before anything happens.

They raise ``TypeError`` and ``ValueError``, as for any programming mistake, name the argument, and
never show its value, which may be a secret. Types are only checked where a wrong one would pass for
a right one, or would come out deep inside or after something has begun.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def text(value: str, name: str, *, empty: bool = False) -> str:
    """Return text that can be sent and stored anywhere.

    Args:
        value: What was given.
        name: What the caller knows it by.
        empty: Whether it may be empty.

    Raises:
        TypeError: It is no text.
        ValueError: It is empty, or holds a NUL character or half a character.
    """
    _wanted(value, str, name, "text")
    if not value and not empty:
        raise ValueError(f"{name} must not be empty")
    try:
        unfit = b"\0" in value.encode()
    except UnicodeEncodeError:
        unfit = True
    if unfit:
        raise ValueError(f"{name} must not hold a NUL character or half a character")
    return value


def choice(value: object, name: str, choices: Sequence[str | None]) -> None:
    """Raise ``ValueError`` unless this is one of a few words; says which there are."""
    if not any(value is known or (isinstance(value, str) and value == known) for known in choices):
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}")


def number(value: float, name: str, least: float, most: float) -> float:
    """Return a number within bounds, both of them allowed.

    Raises:
        TypeError: It is no number.
        ValueError: It is out of bounds, or NaN.
    """
    real(value, name)
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}")
    return float(value)


def real(value: object, name: str) -> None:
    """Raise ``TypeError`` unless this is a number: True and a ``Decimal`` are none here."""
    _wanted(value, Real, name, "a number")
    if isinstance(value, bool):
        raise TypeError(f"{name} is a number, not bool")


def integer(value: int, name: str, least: int, most: int) -> int:
    """Return a whole number within bounds, both of them allowed.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is out of bounds.
    """
    real(value, name)
    _wanted(value, Integral, name, "a whole number")
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}")
    return int(value)


def flag(value: object, name: str) -> None:
    """Raise ``TypeError`` unless this is True or False: ``"no"`` must not pass for yes."""
    _wanted(value, bool, name, "True or False")


def callback(value: object, name: str) -> None:
    """Raise ``TypeError`` unless this can be called, or is None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a function, not {type(value).__name__}")


def words(value: Collection[str], name: str) -> list[str]:
    """Return several words as a list; one string must not pass for its letters.

    Raises:
        TypeError: It is one string, or not all of it is text.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Collection):
        raise TypeError(f"{name} is a list of words, not {type(value).__name__}")
    for word in value:
        _wanted(word, str, f"each of {name}", "text")
    return list(value)


def local_path(value: str | os.PathLike[str], name: str) -> Path:
    """Return the path of a local file or directory; empty text must not pass for this directory.

    Raises:
        TypeError: It is no path.
        ValueError: It is empty, or holds what no path can.
    """
    _wanted(value, (str, os.PathLike), name, "a path")
    plain = os.fspath(value)
    _wanted(plain, str, name, "a path of text")
    if not plain:
        raise ValueError(f"{name} must not be empty; use '.' for the current directory")
    try:
        unfit = b"\0" in os.fsencode(plain)
    except UnicodeEncodeError:
        unfit = True
    if unfit:
        raise ValueError(f"{name} must not hold a NUL character or half a character")
    return Path(plain)


def _wanted(value: object, kind: Any, name: str, what: str) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {what}, not {type(value).__name__}")
