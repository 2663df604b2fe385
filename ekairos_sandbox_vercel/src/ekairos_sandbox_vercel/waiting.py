"""Following a sandbox until it has settled, runs, or is proven not to exist any more."""

from __future__ import annotations

from ekairos_sandbox.exceptions import ProviderTimeoutError
from ekairos_sandbox_vercel.api import VercelApi
from ekairos_sandbox_vercel.views import ENDED, RefusedError, View

POLL_S = 0.5
PATIENCE_S = 60.0
"""How long a sandbox may be on its way from one state to another."""


def settled(
    api: VercelApi, name: str, *, timeout_s: float = PATIENCE_S, not_session: str | None = None
) -> View | None:
    """Return a sandbox that runs or has stopped, waiting for it; None if there is none.

    Args:
        api: Where to ask.
        name: Its name.
        timeout_s: How long to wait.
        not_session: A session that is about to end: as long as it runs, nothing has settled.

    Raises:
        ProviderTimeoutError: It is still on its way.
    """
    end = api.clock.monotonic() + timeout_s
    while True:
        view = api.get(name)
        if view is None or view.status in ENDED:
            return view
        if view.running and view.session_id != not_session:
            return view
        if api.clock.monotonic() >= end:
            raise ProviderTimeoutError(
                f"the sandbox {name!r} is still {view.status or 'without a status'} after "
                f"{timeout_s:g} s",
                provider="vercel",
            )
        api.clock.sleep(POLL_S)


def started(api: VercelApi, name: str, *, timeout_s: float = PATIENCE_S) -> View | None:
    """Return a running sandbox, starting it if it is stopped.

    Returns:
        None if there is none, or if nothing is left that it could be started from: it is not
        persistent, or its snapshot is gone.

    Raises:
        ProviderTimeoutError: It is still on its way.
    """
    end = api.clock.monotonic() + timeout_s
    while True:
        view = settled(api, name, timeout_s=max(0.0, end - api.clock.monotonic()))
        if view is None or view.running:
            return view
        if not view.persistent:
            return None
        try:
            api.resume(name)
        except RefusedError as refused:
            if refused.refusal == "snapshot_not_found":
                return None
            # Somebody else starts, stops or deletes it just now: look again.
            if refused.status not in (404, 409, 410, 422) or api.clock.monotonic() >= end:
                raise
            api.clock.sleep(POLL_S)


def continues(api: VercelApi, known: str | None, view: View) -> bool:
    """Tell whether a session has everything that happened in an earlier one.

    A snapshot ends the session that it is made of, so it does if it began with that snapshot.

    Args:
        api: Where to ask.
        known: The earlier session, or None if it is not known.
        view: The sandbox with its present session.
    """
    if known == view.session_id:
        return True
    if view.source_snapshot_id is None:
        return known is None
    if known is None:
        return False
    snapshot = api.snapshot(view.source_snapshot_id)
    return snapshot is not None and snapshot.source_session_id == known
