"""An SDK's client: one in each process, and closed when that is asked for."""

from __future__ import annotations

import os

import pytest

from ekairos_sandbox.sdk_client import SdkClient


class Client:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_it_is_opened_at_the_first_use_and_once() -> None:
    opened: list[Client] = []

    def open_client() -> Client:
        opened.append(Client())
        return opened[-1]

    sdk = SdkClient(open_client)
    assert opened == []
    assert sdk.get() is sdk.get() is opened[0]
    sdk.close()
    sdk.close()
    assert opened[0].closed == 1
    assert sdk.get() is opened[1]
    assert opened[1].closed == 0


def test_what_cannot_be_opened_is_tried_again() -> None:
    installed = False

    def open_client() -> Client:
        if not installed:
            raise ImportError("not installed")
        return Client()

    sdk = SdkClient(open_client)
    with pytest.raises(ImportError):
        sdk.get()
    installed = True
    assert isinstance(sdk.get(), Client)


def test_a_forked_child_opens_its_own_even_if_the_lock_was_held() -> None:
    sdk = SdkClient(Client)
    first = sdk.get()
    with sdk._lock:
        pid = os.fork()
        if pid == 0:
            own = sdk.get()
            os._exit(0 if own is not first and first.closed == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sdk.get() is first
