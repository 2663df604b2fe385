"""What works on this machine and with these variables, what does not, and why."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Literal

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.exits import Exit
from ekairos_sandbox.cli.failures import hint_of
from ekairos_sandbox.cli.params import common_options, provider_option
from ekairos_sandbox.cli.providers import check_installed
from ekairos_sandbox.cli.session import Session, pass_session
from ekairos_sandbox.exceptions import ConfigurationError, SandboxError

if TYPE_CHECKING:
    from ekairos_sandbox.plugins import PluginRegistry


Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: ``"ok"``; ``"warn"``: not set up, which matters only if it is wanted; ``"fail"``.
        subject: What was looked at.
        detail: What was found.
        hint: What to do, or None.
    """

    status: Status
    subject: str
    detail: str
    hint: str | None = None

    def without(self, secrets: set[str]) -> Finding:
        """Return the finding with every known secret blotted out."""
        from ekairos_sandbox.redaction import redact

        hint = redact(self.hint, secrets) if self.hint else None
        return Finding(self.status, self.subject, redact(self.detail, secrets), hint)


@click.command()
@provider_option
@common_options
@pass_session
def doctor(session: Session, provider: str | None) -> int:
    """Say what works here, what does not, and why.

    Tries every installed provider and the record store, leaves nothing behind, and prints no
    secret. Exits with 112 if something that is set up does not work.
    """
    from ekairos_sandbox.redaction import known_secrets

    secrets = known_secrets(session.environ)
    found = []
    for one in findings(session, provider):
        safe = one.without(secrets)
        found.append(safe)
        if not session.json:
            render.finding(safe.status, safe.subject, safe.detail, safe.hint)
            render.flush()
    if session.json:
        render.print_json([asdict(one) for one in found])
    return Exit.FINDINGS if any(one.status == "fail" for one in found) else Exit.DONE


def findings(session: Session, provider: str | None) -> Iterator[Finding]:
    """Look at one thing after the other.

    Raises:
        ProviderNotInstalledError: The provider asked for is not installed.
    """
    from ekairos_sandbox.plugins import PluginRegistry

    if provider is not None:
        check_installed(provider)
    registry = PluginRegistry()
    version = metadata.version("ekairos-sandbox")
    yield Finding(
        "ok",
        "library",
        f"ekairos-sandbox {version}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}",
    )
    yield _variables(session.environ)
    yield _store(session)
    yield _default_provider(session.environ, registry)
    for name in registry.names() if provider is None else [provider]:
        yield from _provider(name, registry, session.environ, asked_for=provider is not None)


def _variables(environ: Mapping[str, str]) -> Finding:
    from ekairos_sandbox.settings import VARIABLES

    given = [name for name in VARIABLES if environ.get(name)]
    return Finding("ok", "variables", f"set: {', '.join(given)}" if given else "none set")


def _store(session: Session) -> Finding:
    from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
    from ekairos_sandbox.repository.sqlite_file import refuse_world_writable

    try:
        local_only = session.store_setting().local_only
        with session.repository() as repository:
            if not isinstance(repository, SqliteSandboxRepository):
                repository.check(acting=False)
                return Finding("ok", "record store", "InstantDB, and its schema is complete")
            where = f"SQLite file {repository.path}"
            if not repository.path.exists():
                where += ", which the first `create` makes"
                if repository.path.parent.exists():
                    refuse_world_writable(repository.path.parent)
            else:
                # A copied file can be read; that it may not act is worth knowing.
                repository.check(acting=True)
    except SandboxError as error:
        return _failed("record store", error)
    if local_only:
        return Finding(
            "warn",
            "record store",
            f"{where}; serves the provider local only, as no store was chosen",
            "for other providers set INSTANT_APP_ID and INSTANT_APP_ADMIN_TOKEN, or "
            "EKAIROS_SANDBOX_STORE",
        )
    return Finding("ok", "record store", where)


def _default_provider(environ: Mapping[str, str], registry: PluginRegistry) -> Finding:
    from ekairos_sandbox.settings import default_provider

    try:
        name = default_provider(environ)
    except ConfigurationError as error:
        return _failed("default provider", error)
    chosen = bool(environ.get("SANDBOX_PROVIDER"))
    source = "named by SANDBOX_PROVIDER" if chosen else "as SANDBOX_PROVIDER is not set"
    if name in registry.names():
        return Finding("ok", "default provider", f"{name}, {source}")
    return Finding(
        "fail" if chosen else "warn",
        "default provider",
        f"{name}, {source}, is not installed",
        f"install it, choose another with SANDBOX_PROVIDER, or give --provider; installed: "
        f"{', '.join(registry.names()) or 'none'}",
    )


def _provider(
    name: str, registry: PluginRegistry, environ: Mapping[str, str], *, asked_for: bool
) -> Iterator[Finding]:
    from ekairos_sandbox.provider import ProviderContext

    subject = f"provider {name}"
    try:
        provider = registry.provider_class(name)(ProviderContext(environ=environ))
        try:
            provider.check()
            yield Finding("ok", subject, f"works; account {provider.account()}")
            for limit in provider.limits():
                status: Status = "ok" if limit.level == "enforced" else "warn"
                yield Finding(status, f"{subject}, {limit.name}", f"{limit.level}: {limit.note}")
        finally:
            provider.close()
    except ConfigurationError as error:
        yield _failed(subject, error, status="fail" if asked_for else "warn")
    except SandboxError as error:
        yield _failed(subject, error)
    except Exception as error:  # noqa: BLE001 - a provider may be anybody's
        yield Finding("fail", subject, f"{type(error).__name__}: {error}", "this is its defect")


def _failed(subject: str, error: SandboxError, status: Literal["warn", "fail"] = "fail") -> Finding:
    return Finding(status, subject, error.message, hint_of(error))


COMMANDS = (doctor,)
