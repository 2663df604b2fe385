"""Run as a program: does one thing with a sandbox that another process made, by its id.

Standard input is JSON, so that what the provider's environment holds is in no argument.
"""

from __future__ import annotations

import importlib
import json
import sys

from ekairos_sandbox.provider import ProviderContext
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository
from ekairos_sandbox.service import SandboxService


def main() -> None:
    """Carry out the order on standard input; the answer goes to standard output as JSON."""
    order = json.load(sys.stdin)
    module, _, name = order["factory"].partition(":")
    factory = getattr(importlib.import_module(module), name)
    provider = factory(ProviderContext(environ=order["environ"]))
    service = SandboxService(
        SqliteSandboxRepository(order["store"]), environ={}, providers=[provider]
    )
    with service:
        sandbox = service.raising.get_sandbox(order["sandbox_id"])
        if order["verb"] == "start_command":
            answer = sandbox.start_command(order["argv"]).command_id
        else:
            answer = sandbox.run_command(order["argv"]).check().output
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
