"""Where the local stack is and which version of it is wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ekairos_sandbox_daytona.oss.checkout import COMPOSE_FILE, LAST_REF

VARIABLES: Mapping[str, str] = {
    "DAYTONA_OSS_HOME": "folder of the checkout; default ~/.ekairos/daytona-oss",
    "DAYTONA_OSS_REF": f"tag, branch or commit to check out; default {LAST_REF}",
    "DAYTONA_OSS_COMPOSE": f"compose file; default {COMPOSE_FILE} of the checkout",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says.

    Attributes:
        home: Folder of the checkout.
        ref: What to check out, or None if nothing in particular was asked for.
        compose: A compose file in the place of the checkout's own, or None.
    """

    home: Path
    ref: str | None = None
    compose: Path | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str], *, ref: str | None = None) -> Settings:
        """Read the variables; ``ref`` of the command line wins."""
        home = environ.get("DAYTONA_OSS_HOME") or "~/.ekairos/daytona-oss"
        compose = environ.get("DAYTONA_OSS_COMPOSE")
        return cls(
            Path(home).expanduser().absolute(),
            ref or environ.get("DAYTONA_OSS_REF") or None,
            Path(compose).expanduser().absolute() if compose else None,
        )

    @property
    def compose_file(self) -> Path:
        """The compose file in use."""
        return self.compose or self.home.joinpath(*COMPOSE_FILE.split("/"))
