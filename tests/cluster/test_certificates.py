"""Mutual TLS between zenvoy's parts, by the chart's certificates: strangers are not let in, renewal restarts nobody."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.release import SYSTEM, Release, Shop, web
from tests.e2e.harness import until

SECRETS = ("zenvoy-ca", "zenvoy-reconciler-tls", "zenvoy-proxy-tls")
GRPC = 18000
MOUNTED_CA = "/etc/zenvoy/tls/ca.crt"
RENEWAL_SECONDS = 240.0
"""Kubernetes replaces mounted files when it looks at a pod the next time."""


def pods(release: Release, component: str) -> list[dict[str, Any]]:
    """Those that are not about to end."""
    labelled = f"app.kubernetes.io/component={component}"
    found = json.loads(release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", labelled, "-o", "json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def lives(release: Release, component: str) -> dict[str, list[tuple[str, int]]]:
    """By pod, its containers and how often each was restarted."""
    return {
        pod["metadata"]["uid"]: [(one["name"], one["restartCount"]) for one in pod["status"]["containerStatuses"]]
        for pod in pods(release, component)
    }


def ready(release: Release, component: str) -> set[str]:
    """The uids of those pods that are."""
    conditions = {pod["metadata"]["uid"]: pod["status"].get("conditions", ()) for pod in pods(release, component)}
    return {
        uid
        for uid, said in conditions.items()
        if any((one["type"], one["status"]) == ("Ready", "True") for one in said)
    }


def certificate(release: Release, folder: Path) -> Path:
    """The proxies', its key and whose it is, as files."""
    secret = json.loads(release.node.kubectl("get", "secret", "-n", SYSTEM, "zenvoy-proxy-tls", "-o", "json"))
    folder.mkdir()
    for name, data in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(data))
    return folder


def mounted(release: Release) -> set[str]:
    """Whom the parts may trust, by the files that each pod has."""
    named = [("proxy", "holder"), ("reconciler", "reconciler")]
    return {
        release.node.kubectl("exec", "-n", SYSTEM, pod["metadata"]["name"], "-c", container, "--", "cat", MOUNTED_CA)
        for component, container in named
        for pod in pods(release, component)
    }


def is_spoken_to(release: Release, files: Path, *, shows_it: bool) -> bool:
    """Whoever knows the CA, and shows a certificate or none, by a reconciler that has one of that CA."""
    address = pods(release, "reconciler")[0]["status"]["podIP"]
    context = ssl.create_default_context(cafile=files / "ca.crt")
    context.set_alpn_protocols(["h2"])
    if shows_it:
        context.load_cert_chain(files / "tls.crt", files / "tls.key")
    with (
        socket.create_connection((address, GRPC), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=f"zenvoy-reconciler.{SYSTEM}.svc") as secured,
    ):
        try:
            return bool(secured.recv(1))
        except (ssl.SSLError, ConnectionError):
            return False


@pytest.mark.parametrize("zenvoy", ["tproxy"], indirect=True)
def test_certificates_are_made_anew_and_nobody_is_restarted(zenvoy: Release, shop: Shop, tmp_path: Path) -> None:
    shop.apply(*web("web"))
    shop.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    shop.label("web", idle_after="2s")
    shop.until("web", "ScaledToZero")
    before, proxies = certificate(zenvoy, tmp_path / "before"), lives(zenvoy, "proxy")
    assert is_spoken_to(zenvoy, before, shows_it=True)
    assert not is_spoken_to(zenvoy, before, shows_it=False)
    assert zenvoy.curl(shop.host("web")).status == 200

    zenvoy.node.kubectl("delete", "secret", "-n", SYSTEM, *SECRETS)
    zenvoy.upgrade()
    after = certificate(zenvoy, tmp_path / "after")
    new = (after / "ca.crt").read_text()
    assert new != (before / "ca.crt").read_text()
    until("all pods have the new ones", lambda: mounted(zenvoy) == {new}, RENEWAL_SECONDS)
    # Everybody has to connect anew, by what is in the files.
    old = {pod["metadata"]["uid"] for pod in pods(zenvoy, "reconciler")}
    zenvoy.node.kubectl("delete", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=reconciler", "--wait=false")
    until("others are there", lambda: len(ready(zenvoy, "reconciler") - old) == len(old), RENEWAL_SECONDS)
    shop.until("web", "ScaledToZero")

    assert zenvoy.curl(shop.host("web")).status == 200
    assert is_spoken_to(zenvoy, after, shows_it=True)
    assert not is_spoken_to(zenvoy, after, shows_it=False)
    assert lives(zenvoy, "proxy") == proxies
