"""Make a sandbox ready for commands: one call after it was created."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ekairos_sandbox.clock import Clock
from ekairos_sandbox.exceptions import CommandStartError, ConfigurationError, SandboxError
from ekairos_sandbox.jobs import scripts
from ekairos_sandbox.jobs.asking import Refused, ask, may_repeat
from ekairos_sandbox.jobs.call_scripts import INLINE_SCRIPT_BYTES, env_lines, job_root
from ekairos_sandbox.jobs.spec import check_env
from ekairos_sandbox.provider import Connection
from ekairos_sandbox.retry import RetryPolicy, retrying
from ekairos_sandbox.shell import envelope
from ekairos_sandbox.shell.quoting import printf_format

_EPOCH = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PACKAGES = {
    "setsid": "setsid (util-linux or busybox), or perl, or python3",
    "base64": "base64 or od",
    "/proc": "a mounted /proc",
    "stat": "stat or wc",
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What ``prepare`` settled.

    Attributes:
        home: Absolute path of the directory below which jobs are kept, and in which commands
            without a ``cwd`` run; to be handed to every ``JobRunner`` of this sandbox.
    """

    home: str


def prepare(
    connection: Connection,
    *,
    epoch: str,
    env: Mapping[str, str] | None,
    clock: Clock,
    timeout_s: float = 60,
) -> Prepared:
    """Check the sandbox's tools, fix its home, store the environment and the epoch.

    One call of ``connection.shell``, three if the environment is very large. Safe to repeat, with
    the same epoch or another one. The epoch is written last: a job can only be started in a
    sandbox that was prepared completely. Blocks up to ``timeout_s`` seconds and one more call.

    Args:
        connection: The way into the running sandbox.
        epoch: 1 to 64 letters, digits, ``.``, ``_``, ``-``; new for each sandbox and each restore.
        env: Environment of every command; None keeps the one that was stored before.
        clock: Time and sleep.
        timeout_s: Seconds, repetitions included.

    Raises:
        ConfigurationError: The image lacks tools, all of them are named; or its home is unusable.
        CommandStartError: Nothing can be written there: disk full or read-only.
        ProviderError: The connection's own.
        ValueError: A bad epoch or variable name.
    """
    if not _EPOCH.fullmatch(epoch):
        raise ValueError("an epoch has 1 to 64 letters, digits, '.', '_' and '-'")
    check_env(env or {})
    lines = None if env is None else env_lines(list(env.items()))
    policy = RetryPolicy(budget_s=timeout_s)

    def build(nonce: str, lines: bytes | None, epoch: str) -> bytes:
        return scripts.script(
            scripts.fill(
                scripts.PREPARE,
                nonce=nonce,
                home=connection.home or "",
                keep=b"y" if lines is None else b"",
                env=b"''" if lines is None else printf_format(lines),
                epoch=epoch.encode(),
            )
        )

    def call(lines: bytes | None, epoch: str) -> Prepared:
        attempts = retrying(policy, clock, when=may_repeat)
        try:
            return attempts(
                lambda: ask(
                    connection,
                    lambda nonce: build(nonce, lines, epoch),
                    _read,
                    timeout_s=timeout_s,
                    max_bytes=envelope.SLACK_BYTES,
                )
            )
        except Refused as refusal:
            raise _refusal(str(refusal), connection.home) from None

    longest = min(connection.max_script_bytes or INLINE_SCRIPT_BYTES, INLINE_SCRIPT_BYTES)
    if lines is not None and len(build("0" * 16, lines, epoch)) > longest:
        home = call(b"", "").home
        large = lines
        retrying(policy, clock, when=may_repeat)(
            lambda: connection.write_file(f"{job_root(home)}/env", iter([large]), mode=0o600)
        )
        lines = None
    return call(lines, epoch)


def _read(fields: list[str]) -> Prepared | None:
    if fields[0] == "missing" and len(fields) == 2:
        names = [_PACKAGES.get(name, name) for name in fields[1].split(",")]
        raise ConfigurationError(
            f"this sandbox cannot run commands, because it lacks: {'; '.join(names)}",
            operation="prepare",
            hint="use an image that has them, such as any Debian, Ubuntu or Alpine image",
        )
    if fields[0] != "prepared" or len(fields) != 3:
        return None
    home = envelope.decode(fields[2], fields[1])
    return Prepared(os.fsdecode(home)) if home else None


def _refusal(reason: str, home: str | None) -> SandboxError:
    where = home or "the home directory"
    if reason == "volume":
        return ConfigurationError(
            f"a volume is mounted between {where} and .local/state/ekairos-sandbox in it",
            operation="prepare",
            hint="mount the volume elsewhere: what is kept there must live as long as the home",
        )
    if reason == "owner":
        return ConfigurationError(
            f"the directory for jobs below {where} belongs to another user",
            operation="prepare",
            hint="run the sandbox as the user who owns its home",
        )
    if reason == "home":
        return ConfigurationError(f"the sandbox has no directory {where}", operation="prepare")
    if reason == "env":
        return CommandStartError(
            "the environment that was stored when the sandbox was created is missing",
            operation="prepare",
        )
    return CommandStartError(
        f"nothing can be written below {where}",
        operation="prepare",
        hint="the disk of the sandbox is full or read-only",
    )
