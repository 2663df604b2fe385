"""Options of the Daytona provider."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ekairos_sandbox.jobs.call_scripts import job_root
from ekairos_sandbox.provider import ProviderOptions, not_stored

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_HOMES = ("/home/daytona", "/root")
RESERVED_LABELS = ("ekairos", "code-toolbox-language")
"""Beginnings of label names that mean something to this library or to the SDK."""


@dataclass(frozen=True, slots=True)
class SdkImage:
    """A ``daytona.Image`` of the caller; no plain data, so that no record ever holds it."""

    image: Any = field(repr=False)


class VolumeMount(ProviderOptions):
    """A volume and where it is mounted.

    Attributes:
        volume_id: Id of an existing volume.
        volume_name: Or its name; it is made if there is none.
        mount_path: Absolute path. Not at, above or below the folder in which jobs are kept, which
            must live exactly as long as the sandbox.
        subpath: Folder in the volume to mount, such as ``"a/b"``; None: all of it.
    """

    volume_id: str | None = None
    volume_name: str | None = None
    mount_path: str
    subpath: str | None = None

    @model_validator(mode="after")
    def _one_volume(self) -> VolumeMount:
        if (self.volume_id is None) == (self.volume_name is None):
            raise ValueError("needs either volume_id or volume_name")
        return self

    @field_validator("mount_path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        if not path.startswith("/") or path.startswith("//") or posixpath.normpath(path) != path:
            raise ValueError("must be an absolute, normalised path")
        return path

    @field_validator("subpath")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        if path is not None and (path.startswith("/") or {"", ".", ".."} & {*path.split("/")}):
            raise ValueError("must be a relative, normalised path inside the volume")
        return path


class DeclarativeImage(ProviderOptions):
    """An image that Daytona builds.

    Attributes:
        base: Image to begin with; None: a slim Debian with Python.
        python: Version of that Python, such as ``"3.12"``; None: as ``runtime`` says, or 3.12.
        pip: Packages to install.
    """

    base: str | None = None
    python: str | None = Field(default=None, pattern=r"^3\.[0-9]{1,2}$")
    pip: tuple[str, ...] = ()


class DaytonaOptions(ProviderOptions):
    """How a Daytona sandbox is made.

    Attributes:
        name: Name at Daytona; one that exists without our labels is used, never deleted unasked.
        language: Language of the SDK's own ``code_run``; None: from ``runtime``.
        snapshot: Snapshot to start from; None: the organisation's default.
        image: Image to build from: its name, or a ``daytona.Image``, which is not stored.
            ``"declarative"`` means ``declarative``. Not together with ``snapshot``.
        declarative: An image that Daytona builds; None: as ``SANDBOX_DAYTONA_DECLARATIVE_IMAGE``
            says.
        env_vars: Variables of the sandbox itself; not stored. ``env`` of the config is that of
            commands, on all providers alike.
        labels: Further labels.
        public: Whether ports can be reached without a token.
        ephemeral: Whether stopping deletes it; None: as ``SANDBOX_DAYTONA_EPHEMERAL`` says (yes).
        delete_on_stop: Whether ``stop`` deletes it though it is not ephemeral; None: as
            ``SANDBOX_DAYTONA_DELETE_ON_STOP`` says (no).
        auto_stop_interval_min: Minutes without calls after which Daytona stops it; 0: never;
            None: Daytona's default (15). Commands that run inside do not count as calls.
        auto_archive_interval_min: Minutes after a stop until it is archived; 0: as late as
            possible; None: Daytona's default (7 days).
        auto_delete_interval_min: Minutes after a stop until it is deleted; 0: at once, which is
            what ``ephemeral`` means; -1 or None: never.
        allow_idle_stop: Start background commands even if the idle stop may end them.
        user: User that everything runs as; None: the image's.
        volumes: What is mounted.
        network_block_all: Whether the network is cut off; None: Daytona's default.
        network_allow_list: Networks that may be reached, such as ``"10.0.0.0/8"``.
        domain_allow_list: Domains that may be reached.
    """

    name: str | None = None
    language: Literal["python", "javascript", "typescript"] | None = None
    snapshot: str | None = Field(default=None, min_length=1)
    image: Any = None
    declarative: DeclarativeImage | None = None
    env_vars: dict[str, str] = not_stored(default_factory=dict)
    labels: dict[str, str] = Field(default_factory=dict)
    public: bool = False
    ephemeral: bool | None = None
    delete_on_stop: bool | None = None
    auto_stop_interval_min: int | None = Field(default=None, ge=0)
    auto_archive_interval_min: int | None = Field(default=None, ge=0)
    auto_delete_interval_min: int | None = Field(default=None, ge=-1)
    allow_idle_stop: bool = False
    user: str | None = Field(default=None, min_length=1)
    volumes: tuple[VolumeMount, ...] = ()
    network_block_all: bool | None = None
    network_allow_list: tuple[str, ...] = ()
    domain_allow_list: tuple[str, ...] = ()

    @field_validator("name")
    @classmethod
    def _good_name(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("has 1 to 63 letters, digits, '_' and '-'")
        return name

    @field_validator("image")
    @classmethod
    def _name_or_image(cls, image: Any) -> Any:
        if image is None or isinstance(image, SdkImage) or (isinstance(image, str) and image):
            return image
        if callable(getattr(image, "dockerfile", None)):
            return SdkImage(image)
        raise ValueError("must be the name of an image or a daytona.Image")

    @field_validator("labels")
    @classmethod
    def _own_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        taken = sorted(name for name in labels if name.startswith(RESERVED_LABELS))
        if taken:
            raise ValueError(f"must not set {', '.join(taken)}, which this library or the SDK uses")
        return labels

    @model_validator(mode="after")
    def _fits_together(self) -> DaytonaOptions:
        given = [self.snapshot, self.image, self.declarative]
        named = self.image == "declarative"
        if sum(one is not None for one in given) > (2 if named and self.declarative else 1):
            raise ValueError("takes one of snapshot, image and declarative")
        if self.ephemeral and self.auto_delete_interval_min not in (None, 0):
            raise ValueError("ephemeral means auto_delete_interval_min=0")
        paths = [mount.mount_path for mount in self.volumes]
        if len(paths) != len(set(paths)):
            raise ValueError("must not mount two volumes at one path")
        homes = {*_HOMES, f"/home/{self.user or 'daytona'}"}
        for mount in self.volumes:
            for home in homes:
                jobs, at = f"{job_root(home)}/", mount.mount_path.rstrip("/") + "/"
                if jobs.startswith(at) or at.startswith(jobs):
                    raise ValueError(
                        f"must not mount a volume at {mount.mount_path}: what is kept below "
                        f"{job_root(home)} must live exactly as long as the sandbox"
                    )
        return self
