"""Commands about whole sandboxes: make, list, show, start again, stop, destroy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import click

from ekairos_sandbox.cli import render
from ekairos_sandbox.cli.failures import report
from ekairos_sandbox.cli.params import (
    DURATION,
    ID,
    LIFETIME,
    SETTING,
    common_options,
    env_option,
    provider_option,
)
from ekairos_sandbox.cli.session import Session, pass_session
from ekairos_sandbox.exceptions import SandboxError

if TYPE_CHECKING:
    from ekairos_sandbox.models import SandboxRecord

_STATUSES = ("creating", "active", "recreating", "shutdown", "error")


@click.command()
@click.option("--provider", metavar="NAME", help="Default: $SANDBOX_PROVIDER, else sprites.")
@click.option("--runtime", metavar="NAME", help="What must be installed, e.g. python3.12.")
@click.option("--timeout", type=LIFETIME, help="Lifetime, e.g. 30m; default: the provider's.")
@click.option("--port", "ports", type=int, multiple=True, help="Port to be reached from outside.")
@click.option("--vcpus", type=float, help="Number of virtual CPUs.")
@click.option("--purpose", metavar="TEXT", help="Free text for the record.")
@click.option("--param", type=SETTING, multiple=True, help="JSON to keep with the record.")
@env_option
@click.option(
    "--env-from",
    multiple=True,
    metavar="NAME",
    help="A variable of ours, by name: read again if the sandbox has to be made anew.",
)
@click.option(
    "--on-gone",
    type=click.Choice(["recreate", "fail"]),
    help="What to do later if the sandbox is proven gone; default recreate.",
)
@click.option(
    "-o", "--option", type=SETTING, multiple=True, help="An option of the provider; see providers."
)
@click.option(
    "--config",
    type=click.File("rb"),
    metavar="FILE",
    help="A whole config as JSON (- for standard input); the other options go on top.",
)
@click.option("--id", "sandbox_id", type=ID, help="An id of your own; makes the call repeatable.")
@common_options
@pass_session
def create(
    session: Session,
    /,
    config: IO[bytes] | None,
    sandbox_id: str | None,
    env: tuple[tuple[str, str], ...],
    param: tuple[tuple[str, Any], ...],
    option: tuple[tuple[str, Any], ...],
    timeout: float | None,
    vcpus: float | None,
    **given: Any,
) -> None:
    """Create a sandbox and print its id."""
    from ekairos_sandbox.settings import default_provider

    if sandbox_id is None:
        render.need_output()
    chosen: dict[str, Any] = {} if config is None else _config(config)
    chosen |= {name: value for name, value in given.items() if value not in (None, ())}
    if timeout is not None:
        chosen["timeout_ms"] = round(timeout * 1000)
    if vcpus is not None:
        chosen["resources"] = {"vcpus": vcpus}
    for name, pairs in (("env", env), ("params", param)):
        if pairs:
            chosen[name] = {**(chosen.get(name) or {}), **dict(pairs)}
    if option:
        provider = chosen.get("provider") or default_provider(session.environ)
        sections = dict(chosen.get("provider_options") or {})
        sections[provider] = {**(sections.get(provider) or {}), **dict(option)}
        chosen["provider_options"] = sections
    with session.service(creating=True) as service:
        with render.working("creating the sandbox", quiet=session.json):
            made = service.create_sandbox(chosen, sandbox_id=sandbox_id)
        if session.json:
            render.print_json(made.record().wire())
        else:
            render.say(made.sandbox_id)


def _config(file: IO[bytes]) -> dict[str, Any]:
    try:
        config = json.load(file)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise click.BadParameter("the file holds no JSON object", param_hint="--config")
    return config


@click.command("ls")
@click.option("--status", multiple=True, metavar="STATUS", help=f"Any of: {', '.join(_STATUSES)}.")
@provider_option
@click.option("--purpose", metavar="TEXT", help="Only this purpose.")
@click.option("--newer", type=DURATION, help="Only those created less than this ago, e.g. 2d.")
@click.option("--older", type=DURATION, help="Only those created longer ago than this.")
@click.option("-n", "--limit", type=click.IntRange(1), default=100, show_default=True)
@click.option("--all", "everything", is_flag=True, help="No limit.")
@click.option("-q", "--quiet", is_flag=True, help="Print the ids only.")
@common_options
@pass_session
def list_(
    session: Session,
    status: tuple[str, ...],
    provider: str | None,
    purpose: str | None,
    newer: float | None,
    older: float | None,
    limit: int,
    everything: bool,
    quiet: bool,
) -> None:
    """List the recorded sandboxes, newest first."""
    from ekairos_sandbox.clock import SystemClock

    for unknown in sorted({*status} - {*_STATUSES}):
        render.complain("note", f"{unknown!r} is no status that this program writes")
    now = SystemClock().now_ms()
    records: list[SandboxRecord] = []
    cursor: str | None = None
    with session.service() as service:
        while True:
            page = service.list_sandboxes(
                status=status or None,
                provider=provider,
                purpose=purpose,
                created_after=None if newer is None else now - round(newer * 1000),
                created_before=None if older is None else now - round(older * 1000),
                limit=500 if everything else min(500, limit - len(records)),
                cursor=cursor,
            )
            records += page.records
            for sandbox_id, reason in page.broken:
                render.complain("warning", f"the record {sandbox_id} cannot be read: {reason}")
            cursor = page.cursor
            if cursor is None or (not everything and len(records) >= limit):
                break
    if session.json:
        render.print_json([record.wire() for record in records])
    elif quiet:
        for record in records:
            render.say(record.id)
    else:
        render.table(
            ("ID", "STATUS", "PROVIDER", "AGE", "PURPOSE"),
            [
                (r.id, r.status, r.provider, render.age(r.created_at, now), r.purpose)
                for r in records
            ],
        )
    if cursor is not None and not everything:
        render.complain("note", f"there are more than these {limit}; use --all or --limit")


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@common_options
@pass_session
def show(session: Session, sandbox_id: str) -> None:
    """Show the record of a sandbox.

    It says what is recorded, not what runs.
    """
    with session.service() as service:
        record = service.get_record(sandbox_id)
    if session.json:
        render.print_json(record.wire())
        return
    state = record.state
    params = {key: value for key, value in record.user_params.items() if key != "error"}
    render.fields(
        [
            ("id", record.id),
            ("status", record.status),
            ("error", (record.params or {}).get("error")),
            ("provider", record.provider),
            ("purpose", record.purpose),
            ("created", render.moment(record.created_at)),
            ("updated", render.moment(record.updated_at)),
            ("shut down", render.moment(record.shutdown_at)),
            ("why", state and state.stop),
            ("to be told", state and state.release),
            ("ends", render.moment(state.expires_at) if state else None),
            ("url", record.sandbox_url),
            ("runtime", record.runtime),
            ("vcpus", record.vcpus),
            ("ports", record.ports and ", ".join(map(str, record.ports))),
            ("name", state and state.name),
            ("external id", record.external_sandbox_id),
            ("account", state and state.account),
            ("incarnation", state and state.incarnation),
            ("not stored", state and ", ".join(state.withheld)),
            ("params", json.dumps(params) if params else None),
        ]
    )


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@common_options
@pass_session
def reconnect(session: Session, sandbox_id: str) -> None:
    """Start a stopped sandbox again.

    Only if it still exists: nothing is created.
    """
    with session.service() as service:
        with render.working("connecting", quiet=session.json):
            service.reconnect_to_sandbox(sandbox_id)
        if session.json:
            render.print_json(service.get_record(sandbox_id).wire())
        else:
            render.say(sandbox_id)


@click.command()
@click.argument("sandbox_ids", metavar="ID...", type=ID, nargs=-1, required=True)
@common_options
@pass_session
def stop(session: Session, sandbox_ids: tuple[str, ...]) -> int:
    """Shut sandboxes down.

    Safe to repeat; prints the ids of those that are. `reconnect` starts one again if its provider
    keeps it.
    """
    with session.service() as service:
        return _each(session, sandbox_ids, service.stop_sandbox)


@click.command()
@click.argument("sandbox_ids", metavar="ID...", type=ID, nargs=-1, required=True)
@common_options
@pass_session
def destroy(session: Session, sandbox_ids: tuple[str, ...]) -> int:
    """Delete sandboxes with their files.

    Safe to repeat; does not ask. Prints the ids of those that are deleted.
    """
    with session.service() as service:
        return _each(session, sandbox_ids, service.destroy_sandbox)


def _each(
    session: Session, sandbox_ids: tuple[str, ...], act: Callable[[str], SandboxRecord]
) -> int:
    """Act on each sandbox, go on after errors, and return the exit code of the first of them."""
    code = 0
    records = []
    for sandbox_id in dict.fromkeys(sandbox_ids):
        try:
            record = act(sandbox_id)
        except SandboxError as error:
            failed = report(error, session)
            code = code or failed
            continue
        records.append(record.wire())
        if not session.json:
            render.say(sandbox_id)
    if session.json:
        render.print_json(records)
    return code


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("port", type=click.IntRange(1, 65535))
@common_options
@pass_session
def url(session: Session, sandbox_id: str, port: int) -> None:
    """Print where a port of the sandbox can be reached."""
    with session.service() as service:
        preview = service.preview_url(sandbox_id, port)
    if session.json:
        render.print_json({"url": preview.url, "headers": dict(preview.headers)})
        return
    render.say(preview.url)
    if preview.headers:
        names = ", ".join(name for name, _ in preview.headers)
        render.complain("note", f"it needs the header {names}; --json prints the secret value")


@click.command()
@click.argument("sandbox_id", metavar="ID", type=ID)
@click.argument("duration", type=LIFETIME)
@common_options
@pass_session
def extend(session: Session, sandbox_id: str, duration: float) -> None:
    """Let a sandbox live this long from now.

    Prints when it will end.
    """
    with session.service() as service:
        ends = service.extend_timeout(sandbox_id, round(duration * 1000))
    if session.json:
        render.print_json({"ends_at": ends})
    else:
        render.say(render.moment(ends) or "no limit")


COMMANDS = (create, list_, show, reconnect, stop, destroy, url, extend)
