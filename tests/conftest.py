"""What every test relies on, whoever runs them."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Heed signals, also in processes that tests start, where a job in the background does not."""
    usual = {
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
        signal.SIGQUIT: signal.SIG_DFL,
    }
    for number, handler in usual.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
