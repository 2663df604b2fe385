"""Sessions of ``requests`` as ``HttpClient`` needs them. Importing this imports ``requests``."""

from __future__ import annotations

import socket
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import PoolManager, ProxyManager
from urllib3.connection import HTTPConnection

from ekairos_sandbox.http_deadline import watch_for_this_request


class Session(requests.Session):
    """A session without cookies, whose redirects are ordinary answers and whose requests end."""

    def __init__(self) -> None:
        super().__init__()
        self.headers["User-Agent"] = "ekairos-sandbox"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        for prefix in ("https://", "http://"):
            self.mount(prefix, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: otherwise the whole body is read here, and a bad target is an error."""


class _Watched(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        sock = super()._new_conn()
        watch_for_this_request(sock)
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            watch_for_this_request(self.sock)
        super().request(*args, **kwargs)


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _watch(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> ProxyManager:
        new = proxy not in self.proxy_manager
        manager: ProxyManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if new:
            _watch(manager)
        return manager

    def close(self) -> None:
        # urllib3 leaves the connections to the garbage collector.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for pool in map(manager.pools.get, manager.pools.keys()):
                if pool is not None:
                    pool.close()
        super().close()


def _watch(manager: PoolManager) -> None:
    """Have a manager make connections that are watched, of the classes that it uses anyway."""
    pools: dict[str, Any] = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {
        scheme: type(
            pool.__name__,
            (pool,),
            {"ConnectionCls": type("Watched", (_Watched, pool.ConnectionCls), {})},
        )
        for scheme, pool in pools.items()
    }
