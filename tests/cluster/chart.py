"""The chart, installed with helm like people do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.crd import DEFINITION_SECONDS
from tests.cluster.harness import Cluster, ToolFailed
from tests.deploy.containers import documents
from tests.e2e.harness import until

CHART = Path(__file__).parents[2] / "deploy" / "chart"
NOT_HERE = ("monitoring.coreos.com", "cert-manager.io")
"""API groups of other projects, whose CRDs a bare cluster does not have."""


class Chart:
    """One release in one namespace. Raises `ToolFailed` with the error of helm."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path, release: str = "zenvoy") -> None:
        self._cluster, self.namespace, self.release = cluster, namespace, release
        self._values = folder / f"{release}-values.yaml"

    def render(self, values: Mapping[str, Any] | None = None, kubernetes: str = "1.34.0") -> str:
        return self._helm("template", values, "--kube-version", kubernetes)

    def install(self, values: Mapping[str, Any] | None = None) -> str:
        """Install the chart and return its notes. No hook is run: it needs a node.

        The API server serves the definition and knows the rights a moment after it has accepted them.
        """
        notes = self._helm("install", values, "--no-hooks")
        until("ScaledServices are served", self._is_served, DEFINITION_SECONDS)
        manifest = self._cluster.run("helm", "get", "manifest", self.release, "--namespace", self.namespace)
        reviews = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(_reviews(documents(manifest)))})
        until("the rights are in force", lambda: self._are_allowed(reviews), DEFINITION_SECONDS)
        return notes

    def upgrade(self, values: Mapping[str, Any] | None = None) -> str:
        return self._helm("upgrade", values, "--no-hooks")

    def uninstall(self) -> None:
        self._cluster.run("helm", "uninstall", self.release, "--namespace", self.namespace, "--no-hooks")

    def _is_served(self) -> bool:
        try:
            self._cluster.kubectl("get", "scaledservices.zenvoy.dev", "--namespace", self.namespace)
        except ToolFailed:
            return False
        return True

    def _are_allowed(self, reviews: str) -> bool:
        created = ("create", "-f", "-", "-o", "jsonpath={.status.allowed} ")
        return set(self._cluster.kubectl(*created, given=reviews).split()) == {"true"}

    def _helm(self, verb: str, values: Mapping[str, Any] | None, *options: str) -> str:
        self._values.write_text(yaml.safe_dump(dict(values or {})))
        where = ("--namespace", self.namespace, "--values", self._values)
        return self._cluster.run("helm", verb, self.release, CHART, *where, *options)


def _reviews(manifest: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return a SubjectAccessReview for each rule of each role that the chart binds to an account."""
    roles = {_role_key(one): one["rules"] for one in manifest if one["kind"] in ("Role", "ClusterRole")}
    for binding in manifest:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        within, role, [account] = binding["metadata"].get("namespace", ""), binding["roleRef"], binding["subjects"]
        for rule in roles[role["kind"], within if role["kind"] == "Role" else "", role["name"]]:
            resource, _, sub = rule["resources"][0].partition("/")
            asked = {"group": rule["apiGroups"][0], "resource": resource, "subresource": sub, "verb": rule["verbs"][0]}
            name = rule.get("resourceNames", [""])[0]
            user = f"system:serviceaccount:{account['namespace']}:{account['name']}"
            spec = {"user": user, "resourceAttributes": {**asked, "namespace": within, "name": name}}
            yield {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


def _role_key(role: Mapping[str, Any]) -> tuple[str, str, str]:
    meta = role["metadata"]
    return role["kind"], meta.get("namespace", ""), meta["name"]


def native(text: str) -> list[dict[str, Any]]:
    """Return the documents of kinds that every cluster has."""
    return [one for one in documents(text) if not one["apiVersion"].startswith(NOT_HERE)]


def native_text(text: str) -> str:
    """Return the same documents as text, exactly as they were rendered."""
    parts = ["\n" + part for part in text.split("\n---\n")]
    return "\n---\n".join(part for part in parts if not any(f"\napiVersion: {group}" in part for group in NOT_HERE))
