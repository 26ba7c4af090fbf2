"""docs/metrics.md equals the definitions of metrics, and the definitions equal a scrape.

`ZENVOY_GOLDEN=write` (`make golden`) generates it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import get_args

from reconciler.core import events
from reconciler.core.busy import BusyUntil
from reconciler.core.machine import TABLE
from reconciler.core.reasons import Blocker, Reason
from reconciler.core.record import State
from reconciler.metrics.definitions import (
    CLUSTER_PARTS,
    PARTS,
    REFUSALS,
    SERVICE_FAMILIES,
)
from reconciler.plan import Deadline
from reconciler.ports.backend import ResourceRequests
from reconciler.ports.holders import HoldStatus
from scripts.metrics_docs import CONTROL_FAMILIES, SERIES, series
from tests.reconciler.metrics.scene import OPENMETRICS, START, Scene, envoy, service
from tproxy.hold_queue import RefusalCause

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs/metrics.md"
USUAL = ("DemandSeen", State.Waking), ("Ready", State.Active), ("Quiet", State.Idle), ("IdleElapsed", State.Draining)


def test_golden_document_equals_definitions() -> None:
    script = [sys.executable, str(ROOT / "scripts/metrics_docs.py")]
    said = subprocess.run(script, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60).stdout
    if os.environ.get("ZENVOY_GOLDEN") == "write":
        DOCUMENT.write_text(said)

    assert DOCUMENT.read_text() == said, "make golden writes it anew"


def test_definitions_names_are_unique_and_show_the_kind() -> None:
    families = [*SERVICE_FAMILIES, *CONTROL_FAMILIES]

    assert len({family.name for family in families}) == len(families)
    assert SERIES.keys() <= {family.name for family in families}
    assert all(family.name.startswith("zenvoy_") and family.help.endswith(".") for family in families)


def test_definitions_have_every_refusal() -> None:
    assert REFUSALS.help.endswith(f"by reason: {', '.join(get_args(RefusalCause))}.")


async def test_scrape_has_exactly_the_defined_metrics() -> None:
    scene = Scene(service("web"))
    scene.envoys["edge"] = envoy(versions={"type.googleapis.com/envoy.config.cluster.v3.Cluster": "v"})
    scene.goes("web", "DemandSeen", State.Waking, stalled="Exited: exited with code 1")
    scene.metrics.woke("web", 1.0, {"signal": 1.0})
    scene.metrics.called("GET", "200")
    scene.holds("web", 0, timeout=1)

    read = {name: family for name, family in (await scene.families(OPENMETRICS)).items() if name.startswith("zenvoy_")}

    assert {name: (family.type, family.documentation) for name, family in read.items()} == {
        family.name: (family.kind, family.help) for family in (*SERVICE_FAMILIES, *CONTROL_FAMILIES)
    }
    for family in (*SERVICE_FAMILIES, *CONTROL_FAMILIES):
        for sample in read[family.name].samples:
            assert set(sample.labels) - {"le"} == set(family.labels)


async def test_scrape_has_as_many_series_as_documented() -> None:
    scene = Scene(service("web"), service("all", State.Idle))
    for one in scene.services.values():
        one.asks = ResourceRequests(0.5, 1024.0)
    lines = (await scene.scrape()).splitlines()
    assert f"has {_of('web', lines)} series before its first wake" in _document()

    for event, target in (*USUAL, ("Drained", State.ScaledToZero)):
        scene.goes("web", event, target)
    scene.metrics.woke("web", 1.0, dict.fromkeys(PARTS, 0.1))
    scene.services["web"].woke_early = False
    assert f", and {_of('web', (await scene.scrape()).splitlines())} once it has woken" in _document()

    rows = {(row.source, row.target, row.event.__name__) for row in TABLE if row.source is not row.target}
    for source, target, event in (*rows, *((State.Waking, State.Waking, e) for e in ("WakeStalled", "WakeTimedOut"))):
        record = scene.services["all"].record
        assert record
        scene.services["all"].record = type(record)(source, START, "", 1, "")
        scene.goes("all", event, target, stalled="Exited: exited with code 1")
    scene.metrics.woke("all", 1.0, dict.fromkeys(CLUSTER_PARTS, 0.1))
    scene.metrics.held(HoldStatus("all", 0, 0, refused_by=dict.fromkeys(get_args(RefusalCause), 1)))
    scene.services["all"].saved_seconds = 1.0
    scene.services["all"].woke_early = True
    until = BusyUntil(inf, Blocker(Reason.BUSY_UNTIL, "until then"))
    scene.services["all"].seen = replace(scene.services["all"].seen, busy_until=until)
    scene.services["all"].deadline = Deadline(START, events.WakeTimedOut)
    most = _of("all", (await scene.scrape()).splitlines())
    assert f"The maximum is {most}: a service" in _document()


async def test_histograms_have_as_many_series_as_defined() -> None:
    scene = Scene()
    scene.metrics.woke("web", 1.0, {"signal": 1.0})

    read = await scene.families(OPENMETRICS)

    for family in (family for family in CONTROL_FAMILIES if family.kind == "histogram"):
        assert series(family).split()[0] == str(len(read[family.name].samples))


def _of(name: str, lines: list[str]) -> int:
    return sum(f'service="{name}"' in line and not line.startswith("#") for line in lines)


def _document() -> str:
    return " ".join(DOCUMENT.read_text().split())
