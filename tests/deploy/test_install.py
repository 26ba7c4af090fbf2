"""The chart and install.yaml, as far as they can be tested without a cluster (see tests/cluster/test_chart.py)."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from reconciler.local.services_file.proxy import proxy_of
from reconciler.ports.router import ProxySettings
from tests.deploy.containers import containers, documents, ports_of_proxies, unknown_options

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "chart"
INSTALL = documents((ROOT / "deploy" / "install.yaml").read_text())
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize(("source", "shipped"), [("deploy/prometheus", "rules"), ("grafana/dashboards", "dashboards")])
def test_chart_has_current_copies_of_rules_and_dashboards(source: str, shipped: str) -> None:
    """Run `make install-yaml` to fix it."""
    copies = {path.name: path.read_text() for path in (CHART / "files" / shipped).iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / source).iterdir() if path.suffix in (".json", ".yaml")}
    assert copies == kept


def test_chart_and_images_have_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == VERSION
    ours = {one.content["image"] for one in containers(INSTALL) if one.name != "envoy"}
    assert ours == {f"ghcr.io/zenvoy/zenvoy:{VERSION}"}


def test_envoy_image_has_the_tested_version() -> None:
    [wheel] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["envoy"]
    [image] = {one.content["image"] for one in containers(INSTALL) if one.name == "envoy"}
    assert image.partition("@")[0] == f"envoyproxy/envoy:v{wheel.partition('==')[2]}"


def test_install_yaml_has_the_current_crd() -> None:
    """Run `make install-yaml` to fix it."""
    [crd] = [one for one in INSTALL if one["kind"] == "CustomResourceDefinition"]
    assert crd == yaml.safe_load((CHART / "crds" / "scaledservices.yaml").read_text())


def test_containers_use_only_existing_options() -> None:
    seen = set()
    for container in containers(INSTALL):
        for command in container.commands:
            assert not unknown_options(command), f"{container.owner}, {container.name}: {command[:2]}"
            seen.add(command[0])
    assert seen == {"zenvoy", "zenvoy-tproxy", "zenvoy-keeper", "/bin/sh"}  # which runs Envoy


def test_services_name_ports_of_proxies_by_number() -> None:
    """Envoy is a sidecar, and Kubernetes before 1.33 resolves the port names of other containers only."""
    assert sorted(ports_of_proxies(INSTALL), key=str) == [10000, 10443, 18081, 9902]


def test_pods_run_on_linux_and_keep_no_node() -> None:
    """Windows nodes often have no taint, and the cluster autoscaler keeps nodes for volumes of type emptyDir."""
    templates = [one["spec"]["template"] for one in INSTALL if one["kind"] == "Deployment"]
    assert len(templates) == 2
    for pod in templates:
        assert pod["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"


def test_chart_proxy_settings_are_the_defaults() -> None:
    [arguments] = [one.content["args"] for one in containers(INSTALL) if one.name == "reconciler"]
    [text] = [one.removeprefix("--proxy=") for one in arguments if one.startswith("--proxy=")]
    assert proxy_of(text, "--proxy") == ProxySettings(trusted_hops=0)


def test_schema_describes_every_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(values: object, described: dict[str, object], where: str) -> None:
        if isinstance(values, dict) and isinstance(properties := described.get("properties"), dict):
            for key in values:
                assert key in properties, f"{where}{key} is not in values.schema.json"
                compare(values[key], properties[key], f"{where}{key}.")
            if described is not schema:
                assert set(properties) <= set(values) | {"servicePort"}, f"{where}: values.yaml lacks values"

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")
