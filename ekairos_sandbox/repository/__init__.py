"""Where records are kept: one contract, several stores."""

from ekairos_sandbox.repository.base import SandboxRepository

__all__ = ["SandboxRepository"]
