"""The chart, installed with helm like people do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import Cluster
from tests.deploy.containers import documents

CHART = Path(__file__).parents[2] / "deploy" / "chart"
NOT_HERE = ("monitoring.coreos.com", "cert-manager.io")
"""API groups of other projects, whose CRDs a bare cluster does not have."""


class Chart:
    """One release in one namespace. Raises `ToolFailed` with the error of helm."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, release: str = "zenvoy") -> None:
        self._cluster, self.namespace, self.release = cluster, namespace, release
        self._values = folder / f"{release}-values.yaml"

    def render(self, values: Mapping[str, Any] | None = None) -> str:
        return self._helm("template", values, "--kube-version", "1.34.0")

    def install(self, values: Mapping[str, Any] | None = None) -> str:
        """Install the chart and return its notes. No hook is run: it needs a node."""
        return self._helm("install", values, "--no-hooks")

    def upgrade(self, values: Mapping[str, Any] | None = None) -> str:
        return self._helm("upgrade", values, "--no-hooks")

    def uninstall(self) -> None:
        self._cluster.run("helm", "uninstall", self.release, "--namespace", self.namespace, "--no-hooks")

    def _helm(self, verb: str, values: Mapping[str, Any] | None, *options: str) -> str:
        self._values.write_text(yaml.safe_dump(dict(values or {})))
        where = ("--namespace", self.namespace, "--values", self._values)
        return self._cluster.run("helm", verb, self.release, CHART, *where, *options)


def native(text: str) -> list[dict[str, Any]]:
    """Return the documents of kinds that every cluster has."""
    return [one for one in documents(text) if not one["apiVersion"].startswith(NOT_HERE)]


def native_text(text: str) -> str:
    """Return the same documents as text, exactly as they were rendered."""
    parts = ["\n" + part for part in text.split("\n---\n")]
    return "\n---\n".join(part for part in parts if not any(f"\napiVersion: {group}" in part for group in NOT_HERE))
