"""What the chart grants is what the program asks for: no less, or it would fail; and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.harness import Cluster
from tests.cluster.replicas.scene import ACCOUNT, Scene
from tests.e2e.harness import until

ALIKE = {"statefulsets": "deployments", "replicasets": "deployments"}
"""What is asked of one kind of target is asked of all."""
Right = tuple[str, str, str]
LEAVING = {("patch", "coordination.k8s.io", "leases")}
"""What `zenvoy uninstall` asks for, with the same account."""


def granted(rules: list[dict[str, Any]]) -> set[Right]:
    """As verb, API group, resource."""
    return {
        (verb, group, _alike(resource))
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(cluster: Cluster, namespace: str) -> Iterator[tuple[Right, int]]:
    """What the account asked for, and the code of each answer."""
    assert cluster.folder
    for line in (cluster.folder / "audit.log").read_text().splitlines():
        entry = json.loads(line)
        if entry["user"]["username"] != f"system:serviceaccount:{namespace}:{ACCOUNT}" or "objectRef" not in entry:
            continue
        about = entry["objectRef"]
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        yield (entry["verb"], about.get("apiGroup", ""), _alike(resource)), entry["responseStatus"]["code"]


def _alike(resource: str) -> str:
    kind, slash, rest = resource.partition("/")
    return ALIKE.get(kind, kind) + slash + rest


def test_it_asks_for_all_that_the_chart_grants_and_for_nothing_else(scene: Scene, control_plane: Cluster) -> None:
    if control_plane.folder is None:
        pytest.fail("only where the tests started the API server is there a log of what it was asked")
    scene.serve("rights", idle_after="1s")
    scene.wait("rights", "ScaledToZero")
    assert scene.request("rights").status == 200
    scene.wait("rights", "ScaledToZero")  # once more: a repeat is told of in the Event of the first
    scene.kubelet.hold("rights")
    scene.command("rights", "wake")  # slow enough for a look at its pods, and at what they say
    scene.wait("rights", "Waking")
    scene.kubectl("annotate", "service", "rights", "zenvoy.dev/idle-after=2s", "--overwrite")
    until("the change arrives", lambda: "2s" in scene.kubectl("get", "ssvc", "rights", "-o", "jsonpath={.spec}"))
    scene.kubelet.let_go("rights")
    scene.kubectl("label", "service", "rights", "zenvoy.dev/enabled-")
    until("it is left alone", lambda: not scene.kubectl("get", "ssvc", "rights", "--ignore-not-found"))

    found = list(asked(control_plane, scene.namespace))
    assert not {right for right, code in found if code == 403}
    assert {right for right, _ in found} | LEAVING == granted(scene.rules)
