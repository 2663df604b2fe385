"""Finding providers by name, loading only the one asked for, and calling observers."""

from __future__ import annotations

import difflib
import inspect
import logging
import threading
from collections.abc import Iterable
from importlib import metadata
from typing import Any

import pluggy

from ekairos_sandbox import hookspecs
from ekairos_sandbox.exceptions import (
    PluginError,
    ProviderConflictError,
    ProviderLoadError,
    ProviderNotInstalledError,
)
from ekairos_sandbox.forks import reset_in_child
from ekairos_sandbox.provider import API_VERSION, Capability, Connection, Provider, ProviderOptions

GROUP = "ekairos_sandbox.providers"

PUBLISHED = ("daytona", "local", "sprites", "vercel")
"""Providers of this project, each an extra of the distribution ``ekairos-sandbox``."""

_CAPABILITY_METHODS = {
    Capability.CHECKPOINTS: ("create_checkpoint", "list_checkpoints", "restore_checkpoint"),
    Capability.PREVIEW_URL: ("preview_url",),
    Capability.EXTEND_TIMEOUT: ("extend_timeout",),
    Capability.NATIVE: ("native",),
}

_log = logging.getLogger("ekairos_sandbox")


class PluginRegistry:
    """The installed providers and the registered observers. Safe to use from several threads."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._lock = threading.RLock()
        self._classes: dict[str, type[Provider[Any]]] = {}
        reset_in_child(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Return the names of all installed providers, sorted. Imports none of them."""
        with self._lock:
            found = {entry.name for entry in metadata.entry_points(group=GROUP)}
            return sorted(found | set(self._classes))

    def sources(self, name: str) -> list[str]:
        """Return the distributions that offer a provider, each with its version; imports none."""
        entries = _unique(metadata.entry_points(group=GROUP, name=name))
        return sorted(_distribution(entry) for entry in entries)

    def provider_class(self, name: str) -> type[Provider[Any]]:
        """Return the class of a provider, importing its plugin at the first call.

        Raises:
            ProviderNotInstalledError: Nothing installed has this name.
            ProviderConflictError: Two distributions have it.
            ProviderLoadError: It cannot be imported, or what it offers is no valid provider.
        """
        with self._lock:
            if name not in self._classes:
                self._classes[name] = self._load(name)
            return self._classes[name]

    def register_provider(self, cls: type[Provider[Any]]) -> None:
        """Make a provider class known without an entry point, for tests and applications.

        Raises:
            ProviderConflictError: The name is taken by another class.
            ProviderLoadError: It is no valid provider.
        """
        with self._lock:
            check_provider_class(cls, str(getattr(cls, "name", "")))
            if self._classes.setdefault(cls.name, cls) is not cls:
                raise ProviderConflictError(
                    f"the provider {cls.name!r} is registered already", provider=cls.name
                )

    def register_observer(self, observer: object) -> None:
        """Let an object or module with hook implementations hear of events.

        Raises:
            PluginError: It implements a hook that does not exist.
        """
        with self._lock:
            self._register(observer, None)

    def unregister_observer(self, observer: object) -> None:
        """Undo ``register_observer``. Safe to repeat."""
        with self._lock:
            if self._manager.is_registered(observer):
                self._manager.unregister(observer)

    def notify(self, hook: str, **event: Any) -> None:
        """Call the observers of a hook one by one; what they raise is logged and dropped."""
        for impl in getattr(self._manager.hook, hook).get_hookimpls():
            arguments = {key: event[key] for key in impl.argnames if key in event}
            try:
                impl.function(**arguments)
            except Exception:  # noqa: BLE001 - an observer must not break the operation
                _log.warning("observer %s raised in %s", impl.plugin_name, hook, exc_info=True)

    def _load(self, name: str) -> type[Provider[Any]]:
        entries = _unique(metadata.entry_points(group=GROUP, name=name))
        if not entries:
            raise self._not_installed(name)
        if len(entries) > 1:
            owners = ", ".join(sorted(_distribution(entry) for entry in entries))
            raise ProviderConflictError(
                f"the provider {name!r} is offered by several distributions: {owners}",
                provider=name,
                hint="uninstall all but one of them",
            )
        (entry,) = entries
        source = _distribution(entry)
        try:
            module = entry.load()
        except Exception as error:
            raise ProviderLoadError(
                f"the provider {name!r} of {source} cannot be imported: "
                f"{type(error).__name__}: {error}",
                provider=name,
                hint=f"reinstall or upgrade {source}",
            ) from error
        plugin_name = f"provider:{name}"
        taken = self._manager.get_name(module)
        if taken is not None:
            other = taken.removeprefix("provider:")
            raise ProviderLoadError(
                f"the provider {name!r} of {source} is not usable: its module is the provider "
                f"{other!r} already",
                provider=name,
                hint="a distribution may offer several providers, each in a module of its own",
            )
        try:
            self._register(module, plugin_name)
        except PluginError as error:
            raise ProviderLoadError(
                f"the provider {name!r} of {source} is not usable: {error.message}", provider=name
            ) from error
        try:
            return self._class_of(module, name, source)
        except BaseException:
            self._manager.unregister(name=plugin_name)
            raise

    def _class_of(self, module: object, name: str, source: str) -> type[Provider[Any]]:
        caller = self._manager.subset_hook_caller(
            "ekairos_sandbox_provider",
            [p for p in self._manager.get_plugins() if p is not module],
        )
        try:
            classes = caller()
        except Exception as error:
            raise ProviderLoadError(
                f"the provider {name!r} of {source} failed to load: "
                f"{type(error).__name__}: {error}",
                provider=name,
            ) from error
        if len(classes) != 1:
            raise ProviderLoadError(
                f"the plugin of {source} offers {len(classes)} providers instead of one",
                provider=name,
                hint="implement the hook ekairos_sandbox_provider once, marked with hookimpl",
            )
        try:
            return check_provider_class(classes[0], name)
        except ProviderLoadError as error:
            raise ProviderLoadError(
                f"the provider {name!r} of {source} is not usable: {error.message}", provider=name
            ) from error

    def _register(self, plugin: object, name: str | None) -> None:
        try:
            try:
                self._manager.register(plugin, name)
                self._manager.check_pending()
            except pluggy.PluginValidationError:
                # Before 1.7, pluggy keeps a plugin that it refused.
                if self._manager.is_registered(plugin):
                    self._manager.unregister(plugin)
                raise
        except pluggy.PluginValidationError as error:
            raise PluginError(
                f"a hook implementation does not fit: {error}",
                hint="the hooks and their arguments are in ekairos_sandbox.hookspecs",
            ) from error
        except ValueError as error:
            raise PluginError("this plugin is registered already") from error

    def _not_installed(self, name: str) -> ProviderNotInstalledError:
        installed = self.names()
        close = difflib.get_close_matches(name, {*installed, *PUBLISHED}, n=1)
        if name in PUBLISHED:
            hint = f"pip install 'ekairos-sandbox[{name}]'"
        elif close:
            hint = f"did you mean {close[0]!r}?"
        else:
            hint = "install the distribution that offers it"
        listed = ", ".join(installed) if installed else "none"
        return ProviderNotInstalledError(
            f"no provider {name!r} is installed; installed: {listed}", provider=name, hint=hint
        )


def check_provider_class(cls: object, name: str) -> type[Provider[Any]]:
    """Return ``cls`` if it is a complete provider class for this contract.

    Raises:
        ProviderLoadError: It is not; says what is wrong.
    """

    def refuse(what: str) -> ProviderLoadError:
        return ProviderLoadError(what, provider=name)

    if not (isinstance(cls, type) and issubclass(cls, Provider)):
        raise refuse(f"the hook returned {cls!r}, which is no subclass of Provider")
    if getattr(cls, "name", None) != name:
        raise refuse(f"its class is named {getattr(cls, 'name', None)!r}, not {name!r}")
    if cls.api_version != API_VERSION:
        raise refuse(
            f"it was written for version {cls.api_version} of the provider contract, "
            f"this library has version {API_VERSION}; install matching releases"
        )
    if inspect.isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise refuse(f"it does not implement {missing}")
    model = getattr(cls, "options_model", None)
    if not (isinstance(model, type) and issubclass(model, ProviderOptions)):
        raise refuse("its options_model is no subclass of ProviderOptions")
    unknown = [repr(each) for each in cls.capabilities if each not in set(Capability)]
    if unknown:
        known = ", ".join(sorted(Capability))
        raise refuse(f"it declares {', '.join(sorted(unknown))}; capabilities are {known}")
    connection = getattr(cls, "connection_class", None)
    if connection is not None:
        if not (isinstance(connection, type) and issubclass(connection, Connection)):
            raise refuse("its connection_class is no subclass of Connection")
        if lacking := undeclared(connection, cls.capabilities)["missing"]:
            raise refuse(
                f"it declares capabilities without implementing {', '.join(lacking)} "
                f"in {connection.__name__}"
            )
    return cls


def undeclared(cls: type[Connection], capabilities: Iterable[Capability]) -> dict[str, list[str]]:
    """Compare declared capabilities with the methods that a connection class overrides.

    Returns:
        ``{"missing": [...], "undeclared": [...]}``: methods that a declared capability lacks, and
        methods that belong to a capability that is not declared.
    """
    declared = set(capabilities)
    overridden = {
        method
        for methods in _CAPABILITY_METHODS.values()
        for method in methods
        if getattr(cls, method) is not getattr(Connection, method)
    }
    missing, extra = [], []
    for capability, methods in _CAPABILITY_METHODS.items():
        for method in methods:
            if capability in declared and method not in overridden:
                missing.append(method)
            elif capability not in declared and method in overridden:
                extra.append(method)
    return {"missing": missing, "undeclared": extra}


def _unique(entries: Iterable[metadata.EntryPoint]) -> list[metadata.EntryPoint]:
    """Drop repeats of one distribution, which a path listed twice brings about."""
    found: dict[tuple[str, str], metadata.EntryPoint] = {}
    for entry in entries:
        found.setdefault((_distribution(entry).split(" ")[0].lower(), entry.value), entry)
    return list(found.values())


def _distribution(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
