"""Suites that providers and record stores of third parties run; needs the extra ``testing``.

A provider's test file:

    from ekairos_sandbox.testing import ProviderConformance

    class TestMine(ProviderConformance):
        options = {"image": "small"}

        @pytest.fixture(scope="class")
        @classmethod
        def provider(cls):
            return MyProvider(ProviderContext(environ=os.environ))

A record store's test file does the same with ``RepositoryConformance`` and ``repository``.
``ekairos_sandbox.testing.faults`` makes the calls of any provider fail as told.
"""

from __future__ import annotations

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "ekairos_sandbox.testing needs pytest: pip install 'ekairos-sandbox[testing]'",
        name="pytest",
    ) from error

# Before they are imported, or failing assertions would not show their values.
pytest.register_assert_rewrite(
    *(
        f"{__name__}.{module}"
        for module in (
            "ambiguity",
            "base",
            "capabilities",
            "commands",
            "connection",
            "creation",
            "files",
            "hostile",
            "lifecycle",
            "output",
            "processes",
            "repositories",
            "trouble",
        )
    )
)

from ekairos_sandbox.testing.ambiguity import AmbiguitySuite  # noqa: E402
from ekairos_sandbox.testing.base import Lab  # noqa: E402
from ekairos_sandbox.testing.capabilities import CapabilitySuite  # noqa: E402
from ekairos_sandbox.testing.commands import CommandSuite  # noqa: E402
from ekairos_sandbox.testing.connection import ConnectionSuite  # noqa: E402
from ekairos_sandbox.testing.creation import CreationSuite  # noqa: E402
from ekairos_sandbox.testing.fake_guest import FakeCommand, FakeResult  # noqa: E402
from ekairos_sandbox.testing.fake_provider import FakeProvider  # noqa: E402
from ekairos_sandbox.testing.faults import Faults, HastyClock, faulty  # noqa: E402
from ekairos_sandbox.testing.files import FileSuite  # noqa: E402
from ekairos_sandbox.testing.hostile import HostileSuite  # noqa: E402
from ekairos_sandbox.testing.lifecycle import LifecycleSuite  # noqa: E402
from ekairos_sandbox.testing.memory_store import MemorySandboxRepository  # noqa: E402
from ekairos_sandbox.testing.output import OutputSuite  # noqa: E402
from ekairos_sandbox.testing.processes import ProcessSuite  # noqa: E402
from ekairos_sandbox.testing.repositories import RepositoryConformance  # noqa: E402
from ekairos_sandbox.testing.trouble import TroubleSuite  # noqa: E402


class ProviderConformance(
    CreationSuite,
    ConnectionSuite,
    LifecycleSuite,
    TroubleSuite,
    CommandSuite,
    OutputSuite,
    ProcessSuite,
    AmbiguitySuite,
    FileSuite,
    HostileSuite,
    CapabilitySuite,
):
    """All that core asks of a provider. Subclass it and give a fixture ``provider``.

    See ``ekairos_sandbox.testing.base.Suite`` for the switches and the further fixtures.
    """


__all__ = [
    "FakeCommand",
    "FakeProvider",
    "FakeResult",
    "Faults",
    "HastyClock",
    "Lab",
    "MemorySandboxRepository",
    "ProviderConformance",
    "RepositoryConformance",
    "faulty",
]
