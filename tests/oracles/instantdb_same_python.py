"""What our client does, done with the official Python client."""

from __future__ import annotations

import importlib
import json
import sys

from ekairos_sandbox.exceptions import ConfigurationError
from ekairos_sandbox.repository.instantdb import InstantSandboxRepository

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"


def main() -> None:
    settings = json.load(sys.stdin)
    sdk = importlib.import_module("instantdb")
    with sdk.Instant(
        app_id=settings["app_id"], admin_token=settings["admin_token"], api_uri=settings["url"]
    ) as db:
        boxes, fences = db.tx.sandbox_sandboxes, db.tx.sandbox_fences
        values = {
            "provider": "local",
            "status": "creating",
            "purpose": "línea 漢字",
            "createdAt": 1,
        }
        fence = fences[B].create({"key": f"{A}:rev:0000000000", "createdAt": 1})
        db.transact([fence, boxes[A].create(values)])
        change = {"status": "active", "params": {"a": [1, None, 0.5]}}
        db.transact([boxes[A].update(change, {"upsert": False})])
        options = {
            "where": {"and": [{"status": {"$in": ["active"]}}, {"createdAt": {"$lte": 5}}]},
            "order": {"createdAt": "desc"},
            "limit": 3,
        }
        db.query({"sandbox_sandboxes": {"$": options}})
        db.storage.upload_file("dir/a.txt", b"hello", content_type="text/plain")
        db.transact([boxes[A].delete(), fences[B].delete()])
        # Our store takes over the settings of this client, and refuses one that acts as a guest.
        ours = InstantSandboxRepository(db).client
        refused = ""
        try:
            InstantSandboxRepository(db.as_user(guest=True))
        except ConfigurationError as error:
            refused = error.message
    print(json.dumps({"app": ours.app_id, "url": ours.base_url, "refused": refused}))


if __name__ == "__main__":
    main()
