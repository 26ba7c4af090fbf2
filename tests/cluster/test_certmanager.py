"""The chart's objects for cert-manager, on an API server that has cert-manager's own definitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.chart import Chart
from tests.cluster.foreign import created, defined
from tests.cluster.harness import Cluster, ToolFailed
from tests.deploy.containers import documents

MANAGER = "github.com/cert-manager/cert-manager"
FILES = [f"deploy/crds/cert-manager.io_{kind}.yaml" for kind in ("certificates", "issuers")]
MANAGERS = "cert-manager.io/"
SOURCE = {"source": "cert-manager"}


@pytest.fixture(scope="module")
def managed(control_plane: Cluster) -> Iterator[Cluster]:
    with defined(control_plane, "certmanager", MANAGER, FILES) as cluster:
        yield cluster


def theirs(chart: Chart, mtls: dict[str, Any]) -> list[dict[str, Any]]:
    rendered = documents(chart.render({"mtls": {**SOURCE, **mtls}}))
    return [one for one in rendered if one["apiVersion"].startswith(MANAGERS)]


@pytest.mark.parametrize(
    ("mtls", "kinds"),
    [
        ({}, ["Certificate"] * 3 + ["Issuer"] * 2),
        (
            {
                "certManager": {
                    "issuerRef": {"name": "ours", "kind": "ClusterIssuer"},
                    "duration": "720h",
                    "renewBefore": "240h",
                }
            },
            ["Certificate"] * 2,
        ),
    ],
    ids=["with a CA of the release", "with an issuer of one's own"],
)
def test_cert_manager_kinds_accept_what_is_rendered(
    managed: Cluster, namespace: str, tmp_path: Path, mtls: dict[str, Any], kinds: list[str]
) -> None:
    found = theirs(Chart(managed, namespace, tmp_path), mtls)
    assert sorted(one["kind"] for one in found) == kinds
    assert len(created(managed, found)) == len(kinds)


def test_unknown_field_is_refused(managed: Cluster, namespace: str, tmp_path: Path) -> None:
    found = theirs(Chart(managed, namespace, tmp_path), {})
    certificate = next(one for one in found if one["kind"] == "Certificate")
    certificate["spec"]["secret"] = certificate["spec"].pop("secretName")

    with pytest.raises(ToolFailed, match="secret"):
        created(managed, [certificate])
