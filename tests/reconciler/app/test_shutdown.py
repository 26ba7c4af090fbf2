"""Drain blockers of services during the shutdown of `zenvoy up`."""

from __future__ import annotations

import pytest

from reconciler.app.shutdown import blocker
from reconciler.core.judge import Observed
from reconciler.core.record import Record, State
from reconciler.core.spec import Protocol, Spec
from reconciler.core.text import format_duration
from reconciler.core.traffic import Counters, EnvoyReading, Sample
from reconciler.engine.service import ManagedService

ENVOY = frozenset({"local"})
RUNS = Observed(replicas=1, endpoints=("127.0.0.1:9",), held=0)


def sample(counters: Counters | None) -> Sample:
    return Sample(1.0, {} if counters is None else {"local": EnvoyReading(9.0, {"web": counters})})


def service(seen: Observed, protocol: Protocol = Protocol.HTTP, stalled: str | None = None) -> ManagedService:
    record = Record(State.Waking, 0.0, "", 1, "127.64.0.1:1", stalled=stalled)
    return ManagedService(Spec(name="web", protocol=protocol), record, seen=seen)


@pytest.mark.parametrize(
    ("protocol", "counters", "why"),
    [
        (Protocol.HTTP, Counters(active_requests=2, active_connections=3), "2 requests"),
        (Protocol.HTTP, Counters(requests=9, active_connections=3), None),
        (Protocol.TCP, Counters(active_connections=1), "1 connection"),
        (Protocol.TCP, Counters(connections=5), None),
        (Protocol.HTTP, None, "an unknown number of connections"),
    ],
    ids=["requests", "idle clients", "a connection", "nothing", "no answer"],
)
def test_service_waits_for_what_is_in_flight(protocol: Protocol, counters: Counters | None, why: str | None) -> None:
    assert blocker(service(RUNS, protocol), sample(counters), ENVOY) == why


def test_service_waits_for_held_unless_its_wake_is_stalled() -> None:
    held = Observed(replicas=1, held=2)
    assert blocker(service(held), sample(Counters()), ENVOY) == "2 held connections"
    assert blocker(service(held, stalled="exited with code 1"), sample(Counters()), ENVOY) is None


def test_service_waits_for_nothing_of_an_envoy_that_is_gone() -> None:
    assert blocker(service(RUNS), sample(None), frozenset()) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(120, "2m"), (119.6, "2m"), (5400, "1h30m"), (2.4, "2s"), (0.25, "250ms"), (-1, "0ms"), (3601, "1h1s")],
)
def test_duration_is_formatted_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
