"""`zenvoy uninstall` against a real API server, without a controller."""

from __future__ import annotations

from reconciler.kubernetes.types.scaled_service import FINALIZER
from tests.cluster.cli.parts import Cli, Objects, entered

KEPT = {"metadata": {"finalizers": [FINALIZER, "example.com/other"]}}


async def test_uninstall_command_restores_replicas(cli: Cli, objects: Objects) -> None:
    await objects.deployment("web", 0)
    await objects.deployment("db", 2)
    await objects.scaled_service("web", **entered("ScaledToZero", replicas=3))
    await objects.scaled_service("db", **entered("Active", replicas=2))
    await objects.scaled_service("gone", **entered("ScaledToZero", replicas=1))
    for name in ("web", "db", "gone"):
        await objects.change(name, KEPT)
    where = ("-n", cli.namespace, "--system-namespace", cli.namespace)
    done = await cli("uninstall", "--yes", *where)
    key = f"{cli.namespace}/"
    reported = dict(line.removeprefix(key).split(": ", 1) for line in done.out.splitlines())
    assert reported["web"].startswith(f"Deployment {key}web was restored to 3 replicas")
    assert reported["db"].startswith(f"Deployment {key}db has 2 replicas")
    assert "does not exist" in reported["gone"]
    assert all("finalizer removed" in words for words in reported.values())
    assert "3 ScaledServices, 2 asleep" in done.err
    assert (await objects.get("web", "apps/v1", "deployments"))["spec"]["replicas"] == 3
    assert (await objects.get("web"))["metadata"]["finalizers"] == ["example.com/other"]
    again = await cli("uninstall", "--yes", *where)
    assert f"{key}web: Deployment {key}web has 3 replicas\n" in again.out
    for name in ("web", "db", "gone"):
        await objects.change(name, {"metadata": {"finalizers": None}})


async def test_uninstall_command_asks_for_confirmation(cli: Cli, objects: Objects) -> None:
    where = ("-n", cli.namespace, "--system-namespace", cli.namespace)
    assert "nothing to restore" in (await cli("uninstall", *where)).out
    await objects.deployment("web", 0)
    await objects.scaled_service("web", **entered("ScaledToZero", replicas=3))
    await cli("uninstall", *where, code=1)
    assert (await objects.get("web", "apps/v1", "deployments"))["spec"]["replicas"] == 0
