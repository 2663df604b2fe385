"""The official Python client against the server whose address comes in on stdin."""

from __future__ import annotations

import importlib
import io
import json
import sys
from typing import Any

A = "11111111-1111-4111-8111-111111111111"
B = "22222222-2222-4222-8222-222222222222"
C = "33333333-3333-4333-8333-333333333333"


def main() -> None:
    settings = json.load(sys.stdin)
    sdk = importlib.import_module("instantdb")
    out: dict[str, Any] = {}

    def refused(call: Any) -> dict[str, Any]:
        try:
            call()
        except sdk.InstantAPIError as error:
            return {"status": error.status, "type": error.body["type"], "text": str(error)}
        return {"status": 200}

    with sdk.Instant(
        app_id=settings["app_id"], admin_token=settings["admin_token"], api_uri=settings["url"]
    ) as db:
        boxes = db.tx.sandbox_sandboxes
        base = {"provider": "local", "status": "active"}
        out["create"] = db.transact(
            [
                boxes[A].create({**base, "createdAt": 1}),
                boxes[B].create({**base, "createdAt": 2, "params": {"a": {"x": 1}}}),
            ]
        )
        out["update"] = db.transact(boxes[A].update({"status": "shutdown"}, {"upsert": False}))
        out["merge"] = db.transact(boxes[B].merge({"params": {"a": {"y": 2}}}))
        out["again"] = refused(lambda: db.transact(boxes[A].create({**base, "createdAt": 3})))
        out["missing"] = refused(
            lambda: db.transact(boxes[C].update({"status": "x"}, {"upsert": False}))
        )
        fences = db.tx.sandbox_fences
        out["fence"] = db.transact(fences[C].create({"key": "k:1"}))
        out["not_unique"] = refused(lambda: db.transact(fences[A].create({"key": "k:1"})))
        out["lookup"] = db.transact(fences[sdk.lookup("key", "k:1")].update({"createdAt": 9}))
        out["rows"] = db.query(
            {
                "sandbox_sandboxes": {
                    "$": {
                        "where": {"createdAt": {"$gte": 1}},
                        "order": {"createdAt": "desc"},
                        "limit": 5,
                        "fields": ["status", "createdAt", "params"],
                    }
                },
                "sandbox_fences": {},
            }
        )
        out["unknown"] = db.query({"nowhere": {}}, rule_params={"k": 1})
        out["bad_query"] = refused(lambda: db.query({"sandbox_fences": {"$": {"limit": 0}}}))
        out["made_attribute"] = db.transact(db.tx.loose[A].update({"colour": "red"}))
        out["loose"] = db.query({"loose": {}})
        out["upload"] = db.storage.upload_file("dir/a.txt", b"hello", content_type="text/plain")
        out["stream"] = db.storage.upload_file("b.bin", io.BytesIO(b"x" * 200_000))
        out["files"] = db.query({"$files": {"$": {"fields": ["path", "size", "url"]}}})
        out["file_delete"] = db.transact(db.tx["$files"].lookup("path", "b.bin").delete())
        out["delete"] = db.transact([boxes[A].delete(), fences[C].delete()])
        out["left"] = db.query({"sandbox_sandboxes": {"$": {"fields": ["status"]}}})
        out["token"] = db.auth.create_token(email="a@example.com")
        guest = db.as_user(guest=True)
        out["guest"] = guest.query({"$files": {}})
    with sdk.Instant(app_id=settings["app_id"], admin_token=A, api_uri=settings["url"]) as stranger:
        out["stranger"] = refused(lambda: stranger.query({"sandbox_fences": {}}))
    print(json.dumps(out))


if __name__ == "__main__":
    main()
