"""Scripts that travel in environment variables of a command, for services that take both.

Arguments can be read by every user inside, and services repeat them in lists and answers; an
environment is its process's own. Linux limits one variable to 128 KiB, so a long script takes
several.
"""

from __future__ import annotations

from ekairos_sandbox.shell.quoting import printf_format

VARIABLE_BYTES = 120_000
_PREFIX = "EKAIROS_SCRIPT_"


def in_variables(script: bytes) -> tuple[str, dict[str, str]]:
    """Return sh text for ``sh -c`` that runs a script, and the variables that hold the script.

    Both are ASCII. The text holds no single quote, and what the script starts does not inherit
    the variables.
    """
    if not script.isascii():
        # What is between here and there may take bytes for text.
        script = b'eval "$(printf %s)"' % printf_format(script)
    text = script.decode("ascii")
    parts = [text[at : at + VARIABLE_BYTES] for at in range(0, len(text), VARIABLE_BYTES)]
    variables = {f"{_PREFIX}{number}": part for number, part in enumerate(parts)}
    whole = "".join(f"${{{name}}}" for name in variables)
    return f'eval "unset {" ".join(variables)}; {whole}"', variables
