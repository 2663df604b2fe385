"""From a creation's spec to what the API is asked for."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Mapping
from typing import Any

from ekairos_sandbox.exceptions import ConfigurationError, UnsupportedOperationError
from ekairos_sandbox.provider import CreateSpec
from ekairos_sandbox_daytona.api import NAME, Sdk
from ekairos_sandbox_daytona.options import DaytonaOptions, DeclarativeImage, SdkImage
from ekairos_sandbox_daytona.settings import DaytonaSettings, Defaults

LANGUAGE_LABEL = "code-toolbox-language"
"""Where the SDK keeps a sandbox's language."""

_RUNTIMES = {"python": "python", "node": "javascript", "ts": "typescript"}
_PYTHON = re.compile(r"python\s*(3\.[0-9]{1,2})", re.IGNORECASE)
_WORKDIR = "/home/daytona"

Spec = CreateSpec[DaytonaOptions]


def language_of(options: DaytonaOptions, runtime: str | None) -> str | None:
    """Return the language of a sandbox; None if neither option nor runtime says one."""
    if options.language is not None:
        return options.language
    name = (runtime or "").lower()
    for beginning, language in _RUNTIMES.items():
        if name.startswith(beginning):
            return language
    return "typescript" if "typescript" in name else None


def is_ephemeral(options: DaytonaOptions, defaults: Defaults) -> bool:
    """Whether a sandbox is deleted when it stops."""
    if options.ephemeral is not None:
        return options.ephemeral
    if options.auto_delete_interval_min is not None:
        return options.auto_delete_interval_min == 0
    return defaults.ephemeral


def declarative_image(
    options: DaytonaOptions, runtime: str | None, defaults: Defaults
) -> DeclarativeImage | None:
    """Return the image that Daytona shall build, complete; None if it shall build none."""
    wanted = options.declarative
    if wanted is None:
        if options.image != "declarative" and (
            not defaults.declarative or options.image is not None or options.snapshot is not None
        ):
            return None
        wanted = DeclarativeImage(
            base=defaults.declarative_base,
            python=defaults.declarative_python,
            pip=defaults.declarative_pip,
        )
    found = _PYTHON.match(runtime or "")
    python = wanted.python or (found.group(1) if found else "3.12")
    return wanted.model_copy(update={"python": python})


def minutes_to_live(timeout_ms: int) -> int:
    """Return a lifetime in the minutes that Daytona counts in, never shorter."""
    return max(1, math.ceil(timeout_ms / 60_000))


def labels_of(spec: Spec, *, ephemeral: bool) -> dict[str, str]:
    """Return the labels of a sandbox: the caller's, those of the TypeScript package, our tags."""
    labels = {
        **spec.options.labels,
        LANGUAGE_LABEL: language_of(spec.options, spec.runtime) or "python",
        "ekairos": "1",
        "ekairos_ephemeral": "1" if ephemeral else "0",
        **spec.tags.as_dict(),
    }
    dataset = spec.params.get("datasetId")
    if dataset:
        labels["ekairos_dataset_id"] = str(dataset)
    return labels


def create_body(
    spec: Spec,
    sdk: Sdk,
    settings: DaytonaSettings,
    defaults: Defaults,
    volumes: list[tuple[str, str, str | None]],
    build_info: Mapping[str, Any] | None,
) -> Any:
    """Return the SDK's model of a creation.

    Args:
        spec: What shall be made.
        sdk: The SDK.
        settings: Where.
        defaults: What holds for options that were not given.
        volumes: Id, mount path and subpath of what is mounted.
        build_info: The image to build, as the API takes it.

    Raises:
        UnsupportedOperationError: The installed SDK is too old for one of the options.
    """
    options, ephemeral = spec.options, is_ephemeral(spec.options, defaults)
    fields: dict[str, Any] = {
        "name": spec.name,
        "snapshot": options.snapshot,
        "user": options.user,
        "env": options.env_vars,
        "labels": labels_of(spec, ephemeral=ephemeral),
        "public": options.public,
        "target": settings.target,
        "auto_stop_interval": options.auto_stop_interval_min,
        "auto_archive_interval": options.auto_archive_interval_min,
        "auto_delete_interval": 0 if ephemeral else options.auto_delete_interval_min,
        "network_block_all": options.network_block_all,
        "network_allow_list": ",".join(options.network_allow_list) or None,
        "domain_allow_list": ",".join(options.domain_allow_list) or None,
    }
    if spec.timeout_ms is not None and sdk.has("CreateSandbox", "ttl_minutes"):
        fields["ttl_minutes"] = minutes_to_live(spec.timeout_ms)
    if build_info is not None:
        fields["build_info"] = sdk.api.CreateBuildInfo(**build_info)
        if spec.vcpus is not None:
            fields["cpu"] = math.ceil(spec.vcpus)
    if volumes:
        fields["volumes"] = [
            sdk.api.SandboxVolume(volume_id=volume, mount_path=path, subpath=subpath)
            for volume, path, subpath in volumes
        ]
    given = {name: value for name, value in fields.items() if value is not None}
    for name in given:
        if not sdk.has("CreateSandbox", name):
            raise UnsupportedOperationError(
                f"Daytona's SDK {sdk.version} knows no {name}",
                provider=NAME,
                operation="create",
                hint="pip install --upgrade 'daytona<2'",
            )
    return sdk.api.CreateSandbox(**given)


def sdk_image(options: DaytonaOptions, runtime: str | None, defaults: Defaults) -> Any | None:
    """Return the ``daytona.Image`` to build from; None if there is none.

    Raises:
        ConfigurationError: The SDK refuses it, such as a Python version that it does not know.
    """
    if isinstance(options.image, SdkImage):
        return options.image.image
    declared = declarative_image(options, runtime, defaults)
    if declared is None and options.image is None:
        return None
    image_class = importlib.import_module("daytona").Image
    if declared is None:
        return image_class.base(options.image)
    try:
        image = (
            image_class.debian_slim(declared.python)
            if declared.base is None
            else image_class.base(declared.base)
        )
        return image.pip_install(list(declared.pip)).workdir(_WORKDIR)
    except Exception as error:
        raise ConfigurationError(
            f"Daytona's SDK refuses the declarative image: {error}", provider=NAME
        ) from error
