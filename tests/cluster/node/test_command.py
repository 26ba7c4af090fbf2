"""Output of `zenvoy` about a real installation: each Envoy's evidence, the next deadline, and earlier transitions."""

from __future__ import annotations

import json
from typing import Any

from reconciler.doctor.conflicts import MANIFEST
from tests.cluster.node.command import output_of, run
from tests.cluster.release import PATIENCE_SECONDS, SYSTEM, Release, Shop, service, web
from tests.e2e.harness import until

CHECKS = (
    *("definition", "controller", "permissions", "Envoys", "holders", "samples", "certificates", "busy", "proxies"),
    "services",
    "conflicts",
    "routes",
    "endpoints",
    "network",
)
"""The first word of each."""
VERDICTS = [(check, "note" if check in ("controller", "conflicts") else "ok") for check in CHECKS]
"""Findings about default values without a host policy, and about a Deployment with replicas in its manifest."""


def pods(release: Release, component: str) -> set[str]:
    labelled = f"app.kubernetes.io/component={component}"
    named = "jsonpath={.items[*].metadata.name}"
    return set(release.node.kubectl("get", "pods", "-n", SYSTEM, "-l", labelled, "-o", named).split())


def test_explain_wake_shows_every_envoy(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.label("web", idle_after="2s")
    shop.until("web", "ScaledToZero")
    shop.idles_after("web", "10m")
    assert zenvoy.curl(shop.host("web")).status == 200
    shop.until("web", "Idle")

    def explained() -> dict[str, Any] | None:
        found: dict[str, Any] = json.loads(output_of(zenvoy, "explain", "web", "-n", shop.namespace, "-o", "json"))
        sample, envoys = found["sample"], found["envoys"]
        is_recent = sample["ageSeconds"] is not None and 0 <= sample["ageSeconds"] < 10 and not sample["unknown"]
        is_acknowledged = all(one["acked"] == envoys["version"] for one in envoys["each"])
        is_idle = found["service"]["state"] == "Idle"
        return found if is_recent and is_acknowledged and is_idle else None

    found = until("there is a sample, and all is acknowledged", explained, PATIENCE_SECONDS)
    proxies = pods(zenvoy, "proxy")
    sample = {one["id"]: one["counters"]["requests"] for one in found["sample"]["envoys"]}
    assert sample.keys() == proxies
    assert sum(sample.values()) == 1
    assert found["sample"]["source"] == "Envoys' statistics"
    acknowledged = {one["id"]: one["acked"] for one in found["envoys"]["each"]}
    assert acknowledged == dict.fromkeys(proxies, found["envoys"]["version"])
    assert {one["id"]: (one["connected"], one["inForce"]) for one in found["holders"]} == dict.fromkeys(
        proxies, (True, True)
    )
    assert found["service"]["deadline"]["event"] == "IdleElapsed"
    assert found["leader"]["pod"] in pods(zenvoy, "reconciler")
    steps = [(one["from"], one["to"]) for one in found["transitions"]]
    wake = [("Active", "Idle"), ("Waking", "Active"), ("ScaledToZero", "Waking"), ("Draining", "ScaledToZero")]
    # A late sample makes it Active and Idle once more.
    assert wake in [steps[at : at + len(wake)] for at in range(len(steps))], steps
    parts = found["service"]["lastWake"]["parts"]
    assert list(parts) == ["signal", "scale", "scheduled", "running", "ready", "firstByte"]

    text = output_of(zenvoy, "explain", "web", "-n", shop.namespace)
    for pod in proxies:
        assert text.count(pod) == 3, "its sample, what it acknowledged, its holder"
    assert "next          sleeps in " in text

    # A late sample makes it Active for a moment.
    def idle() -> dict[str, Any] | None:
        listed = json.loads(output_of(zenvoy, "status", "-A", "-o", "json"))["services"]
        [ours] = [one for one in listed if one["name"] == f"{shop.namespace}/web"]
        return ours if ours["state"] == "Idle" else None

    ours = until("it is listed as Idle", idle, PATIENCE_SECONDS)
    assert (ours["live"], ours["requests"], ours["target"]) == (True, 1, "Deployment/web")
    assert ours["lastWake"] == found["service"]["lastWake"]

    def row() -> list[str] | None:
        lines = output_of(zenvoy, "status", "-A").splitlines()
        [words] = [line.split() for line in lines if line.startswith(shop.namespace)]
        return words if words[2] == "Idle" else None

    assert until("its row", row, PATIENCE_SECONDS)[:5] == [shop.namespace, "web", "Idle", "Deployment/web", "True"]


def test_doctor_on_the_node_reports_a_fault(zenvoy: Release, shop: Shop) -> None:
    shop.apply(*web("web"))
    shop.until_rolled_out("web")
    shop.label("web", idle_after="10m")
    shop.until("web", "Active", "Idle")

    def verdicts(said: str) -> list[tuple[str, str]]:
        found = said.partition("\n\n")[0]
        return [(line.split()[1], line.split()[0]) for line in found.splitlines()]

    def in_order() -> str | None:
        code, said = run(zenvoy, "doctor", "-A")
        return said if (verdicts(said), code) == (VERDICTS, 0) else None

    # What other tests have left may be on its way out still.
    said = until("all is in order", in_order, PATIENCE_SECONDS)
    assert "note: chart value hostPolicy: HostPolicyIncomplete\n" in said
    assert ": ReplicasApplied" in said
    assert f"Deployment {shop.namespace}/web" in said
    assert f"  remedy   {MANIFEST}\n" in said

    shop.apply(service("lost", 80, "http"))
    shop.label("lost")
    missing = f"Deployment {shop.namespace}/lost does not exist"

    def reported() -> int | None:
        code, said = run(zenvoy, "doctor", "-A")
        return code if missing in said else None

    assert until("doctor reports it", reported, PATIENCE_SECONDS) == 1
