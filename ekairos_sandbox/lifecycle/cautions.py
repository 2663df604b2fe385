"""Warning callers of what their config does not do, or gives away."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping
from typing import Any

from ekairos_sandbox.exceptions import FieldNotEnforcedWarning, LikelySecretWarning
from ekairos_sandbox.plans import Plan, used_fields
from ekairos_sandbox.provider import FieldSupport
from ekairos_sandbox.redaction import known_secrets, likely_secrets


class Cautions:
    """Warns of what a plan's config does not do, once for each field of each provider."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def warn(self, plan: Plan) -> None:
        """Warn the caller of ``create_sandbox``."""
        name = plan.cls.name
        support: Mapping[Any, FieldSupport] = plan.cls.field_support(plan.options)
        for config_field in used_fields(plan.config):
            how = support.get(config_field, FieldSupport("recorded"))
            with self._lock:
                if how.level != "recorded" or (name, config_field) in self._warned:
                    continue
                self._warned.add((name, config_field))
            note = f": {how.note}" if how.note else ""
            warnings.warn(
                f"the provider {name!r} records {config_field} but does not enforce it{note}",
                FieldNotEnforcedWarning,
                stacklevel=6,
            )
        for where in likely_secrets(plan.config.params, known_secrets(self._environ)):
            warnings.warn(
                f"{where} looks like a secret, and is stored in the record as it is; pass secrets "
                "by env or env_from",
                LikelySecretWarning,
                stacklevel=6,
            )
