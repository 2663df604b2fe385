"""Sprites provider of ekairos-sandbox: sandboxes at sprites.dev, over plain HTTP."""

from __future__ import annotations

from ekairos_sandbox_sprites.options import SpritesOptions, UrlSettings
from ekairos_sandbox_sprites.provider import SpritesProvider

__all__ = ["SpritesOptions", "SpritesProvider", "UrlSettings"]
