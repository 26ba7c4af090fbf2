"""Fake services, Envoys and holders as sources of metrics, and the parsed scrape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed_plain

from reconciler.core.judge import Observed
from reconciler.core.record import Record, State, Transition
from reconciler.core.spec import Spec
from reconciler.metrics.metrics import Metrics, Sources
from reconciler.plan import Deadline
from reconciler.ports.backend import UNKNOWN_REQUESTS, ResourceRequests
from reconciler.ports.holders import NONE, HoldStatus
from xds.server import Node

START = 1_000_000.0
PLAIN, OPENMETRICS = "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


ASLEEP = Observed(replicas=0, held=0, relayed=0)


@dataclass
class FakeService:
    spec: Spec
    record: Record | None
    seen: Observed = ASLEEP
    deadline: Deadline | None = None
    requests: int = 0
    recovers: bool = False
    asks: ResourceRequests = UNKNOWN_REQUESTS
    saved_seconds: float | None = None
    woke_early: bool | None = None


def envoy(versions: Mapping[str, str], since: float = START, nacks: int = 0) -> Node:
    return Node("edge", since, "delta", versions, None, nacks)


class Scene:
    """One `Metrics` with its sources; only `passes` advances `now`."""

    def __init__(self, *services: FakeService) -> None:
        self.now = START
        self.services = {service.spec.name: service for service in services}
        self.envoys: dict[str, Node] = {}
        self.holders: list[str] = []
        self.ready = self.leads = True
        self.metrics = Metrics(
            Sources(
                services=lambda: self.services if self.leads else {},
                envoys=lambda: self.envoys,
                holders=lambda: self.holders,
                all_holders=lambda: self.holders,
                ready=lambda: self.ready,
                leads=lambda: self.leads,
                now=lambda: self.now,
                ticks=lambda: self.now - START,
                records_failing=lambda: False,
            )
        )
        for name in self.services:
            self.metrics.ran(name)

    def passes(self, seconds: float) -> None:
        self.now += seconds

    def goes(self, name: str, event: str, target: State, stalled: str | None = None) -> None:
        """Make a transition of a service, and report it as the engine does."""
        service = self.services[name]
        assert service.record
        source = service.record.state
        since = self.now if target is not source else service.record.since
        service.record = replace(service.record, state=target, since=since, stalled=stalled)
        self.metrics.saw(Transition(name, source, event, target, "", self.now))

    def holds(
        self, name: str, held: int | None, released: int = 0, refused: int = 0, gone: int = 0, **refused_by: int
    ) -> None:
        refused = refused or sum(refused_by.values())
        self.metrics.held(
            HoldStatus(
                name,
                held,
                None if held is None else 0,
                released=released,
                refused=refused,
                gone=gone,
                refused_by=refused_by or NONE,
            )
        )

    async def scrape(self, accept: str = PLAIN) -> str:
        body, _ = await self.metrics.scrape(accept)
        return body.decode()

    async def values(self, name: str, **labels: str) -> dict[frozenset[tuple[str, str]], float]:
        """Return the present series of that name and these labels, by their other labels."""
        return {
            frozenset(set(sample.labels.items()) - set(labels.items())): sample.value
            for family in parsed_plain(await self.scrape())
            for sample in family.samples
            if sample.name == name and set(labels.items()) <= set(sample.labels.items())
        }

    async def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the only series of that name and these labels, or None."""
        return (await self.values(name, **labels)).get(frozenset())

    async def families(self, accept: str) -> dict[str, Metric]:
        """Return the families by name, as prometheus-client parses them."""
        text = await self.scrape(accept)
        read = parsed_openmetrics if accept == OPENMETRICS else parsed_plain
        return {family.name: family for family in read(text)}


def service(name: str = "web", state: State = State.ScaledToZero, *, replicas: int = 1, **spec: Any) -> FakeService:
    """Return a service that has been in its state for a while."""
    record = Record(state, START - 100.0, "", replicas, "127.64.0.1:18000")
    return FakeService(Spec(name=name, **spec), record)
