"""Sprites provider of ekairos-sandbox: sandboxes at sprites.dev, over plain HTTP.

Nothing is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ekairos_sandbox_sprites.options import SpritesOptions, UrlSettings
    from ekairos_sandbox_sprites.provider import SpritesProvider

__all__ = ["SpritesOptions", "SpritesProvider", "UrlSettings"]


def __getattr__(name: str) -> Any:
    if name == "SpritesProvider":
        from ekairos_sandbox_sprites.provider import SpritesProvider

        return SpritesProvider
    if name in __all__:
        from ekairos_sandbox_sprites import options

        return getattr(options, name)
    raise AttributeError(name)
