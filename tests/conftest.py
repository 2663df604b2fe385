"""What every test relies on, whoever runs them."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Heed Ctrl-C, also in processes that tests start, where a job in the background ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
