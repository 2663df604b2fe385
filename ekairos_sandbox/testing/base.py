"""What the tests of the suite stand on: switches, fixtures and the ``Lab``."""

# ruff: noqa: D102 - a test's name states the behaviour

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.models import SandboxRecord
from ekairos_sandbox.plans import stored_options
from ekairos_sandbox.provider import Connection, CreateSpec, Provider, SandboxRef, Tags
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox.repository.base import SandboxRepository
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.results import CommandResult
from ekairos_sandbox.service import SandboxService

CREATE_ENV = {"CONFORMANCE_AT_CREATE": "from create: 'x' \"y\" $z"}


class Lab:
    """The services, sandboxes and names that the tests of one class make, and their end.

    Attributes:
        provider: The provider under test.
        suite: The test class, for its switches.
        store: File of the record store, or what stands for it.
    """

    def __init__(self, provider: Provider[Any], suite: type[Suite], folder: Path) -> None:
        self.provider = provider
        self.suite = suite
        self.store = folder / "records.db"
        self._stores = {self.store: suite.open_store(self.store)}
        self._services: list[RaisingService] = []
        self._specs: list[CreateSpec[Any]] = []
        self.main = self.service()

    @property
    def owner(self) -> str:
        """Tag of the record store."""
        return self._stores[self.store].owner

    def service(
        self,
        provider: Provider[Any] | None = None,
        *,
        clock: Clock | None = None,
        store: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> RaisingService:
        """Return a new service that shares nothing with the others but provider and store.

        Args:
            provider: In the place of the provider under test.
            clock: Time and sleep.
            store: In the place of the class's record store.
            environ: Environment of the service; None means an empty one.
        """
        path = store or self.store
        if path not in self._stores:
            self._stores[path] = self.suite.open_store(path)
        service = SandboxService(
            self.suite.open_store(path),
            environ=environ or {},
            clock=clock,
            providers=[provider or self.provider],
        ).raising
        self._services.append(service)
        return service

    def fields(self, **fields: Any) -> dict[str, Any]:
        """Return the config of an ordinary sandbox, with other fields on top."""
        name = self.provider.name
        options = {**self.suite.options, **fields.pop("options", {})}
        base = {"provider": name, "purpose": "conformance", "provider_options": {name: options}}
        return {**base, **self.suite.config, **fields}

    def create(
        self,
        service: RaisingService | None = None,
        *,
        sandbox_id: str | None = None,
        **fields: Any,
    ) -> RaisingSandbox:
        """Create a sandbox through a service."""
        return (service or self.main).create_sandbox(self.fields(**fields), sandbox_id=sandbox_id)

    def spec(self, *, name: str | None = None, **changes: Any) -> CreateSpec[Any]:
        """Return what ``Provider.create`` takes, for a new name unless one is given."""
        sandbox_id = str(uuid.uuid4())
        spec: CreateSpec[Any] = CreateSpec(
            name=name or f"ekairos-{sandbox_id}",
            tags=Tags(self.owner, sandbox_id, 1),
            options=self.provider.options_model.model_validate(dict(self.suite.options)),
            timeout_s=self.provider.create_timeout_s,
        )
        spec = replace(spec, **changes)
        self._specs.append(spec)
        return spec

    def ref(self, record: SandboxRecord) -> SandboxRef[Any]:
        """Return what a record says of its sandbox, as core hands it to the provider."""
        state = record.state
        assert state is not None
        assert state.name is not None
        return SandboxRef(
            name=state.name,
            external_id=record.external_sandbox_id,
            tags=None if state.borrowed else Tags(state.owner, record.id, state.incarnation),
            data=(record.params or {}).get(record.provider) or {},
            options=stored_options(record, type(self.provider)),
            borrowed=state.borrowed,
        )

    def ref_of(
        self, spec: CreateSpec[Any], connection: Connection | None = None
    ) -> SandboxRef[Any]:
        """Return the reference to what was made from a spec."""
        return SandboxRef(
            name=spec.name,
            external_id=connection.external_id if connection else None,
            tags=spec.tags,
            data=connection.data if connection else {},
            options=spec.options,
        )

    def connect(self, sandbox: RaisingSandbox) -> Connection:
        """Return a connection of the provider itself to a sandbox."""
        return self.provider.connect(self.ref(sandbox.record()))

    def lose(self, sandbox: RaisingSandbox) -> None:
        """Destroy a sandbox behind the record's back."""
        self.provider.destroy(self.ref(sandbox.record()))
        name = self.ref(sandbox.record()).name
        self.until(lambda: self.provider.find(name) is None, f"{name} to be gone")

    def owned(self, owner: str | None = None) -> set[str]:
        """Return the provider's ids of all sandboxes with the owner tag."""
        return {info.external_id for info in self.provider.list_owned(owner or self.owner)}

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something holds, at most ``settle_s`` seconds, else fail."""
        end = time.monotonic() + self.suite.settle_s
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f"waited {self.suite.settle_s} s in vain for {what}")
            time.sleep(0.05)

    def close(self) -> None:
        """Destroy everything that was made, and fail if something is left."""
        problems = []
        for spec in self._specs:
            try:
                self.provider.destroy(self.ref_of(spec))
            except SandboxError as error:
                problems.append(f"{spec.name}: {error}")
        for path, store in self._stores.items():
            service = self.service(store=path)
            for record in service.iter_sandboxes():
                try:
                    service.destroy_sandbox(record.id)
                except SandboxError as error:
                    problems.append(f"{record.id}: {error}")
            self.until(lambda tag=store.owner: not self.owned(tag), "all sandboxes to be gone")  # type: ignore[misc]
        for service in self._services:
            service.close()
        for store in self._stores.values():
            store.close()
        if problems:
            pytest.fail("could not be destroyed: " + "; ".join(problems))


class Suite:
    """Switches and fixtures. Every test class of the suite is one of these.

    A provider's own test class gives a fixture ``provider`` of scope ``class`` or wider.

    Attributes:
        options: The provider's options for ordinary sandboxes.
        config: Further fields of ``SandboxConfig`` for ordinary sandboxes.
        big_file_bytes: Size of the big file that is moved in both directions.
        big_output_bytes: Size of a big standard output.
        keeps_files_after_stop: Whether files outlive ``stop``.
        restarts_after_stop: Whether a stopped sandbox can be started again.
        settle_s: Seconds after which listings show what was made or destroyed, at the latest.
        provider_factory: ``"module:callable"``, called with a ``ProviderContext`` in a second
            process, returns the same provider; None skips the tests that need one.
        expected_failures: Reasons by the names of tests that are known to fail.
    """

    options: ClassVar[Mapping[str, Any]] = {}
    config: ClassVar[Mapping[str, Any]] = {}
    big_file_bytes: ClassVar[int] = 64 * 1024 * 1024
    big_output_bytes: ClassVar[int] = 100_000_000
    keeps_files_after_stop: ClassVar[bool] = True
    restarts_after_stop: ClassVar[bool] = True
    settle_s: ClassVar[float] = 30.0
    provider_factory: ClassVar[str | None] = None
    expected_failures: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def named_options(cls, name: str) -> Mapping[str, Any] | None:
        """Return options by which a user chooses the provider-side name; None if that is not so.

        The default fits providers whose options have a field ``name``.
        """
        return {**cls.options, "name": name}

    @classmethod
    def open_store(cls, path: Path) -> SandboxRepository:
        """Open the record store that a path stands for; several times, also at once.

        The default is a SQLite file. Tests with a second process need that: set
        ``provider_factory`` to None for any other store.
        """
        return SqliteSandboxRepository(path)

    @pytest.fixture(scope="class")
    @classmethod
    def other_account(cls) -> Provider[Any] | None:
        """The provider with credentials of another account; None skips what needs one."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def make_untagged(cls) -> Callable[[str], None] | None:
        """Makes a sandbox with a name and without our tags; None skips what needs one."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def unreachable(cls) -> Callable[[], AbstractContextManager[None]] | None:
        """Returns a context in which the provider cannot be reached; None skips what needs it."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def lab(
        cls, provider: Provider[Any], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Lab]:
        """The class's ``Lab``."""
        lab = Lab(provider, cls, tmp_path_factory.mktemp("conformance"))
        yield lab
        lab.close()

    @pytest.fixture(scope="class")
    @classmethod
    def shared(cls, lab: Lab) -> RaisingSandbox:
        """A sandbox for all tests that do no harm to it."""
        return lab.create(env=CREATE_ENV)

    @pytest.fixture(scope="class")
    @classmethod
    def folders(cls, shared: RaisingSandbox) -> Iterator[str]:
        """New directories in the shared sandbox, made a hundred at a time."""
        top = f"{home_of(shared)}/conformance"

        def make() -> Iterator[str]:
            for hundred in itertools.count():
                paths = [f"{top}/{hundred}-{number}" for number in range(100)]
                shared.run_command("mkdir", ["-p", *paths]).check()
                yield from paths

        return make()

    @pytest.fixture
    def folder(self, folders: Iterator[str]) -> str:
        """A new directory in the shared sandbox; its absolute path."""
        return next(folders)

    @pytest.fixture(autouse=True)
    def _expected_failure(self, request: pytest.FixtureRequest) -> None:
        reason = self.expected_failures.get(request.function.__name__)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))

    def test_expected_failures_are_tests_of_this_suite(self) -> None:
        unknown = [name for name in self.expected_failures if not hasattr(type(self), name)]
        assert unknown == []


def sh(sandbox: RaisingSandbox, script: str, *args: str, **how: Any) -> CommandResult:
    """Run a shell script in a sandbox and return its result; ``args`` are ``$1`` and so on."""
    return sandbox.run_command(["sh", "-c", script, "sh", *args], **how)


def text(sandbox: RaisingSandbox, script: str, *args: str, **how: Any) -> str:
    """Run a shell script that must succeed and return its output."""
    return sh(sandbox, script, *args, **how).check().output


def home_of(sandbox: RaisingSandbox) -> str:
    """Return the home directory of a sandbox, as its record has it."""
    state = sandbox.record().state
    assert state is not None
    assert state.home is not None
    return state.home


def is_alive(sandbox: RaisingSandbox, pid: str) -> bool:
    """Tell whether a process in a sandbox is there and no zombie."""
    script = 'read -r s <"/proc/$1/stat" || exit 1; case $s in *") Z "*) exit 1 ;; esac'
    return sh(sandbox, script, pid).success
