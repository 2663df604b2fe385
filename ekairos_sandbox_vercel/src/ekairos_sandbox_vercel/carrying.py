"""How a script travels: in environment variables of the command, never in its arguments.

The service keeps the arguments of every command, shows them to whoever may see the project and
repeats them in each answer. It never shows the environment of a command.
"""

from __future__ import annotations

import math
from typing import Any

from ekairos_sandbox.shell.variables import in_variables


def command_of(script: bytes, *, timeout_s: float) -> dict[str, Any]:
    """Return the request body that runs a script and waits for its output.

    Args:
        script: The script.
        timeout_s: When nobody waits for it any more; the service ends it a little later.
    """
    text, variables = in_variables(script)
    return {
        "command": "sh",
        "args": ["-c", text],
        "env": variables,
        "sudo": False,
        "wait": True,
        "logs": True,
        "timeout": math.ceil((timeout_s + 5) * 1000),
    }
