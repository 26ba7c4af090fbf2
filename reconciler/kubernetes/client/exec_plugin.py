"""Exec plugins of kubeconfigs: programs that return credentials (client.authentication.k8s.io)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconciler.kubernetes.client.errors import NoCluster

CLUSTER_KEYS = (
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
)
CONFIG_EXTENSION = "client.authentication.k8s.io/exec"
MAX_ERROR_LENGTH = 500


async def credentials(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, str]:
    """Run the plugin, and return its credentials as fields of a kubeconfig's user. Raises `NoCluster`.

    There is no time limit, because a plugin may wait for a login.
    """
    command = str(plugin["command"])
    variables = {item["name"]: item["value"] for item in plugin.get("env") or ()}
    info = json.dumps(_info(plugin, cluster))
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *(plugin.get("args") or ()),
            env={**os.environ, **variables, "KUBERNETES_EXEC_INFO": info},
            stdout=asyncio.subprocess.PIPE,
            # On a terminal, a plugin asks the user to log in.
            stderr=None if sys.stderr.isatty() else asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = str(plugin.get("installHint") or "").strip()
        raise NoCluster(f"the exec plugin {command} cannot be run: {error.strerror}{hint and f'; {hint}'}") from None
    output, errors = await process.communicate()
    if process.returncode:
        message = (errors or b"").decode(errors="replace").strip()[-MAX_ERROR_LENGTH:]
        raise NoCluster(
            f"the exec plugin {command} failed with exit code {process.returncode}{message and f': {message}'}"
        )
    try:
        return _user(json.loads(output)["status"])
    except (ValueError, TypeError, LookupError, AttributeError):
        raise NoCluster(
            f"the exec plugin {command} returned no credentials; expected an ExecCredential with status.token, "
            "or with status.clientCertificateData and status.clientKeyData"
        ) from None


def _info(plugin: Mapping[str, Any], cluster: Mapping[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = {key: cluster[key] for key in CLUSTER_KEYS if key in cluster}
        if authority := cluster.get("certificate-authority"):
            encoded = base64.b64encode(Path(authority).read_bytes()).decode()
            spec["cluster"].setdefault("certificate-authority-data", encoded)
        for extension in cluster.get("extensions") or ():
            if extension["name"] == CONFIG_EXTENSION:
                spec["cluster"]["config"] = extension["extension"]
    return {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}


def _user(status: Mapping[str, Any]) -> dict[str, str]:
    fields = {"token": status["token"]} if status.get("token") else {}
    if status.get("clientCertificateData"):
        fields["client-certificate-data"] = base64.b64encode(status["clientCertificateData"].encode()).decode()
        fields["client-key-data"] = base64.b64encode(status["clientKeyData"].encode()).decode()
    if not fields:
        raise LookupError
    return fields
