"""A stranger's pod next to the default installation: it reads nothing, changes nothing, and stops nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cluster.release import IMAGES, PATIENCE_SECONDS, SYSTEM, Release, Shop, web
from tests.e2e.harness import until

pytestmark = pytest.mark.node
SCRIPT = (Path(__file__).parent / "stranger.py").read_text()
OVER = ("Succeeded", "Failed")
HARMLESS = {"UNAVAILABLE", "PERMISSION_DENIED", "DEADLINE_EXCEEDED", "refused", "403", "404", "405"}


def addresses(release: Release, component: str) -> list[str]:
    label = f"app.kubernetes.io/component={component}"
    shown = ("-o", "jsonpath={.items[*].status.podIP}")
    return release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", label, *shown).split()


def pods_of_both(release: Release) -> list[str] | None:
    """Return the arguments of `stranger.py`; None while there are more or fewer pods than installed."""
    reconcilers, proxies = addresses(release, "reconciler"), addresses(release, "proxy")
    return [*reconcilers, "/", *proxies] if len(reconcilers) == len(proxies) == 2 else None


def test_stranger_pod_reads_and_changes_nothing(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("asleep"), *web("busy"))
    shop.until_rolled_out("asleep", "busy")
    shop.label("asleep", idle_after="2s")
    shop.label("busy", idle_after="1h")
    shop.until_asleep("asleep")
    # Pods of earlier tests may be terminating.
    peers = until("two pods of each part", lambda: pods_of_both(zenvoy), PATIENCE_SECONDS)
    before = zenvoy.node.kubectl("get", "pods", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.uid}")

    command = ["--command", "--", "python3", "-c", SCRIPT, *peers]
    shop.kubectl("run", "stranger", f"--image={IMAGES['zenvoy']}", "--restart=Never", *command)
    until("it is over", lambda: shop.get("pod", "stranger")["status"].get("phase") in OVER, PATIENCE_SECONDS)
    tried = json.loads(shop.kubectl("logs", "stranger").splitlines()[-1])
    assert len(tried) == 2 * 11 + 2 * 5
    assert not [(what, got) for what, got in tried if got not in HARMLESS]

    assert shop.state("asleep") == "ScaledToZero"
    assert shop.replicas("asleep") == 0
    shop.label("busy", idle_after="2s")
    shop.until("busy", "ScaledToZero")
    assert zenvoy.curl(shop.host("asleep")).status == 200
    assert zenvoy.node.kubectl("get", "pods", "-n", SYSTEM, "-o", "jsonpath={.items[*].metadata.uid}") == before
