"""What docs/volumes.md shows works, on the loopback Daytona and the loopback InstantDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.instant import client_for
from helpers.snippets import python_blocks, run_python
from servers.daytona.server import DaytonaServer
from servers.instantdb.server import App, InstantServer

from ekairos_sandbox.exceptions import CommandFailedError
from ekairos_sandbox.raising import RaisingSandbox, RaisingService
from ekairos_sandbox.repository.instantdb import InstantClient

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "volumes.md"
MOUNT = "/home/daytona/.ekairos"


@pytest.fixture
def mount(server: DaytonaServer) -> Path:
    """Where volumes are seen, in the place of the page's path."""
    return server.boxes.mounts.below / ".ekairos"


@pytest.fixture
def instant() -> Iterator[InstantServer]:
    with InstantServer() as server:
        yield server
        assert server.internal_errors == []


@pytest.fixture
def app(instant: InstantServer) -> App:
    return instant.create_app()


def _blocks(mount: Path) -> list[str]:
    return [block.replace(MOUNT, str(mount)) for block in python_blocks(PAGE)]


def test_page_runs_from_top_to_bottom(
    mount: Path, server: DaytonaServer, instant: InstantServer, app: App, tmp_path: Path
) -> None:
    environ = {
        "EKAIROS_SANDBOX_STORE": f"sqlite:///{tmp_path}/sandboxes.db",
        "INSTANT_APP_ID": app.id,
        "INSTANT_APP_ADMIN_TOKEN": app.admin_token,
        "INSTANT_API_URI": instant.url,
        **server.environ(),
    }
    printed = run_python("\n".join(_blocks(mount)), tmp_path, environ)
    assert printed.splitlines() == [
        "['ekairos-models']",
        "['raw/orders.csv']",
        "[]",
        "keep ekairos-models it was made, changed or used too recently",
        "keep ekairos-ds-2024-q3 it was made, changed or used too recently",
    ]
    assert server.alive() == []
    with client_for(instant, app) as client:
        stored = b"".join(client.files.download("datasets/2024-q3/normalized/total.txt"))
    assert stored == b"42\n"


def test_block_of_the_distributions_readme_runs(server: DaytonaServer, tmp_path: Path) -> None:
    blocks = python_blocks(ROOT / "ekairos_sandbox_daytona" / "README.md")
    (block,) = [block for block in blocks if "DaytonaVolumes" in block]
    run_python(block, tmp_path, server.environ())


class Site:
    """The page's class, an app, and sandboxes that mount one volume."""

    def __init__(self, mount: Path, service: RaisingService, client: InstantClient) -> None:
        space: dict[str, Any] = {}
        exec(compile(_blocks(mount)[1], str(PAGE), "exec"), space)
        self.mount = mount
        self.service = service
        self.client = client
        self.dataset = space["Dataset"](client, "d1")

    def sandbox(self) -> RaisingSandbox:
        """A new sandbox with the volume."""
        volumes = [{"volume_name": "ekairos-ds-d1", "mount_path": str(self.mount)}]
        return self.service.create_sandbox(provider="daytona", daytona={"volumes": volumes})

    def in_volume(self, name: str) -> Path:
        """A file of the dataset in the volume."""
        return self.mount / "datasets" / "d1" / name


@pytest.fixture
def site(mount: Path, service: RaisingService, instant: InstantServer, app: App) -> Iterator[Site]:
    with client_for(instant, app) as client:
        site = Site(mount, service, client)
        site.dataset.publish("raw/a.txt", b"one")
        site.dataset.publish("raw/b.txt", b"two")
        yield site


def test_second_sandbox_uses_what_the_first_one_downloaded(
    site: Site, instant: InstantServer
) -> None:
    assert site.dataset.load(site.sandbox()) == ["raw/a.txt", "raw/b.txt"]
    assert site.in_volume("raw/b.txt").read_bytes() == b"two"
    instant.clear_requests()
    assert site.dataset.load(site.sandbox()) == []
    asked = [seen.path for seen in instant.requests if "raw" in seen.path]
    assert asked == []


def test_only_what_has_changed_is_downloaded_again(site: Site) -> None:
    sandbox = site.sandbox()
    site.dataset.load(sandbox)
    site.dataset.publish("raw/b.txt", b"two, revised")
    site.dataset.publish("raw/c.txt", b"three")
    assert site.dataset.load(sandbox) == ["raw/b.txt", "raw/c.txt"]
    assert site.in_volume("raw/b.txt").read_bytes() == b"two, revised"
    manifest = site.dataset.manifest()
    del manifest["raw/c.txt"]
    site.client.files.upload("datasets/d1/manifest.json", json.dumps(manifest).encode())
    assert site.dataset.load(sandbox) == []
    assert json.loads(site.in_volume("manifest.json").read_text()) == manifest


@pytest.mark.parametrize("left", [None, b"{", b'{"raw/b.txt": "0000"}'])
def test_volume_without_a_manifest_that_agrees_is_filled_again(
    left: bytes | None, site: Site
) -> None:
    sandbox = site.sandbox()
    site.dataset.load(sandbox)
    site.in_volume("raw/a.txt").unlink()
    manifest = site.in_volume("manifest.json")
    manifest.unlink()
    if left is not None:
        manifest.write_bytes(left)
    assert site.dataset.load(sandbox) == ["raw/a.txt", "raw/b.txt"]
    assert site.in_volume("raw/a.txt").read_bytes() == b"one"


def test_files_that_disagree_with_the_truths_manifest_are_not_trusted(site: Site) -> None:
    sandbox = site.sandbox()
    site.client.files.upload("datasets/d1/raw/a.txt", b"not what the manifest says")
    with pytest.raises(CommandFailedError):
        site.dataset.load(sandbox)
    assert not site.in_volume("manifest.json").exists()
    site.dataset.publish("raw/a.txt", b"one again")
    assert site.dataset.load(sandbox) == ["raw/a.txt", "raw/b.txt"]


def test_results_are_written_back_and_need_no_download_later(site: Site) -> None:
    sandbox = site.sandbox()
    site.dataset.load(sandbox)
    sandbox.run_command("echo done > result.txt", shell=True, cwd=site.dataset.folder).check()
    site.dataset.save(sandbox, "result.txt")
    assert b"".join(site.client.files.download("datasets/d1/result.txt")) == b"done\n"
    stored = json.loads(b"".join(site.client.files.download("datasets/d1/manifest.json")))
    assert sorted(stored) == ["raw/a.txt", "raw/b.txt", "result.txt"]
    assert site.dataset.load(site.sandbox()) == []
