"""What is particular to containers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import docker
import pytest
from ekairos_sandbox_docker import checkpoints, making
from ekairos_sandbox_docker.options import DockerOptions
from ekairos_sandbox_docker.provider import DockerProvider

from ekairos_sandbox import PluginRegistry, RaisingSandbox, RaisingService, SandboxService
from ekairos_sandbox.exceptions import (
    CheckpointNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    SandboxGoneError,
    UnsupportedOperationError,
)
from ekairos_sandbox.provider import CreateSpec, ProviderContext, SandboxRef, Tags
from ekairos_sandbox.repository.sqlite import SqliteSandboxRepository


@pytest.fixture(scope="module")
def service(
    provider: DockerProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RaisingService]:
    """A service whose sandboxes are removed in the end."""
    store = SqliteSandboxRepository(tmp_path_factory.mktemp("store") / "records.db")
    with SandboxService(store, providers=[provider]) as made:
        yield made.raising
        for record in made.raising.iter_sandboxes():
            made.raising.destroy_sandbox(record.id)


@pytest.fixture(scope="module")
def sandbox(service: RaisingService, image: str) -> RaisingSandbox:
    return service.create_sandbox(
        provider="docker",
        provider_options={"docker": {"image": image, "memory_mb": 64, "pids": 64, "cpus": 0.5}},
    )


@pytest.fixture
def spec(provider: DockerProvider, image: str) -> Iterator[CreateSpec[DockerOptions]]:
    """What makes a container without a record."""
    sandbox_id = str(uuid.uuid4())
    tags = Tags(f"owner-{sandbox_id[:8]}", sandbox_id, 1)
    spec = CreateSpec(f"ekairos-{sandbox_id}", tags, DockerOptions(image=image), 60.0)
    yield spec
    provider.destroy(SandboxRef(spec.name, tags=tags))


def container_of(sandbox: RaisingSandbox) -> Any:
    """Return what the engine says of a sandbox's container."""
    return sandbox.native().attrs


def test_the_installed_distribution_offers_the_provider() -> None:
    if "docker" not in PluginRegistry().names():
        pytest.skip("the distribution is not installed")
    assert PluginRegistry().provider_class("docker") is DockerProvider


def test_a_container_has_limits_and_no_privileges(sandbox: RaisingSandbox) -> None:
    host = container_of(sandbox)["HostConfig"]
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] == 64 * 1024 * 1024
    assert host["NanoCpus"] == 500_000_000
    assert host["PidsLimit"] == 64


def test_the_kernel_enforces_memory_and_processes(sandbox: RaisingSandbox) -> None:
    hungry = "my $x = 'x' x 200_000_000; print 'survived'"
    assert sandbox.run_command("perl", ["-e", hungry]).exit_code == 137
    forks = (
        "while (defined(my $p = fork)) { if (!$p) { sleep 60; exit } push @p, $p; last if @p > 99 }"
        "print scalar @p; kill KILL => @p"
    )
    assert 0 < int(sandbox.run_command("perl", ["-e", forks]).check().output) < 64


def test_there_is_no_network_unless_asked_for(sandbox: RaisingSandbox) -> None:
    listed = sandbox.run_command("ls", ["/sys/class/net"]).check().output.split()
    assert listed == ["lo"]
    with pytest.raises(UnsupportedOperationError, match="bridge"):
        sandbox.preview_url(8080)


def test_ports_need_a_network(service: RaisingService, image: str) -> None:
    with pytest.raises(UnsupportedOperationError, match="network='bridge'"):
        service.create_sandbox(
            provider="docker", ports=(8080,), provider_options={"docker": {"image": image}}
        )


def test_a_preview_url_leads_to_what_listens_inside(service: RaisingService, image: str) -> None:
    sandbox = service.create_sandbox(
        provider="docker",
        ports=(8080,),
        provider_options={"docker": {"image": image, "network": "bridge"}},
    )
    # Perl is part of every Debian.
    server = (
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5);"
        "open(my $f, '>', '/tmp/ready'); close $f;"
        "while (my $c = $s->accept) { sysread($c, my $r, 4096);"
        'print $c "HTTP/1.0 200 OK\r\n\r\nfrom inside"; close $c }'
    )
    sandbox.start_command("perl", ["-e", server])
    wait = "until [ -e /tmp/ready ]; do sleep 0.1; done"
    sandbox.run_command(wait, shell=True, timeout_s=30).check()
    with urlopen(sandbox.preview_url(8080).url, timeout=10) as answer:
        assert answer.read() == b"from inside"


def test_the_script_is_in_no_argument_of_the_host(sandbox: RaisingSandbox) -> None:
    secret = f"secret-{uuid.uuid4().hex}"
    command = sandbox.start_command("sleep", ["30"], env={"TOKEN": secret})
    seen = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            seen.append(process.read_bytes())
        except OSError:
            continue
    assert not [words for words in seen if secret.encode() in words]
    command.kill()


def test_an_image_that_is_not_there_leaves_nothing(
    provider: DockerProvider, spec: CreateSpec[DockerOptions]
) -> None:
    options = DockerOptions(image="ekairos-no-such-image:none", pull="never")
    with pytest.raises(ProviderError, match="ekairos-no-such-image") as caught:
        provider.create(replace(spec, options=options))
    assert caught.value.outcome == "failed"
    assert provider.find(spec.name) is None


def test_a_container_that_does_not_start_is_removed_again(
    provider: DockerProvider, spec: CreateSpec[DockerOptions], sdk: docker.DockerClient, image: str
) -> None:
    broken = f"ekairos-test-broken-{uuid.uuid4().hex[:8]}"
    source = sdk.containers.create(image, ["true"])
    source.commit(repository=broken, tag="1", changes=["USER nobody-of-this-name"])
    source.remove()
    try:
        with pytest.raises(ProviderError, match="nobody-of-this-name") as caught:
            provider.create(replace(spec, options=DockerOptions(image=f"{broken}:1")))
        assert caught.value.outcome == "failed"
        assert provider.find(spec.name) is None
    finally:
        sdk.images.remove(f"{broken}:1")


def test_the_beginning_of_an_id_is_not_a_name(
    provider: DockerProvider, spec: CreateSpec[DockerOptions]
) -> None:
    made = provider.create(spec)
    assert provider.find(made.external_id[:12]) is None
    assert provider.find(made.external_id) is None


def test_a_restore_that_crashed_leaves_one_sandbox(
    provider: DockerProvider, spec: CreateSpec[DockerOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = provider.create(spec)
    ref = SandboxRef(spec.name, made.external_id, spec.tags, options=spec.options)
    made.shell(b"echo old >/root/state", timeout_s=30, max_bytes=1000)
    checkpoint = made.create_checkpoint("before")
    made.shell(b"echo new >/root/state", timeout_s=30, max_bytes=1000)

    def crash(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(provider.engine.api("test"), "remove_container", crash)
    with pytest.raises(KeyboardInterrupt):
        made.restore_checkpoint(checkpoint.id)
    monkeypatch.undo()
    assert [info.external_id for info in provider.list_owned(spec.tags.owner)] == [made.external_id]
    assert made.shell(b"cat /root/state", timeout_s=30, max_bytes=1000) == b"new\n"

    monkeypatch.setattr(making, "start", crash)
    with pytest.raises(KeyboardInterrupt):
        made.restore_checkpoint(checkpoint.id)
    monkeypatch.undo()
    assert [info.external_id for info in provider.list_owned(spec.tags.owner)] == [made.external_id]
    again = provider.connect(ref)
    assert again.external_id == made.external_id
    assert again.shell(b"cat /root/state", timeout_s=30, max_bytes=1000) == b"old\n"
    assert made.shell(b"cat /root/state", timeout_s=30, max_bytes=1000) == b"old\n"


def test_destroying_removes_checkpoints_and_what_was_restored(
    provider: DockerProvider, spec: CreateSpec[DockerOptions], sdk: docker.DockerClient
) -> None:
    made = provider.create(spec)
    first = made.create_checkpoint()
    made.restore_checkpoint(first.id)
    made.create_checkpoint("of what was restored")
    with pytest.raises(CheckpointNotFoundError, match="no checkpoint 'other'"):
        made.restore_checkpoint("other")
    provider.destroy(SandboxRef(spec.name, made.external_id, spec.tags))
    tags = [tag for image in sdk.images.list() for tag in image.tags]
    assert [tag for tag in tags if tag.endswith(first.id)] == []
    assert list(provider.list_owned(spec.tags.owner)) == []
    with pytest.raises(SandboxGoneError):
        made.shell(b"true", timeout_s=30, max_bytes=1000)


def test_what_is_made_of_a_checkpoint_by_hand_is_not_ours(
    provider: DockerProvider, spec: CreateSpec[DockerOptions], sdk: docker.DockerClient
) -> None:
    made = provider.create(spec)
    checkpoint = made.create_checkpoint()
    stranger = sdk.containers.create(f"{checkpoints.REPOSITORY}:{checkpoint.id}", ["true"])
    try:
        assert [each.external_id for each in provider.list_owned(spec.tags.owner)] == [
            made.external_id
        ]
    finally:
        stranger.remove()


def test_another_engine_in_the_same_place_is_not_gone(
    provider: DockerProvider, spec: CreateSpec[DockerOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.account()
    monkeypatch.setattr(provider.engine, "identity", lambda: "ANOTHER")
    with pytest.raises(ProviderError, match="another Docker engine") as caught:
        provider.connect(SandboxRef(spec.name, "0" * 64, spec.tags))
    assert not isinstance(caught.value, SandboxGoneError)


def test_an_engine_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    environ = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    provider = DockerProvider(ProviderContext(environ=environ))
    with pytest.raises(ProviderUnavailableError, match="DOCKER_HOST"):
        provider.find("anything")
