"""How a script travels: in environment variables of the command, never in its arguments.

The service keeps the arguments of every command, shows them to whoever may see the project and
repeats them in each answer; inside, any user can read them. It never shows the environment of a
command. Linux limits one variable to 128 KiB, so a long script takes several.
"""

from __future__ import annotations

import math
from typing import Any

from ekairos_sandbox.shell.quoting import printf_format

VARIABLE_BYTES = 120_000
_PREFIX = "EKAIROS_SCRIPT_"


def command_of(script: bytes, *, timeout_s: float) -> dict[str, Any]:
    """Return the request body that runs a script and waits for its output.

    Args:
        script: The script.
        timeout_s: When nobody waits for it any more; the service ends it a little later.
    """
    if not script.isascii():
        # What is between here and there may take bytes for text.
        script = b'eval "$(printf %s)"' % printf_format(script)
    text = script.decode("ascii")
    parts = [text[at : at + VARIABLE_BYTES] for at in range(0, len(text), VARIABLE_BYTES)]
    env = {f"{_PREFIX}{number}": part for number, part in enumerate(parts)}
    names = " ".join(env)
    whole = "".join(f"${{{name}}}" for name in env)
    return {
        "command": "sh",
        # Unset first: what the script starts must not inherit it.
        "args": ["-c", f'eval "unset {names}; {whole}"'],
        "env": env,
        "sudo": False,
        "wait": True,
        "logs": True,
        "timeout": math.ceil((timeout_s + 5) * 1000),
    }
