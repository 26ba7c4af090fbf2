"""Clients with exactly the permissions of a service account."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import yaml

from reconciler.kubernetes.client.api import Api
from tests.cluster.harness import Cluster
from tests.ports import free_ports

PROGRAM = Path(sys.executable).parent / "zenvoy"
REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def kubeconfig_of(cluster: Cluster, namespace: str, account: str, folder: Path) -> Path:
    """Return a kubeconfig with a token of the account, for a program that runs with the chart's permissions."""
    token = cluster.kubectl("create", "token", account, "--namespace", namespace, "--duration", "1h").strip()
    config = yaml.safe_load(cluster.kubectl("config", "view", "--raw", "--minify"))
    config["users"] = [{"name": account, "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": account, "namespace": namespace}
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    return path


async def may(api: Api, account: str, namespace: str, request: str, name: str = "") -> bool:
    """Return whether `system:serviceaccount:…` may do `verb resource[.group][/sub] [in namespace]`."""
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


@asynccontextmanager
async def controller(namespace: str, kubeconfig: Path, log: Path) -> AsyncIterator[None]:
    """Run one replica with that identity, its Lease in `namespace`; it ends in order with the block."""
    port = free_ports(2)
    where = ("--grpc", f"127.0.0.1:{port}", "--metrics", f"127.0.0.1:{port + 1}", "--kubeconfig", kubeconfig)
    who = ("--pod-name", "me", "--pod-ip", "127.0.0.1", "--lease-namespace", namespace)
    with log.open("wb") as out:
        tls = ("--tls-ca-secret", "zenvoy-self-issued-ca", "--tls-proxy-secret", "zenvoy-proxy-self-issued")
        command = (PROGRAM, "controller", *where, *who, *tls, "--log", "json")
        process = await asyncio.create_subprocess_exec(*command, stdout=out, stderr=out)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 240) == 0, log.read_text()[-4000:]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        print(log.read_text()[-8000:])  # pytest shows it if the test fails
