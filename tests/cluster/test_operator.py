"""The chart's objects for the Prometheus operator, on an API server that has the operator's own definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.chart import Chart
from tests.cluster.foreign import created, defined
from tests.cluster.harness import Cluster, ToolFailed
from tests.deploy.containers import documents

OPERATOR = "github.com/prometheus-operator/prometheus-operator"
CRDS = "example/prometheus-operator-crd/monitoring.coreos.com"
FILES = [f"{CRDS}_{kind}.yaml" for kind in ("servicemonitors", "prometheusrules")]
OPERATORS = "monitoring.coreos.com/"


@pytest.fixture(scope="module")
def operated(control_plane: Cluster) -> Iterator[Cluster]:
    with defined(control_plane, "operator", OPERATOR, FILES) as cluster:
        yield cluster


@pytest.mark.parametrize(
    "monitoring",
    [
        {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
        {
            "serviceMonitor": {
                "enabled": True,
                "labels": {"release": "prometheus"},
                "interval": "1m30s",
                "scrapeTimeout": "5s",
                "relabelings": [{"targetLabel": "cluster", "replacement": "one"}],
                "metricRelabelings": [{"action": "drop", "sourceLabels": ["__name__"], "regex": "process_.*"}],
            },
            "prometheusRule": {"enabled": True, "additionalRuleLabels": {"team": "edge"}},
        },
    ],
    ids=["as they are", "everything"],
)
def test_operator_kinds_accept_what_is_rendered(
    operated: Cluster, namespace: str, tmp_path: Path, monitoring: dict[str, Any]
) -> None:
    rendered = documents(Chart(operated, namespace, tmp_path).render({"monitoring": monitoring}))
    theirs = [one for one in rendered if one["apiVersion"].startswith(OPERATORS)]
    assert {one["kind"] for one in theirs} == {"ServiceMonitor", "PrometheusRule"}

    assert len(created(operated, theirs)) == len(theirs)


def test_unknown_field_is_refused(operated: Cluster, namespace: str, tmp_path: Path) -> None:
    rendered = documents(
        Chart(operated, namespace, tmp_path).render({"monitoring": {"serviceMonitor": {"enabled": True}}})
    )
    monitor = next(one for one in rendered if one["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["honourLabels"] = True

    with pytest.raises(ToolFailed, match="honourLabels"):
        created(operated, [monitor])
