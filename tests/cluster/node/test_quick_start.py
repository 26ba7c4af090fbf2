"""The commands of the README's quick start, on a node."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.release import CURL, PATIENCE_SECONDS, ROOT, WEB, Release, Shop
from tests.e2e.harness import until

SHOP = "shop"
WATCH = "kubectl get ssvc -n shop -w"
CALLER = "caller"
IMAGES = {"nginxinc/nginx-unprivileged:stable": WEB, "curlimages/curl": CURL}
"""Those of the node, by the ones of a registry."""


def blocks() -> list[list[str]]:
    """Return the commands of each block, without comments."""
    section = (ROOT / "README.md").read_text().partition("\n## Use it in a cluster\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return [[line.partition("  #")[0].strip() for line in block.splitlines()] for block in found]


def typed(node: Cluster, command: str) -> str:
    for image, loaded in IMAGES.items():
        command = command.replace(image, loaded)
    return node.run("sh", "-c", command)


def called(shop: Shop, command: str) -> str:
    """Return the output of a pod that `kubectl run` starts. Attached, it may miss the output of a short one."""
    typed(shop.node, command.replace(" --rm -i", ""))
    phases = ("Succeeded", "Failed")
    until("the caller ends", lambda: shop.get("pod", CALLER)["status"].get("phase") in phases, PATIENCE_SECONDS)
    return shop.kubectl("logs", CALLER)


@pytest.fixture
def started(loaded: Cluster) -> Iterator[Cluster]:
    """Provide the node; the namespace of the quick start is deleted after the test."""
    yield loaded
    loaded.kubectl("delete", "namespace", SHOP, "--wait=false")


def test_quick_start_commands_work(zenvoy: Release, started: Cluster) -> None:
    install, label, wake = blocks()
    command = "helm install zenvoy deploy/chart -n zenvoy-system --create-namespace --set capture.enabled=true"
    assert install[1] == command, "as `zenvoy` has it"
    assert label[-1] == WATCH
    for command in label[:-1]:
        typed(started, command)
    shop = Shop(started, SHOP)
    shop.until_asleep("web")
    assert "ScaledToZero" in typed(started, WATCH.removesuffix(" -w"))

    call, forward, curl = wake
    assert " GET web.shop / " in called(shop, call)
    shop.until("web", "Active", "Idle")
    until("both Events are written", lambda: {"WakeRequested", "Woken"} <= shop.events("web"))

    assert forward.endswith(" &")
    words, settings = forward.removesuffix(" &").split(), {**os.environ, **started.settings}
    with subprocess.Popen(words, env=settings, stdout=subprocess.PIPE, text=True) as forwarding:
        try:
            assert forwarding.stdout
            assert "Forwarding from 127.0.0.1:10000" in forwarding.stdout.readline()
            assert " GET web.shop / " in typed(started, curl)
        finally:
            forwarding.terminate()
