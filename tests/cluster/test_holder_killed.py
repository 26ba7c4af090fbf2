"""SIGKILL of the holder in each proxy pod: clients that wait, and those that come while it restarts, are answered."""

from __future__ import annotations

import re
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from tests.cluster.release import SYSTEM, Release, Shop, web
from tests.e2e.harness import until

pytestmark = pytest.mark.node
EACH = 12


def _holders() -> dict[str, int]:
    """Process ids of the holders of proxy pods, by pod."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "run" in line and any(word.endswith("zenvoy-tproxy") for word in line):
            found.update({word.partition("=")[2]: process.pid for word in line if word.startswith("--holder-id=")})
    return found


def _addresses(release: Release) -> list[str]:
    label = ("-l", "app.kubernetes.io/component=proxy")
    pods = release.node.kubectl("get", "pods", "-n", SYSTEM, *label, "-o", "jsonpath={.items[*].status.podIP}")
    return pods.split()


def _held(address: str) -> int:
    """Connections that wait at the holder of a proxy pod."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:18081/metrics", timeout=10) as answer:
        held = re.findall(r'^zenvoy_holder_held\{service="[^"]+"\} (\d+)', answer.read().decode(), re.M)
    return sum(map(int, held))


def test_clients_outlive_a_killed_holder(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("slow", DELAY="8s"))
    shop.kubectl("rollout", "status", "deployment/slow", "--timeout=60s")
    shop.label("slow", idle_after="2s")
    shop.until("slow", "ScaledToZero")
    pods = zenvoy.node.kubectl("get", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=proxy", "-o", "name")
    before = {name: pid for name, pid in _holders().items() if f"pod/{name}" in pods.split()}
    assert len(before) == 2
    with ThreadPoolExecutor(2 * EACH) as pool:
        answers = [pool.submit(zenvoy.curl, shop.host("slow"), seconds=90) for _ in range(EACH)]
        shop.until("slow", "Waking")
        until("all wait", lambda: sum(_held(address) for address in _addresses(zenvoy)) == EACH)
        for pid in before.values():
            psutil.Process(pid).send_signal(signal.SIGKILL)
        answers += [pool.submit(zenvoy.curl, shop.host("slow"), seconds=90) for _ in range(EACH)]
        assert [answer.result().status for answer in answers] == [200] * 2 * EACH
    until(
        "both run again",
        lambda: {name for name, pid in _holders().items() if before.get(name, pid) != pid} == set(before),
    )
