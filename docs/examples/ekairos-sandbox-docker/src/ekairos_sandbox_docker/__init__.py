"""Docker Engine provider of ekairos-sandbox: sandboxes are containers."""

from ekairos_sandbox_docker.options import DockerOptions

__all__ = ["DockerOptions"]
