"""Providers that are found, with real distributions on ``sys.path``."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ekairos_sandbox import hookimpl
from ekairos_sandbox.exceptions import (
    PluginError,
    ProviderConflictError,
    ProviderLoadError,
    ProviderNotInstalledError,
)
from ekairos_sandbox.hookspecs import CommandEvent, SandboxEvent
from ekairos_sandbox.plugins import PluginRegistry, check_provider_class, undeclared
from ekairos_sandbox.provider import Capability, Connection, Provider
from ekairos_sandbox.results import Checkpoint, PreviewUrl, ReconcileReport

METHODS = ("account", "create", "connect", "inspect", "find", "list_owned", "stop", "destroy")
COMPLETE = "\n".join(f"    def {name}(self, *args): raise NotImplementedError" for name in METHODS)
HEAD = """\
from ekairos_sandbox import hookimpl
from ekairos_sandbox.provider import Provider
"""
HOOK = """
@hookimpl
def ekairos_sandbox_provider():
    return Mine
"""

Install = Callable[..., None]


def good(name: str) -> str:
    return f"{HEAD}\nclass Mine(Provider):\n    name = {name!r}\n{COMPLETE}\n{HOOK}"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with one module, which is its plugin."""
    made: list[str] = []

    def install(
        name: str,
        source: str,
        *,
        module: str | None = None,
        distribution: str | None = None,
        version: str = "1.0",
    ) -> None:
        module = module or f"stranger_{name}"
        distribution = distribution or f"stranger-{name}"
        folder = tmp_path / distribution
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        (info / "entry_points.txt").write_text(f"[ekairos_sandbox.providers]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(folder))
        made.append(module)

    yield install
    for module in made:
        sys.modules.pop(module, None)
    importlib.invalidate_caches()


def failure(name: str) -> ProviderLoadError:
    with pytest.raises(ProviderLoadError) as caught:
        PluginRegistry().provider_class(name)
    assert caught.value.provider == name
    return caught.value


# Found, listed, loaded


def test_listing_imports_nothing(install: Install) -> None:
    install("one", good("one"))
    install("two", "raise RuntimeError('imported')")
    names = PluginRegistry().names()
    assert {"one", "two"} <= set(names)
    assert names == sorted(names)
    assert not {"stranger_one", "stranger_two"} & set(sys.modules)


def test_loading_one_imports_no_other(install: Install) -> None:
    install("one", good("one"))
    install("two", good("two"))
    cls = PluginRegistry().provider_class("one")
    assert (cls.name, cls.__module__) == ("one", "stranger_one")
    assert "stranger_two" not in sys.modules


def test_a_second_call_returns_the_same_class(install: Install) -> None:
    install("one", good("one"))
    registry = PluginRegistry()
    assert registry.provider_class("one") is registry.provider_class("one")
    assert PluginRegistry().provider_class("one") is registry.provider_class("one")


def test_several_providers_live_side_by_side(install: Install) -> None:
    registry = PluginRegistry()
    for name in ("one", "two", "three"):
        install(name, good(name))
        assert registry.provider_class(name).name == name


def test_a_distribution_found_twice_on_the_path_is_one(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("one", good("one"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "stranger-one"), *sys.path])
    assert PluginRegistry().provider_class("one").name == "one"


def test_sixteen_threads_at_first_use_get_one_class(install: Install, tmp_path: Path) -> None:
    log = tmp_path / "log"
    count = f"with open({str(log)!r}, 'a') as log:\n    log.write('imported. ')\n"
    install("one", count + good("one"))
    registry, barrier = PluginRegistry(), threading.Barrier(16)
    found: list[type[Provider[Any]] | Exception] = []

    def ask() -> None:
        barrier.wait()
        try:
            found.append(registry.provider_class("one"))
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert log.read_text() == "imported. "


# Absent


@pytest.mark.parametrize("name", ["daytona", "vercel", "sprites"])
def test_an_absent_provider_of_ours_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ProviderNotInstalledError) as caught:
        PluginRegistry().provider_class(name)
    assert str(caught.value) == (
        f"no provider {name!r} is installed; installed: none "
        f"(pip install 'ekairos-sandbox[{name}]')"
    )


def test_an_absent_provider_says_what_is_installed_and_what_may_be_meant(install: Install) -> None:
    install("cloudy", good("cloudy"))
    with pytest.raises(ProviderNotInstalledError) as caught:
        PluginRegistry().provider_class("cluody")
    assert "cloudy" in caught.value.message
    assert caught.value.hint == "did you mean 'cloudy'?"
    with pytest.raises(ProviderNotInstalledError) as caught:
        PluginRegistry().provider_class("dayton")
    assert caught.value.hint == "did you mean 'daytona'?"
    with pytest.raises(ProviderNotInstalledError) as caught:
        PluginRegistry().provider_class("zzz")
    assert caught.value.hint == "install the distribution that offers it"


def test_a_provider_installed_later_is_found_by_the_same_registry(install: Install) -> None:
    registry = PluginRegistry()
    with pytest.raises(ProviderNotInstalledError):
        registry.provider_class("late")
    install("late", good("late"))
    assert registry.provider_class("late").name == "late"


# Broken


def test_a_broken_import_names_the_distribution_and_keeps_the_cause(install: Install) -> None:
    install("one", "import no_such_module_here")
    error = failure("one")
    assert str(error) == (
        "the provider 'one' of stranger-one 1.0 cannot be imported: ModuleNotFoundError: "
        "No module named 'no_such_module_here' (reinstall or upgrade stranger-one 1.0)"
    )
    assert isinstance(error.__cause__, ModuleNotFoundError)


def test_a_missing_module_is_a_broken_import(install: Install, tmp_path: Path) -> None:
    install("one", "")
    (tmp_path / "stranger-one" / "stranger_one.py").unlink()
    assert isinstance(failure("one").__cause__, ModuleNotFoundError)


def test_a_broken_provider_can_be_repaired_while_running(install: Install, tmp_path: Path) -> None:
    install("one", "raise RuntimeError('half installed')")
    registry = PluginRegistry()
    with pytest.raises(ProviderLoadError, match="RuntimeError: half installed"):
        registry.provider_class("one")
    path = tmp_path / "stranger-one" / "stranger_one.py"
    path.write_text(good("one"))
    importlib.invalidate_caches()
    assert registry.provider_class("one").name == "one"


def test_a_broken_provider_breaks_no_other(install: Install) -> None:
    install("bad", f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_misspelt(): ...\n")
    install("one", good("one"))
    registry = PluginRegistry()
    with pytest.raises(ProviderLoadError):
        registry.provider_class("bad")
    assert registry.provider_class("one").name == "one"
    with pytest.raises(ProviderLoadError):
        registry.provider_class("bad")
    registry.register_observer(object())


def no_hook() -> str:
    return HEAD + "\nclass Mine(Provider): name = 'one'\n"


def two_hooks() -> str:
    return (
        good("one").replace("def ekairos_sandbox_provider", "def first")
        + "\n@hookimpl(specname='ekairos_sandbox_provider')\ndef second(): return Mine\n"
    ).replace("@hookimpl\n", "@hookimpl(specname='ekairos_sandbox_provider')\n")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("", "the plugin of stranger-one 1.0 offers 0 providers instead of one"),
        (no_hook(), "the plugin of stranger-one 1.0 offers 0 providers instead of one"),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_provider(): return None",
            "the plugin of stranger-one 1.0 offers 0 providers instead of one",
        ),
        (two_hooks(), "the plugin of stranger-one 1.0 offers 2 providers instead of one"),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_provider(): return 'local'",
            "the hook returned 'local', which is no subclass of Provider",
        ),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_provider(): return dict",
            "the hook returned <class 'dict'>, which is no subclass of Provider",
        ),
        (
            good("one").replace("return Mine", "return Mine()"),
            "which is no subclass of Provider",
        ),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_provider(): return 1 / 0",
            "the provider 'one' of stranger-one 1.0 failed to load: ZeroDivisionError",
        ),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_providr(): ...",
            "ekairos_sandbox_providr",
        ),
        (
            f"{HEAD}\n@hookimpl\ndef ekairos_sandbox_provider(wrong): ...",
            "wrong",
        ),
        (good("other"), "its class is named 'other', not 'one'"),
        (
            good("one").replace("    name = 'one'\n", ""),
            "its class is named None, not 'one'",
        ),
        (
            good("one").replace("name = 'one'", "name = 'one'\n    api_version = 99"),
            "it was written for version 99 of the provider contract, this library has version 1",
        ),
        (
            good("one").replace("def create(", "def creat("),
            "it does not implement create",
        ),
        (
            good("one").replace("def stop(", "def st(").replace("def account(", "def ac("),
            "it does not implement account, stop",
        ),
        (
            good("one").replace("name = 'one'", "name = 'one'\n    options_model = dict"),
            "its options_model is no subclass of ProviderOptions",
        ),
    ],
)
def test_what_is_no_provider_is_refused_with_the_reason(
    install: Install, source: str, text: str
) -> None:
    install("one", source)
    error = failure("one")
    assert text in str(error)
    assert "stranger-one 1.0" in str(error)


def test_one_name_in_two_distributions_is_a_conflict(install: Install) -> None:
    install("one", good("one"), distribution="first-cloud", module="first_cloud")
    install("one", good("one"), distribution="second-cloud", module="second_cloud")
    registry = PluginRegistry()
    with pytest.raises(ProviderConflictError) as caught:
        registry.provider_class("one")
    assert str(caught.value) == (
        "the provider 'one' is offered by several distributions: first-cloud 1.0, "
        "second-cloud 1.0 (uninstall all but one of them)"
    )
    assert not {"first_cloud", "second_cloud"} & set(sys.modules)
    assert registry.names().count("one") == 1


# Registered by hand


def stub(name: str) -> type[Provider[Any]]:
    body: dict[str, Any] = {method: lambda self, *args: None for method in METHODS}
    return type("Stub", (Provider,), {"name": name, **body})


def test_a_class_can_be_registered_without_an_entry_point() -> None:
    registry, cls = PluginRegistry(), stub("mine")
    registry.register_provider(cls)
    registry.register_provider(cls)
    assert registry.provider_class("mine") is cls
    assert "mine" in registry.names()
    assert "mine" not in PluginRegistry().names()


def test_a_second_class_of_the_same_name_is_a_conflict() -> None:
    registry, cls = PluginRegistry(), stub("mine")
    registry.register_provider(cls)
    with pytest.raises(ProviderConflictError, match="'mine' is registered already"):
        registry.register_provider(stub("mine"))
    assert registry.provider_class("mine") is cls


@pytest.mark.parametrize("what", [object, Provider, "local", None])
def test_what_is_no_complete_provider_cannot_be_registered(what: Any) -> None:
    with pytest.raises(ProviderLoadError):
        PluginRegistry().register_provider(what)


def test_a_complete_class_passes_the_check() -> None:
    cls = stub("mine")
    assert check_provider_class(cls, "mine") is cls


# Capabilities


class Bare(Connection):
    def shell(self, script: bytes, *, timeout_s: float, max_bytes: int) -> bytes:
        return b""


@pytest.mark.parametrize(
    ("capabilities", "connection", "reason"),
    [
        ({Capability.PREVIEW_URL}, Bare, "without implementing preview_url in Bare"),
        (set(Capability), Bare, "without implementing create_checkpoint, list_checkpoints"),
        ({"teleport"}, Bare, "it declares 'teleport'; capabilities are checkpoints, "),
        (set(), dict, "connection_class is no subclass of Connection"),
    ],
)
def test_declared_capabilities_that_are_not_implemented_are_refused_at_load(
    capabilities: set[Any], connection: Any, reason: str
) -> None:
    cls = stub("mine")
    cls.capabilities = frozenset(capabilities)
    cls.connection_class = connection
    with pytest.raises(ProviderLoadError, match=reason):
        PluginRegistry().register_provider(cls)


def test_capabilities_that_the_named_connections_have_are_taken() -> None:
    class Full(Bare):
        def preview_url(self, port: int) -> PreviewUrl:
            return PreviewUrl(f"http://127.0.0.1:{port}")

    cls = stub("mine")
    cls.capabilities = frozenset({Capability.PREVIEW_URL})
    cls.connection_class = Full
    assert check_provider_class(cls, "mine") is cls


def test_declared_capabilities_are_compared_with_the_methods() -> None:
    class Half(Bare):
        def create_checkpoint(self, comment: str = "") -> Checkpoint:
            return Checkpoint("v1")

        def native(self) -> object:
            return self

    assert undeclared(Half, [Capability.CHECKPOINTS]) == {
        "missing": ["list_checkpoints", "restore_checkpoint"],
        "undeclared": ["native"],
    }
    assert undeclared(Bare, []) == {"missing": [], "undeclared": []}


# Observers

EVENT = SandboxEvent("id", "local", "active", "creating")


class Watcher:
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    @hookimpl
    def ekairos_sandbox_created(self, event: SandboxEvent) -> None:
        self.heard.append(("created", event))

    @hookimpl
    def ekairos_sandbox_status_changed(self) -> None:
        self.heard.append("changed")

    @hookimpl
    def ekairos_sandbox_command_finished(self, event: CommandEvent) -> None:
        self.heard.append(event.exit_code)

    @hookimpl
    def ekairos_sandbox_reconciled(self, report: ReconcileReport) -> None:
        self.heard.append(report.checked)


class Raising:
    """An observer with a bug."""

    @hookimpl
    def ekairos_sandbox_created(self, event: SandboxEvent) -> None:
        raise RuntimeError("a bug in an observer")


def test_observers_hear_of_events_and_may_take_fewer_arguments() -> None:
    registry, watcher = PluginRegistry(), Watcher()
    registry.register_observer(watcher)
    registry.notify("ekairos_sandbox_created", event=EVENT)
    registry.notify("ekairos_sandbox_status_changed", event=EVENT)
    command = CommandEvent("id", "local", "c", 3, False, 0, 0, 1)
    registry.notify("ekairos_sandbox_command_finished", event=command)
    registry.notify("ekairos_sandbox_reconciled", report=ReconcileReport((), 7, applied=False))
    assert watcher.heard == [("created", EVENT), "changed", 3, 7]


def test_an_observer_that_raises_is_logged_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry, before, after = PluginRegistry(), Watcher(), Watcher()
    for observer in (before, Raising(), after):
        registry.register_observer(observer)
    with caplog.at_level(logging.WARNING, logger="ekairos_sandbox"):
        registry.notify("ekairos_sandbox_created", event=EVENT)
    assert before.heard == after.heard == [("created", EVENT)]
    (line,) = caplog.records
    assert line.name == "ekairos_sandbox"
    assert "raised in ekairos_sandbox_created" in line.getMessage()
    assert line.exc_info is not None
    assert str(line.exc_info[1]) == "a bug in an observer"


def test_an_observer_can_be_a_module(install: Install) -> None:
    source = (
        f"{HEAD}\nheard = []\n@hookimpl\ndef ekairos_sandbox_created(event): heard.append(event)"
    )
    install("one", source)
    module = importlib.import_module("stranger_one")
    registry = PluginRegistry()
    registry.register_observer(module)
    registry.notify("ekairos_sandbox_created", event=EVENT)
    assert module.heard == [EVENT]


def test_an_unregistered_observer_hears_nothing_more() -> None:
    registry, watcher = PluginRegistry(), Watcher()
    registry.register_observer(watcher)
    registry.unregister_observer(watcher)
    registry.unregister_observer(watcher)
    registry.notify("ekairos_sandbox_created", event=EVENT)
    assert watcher.heard == []


def test_an_observer_of_a_hook_that_does_not_exist_is_refused_whole() -> None:
    class Misspelt(Watcher):
        @hookimpl
        def ekairos_sandbox_craeted(self, event: SandboxEvent) -> None: ...

    registry, misspelt, watcher = PluginRegistry(), Misspelt(), Watcher()
    with pytest.raises(PluginError, match="ekairos_sandbox_craeted"):
        registry.register_observer(misspelt)
    registry.register_observer(watcher)
    registry.notify("ekairos_sandbox_created", event=EVENT)
    assert (misspelt.heard, watcher.heard) == ([], [("created", EVENT)])


def test_an_observer_with_an_unknown_argument_is_refused_whole() -> None:
    class Greedy:
        heard: ClassVar[list[object]] = []

        @hookimpl
        def ekairos_sandbox_status_changed(self, event: SandboxEvent) -> None:
            self.heard.append(event)

        @hookimpl
        def ekairos_sandbox_created(self, event: SandboxEvent, argv: object) -> None:
            raise AssertionError("never called")

    registry, greedy = PluginRegistry(), Greedy()
    with pytest.raises(PluginError, match="argv"):
        registry.register_observer(greedy)
    registry.notify("ekairos_sandbox_created", event=EVENT)
    registry.notify("ekairos_sandbox_status_changed", event=EVENT)
    assert greedy.heard == []


def test_an_observer_registered_twice_is_refused() -> None:
    registry, watcher = PluginRegistry(), Watcher()
    registry.register_observer(watcher)
    with pytest.raises(PluginError, match="registered already"):
        registry.register_observer(watcher)


# Forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_can_load_although_the_lock_was_held(install: Install) -> None:
    install("one", good("one"))
    registry = PluginRegistry()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with registry._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if registry.provider_class("one").name == "one" else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    release.set()
    thread.join()
    assert status == 0
