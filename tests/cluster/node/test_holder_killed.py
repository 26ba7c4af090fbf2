"""SIGKILL of the holder in a proxy pod: waiting clients, and new ones during the restart, are answered.

The pod is not ready while its container restarts. With the holders of all pods killed at once, the Service would lead
nowhere for that long: new clients would be refused by Kubernetes, before Envoy.
"""

from __future__ import annotations

import re
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.cluster.release import PATIENCE_SECONDS, SYSTEM, Release, Shop, web
from tests.e2e.harness import until

pytestmark = pytest.mark.node
EACH = 12
SECONDS = 600
"""Longest wait of a client."""


def _holders() -> dict[str, int]:
    """Return the process ids of the holders of proxy pods, by pod."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "run" in line and any(word.endswith("zenvoy-tproxy") for word in line):
            found.update({word.partition("=")[2]: process.pid for word in line if word.startswith("--holder-id=")})
    return found


def _address(release: Release, pod: str) -> str:
    return release.node.kubectl("get", "pod", "-n", SYSTEM, pod, "-o", "jsonpath={.status.podIP}")


def _held(address: str) -> int:
    """Return the number of connections held by a proxy pod."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:18081/metrics", timeout=60) as answer:
        held = re.findall(r'^zenvoy_holder_held\{service="[^"]+"\} (\d+)', answer.read().decode(), re.M)
    return sum(map(int, held))


def test_holder_killed_keeps_waiting_clients(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("slow", replicas=0, READY="503"))
    shop.label("slow", idle_after="10m", hold_timeout=f"{SECONDS}s", wake_timeout=f"{SECONDS}s")
    shop.until("slow", "ScaledToZero")
    pods = zenvoy.node.kubectl("get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=proxy", "-o", "name")
    before = {name: pid for name, pid in _holders().items() if f"pod/{name}" in pods.split()}
    assert len(before) == 2
    with ThreadPoolExecutor(2 * EACH) as pool:
        answers = [pool.submit(zenvoy.curl, shop.host("slow"), seconds=SECONDS) for _ in range(EACH)]
        shop.until("slow", "Waking")
        until("all wait", lambda: sum(_held(_address(zenvoy, name)) for name in before) == EACH, PATIENCE_SECONDS)
        killed = max(before, key=lambda name: _held(_address(zenvoy, name)))
        assert _held(_address(zenvoy, killed)) > 0
        psutil.Process(before[killed]).send_signal(signal.SIGKILL)
        answers += [pool.submit(zenvoy.curl, shop.host("slow"), seconds=SECONDS) for _ in range(EACH)]
        shop.make_ready("slow")
        assert [answer.result().status for answer in answers] == [200] * 2 * EACH
    until("it runs again", lambda: _holders().get(killed, before[killed]) != before[killed], PATIENCE_SECONDS)
