"""Restored replicas, removed finalizers, and the Lease, when zenvoy is uninstalled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from reconciler.cluster_client import uninstall
from reconciler.cluster_client.cluster import ClusterClient
from reconciler.cluster_client.context_options import ContextOptions
from reconciler.cluster_client.uninstall import RestoreOutcome, restore_services
from reconciler.kubernetes.client.errors import ApiError, Unreachable
from reconciler.kubernetes.types.scaled_service import FINALIZER
from tests.fakes.objects import Objects

ASLEEP = {"state": "ScaledToZero", "replicas": 3}


async def restored(
    server: Objects, report: Callable[[RestoreOutcome], None] = lambda _: None, *namespaces: str
) -> list[RestoreOutcome]:
    """Restore the services of namespaces, by default of `shop`."""
    api: Any = server
    return await restore_services(ClusterClient(api, ContextOptions()), namespaces or ("shop",), report)


async def test_uninstall_continues_past_errors_and_repeats() -> None:
    server = Objects()
    fine, refused = server.deployment("fine", 0), server.deployment("refused", 0)
    server.deployment("awake", 2)
    for name in ("refused", "fine", "awake", "gone"):
        status = {"state": "Active"} if name == "awake" else ASLEEP
        server.scaled_service(name, metadata={"finalizers": [FINALIZER]}, status=status)
    server.refused[refused] = ApiError(403, "Forbidden", "no right to deployments/scale")
    reported: list[RestoreOutcome] = []
    outcomes = await restored(server, reported.append)
    removed = "; finalizer removed"
    assert outcomes == reported
    assert outcomes == [
        RestoreOutcome(
            "shop/refused",
            "failed to restore Deployment shop/refused: 403 Forbidden: no right to deployments/scale; scale it by "
            "hand: kubectl -n shop scale Deployment refused --replicas=3" + removed,
            True,
        ),
        RestoreOutcome("shop/fine", "Deployment shop/fine was restored to 3 replicas" + removed),
        RestoreOutcome("shop/awake", "Deployment shop/awake has 2 replicas" + removed),
        RestoreOutcome("shop/gone", "nothing to restore: Deployment shop/gone does not exist" + removed),
    ]
    assert server.kept[fine]["spec"] == {"replicas": 3}
    assert not any("finalizers" in kept["metadata"] for kept in server.kept.values())
    events = [kept for at, kept in server.kept.items() if "/events/" in at]
    assert [(one["reason"], one["regarding"]["name"]) for one in events] == [("RestoreFailed", "refused")]
    server.refused.clear()
    again = await restored(server)
    assert [(one.text, one.failed) for one in again] == [
        ("Deployment shop/refused was restored to 3 replicas", False),
        ("Deployment shop/fine has 3 replicas", False),
        ("Deployment shop/awake has 2 replicas", False),
        ("nothing to restore: Deployment shop/gone does not exist", False),
    ]


def forbidden(name: str) -> ApiError:
    return ApiError(403, "Forbidden", f"no right to {name}/scale")


@pytest.mark.parametrize("state", ["Active", "Idle"])
async def test_uninstall_awake_service_needs_no_permission(state: str) -> None:
    server = Objects()
    server.refused[server.deployment("web", 2)] = forbidden("deployments")
    server.scaled_service("web", metadata={"finalizers": [FINALIZER]}, status={"state": state})
    [outcome] = await restored(server)
    assert outcome == RestoreOutcome(
        "shop/web",
        "nothing to restore: zenvoy may not scale Deployment shop/web, and did not put it to sleep; finalizer removed",
    )


async def test_uninstall_reports_retryable_outcomes() -> None:
    server = Objects()
    server.refused[server.deployment("never", 0)] = forbidden("deployments")
    server.refused[server.deployment("later", 0)] = ApiError(503, "ServiceUnavailable", "starting")
    paths = {
        name: server.scaled_service(name, metadata={"finalizers": [FINALIZER]}, status=ASLEEP)
        for name in ("never", "later")
    }
    never, later = await restored(server)
    assert (never.failed, never.retry, later.failed, later.retry) == (True, False, True, True)
    kept = {name: server.kept[at]["metadata"].get("finalizers") for name, at in paths.items()}
    assert kept == {"never": None, "later": [FINALIZER]}


async def test_uninstall_skips_undecodable_object() -> None:
    server = Objects()
    scale = server.deployment("fine", 0)
    odd = server.scaled_service("odd", metadata={"finalizers": [FINALIZER]}, spec={"maxHeld": "many"}, status=ASLEEP)
    server.scaled_service("fine", status=ASLEEP)
    bad, fine = await restored(server)
    assert bad.name == "shop/odd" and bad.failed and not bad.retry
    assert "scale it by hand" in bad.text and "finalizers" not in server.kept[odd]["metadata"]
    assert not fine.failed and server.kept[scale]["spec"] == {"replicas": 3}


async def test_uninstall_path_in_a_name_is_not_called() -> None:
    server = Objects()
    victim = server.deployment("db", 0)
    spec = {"scaleTargetRef": {"name": "../../shop/deployments/db"}}
    server.scaled_service("web", metadata={"finalizers": [FINALIZER]}, spec=spec, status=ASLEEP)
    [outcome] = await restored(server)
    assert "is not a valid name, so it was never scaled" in outcome.text
    assert not outcome.failed and server.kept[victim]["spec"] == {}


async def test_uninstall_acquires_the_lease_first() -> None:
    server = Objects()
    path = "/apis/coordination.k8s.io/v1/namespaces/zenvoy-system/leases/zenvoy"
    annotations = {"zenvoy.dev/address": "10.0.0.1:18000", "zenvoy.dev/next-index": "65"}
    spec = {"holderIdentity": "zenvoy-0", "leaseDurationSeconds": 0, "leaseTransitions": 4}
    server.put(path, {"metadata": {"annotations": annotations}, "spec": spec})
    server.scaled_service("web")
    server.faults.extend([Unreachable("GET: cut")])
    [outcome] = await restored(server)
    assert outcome.text == "nothing to restore: never in force"
    lease = server.kept[path]
    assert lease["metadata"]["annotations"] == {"zenvoy.dev/next-index": "65"}
    assert lease["spec"].pop("renewTime")
    assert lease["spec"] == {"holderIdentity": "zenvoy uninstall", "leaseDurationSeconds": 600, "leaseTransitions": 5}


async def test_uninstall_without_lease_continues() -> None:
    server = Objects()
    server.scaled_service("web")
    assert len(await restored(server)) == 1


async def test_uninstall_of_two_namespaces_acquires_the_lease_once() -> None:
    server = Objects()
    lease = "/apis/coordination.k8s.io/v1/namespaces/zenvoy-system/leases/zenvoy"
    server.put(lease, {"spec": {"holderIdentity": None}})
    server.scaled_service("web")
    metadata = {"name": "db", "namespace": "other"}
    server.put("/apis/zenvoy.dev/v1alpha1/namespaces/other/scaledservices/db", {"metadata": metadata, "spec": {}})
    reported: list[RestoreOutcome] = []
    await restored(server, reported.append, "shop", "other")
    assert [one.name for one in reported] == ["shop/web", "other/db"]
    assert [path for _, path, _ in server.writes()] == [lease]


async def test_uninstall_releases_captured_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uninstall, "RELEASE_SECONDS", 0.0)
    server = Objects()
    server.scaled_service("plain", spec={"service": "plain"})
    server.scaled_service("web", spec={"service": "web", "capture": "proxy"})
    server.scaled_service("db", spec={"service": "db"}, status={"capturePort": 12000})
    *scaled, web, db = await restored(server)
    assert [one.name for one in scaled] == ["shop/plain", "shop/web", "shop/db"]
    assert (web.name, web.failed, web.text[:45]) == ("shop/web", True, "failed to release Service shop/web: 404 NotFo")
    assert (db.name, db.failed) == ("shop/db", True)
    assert "release it by hand: kubectl -n shop patch service web" in web.text
