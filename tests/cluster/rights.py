"""Being a service account: with its rights and no others."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from reconciler.adapters.kubernetes.api import Api
from tests.cluster.harness import Cluster

REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def kubeconfig_of(cluster: Cluster, namespace: str, account: str, folder: Path) -> Path:
    """A kubeconfig with a token of the account, for a program that is to run with the rights of the chart."""
    token = cluster.kubectl("create", "token", account, "--namespace", namespace, "--duration", "1h").strip()
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    config["users"] = [{"name": account, "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": account, "namespace": namespace}
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


async def may(api: Api, account: str, namespace: str, request: str, name: str = "") -> bool:
    """Whether `system:serviceaccount:…` may do what is asked as `verb resource[.group][/sub] [in namespace]`."""
    verb, _, rest = request.partition(" ")
    resource, _, within = rest.partition(" in ")
    resource, _, sub = resource.partition("/")
    resource, _, group = resource.partition(".")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": sub, "name": name}
    user = f"system:serviceaccount:{namespace}:{account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    spec = {"user": user, "groups": groups, "resourceAttributes": {**attributes, "namespace": within}}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(json.loads(await api.call("POST", REVIEWS, body))["status"]["allowed"])
