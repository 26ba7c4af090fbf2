"""Draining of an Envoy before it is stopped, so that no client loses a request.

Envoy keeps serving meanwhile. First it fails health checks and asks HTTP clients to leave (`Connection: close`,
GOAWAY); load balancers need `settle` seconds to notice. The drain is complete once no client is connected, or once
nothing was in flight for `quiet` seconds; after `limit` seconds it ends in any case.
https://www.envoyproxy.io/docs/envoy/latest/operations/admin#post--healthcheck-fail
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from urllib.parse import quote

from reconciler.core.text import error_text

TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.25
STATS = "/stats?usedonly&filter=" + quote(
    r"^(listener\.[^w]*_\d+\.downstream_cx_active|cluster\..*\.upstream_rq_active)$"
)
_COUNT = re.compile(r"^(listener|cluster)\.(.*)\.(?:downstream_cx|upstream_rq)_active: (\d+)$", re.MULTILINE)
_OURS = ("zenvoy_ads", "zenvoy_admin")


class EnvoyUnreachable(Exception):
    """Envoy's admin port does not answer."""


def drain(admin: str, limit: float, settle: float, quiet: float, say: Callable[[str], None]) -> bool:
    """Return whether all requests could finish; times are in seconds. Raises `EnvoyUnreachable`."""
    begun = idle_since = time.monotonic()
    _ask(admin, "POST", "/healthcheck/fail")
    say("Envoy asks its clients to leave")
    try:
        while True:
            clients, in_flight = _load(admin)
            elapsed = time.monotonic() - begun
            if in_flight:
                idle_since = time.monotonic()
            idle = not in_flight and time.monotonic() - idle_since >= quiet
            if elapsed >= settle and (idle or not clients):
                break
            if elapsed >= limit:
                left = "1 client is" if clients == 1 else f"{clients} clients are"
                say(f"after {limit:g} s: {left} still connected, {in_flight} with requests in flight")
                break
            time.sleep(POLL_SECONDS)
        # A client that connects now is better refused here than after the holder has ended.
        _ask(admin, "POST", "/drain_listeners")
    except EnvoyUnreachable:
        say("Envoy has ended")
        return True
    say(f"drained in {time.monotonic() - begun:.1f} s")
    return not (clients and in_flight)


def _load(admin: str) -> tuple[int, int]:
    """Return the connections to listeners, including idle ones, and the requests to services or holders.

    For protocols without requests, connections count as requests.
    """
    counted = {"listener": 0, "cluster": 0}
    for kind, name, value in _COUNT.findall(_ask(admin, "GET", STATS)):
        if name not in _OURS:
            counted[kind] += int(value)
    return counted["listener"], counted["cluster"]


def _ask(admin: str, method: str, path: str) -> str:
    is_unix = "/" in admin
    connection = HTTPConnection("envoy" if is_unix else admin, timeout=TIMEOUT_SECONDS)
    try:
        if is_unix:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(TIMEOUT_SECONDS)
            connection.sock.connect(admin)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read().decode()
    except (OSError, HTTPException) as error:
        raise EnvoyUnreachable(f"Envoy's admin port {admin}: {error_text(error)}") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise EnvoyUnreachable(f"Envoy's admin port {admin}: {method} {path.partition('?')[0]}: HTTP {answer.status}")
    return body
