"""``python -m ekairos_sandbox.repository.instantdb``: the schema and the rules of an app."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from ekairos_sandbox.exceptions import SandboxError
from ekairos_sandbox.repository.instantdb.client import InstantClient
from ekairos_sandbox.repository.instantdb.domain import (
    check,
    push_rules,
    push_schema,
    sandbox_domain,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command and return the exit code: 0, or 1 after an error on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        for line in _lines(arguments.subject, arguments.verb):
            sys.stdout.write(f"{line}\n")
    except SandboxError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _lines(subject: str, verb: str) -> list[str]:
    if verb == "show":
        return [json.dumps(sandbox_domain.schema, indent=2)]
    with InstantClient() as client:
        if subject == "rules":
            changed = push_rules(client)
            return ["closed to guests and users" if changed else "closed already"]
        if verb == "check":
            check(client)
            return ["complete"]
        push = push_schema(client, plan_only=verb == "plan")
        return [*push.steps, "pushed" if push.applied else f"{len(push.steps)} steps to do"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ekairos_sandbox.repository.instantdb",
        description="The app is named by INSTANT_APP_ID, INSTANT_APP_ADMIN_TOKEN, INSTANT_API_URI.",
    )
    subjects = parser.add_subparsers(dest="subject", required=True, metavar="schema|rules")
    schema = subjects.add_parser("schema", help="the entities that the library needs in the app")
    verbs = schema.add_subparsers(dest="verb", required=True, metavar="show|plan|push|check")
    verbs.add_parser("show", help="print them as JSON; needs no app")
    verbs.add_parser("plan", help="say what a push would do")
    verbs.add_parser("push", help="add what is missing; removes nothing")
    verbs.add_parser("check", help="say what is missing")
    rules = subjects.add_parser("rules", help="who may read and write them")
    pushes = rules.add_subparsers(dest="verb", required=True, metavar="push")
    pushes.add_parser("push", help="close them to guests and users")
    return parser


if __name__ == "__main__":
    sys.exit(main())
