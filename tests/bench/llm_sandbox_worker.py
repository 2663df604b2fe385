"""Does one thing per line of standard input with llm-sandbox; answers with a line when it is done.

Runs apart, on that project's own packages.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from llm_sandbox import SandboxBackend, SandboxSession  # type: ignore[import-not-found]


def make() -> Any:
    """Open a session without the virtual environment that it prepares for installing packages."""
    return SandboxSession(
        backend=SandboxBackend.BUBBLEWRAP, lang="python", skip_environment_setup=True
    )


def main() -> None:
    """Answer ``["create"]``, ``["run"]``, ``["put", source, name]``, ``["get", name, target]``."""
    session = make()
    session.open()
    for line in sys.stdin:
        what, *names = json.loads(line)
        if what == "create":
            with make() as fresh:
                assert fresh.execute_command("true").exit_code == 0
        elif what == "run":
            assert session.execute_command("true").exit_code == 0
        elif what == "put":
            session.copy_to_runtime(*names)
        else:
            session.copy_from_runtime(*names)
        print("done", flush=True)
    session.close()


if __name__ == "__main__":
    main()
