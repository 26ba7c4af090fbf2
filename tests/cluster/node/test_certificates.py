"""Mutual TLS as the chart installs it: strangers are refused, and a new authority loses no request."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reconciler.app.certificates import REISSUE_ANNOTATION
from tests.certificates import accepted
from tests.cluster.release import SYSTEM, Release, Shop, web
from tests.e2e.harness import until

AUTHORITY, PROXY = "zenvoy-self-issued-ca", "zenvoy-proxy-self-issued"
SERVER_NAME = f"zenvoy-reconciler.{SYSTEM}.svc"
GRPC = 18000
MOUNTED_CA = "/etc/zenvoy/tls/ca.crt"
RENEWAL_SECONDS = 240.0
"""Kubernetes replaces mounted files when it looks at a pod the next time."""


def pods(release: Release, component: str) -> list[dict[str, Any]]:
    """Return the pods that are not terminating."""
    labelled = f"app.kubernetes.io/component={component}"
    found = json.loads(release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", labelled, "-o", "json"))["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def lives(release: Release, component: str) -> dict[str, list[tuple[str, int]]]:
    """Return the containers and their restarts by pod."""
    return {
        pod["metadata"]["uid"]: [(one["name"], one["restartCount"]) for one in pod["status"]["containerStatuses"]]
        for pod in pods(release, component)
    }


def ready(release: Release, component: str) -> set[str]:
    """Return the uids of the ready pods."""
    conditions = {pod["metadata"]["uid"]: pod["status"].get("conditions", ()) for pod in pods(release, component)}
    return {
        uid
        for uid, said in conditions.items()
        if any((one["type"], one["status"]) == ("Ready", "True") for one in said)
    }


def certificate(release: Release, folder: Path) -> Path:
    """Write the contents of the proxy's Secret as files."""
    secret = json.loads(release.node.kubectl("get", "secret", "-n", SYSTEM, PROXY, "-o", "json"))
    folder.mkdir()
    for name, data in secret["data"].items():
        (folder / name).write_bytes(base64.b64decode(data))
    return folder


def mounted(release: Release) -> set[str]:
    """Return the authorities that proxy pods trust, by the files that each pod has."""
    command = ("-c", "holder", "--", "cat", MOUNTED_CA)
    names = [pod["metadata"]["name"] for pod in pods(release, "proxy")]
    return {release.node.kubectl("exec", "-n", SYSTEM, name, *command) for name in names}


def takes(release: Release, files: Path, *, shown: bool) -> bool:
    """Return whether a reconciler accepts a client that trusts its authority, with or without the certificate."""
    address = pods(release, "reconciler")[0]["status"]["podIP"]
    return accepted((address, GRPC), SERVER_NAME, (files / "ca.crt").read_bytes(), files if shown else None)


@contextmanager
def requests(release: Release, host: str) -> Iterator[list[int]]:
    """Send requests one after the other until the end of the block; the statuses of their answers."""
    statuses: list[int] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(0.1):
            statuses.append(release.curl(host).status)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        ended.set()
        thread.join(90)


def test_authority_reissued_under_traffic_loses_nothing(zenvoy: Release, shop: Shop, tmp_path: Path) -> None:
    shop.apply(*web("web"), *web("busy"))
    shop.until_rolled_out("web", "busy")
    shop.label("web", idle_after="2s")
    shop.label("busy", idle_after="1h")
    shop.until("web", "ScaledToZero")
    before, proxies = certificate(zenvoy, tmp_path / "before"), lives(zenvoy, "proxy")
    assert takes(zenvoy, before, shown=True) and not takes(zenvoy, before, shown=False)
    assert zenvoy.curl(shop.host("web")).status == 200

    with requests(zenvoy, shop.host("busy")) as statuses:
        zenvoy.node.kubectl("annotate", "secret", "-n", SYSTEM, AUTHORITY, f"{REISSUE_ANNOTATION}=true")
        old = (before / "ca.crt").read_text()
        until(
            "all pods have the new authority",
            lambda: len(got := mounted(zenvoy)) == 1 and old not in got,
            RENEWAL_SECONDS,
        )
        after = certificate(zenvoy, tmp_path / "after")
        # All parts have to reconnect with the certificates in the files.
        gone = {pod["metadata"]["uid"] for pod in pods(zenvoy, "reconciler")}
        zenvoy.node.kubectl(
            "delete", "pods", "-n", SYSTEM, "-l", "app.kubernetes.io/component=reconciler", "--wait=false"
        )
        until("others are there", lambda: len(ready(zenvoy, "reconciler") - gone) == len(gone), RENEWAL_SECONDS)
        shop.until("web", "ScaledToZero")
        assert zenvoy.curl(shop.host("web")).status == 200
        (before / "ca.crt").write_bytes((after / "ca.crt").read_bytes())
        assert takes(zenvoy, after, shown=True)
        assert not takes(zenvoy, before, shown=True) and not takes(zenvoy, after, shown=False)
        zenvoy.upgrade()
        assert (certificate(zenvoy, tmp_path / "upgraded") / "tls.crt").read_bytes() == (after / "tls.crt").read_bytes()
    assert len(statuses) > 20 and set(statuses) == {200}
    assert lives(zenvoy, "proxy") == proxies
