"""The verbs on the sandboxes of one state folder. Linux only.

Who starts, stops or removes a sandbox stands behind its door meanwhile. ``run.json`` says what is
wanted: a holder that died while the sandbox should run is started again by whoever notices; one
that was stopped, or whose time is up, is started again by ``start`` only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace

from ekairos_sandbox.exceptions import (
    ConfigurationError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    SandboxError,
    SandboxGoneError,
    SandboxNotRunningError,
)
from ekairos_sandbox.provider import CreateSpec, ProviderContext, SandboxRunState, Tags
from ekairos_sandbox.results import Checkpoint
from ekairos_sandbox_local import (
    bwrap,
    cgroups,
    checkpoints,
    client,
    launch,
    limits,
    probe,
    processes,
    seccomp,
    starting,
)
from ekairos_sandbox_local.options import LocalOptions
from ekairos_sandbox_local.state import Meta, Run, State
from ekairos_sandbox_local.trees import open_up

_START_S = 40.0
_END_S = 40.0
_STRAYS_S = 5.0

_log = logging.getLogger("ekairos_sandbox.local")
_warned: set[str] = set()


class Sandboxes:
    """All sandboxes of a state folder. Holds nothing open; for many threads."""

    def __init__(self, context: ProviderContext) -> None:
        self.context = context
        self.state = State(context.environ)
        self._trial: dict[str, SandboxError | None] = {}

    def make(self, spec: CreateSpec[LocalOptions]) -> Meta | None:
        """Make a sandbox and start it; None if its name was taken meanwhile.

        Raises:
            ConfigurationError: It cannot be as wanted on this machine.
            ProviderError: ``outcome="failed"`` unless what was made could not be removed.
        """
        options = spec.options
        if spec.runtime is not None and not bwrap.program_exists(
            spec.runtime, options.extra_ro_paths
        ):
            raise ConfigurationError(
                f"the runtime {spec.runtime!r} is not installed where sandboxes can see it",
                provider="local",
                hint="install it below /usr, or show its folder with extra_ro_paths",
            )
        launch.check_paths(self.state, options)
        limits.check(options)
        if options.isolation == "none":
            _warn_once(
                "local sandboxes with isolation='none' are not isolated: scripts in them can do "
                "whatever their user can do on this machine"
            )
        elif not seccomp.supported(os.uname().machine):
            _warn_once(
                f"no system call filter is known for {os.uname().machine}: local sandboxes are "
                "isolated by namespaces alone"
            )
        self.state.account()
        wanted = Meta(
            name=spec.name,
            external_id=secrets.token_hex(16),
            tags=spec.tags,
            options=options.model_dump(mode="json"),
            created_at=self.context.clock.now_ms(),
            uid=None,
            timeout_ms=spec.timeout_ms,
            vcpus=spec.vcpus,
        )
        meta = self.state.make(wanted, self._new_run(wanted))
        if meta is None:
            return None
        try:
            self.start(meta, timeout_s=spec.timeout_s)
        except BaseException as error:
            try:
                self.destroy(meta)
            except ProviderError:
                if isinstance(error, SandboxError):
                    error.outcome = "unknown"
            raise
        return meta

    def trial(self) -> None:
        """Find out, once per process, whether sandboxes can be isolated on this machine.

        Raises:
            SandboxError: They cannot; says why and what to change.
        """
        if "error" not in self._trial:
            tags = Tags(owner="trial", sandbox_id=secrets.token_hex(8), incarnation=1)
            name = f"trial-{tags.sandbox_id}"
            self._trial["error"] = None
            try:
                made = self.make(
                    CreateSpec(name, tags, LocalOptions(), _START_S, timeout_ms=60_000)
                )
                if made is not None:
                    self.destroy(made)
            except SandboxError as error:
                self._trial["error"] = error
        if self._trial["error"] is not None:
            raise self._trial["error"]

    def start(self, meta: Meta, *, timeout_s: float = _START_S) -> None:
        """See that a sandbox runs. One that was stopped or is past its time gets a new lifetime.

        Raises:
            SandboxGoneError: It no longer exists.
            ProviderError: It could not be started.
        """
        self._start(meta, timeout_s, renew=True)

    def shell(
        self,
        meta: Meta,
        script: bytes,
        *,
        timeout_s: float,
        max_bytes: int,
        file: int | None = None,
    ) -> bytes:
        """Run a script; a holder that died is started again first.

        ``file`` is the descriptor of a file in memory for the script's descriptor 4.

        Raises:
            SandboxGoneError: It no longer exists; the script did not run.
            SandboxNotRunningError: It was stopped or is past its time; the script did not run.
            ProviderError: ``outcome="failed"`` only if the script provably never began.
        """
        limit = time.monotonic() + timeout_s
        folder = self.state.folder(meta.name)
        for revived in (False, True):
            try:
                return client.run(
                    folder,
                    meta.external_id,
                    script,
                    uid=meta.uid,
                    timeout_s=max(limit - time.monotonic(), 0),
                    max_bytes=max_bytes,
                    file=file,
                )
            except (FileNotFoundError, client.OtherSandboxError):
                self._require(meta)
                break
            except client.NotAliveError:
                if revived:
                    break
            except OSError as error:
                if isinstance(error, ProviderError):
                    raise
                raise _unavailable("reached", error) from error
            self._start(meta, max(limit - time.monotonic(), 0), renew=False)
        raise ProviderUnavailableError("the sandbox ended again at once", provider="local")

    def run_state(self, meta: Meta) -> SandboxRunState:
        """Tell what a sandbox is doing."""
        folder = self.state.folder(meta.name)
        try:
            if client.is_alive(folder):
                return "running"
            return "stopped" if client.lock_is_free(folder) else "changing"
        except FileNotFoundError:
            return "unknown"
        except OSError as error:
            raise _unavailable("looked at", error) from error

    def stop(self, meta: Meta) -> None:
        """End everything in a sandbox and keep its files. Stopped or gone already is fine."""
        with self._behind_door(meta, _END_S) as door:
            if door is not None:
                self._say_unwanted(meta)
                self._kill(meta)

    def destroy(self, meta: Meta) -> None:
        """End everything in a sandbox and remove it. Gone already is fine."""
        with self._behind_door(meta, _END_S) as door:
            if door is None:
                return
            with contextlib.suppress(ProviderUnavailableError):  # it cannot be said; it dies anyway
                self._say_unwanted(meta)
            self._kill(meta)
            gone = self.state.detach(meta.name)
        self.state.clear(gone)

    def extend(self, meta: Meta, lifetime_ms: int) -> int | None:
        """Let a sandbox live so long from now, never shorter than it would have lived.

        Returns:
            When it will end now, epoch ms; None if it has no end.

        Raises:
            SandboxNotRunningError: It was stopped or is past its time.
        """
        with self._behind_door(meta, _END_S) as door:
            if door is None:
                raise self._gone(meta)
            run = self._require_wanted(meta)
            now_ms = self.context.clock.now_ms()
            if run.deadline is None or run.deadline >= now_ms + lifetime_ms:
                return run.deadline
            with contextlib.suppress(client.NotAliveError):  # who starts it again reads run.json
                client.extend(self.state.folder(meta.name), meta.external_id, lifetime_ms)
            self.state.write_run(meta.name, replace(run, deadline=now_ms + lifetime_ms))
            return now_ms + lifetime_ms

    def create_checkpoint(self, meta: Meta, comment: str) -> Checkpoint:
        """Store the state of a sandbox's files, while it runs on."""
        with self._behind_door(meta, _END_S) as door:
            if door is None:
                raise self._gone(meta)
            return checkpoints.create(
                self.state.folder(meta.name),
                meta,
                launch.options_of(meta),
                comment,
                now_ms=self.context.clock.now_ms(),
                door=door,
            )

    def list_checkpoints(self, meta: Meta) -> list[Checkpoint]:
        """Return the stored states, oldest first."""
        self._require(meta)
        return checkpoints.listed(self.state.folder(meta.name))

    def restore_checkpoint(self, meta: Meta, checkpoint_id: str) -> None:
        """Bring a stored state back; everything that runs ends. It starts again at its next use."""
        folder = self.state.folder(meta.name)
        with self._behind_door(meta, _END_S) as door:
            if door is None:
                raise self._gone(meta)
            staged = checkpoints.stage(
                folder, meta, launch.options_of(meta), checkpoint_id, door=door
            )
            self._kill(meta)
            checkpoints.commit(folder, staged)

    def _start(self, meta: Meta, timeout_s: float, *, renew: bool) -> None:
        limit = time.monotonic() + timeout_s
        folder = self.state.folder(meta.name)
        with self._behind_door(meta, timeout_s) as door:
            if door is None:
                raise self._gone(meta)
            run = self.state.read_run(meta.name) if renew else self._require_wanted(meta)
            if run.is_over(self.context.clock.now_ms()):
                client.end(folder, meta.external_id, max(limit - time.monotonic(), 0))
                run = self._new_run(meta)
                self.state.write_run(meta.name, run)
            if client.is_alive(folder):
                return
            if not _is_isolated(meta) and client.lock_is_free(folder):
                processes.end_strays(meta.external_id, meta.uid, _STRAYS_S)
            open_up(folder)
            config = launch.holder_config(
                self.state,
                meta,
                run,
                now_ms=self.context.clock.now_ms(),
                environ=self.context.environ,
            )
            config["cgroups"] = self._make_groups(meta)
            try:
                starting.start(
                    folder, config, door=door, timeout_s=max(limit - time.monotonic(), 0)
                )
            except starting.HolderStartError as error:
                if error.kind == "bubblewrap":
                    raise probe.explain(error.detail, config["bwrap"]) from error
                raise ProviderUnavailableError(
                    f"the sandbox could not be started: {error.detail}", provider="local"
                ) from error

    def _require_wanted(self, meta: Meta) -> Run:
        run = self.state.read_run(meta.name)
        if run.is_over(self.context.clock.now_ms()):
            raise SandboxNotRunningError(
                "the sandbox was stopped" if not run.wanted else "the sandbox's time is up",
                provider="local",
            )
        return run

    def _say_unwanted(self, meta: Meta) -> None:
        run = self.state.read_run(meta.name)
        self.state.write_run(meta.name, replace(run, wanted=False))

    def _kill(self, meta: Meta) -> None:
        confirmed = client.end(self.state.folder(meta.name), meta.external_id, _END_S)
        if not confirmed:  # not even a start that was cut short may leave anything
            processes.end_strays(meta.external_id, meta.uid, _STRAYS_S)
        self._remove_groups(meta)

    def _make_groups(self, meta: Meta) -> list[str]:
        """Make a sandbox's control groups and return their paths; call it with no holder alive."""
        self._remove_groups(meta)
        places, wanted = limits.places(launch.options_of(meta))
        groups = cgroups.group_paths(places, meta.external_id)
        if groups:
            self.state.write_groups(meta.name, groups)
            cgroups.make(places, meta.external_id, wanted)
        return [str(group) for group in groups]

    def _remove_groups(self, meta: Meta) -> None:
        groups = self.state.read_groups(meta.name)
        if cgroups.remove(groups, _STRAYS_S):
            raise ProviderTimeoutError(
                f"processes of the sandbox {meta.name} do not end", provider="local"
            )
        if groups:
            self.state.write_groups(meta.name, ())

    @contextlib.contextmanager
    def _behind_door(self, meta: Meta, timeout_s: float) -> Iterator[int | None]:
        """Stand behind the door; None if this very sandbox does not exist any more."""
        with self.state.door(meta.name, timeout_s) as door:
            found = None if door is None else self.state.read(meta.name)
            same = found is not None and found.external_id == meta.external_id
            try:
                if same:
                    checkpoints.finish(self.state.folder(meta.name))
                yield door if same else None
            except OSError as error:
                if isinstance(error, ProviderError):
                    raise
                raise _unavailable("changed", error) from error

    def _require(self, meta: Meta) -> None:
        found = self.state.read(meta.name)
        if found is None or found.external_id != meta.external_id:
            raise self._gone(meta)

    def _gone(self, meta: Meta) -> SandboxGoneError:
        self.state.require()
        return SandboxGoneError(
            f"the sandbox {meta.name!r} no longer exists",
            provider="local",
            sandbox_id=meta.tags.sandbox_id,
        )

    def _new_run(self, meta: Meta) -> Run:
        if meta.timeout_ms is None:
            return Run(wanted=True)
        return Run(wanted=True, deadline=self.context.clock.now_ms() + meta.timeout_ms)


def _unavailable(verb: str, error: OSError) -> ProviderUnavailableError:
    return ProviderUnavailableError(
        f"the sandbox could not be {verb}: {error.strerror}", provider="local"
    )


def _is_isolated(meta: Meta) -> bool:
    return meta.options.get("isolation") != "none"


def _warn_once(text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        _log.warning(text)
