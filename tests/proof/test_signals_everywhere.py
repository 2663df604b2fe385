"""SIGTERM and Ctrl-C at any call or request of any operation; see helpers.stops."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

import pytest
from helpers.sites import SITE_PARAMS, SITES, Site
from helpers.stops import ID, OPERATIONS, Side, Stops, carry_out, check, watch_requests

from ekairos_sandbox import RaisingService
from ekairos_sandbox.plugins import PluginRegistry
from ekairos_sandbox.provider import Capability

pytest.importorskip("ekairos_sandbox_local.plugin")

SIDES: tuple[Side, Side] = ("before", "after")


@pytest.fixture(scope="module", params=SITE_PARAMS)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with SITES[request.param]() as made:
        yield made


@pytest.fixture
def exits_on_sigterm() -> Iterator[None]:
    """Have SIGTERM raise ``SystemExit``, as gunicorn and Celery do in their workers."""

    def leave(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def calls_of(site: Site, name: str) -> int:
    stops = Stops()
    carry_out(site, name, stops)
    check(site, name)
    return len(stops.trace)


def create(site: Site, service: RaisingService, sandbox_id: str | None = None) -> None:
    service.create_sandbox(site.config, sandbox_id=sandbox_id)


def skip_what_cannot_be_done(site: Site, name: str) -> None:
    provider = PluginRegistry().provider_class(site.provider)
    if name in ("checkpoint", "restore") and Capability.CHECKPOINTS not in provider.capabilities:
        pytest.skip("the provider has no checkpoints")


def interrupted_create(site: Site, stops: Stops, sandbox_id: str | None = None) -> None:
    """Create and check what must hold right after Ctrl-C, and once everything is settled."""
    with stops.service(site) as service:
        stops.begun = True
        try:
            with pytest.raises(KeyboardInterrupt):
                create(site, service, sandbox_id)
        finally:
            stops.begun = False
        # The interrupted process goes on, and can use what it was interrupted in.
        records = {record.id: record for record in service.iter_sandboxes()}
        for info in site.owned():
            assert info.tags is not None
            record = records[info.tags.sandbox_id]
            told = record.status == "active" and sandbox_id is not None
            assert told or (record.state and record.state.release == "destroy"), record
        create(site, service, ID)
        assert service.run_command(ID, "true").success
    left = [record for record in site.settle() if record.status == "active"]
    assert [record.id for record in left] == [ID]
    site.clear()


def test_ctrl_c_at_every_call_of_a_creation_leaves_nothing_running(site: Site) -> None:
    counting = Stops()
    with counting.service(site) as service:
        counting.begun = True
        create(site, service)
        counting.begun = False
    site.clear()
    assert {"record create", "create", "shell", "record transition"} <= set(counting.trace)
    for at in range(1, len(counting.trace) + 1):
        for side in SIDES:
            interrupted_create(site, Stops(at, side))


@pytest.mark.slow
def test_ctrl_c_at_every_request_of_a_creation_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with SITES["sprites"]() as site:
        counting = Stops()
        with monkeypatch.context() as patch:
            watch_requests(counting, patch)
            with counting.service(site) as service:
                counting.begun = True
                create(site, service)
                counting.begun = False
        site.clear()
        assert counting.trace.count("getresponse") >= 4
        for at in range(1, len(counting.trace) + 1):
            for side in SIDES:
                with monkeypatch.context() as patch:
                    stops = Stops(at, side)
                    watch_requests(stops, patch)
                    interrupted_create(site, stops)


def test_ctrl_c_in_a_creation_with_an_id_of_ones_own_can_be_made_good(site: Site) -> None:
    for call in ("create", "shell", "record transition"):
        interrupted_create(site, Stops(call, "after"), ID)


@pytest.mark.soak
@pytest.mark.parametrize("name", OPERATIONS)
def test_sigterm_that_raises_at_any_call_breaks_no_promise(
    site: Site, name: str, exits_on_sigterm: None
) -> None:
    skip_what_cannot_be_done(site, name)
    for at in range(1, calls_of(site, name) + 1):
        for side in SIDES:
            stops = Stops(at, side, signal.SIGTERM)
            try:
                carry_out(site, name, stops)
            except SystemExit:
                pass
            else:  # polling takes fewer calls one time than another
                assert len(stops.trace) < at
            check(site, name)


@pytest.mark.parametrize("name", ["run", "stop"])
def test_sigterm_that_raises_in_the_middle_breaks_no_promise(
    site: Site, name: str, exits_on_sigterm: None
) -> None:
    middle = (calls_of(site, name) + 1) // 2
    for side in SIDES:
        with pytest.raises(SystemExit):
            carry_out(site, name, Stops(middle, side, signal.SIGTERM))
        check(site, name)


@pytest.mark.soak
@pytest.mark.parametrize("name", OPERATIONS)
def test_sigterm_that_kills_breaks_no_promise(site: Site, name: str) -> None:
    if site.provider not in ("local", "sprites"):
        pytest.skip("test_kills does the same at more moments")
    calls = calls_of(site, name)
    for at, side in ((1, "after"), ((calls + 1) // 2, "before"), (calls, "before")):
        words = [name, str(at), side, str(site.folder)]
        done = subprocess.run(
            [sys.executable, "-c", "from helpers.stops import main; main()", *words],
            env=dict(site.environ),
            capture_output=True,
            text=True,
            check=False,
        )
        # Polling takes fewer calls one time than another: then there is nobody to kill.
        assert (done.returncode, done.stderr) in ((-signal.SIGTERM, ""), (0, ""))
        check(site, name)
