"""Removing fences that nobody needs any more."""

from __future__ import annotations

from typing import Any

from ekairos_sandbox.exceptions import SchemaError
from ekairos_sandbox.repository.instantdb import records
from ekairos_sandbox.repository.instantdb.client import InstantClient
from ekairos_sandbox.repository.instantdb.schema import FENCES, SANDBOXES

FENCE_AGE_S = 30 * 24 * 3600.0
"""How long a fence is kept at least: far longer than any process acts on what it once read."""

BATCH = 100


def purge_fences(client: InstantClient, older_than_s: float = FENCE_AGE_S) -> int:
    """Delete fences of this age that their record has outgrown, and return how many.

    A fence that shows a later revision than its record stays, whatever its age: it alone knows the
    revision of a record that another program has overwritten. Safe to run twice or at once.
    """
    before = int(client.clock.now_ms() - older_than_s * 1000)
    deleted = kept = 0
    while True:
        options: dict[str, Any] = {
            "where": {"createdAt": {"$lt": before}},
            "order": {"createdAt": "asc"},
            "limit": BATCH,
            "offset": kept,
        }
        fences = client.query({FENCES: {"$": options}}).get(FENCES, [])
        known = {_sandbox_id(fence) for fence in fences}
        revs = _revisions(client, sorted(known))
        useless = [
            fence["id"]
            for fence in fences
            if (records.rev_of(fence["key"]) or 0) <= revs.get(_sandbox_id(fence), 10**10)
        ]
        if useless:
            client.transact([["delete", FENCES, fence] for fence in useless], replay_safe=True)
        deleted += len(useless)
        kept += len(fences) - len(useless)
        if len(fences) < BATCH:
            return deleted


def _sandbox_id(fence: records.Row) -> str:
    return str(fence["key"]).partition(":")[0]


def _revisions(client: InstantClient, sandbox_ids: list[str]) -> dict[str, int]:
    """Return the revisions that records show of themselves; those that are gone are left out."""
    where = {"id": {"$in": sandbox_ids}}
    rows = client.query({SANDBOXES: {"$": {"where": where}}}).get(SANDBOXES, [])
    revs = {}
    for row in rows:
        try:
            revs[row["id"]] = records.parse_record(row).rev
        except SchemaError:
            revs[row["id"]] = -1
    return revs
