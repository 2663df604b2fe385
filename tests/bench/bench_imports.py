"""Import time"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench.measure import Row, in_turn


def _importing(what: str) -> None:
    subprocess.run([sys.executable, "-I", "-c", f"import {what}"], check=True)


def rows() -> Iterator[Row]:
    """Compare with what the core cannot do without."""
    bare, package, model, service, local = in_turn(
        15,
        lambda: _importing("pydantic, pluggy"),
        lambda: _importing("ekairos_sandbox"),
        lambda: _importing("pydantic, pluggy, abc\nclass M(pydantic.BaseModel):\n  x: int = 1"),
        lambda: _importing("ekairos_sandbox.service"),
        lambda: _importing("ekairos_sandbox.service, ekairos_sandbox_local.plugin"),
    )
    yield Row("`import pydantic, pluggy`", f"{bare:.0f} ms")
    yield Row("`import ekairos_sandbox`", f"{package:.0f} ms = {package / bare:.2f} x", "1.3 x")
    yield Row("pydantic, pluggy and one model", f"{model:.0f} ms")
    yield Row("all that `SandboxService` needs", f"{service:.0f} ms = {service / model:.2f} x")
    yield Row("and the plugin `local`", f"{local:.0f} ms = {local / service:.2f} x")
