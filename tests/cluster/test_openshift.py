"""The chart under OpenShift's constraint restricted-v2, whose rules a real API server applies to its pods."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.chart import Chart
from tests.cluster.harness import Cluster, ToolFailed
from tests.cluster.openshift import GROUP, USER, constrained, documented_values
from tests.deploy.containers import containers, documents

ADMITTED: dict[str, dict[str, Any]] = {
    "documented": {},
    "daemonset": {"proxy": {"kind": "DaemonSet", "http": {"port": 80}, "tcp": [{"name": "dns", "port": 53}]}},
    "cert-manager": {"mtls": {"source": "cert-manager"}},
    "prometheus": {
        "prometheus": {
            "url": "http://prometheus:9090",
            "headers": {"X-Scope-OrgID": "shop"},
            "bearerTokenSecret": {"name": "token"},
            "caSecret": {"name": "ca"},
        }
    },
}


@pytest.fixture(scope="module")
def openshift(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chart]:
    """Provide the chart for a namespace whose pods are constrained."""
    namespace = f"openshift-{secrets.token_hex(4)}"
    with constrained(control_plane, namespace):
        yield Chart(control_plane, namespace, tmp_path_factory.mktemp("openshift"))
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def admitted(cluster: Cluster, openshift: Chart, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return all pods of the chart, hooks included, as they would be stored. Raises `ToolFailed` if one is refused."""
    pods = {one.owner: one.pod for one in containers(documents(openshift.render(values)))}
    items = [pod(f"pod-{number}", spec) for number, spec in enumerate(pods.values())]
    listed = {"apiVersion": "v1", "kind": "List", "items": items}
    command = ("create", "--namespace", openshift.namespace, "--dry-run=server", "-o", "yaml", "-f", "-")
    return documents(cluster.kubectl(*command, given=json.dumps(listed)))


def pod(name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    content = {**spec, "serviceAccountName": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": content}


@pytest.mark.parametrize("values", ADMITTED.values(), ids=ADMITTED.keys())
def test_openshift_with_documented_values_admits_all_pods(
    control_plane: Cluster, openshift: Chart, values: dict[str, Any]
) -> None:
    specs = [one["spec"] for one in admitted(control_plane, openshift, {**documented_values(), **values})]
    assert len(specs) == 3
    for spec in specs:
        assert spec["securityContext"]["fsGroup"] == GROUP
        every = [*spec.get("initContainers", ()), *spec["containers"]]
        assert {one["securityContext"]["runAsUser"] for one in every} == {USER}


@pytest.mark.parametrize("values", [{}, {**documented_values(), "holdMode": "tproxy"}], ids=["defaults", "tproxy"])
def test_openshift_refuses_pods_with_a_user_of_their_own(
    control_plane: Cluster, openshift: Chart, values: dict[str, Any]
) -> None:
    with pytest.raises(ToolFailed, match="'restricted-v2' denied request: runAsUser"):
        admitted(control_plane, openshift, values)
