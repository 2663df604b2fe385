"""Vercel Sandbox provider of ekairos-sandbox. Nothing is imported until it is used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ekairos_sandbox_vercel.native import run_command_in_sandbox
    from ekairos_sandbox_vercel.options import (
        GitSource,
        NetworkPolicy,
        SnapshotSource,
        TarballSource,
        VercelOptions,
    )
    from ekairos_sandbox_vercel.provider import VercelProvider

__all__ = [
    "GitSource",
    "NetworkPolicy",
    "SnapshotSource",
    "TarballSource",
    "VercelOptions",
    "VercelProvider",
    "run_command_in_sandbox",
]

_HOMES = {"VercelProvider": "provider", "run_command_in_sandbox": "native"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    home = importlib.import_module(f"{__name__}.{_HOMES.get(name, 'options')}")
    return getattr(home, name)
