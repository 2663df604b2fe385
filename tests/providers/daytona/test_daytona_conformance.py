"""The Daytona provider passes the suite for providers."""

from __future__ import annotations

from typing import ClassVar

from helpers.daytona import DaytonaFixtures

from ekairos_sandbox.testing import ProviderConformance


class TestDaytona(DaytonaFixtures, ProviderConformance):
    options: ClassVar = {"ephemeral": False, "auto_stop_interval_min": 0}
