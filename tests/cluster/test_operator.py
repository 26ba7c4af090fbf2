"""The chart's objects for the Prometheus operator, before an API server that has the operator's own definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.chart import Chart, documents
from tests.cluster.harness import TOOLING_SECONDS, Cluster, ToolFailed, run

OPERATOR = "github.com/prometheus-operator/prometheus-operator"
MODULE = Path(__file__).with_name("operator")
OPERATORS = "monitoring.coreos.com/"
KINDS = ("servicemonitors", "prometheusrules")


@pytest.fixture(scope="module")
def operated(control_plane: Cluster) -> Iterator[Cluster]:
    run("go", "-C", MODULE, "mod", "download", OPERATOR, timeout=TOOLING_SECONDS)
    folder = Path(run("go", "-C", MODULE, "list", "-m", "-f", "{{.Dir}}", OPERATOR).strip())
    crds = folder / "example" / "prometheus-operator-crd"
    files = [option for kind in KINDS for option in ("-f", str(crds / f"monitoring.coreos.com_{kind}.yaml"))]
    control_plane.kubectl("apply", "--server-side", *files)
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", *files)
    yield control_plane
    control_plane.kubectl("delete", "--wait=false", *files)


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
def test_the_operators_kinds_take_what_is_rendered(
    operated: Cluster, namespace: str, tmp_path: Path, monitoring: dict[str, Any]
) -> None:
    rendered = documents(Chart(operated, namespace, tmp_path).render({"monitoring": monitoring}))
    theirs = [one for one in rendered if one["apiVersion"].startswith(OPERATORS)]
    assert {one["kind"] for one in theirs} == {"ServiceMonitor", "PrometheusRule"}

    taken = operated.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "-f", "-"), given=yaml.safe_dump_all(theirs)
    )

    assert len(taken.splitlines()) == len(theirs)


def test_a_field_that_there_is_not_is_refused(operated: Cluster, namespace: str, tmp_path: Path) -> None:
    rendered = documents(
        Chart(operated, namespace, tmp_path).render({"monitoring": {"serviceMonitor": {"enabled": True}}})
    )
    monitor = next(one for one in rendered if one["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"][0]["honourLabels"] = True

    with pytest.raises(ToolFailed, match="honourLabels"):
        operated.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=yaml.safe_dump(monitor))
