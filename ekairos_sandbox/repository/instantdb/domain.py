"""Our two entities as a part of somebody's app: their schema, their rules, and their service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ekairos_sandbox.exceptions import ConfigurationError, RepositoryUnavailableError, SchemaError
from ekairos_sandbox.repository.instantdb.client import InstantClient, client_of
from ekairos_sandbox.repository.instantdb.errors import PUSH_HINT
from ekairos_sandbox.repository.instantdb.schema import (
    FENCES,
    SANDBOXES,
    Schema,
    attributes,
    not_taking_away,
    sandbox_schema,
    shortcomings,
)

if TYPE_CHECKING:
    from ekairos_sandbox.service import SandboxService

PUSH_TIMEOUT_S = 300.0
CLOSED: dict[str, Any] = {"allow": {"$default": "false"}}
"""The rule of our namespaces: guests and users get nothing, the admin token everything."""

_POLL_S = 1.0


class SandboxDomain:
    """The sandbox entities: their schema, and a service over an app that has them.

    ``sandbox_domain(db)`` returns a ``SandboxService``; ``db`` is an ``InstantClient`` or an
    ``instantdb.Instant``, further arguments are those of ``SandboxService``.
    """

    @property
    def schema(self) -> Schema:
        """The schema document of our entities, as a fresh copy."""
        return sandbox_schema()

    def __call__(self, db: object, **options: Any) -> SandboxService:
        """Return a service over an app; no I/O."""
        from ekairos_sandbox.repository.instantdb.repository import InstantSandboxRepository
        from ekairos_sandbox.service import SandboxService

        return SandboxService(InstantSandboxRepository(db), **options)

    def __repr__(self) -> str:
        return "sandbox_domain"


sandbox_domain = SandboxDomain()


@dataclass(frozen=True, slots=True)
class SchemaPush:
    """What a push of a schema does, or did.

    Attributes:
        steps: One phrase for each change, e.g. ``"add-attr sandbox_fences.key"``.
        applied: Whether it was done.
    """

    steps: tuple[str, ...]
    applied: bool


def push_schema(
    db: object,
    schema: Mapping[str, Any] | None = None,
    *,
    plan_only: bool = False,
    timeout_s: float = PUSH_TIMEOUT_S,
) -> SchemaPush:
    """Bring an app's schema up to what is needed: adds, never removes, safe to repeat.

    Blocks until the server has finished its background work on attributes that existed before.

    Args:
        db: An ``InstantClient`` or an ``instantdb.Instant``.
        schema: A schema document, e.g. of ``compose_schema``; None means ours alone.
        plan_only: Change nothing, only say what would be done.
        timeout_s: How long to wait for the background work.

    Raises:
        SchemaError: The data that is there does not allow it; names the attribute.
        RepositoryUnavailableError: The background work is not finished yet.
    """
    client = client_of(db)
    current = client.schema().get("blobs") or {}
    document = not_taking_away(sandbox_schema() if schema is None else schema, current)
    if plan_only:
        return SchemaPush(_phrases(client.plan_schema(document)), applied=False)
    limit = client.clock.monotonic() + timeout_s
    answer = client.apply_schema(document)
    jobs = answer.get("indexing-jobs") or {}
    if jobs.get("group-id"):
        _wait_for_jobs(client, str(jobs["group-id"]), limit)
    _wait_for_attributes(client, document, limit)
    return SchemaPush(_phrases(answer), applied=True)


def push_rules(db: object) -> bool:
    """Close our namespaces to guests and users, leaving the app's other rules as they are.

    Without rules anybody who knows the app id, which is no secret, can read and write them.
    The server has no way to change a part of the rules: a change that somebody else makes at the
    same moment may be lost.

    Returns:
        Whether anything had to be changed.

    Raises:
        ConfigurationError: The app has rules that this function must not touch.
    """
    client = client_of(db)
    current = client.rules()
    wanted = _closed(current)
    if wanted == current:
        return False
    client.replace_rules(wanted)
    now = client.rules()
    if _closed(now) != now:
        raise ConfigurationError(
            "the app's rules were replaced by somebody else", hint="push the rules again"
        )
    return True


def check(db: object) -> None:
    """Verify that an app has everything that is needed. Changes nothing.

    Raises:
        SchemaError: Names what is missing, and how to push it.
    """
    client = client_of(db)
    problems = shortcomings(client.schema().get("blobs") or {})
    if problems:
        raise SchemaError(
            f"the schema of the InstantDB app {client.app_id} is not complete: "
            + "; ".join(problems),
            hint=PUSH_HINT,
        )


def _closed(current: Any) -> dict[str, Any]:
    if current is not None and not isinstance(current, Mapping):
        raise ConfigurationError("the app's rules are not a document of namespaces")
    rules = dict(current or {})
    for name in (SANDBOXES, FENCES):
        if rules.setdefault(name, CLOSED) != CLOSED:
            raise ConfigurationError(
                f"the app has rules of its own for {name}",
                hint='remove them, or set them to {"allow": {"$default": "false"}}',
            )
    return rules


def _wait_for_jobs(client: InstantClient, group_id: str, limit: float) -> None:
    while True:
        jobs = client.index_jobs(group_id)
        failed = [job for job in jobs if job.get("job_status") == "errored"]
        if failed:
            raise SchemaError(
                "the data in the app does not fit the schema: "
                + "; ".join(f"{job.get('attr_name')}: {job.get('error')}" for job in failed),
                hint="correct the data, then push again",
            )
        if all(job.get("job_status") == "completed" for job in jobs):
            return
        _pause(client, limit)


def _wait_for_attributes(client: InstantClient, document: Schema, limit: float) -> None:
    """Wait for work that an earlier push has begun; its jobs are not named again."""
    flags = ("indexing?", "checking-data-type?", "setting-unique?")
    while True:
        blobs = client.schema().get("blobs") or {}
        there = [(blobs.get(etype) or {}).get(label) for etype, label, _ in attributes(document)]
        if not any(attr and attr.get(flag) for attr in there for flag in flags):
            return
        _pause(client, limit)


def _pause(client: InstantClient, limit: float) -> None:
    if client.clock.monotonic() + _POLL_S > limit:
        raise RepositoryUnavailableError(
            "the server is still at work on the schema",
            hint="it goes on by itself; `schema check` tells when it is done",
        )
    client.clock.sleep(_POLL_S)


def _phrases(answer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps of a plan, one phrase each."""
    phrases = []
    for kind, body in answer.get("steps") or ():
        identity = body.get("forward-identity") if isinstance(body, Mapping) else None
        name = ".".join(map(str, identity[1:3])) if identity else ""
        phrases.append(f"{kind} {name}".strip())
    return tuple(phrases)
