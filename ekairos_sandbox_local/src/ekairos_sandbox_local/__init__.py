"""Local provider of ekairos-sandbox: bubblewrap sandboxes on this Linux machine.

Nothing is imported until it is used: the process that holds a sandbox loads parts of this
package with the standard library alone.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take as long as starting a sandbox's process
if TYPE_CHECKING:
    from typing import Any

    from ekairos_sandbox_local.options import LocalOptions
    from ekairos_sandbox_local.provider import LocalProvider

__all__ = ["LocalOptions", "LocalProvider"]


def __getattr__(name: str) -> Any:
    if name == "LocalOptions":
        from ekairos_sandbox_local.options import LocalOptions

        return LocalOptions
    if name == "LocalProvider":
        from ekairos_sandbox_local.provider import LocalProvider

        return LocalProvider
    raise AttributeError(name)
